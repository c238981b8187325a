"""Which lines of a text come closest to a question in meaning.

The lines' vectors are kept, so that the next question is answered at once; they are made anew when the lines, or the
model, are other ones.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyllm import safetensors
from tinyllm.data.files import read_text
from tinyllm.errors import CheckpointError, ConfigError, DataError
from tinyllm.sentences.encoder import Progress, SentenceEncoder


@dataclass(frozen=True)
class Match:
    """A line that was found: its number, from 1, and the cosine of the angle between its vector and the question's."""

    line: int
    score: float
    text: str


@dataclass(frozen=True)
class Found:
    """The answer to a question: the best lines, how many there are, whether their vectors were there already."""

    matches: tuple[Match, ...]
    lines: int
    cut: int  # lines of which only the beginning was read
    cached: bool


def search(
    file: str | Path,
    query: str,
    encoder: SentenceEncoder,
    top: int = 5,
    encoding: str | None = None,
    index: str | Path | None = None,
    progress: Progress | None = None,
) -> Found:
    """Rank the lines of a file by how close they are to a question.

    Parameters
    ----------
    file : path
        A text; empty lines are passed over, and of equal ones only the first is shown.
    query : str
    encoder : SentenceEncoder
    top : int
        How many lines to give.
    encoding : str, optional
        Of the file; UTF-8 by default.
    index : path, optional
        Where the vectors are kept; by default in the user's cache folder.
    progress : callable, optional
        Told how many lines were read.

    Returns
    -------
    Found

    Raises
    ------
    DataError, ConfigError
        For a file without a line of text, an empty question, a `top` below 1.
    """
    if not query.strip():
        raise DataError("the question is empty")
    if top < 1:
        raise ConfigError(f"top must be at least 1, got {top}")
    numbered: dict[str, int] = {}
    for number, line in enumerate(read_text(Path(file), encoding).split("\n"), 1):
        if line.strip():
            numbered.setdefault(line.strip(), number)
    lines = list(numbered)
    if not lines:
        raise DataError(f"{file} has no line of text")
    place = Path(index) if index is not None else _default_place(Path(file))
    vectors, cut, cached = _vectors(lines, encoder, place, must_write=index is not None, progress=progress)
    scores = vectors @ encoder.encode([query])[0]  # (N,)
    best = np.argsort(-scores, kind="stable")[:top]
    matches = tuple(Match(numbered[lines[i]], float(scores[i]), lines[i]) for i in best)
    return Found(matches, len(lines), cut, cached)


def _vectors(
    lines: list[str], encoder: SentenceEncoder, place: Path, must_write: bool, progress: Progress | None
) -> tuple[np.ndarray, int, bool]:
    """The lines' vectors (N, C), how many were cut, and whether they were at the place already."""
    text = hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()
    about = {"lines": text, "model": encoder.fingerprint(), "max_tokens": str(encoder.max_tokens)}
    try:
        held, found = safetensors.load(place)
        if {name: found.get(name) for name in about} == about and held["vectors"].shape[:1] == (len(lines),):
            return held["vectors"], int(found["cut"]), True
    except (CheckpointError, KeyError, ValueError):
        pass  # there is none, or it is damaged: it is made again
    vectors = encoder.encode(lines, progress)
    cut = sum(map(encoder.is_cut, lines))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        safetensors.save(place, {"vectors": vectors}, {**about, "cut": str(cut)})
    except (OSError, CheckpointError) as error:
        if must_write:
            raise CheckpointError(f"{place}: the index cannot be written: {error}") from error
    return vectors, cut, False


def _default_place(file: Path) -> Path:
    """A file's place in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(str(file.resolve()).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return cache / "tinyllm" / "search" / f"{name}.safetensors"
