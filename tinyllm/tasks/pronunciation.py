"""Pronunciation: from the letters of a word to its phonemes, in the alphabet of CMU's dictionary."""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Sequence
from pathlib import Path

from tinyllm.data.files import decode
from tinyllm.errors import DataError
from tinyllm.metrics import phoneme_error_rate
from tinyllm.tasks.pair_task import PairTask
from tinyllm.tasks.pairs import Pair, Pairs, clean_pairs, load_pairs
from tinyllm.tasks.sequences import nearest_beginning
from tinyllm.train.settings import Settings


def _entry(word: str, phonemes: Sequence[str]) -> Pair:
    """A word letter by letter, in lower case; its phonemes with spaces between them."""
    return Pair(" ".join(word.lower()), " ".join(phonemes))


def _homographs() -> Pairs:
    """The words with two pronunciations that the package g2p-en carries: few, and none with a single right answer."""
    spec = importlib.util.find_spec("g2p_en")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "g2p-en, whose list of words is the default, is not installed: pip install --no-deps g2p-en, or name CMU's "
            "dictionary (cmudict, plain or zip) with --data"
        )
    path = Path(spec.submodule_search_locations[0]) / "homographs.en"
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line and not line.startswith("#"):
            word, *ways, _ = line.split("|")
            found += [(f"line {number}", _entry(word, way.split())) for way in ways]
    return clean_pairs("homographs of g2p-en", found)


def _cmudict(path: Path) -> Pairs:
    """CMU's dictionary: a word, the number of the pronunciation in some editions, and phonemes on each line."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                name = max(archive.namelist(), key=lambda name: archive.getinfo(name).file_size)
                data = archive.read(name)
        else:
            data = path.read_bytes()
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    found = []
    for number, line in enumerate(decode(data, str(path)).split("\n"), start=1):
        parts = line.split()
        if not parts or line.startswith(";;;"):
            continue
        word = parts[0].partition("(")[0]  # WORD(2) is its second pronunciation
        phonemes = parts[2:] if len(parts) > 1 and parts[1].isdigit() else parts[1:]
        if word.replace("'", "").isalpha():
            found.append((f"line {number}", _entry(word, phonemes)))
    return clean_pairs(str(path), found)


def _read(settings: Settings) -> Pairs:
    path = Path(settings.data)
    if not settings.target and "cmudict" in path.name and path.is_file():
        return _cmudict(path)
    return load_pairs(settings.data, settings.target, settings.encoding, {"g2p-en": _homographs})


def measure(hypotheses: Sequence[str], references: Sequence[Sequence[str]], settings: Settings) -> dict[str, float]:
    """Phoneme error rate against the nearest pronunciation, and the share of words with any mistake, in percent."""
    written = [text.split() for text in hypotheses]
    known = [[text.split() for text in each] for each in references]
    wrong = [one not in ways for one, ways in zip(written, known, strict=True)]
    return {"PER %": 100 * phoneme_error_rate(written, known), "wrong words %": 100 * sum(wrong) / len(wrong)}


def _baselines(train: Sequence[Pair], sources: Sequence[str]) -> dict[str, list[str]]:
    """Each letter's commonest phoneme, counted where a word has as many of these as of those; the nearest entry."""
    counts: dict[str, dict[str, int]] = {}
    for pair in train:
        letters, phonemes = pair.source.split(), pair.target.split()
        if len(letters) == len(phonemes):
            for letter, phoneme in zip(letters, phonemes, strict=True):
                of_letter = counts.setdefault(letter, {})
                of_letter[phoneme] = of_letter.get(phoneme, 0) + 1
    best = {letter: max(found, key=found.__getitem__) for letter, found in counts.items()}
    return {
        "letter by letter": [" ".join(best[c] for c in source.split() if c in best) for source in sources],
        "nearest beginning": nearest_beginning(train, sources),
    }


TASKS = {"pronunciation": PairTask(_read, measure, _baselines, lowest_is_best=True)}
