"""Dialogue: from what was said to what is answered, in the conversations of the package chatterbot-corpus."""

from __future__ import annotations

import importlib.util
import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

from tinyllm.errors import DataError
from tinyllm.metrics import chrf
from tinyllm.tasks.pair_task import PairTask
from tinyllm.tasks.pairs import Pair, Pairs, clean_pairs, load_pairs
from tinyllm.tasks.translation import streams
from tinyllm.text import word_tokenize
from tinyllm.train.settings import Settings

_LANGUAGES = {"chatterbot-en": "english", "chatterbot-zh": "chinese"}


def _conversations(language: str) -> Pairs:
    """Each utterance and the one after it."""
    spec = importlib.util.find_spec("chatterbot_corpus")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "chatterbot-corpus is not installed: pip install chatterbot-corpus, or name a file of pairs (what is said, "
            "tab, the answer) with --data"
        )
    try:
        import yaml
    except ImportError:
        raise DataError("the conversations are YAML files: pip install pyyaml") from None
    found = []
    for path in sorted(Path(spec.submodule_search_locations[0], "data", language).glob("*.yml")):
        conversations = yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]
        for turns in conversations:
            if isinstance(turns, str):  # a few have lost their list
                continue
            said = [" ".join(str(turn).split()) for turn in turns]
            found += [(path.name, Pair(a, b)) for a, b in pairwise(said)]
    return clean_pairs(f"chatterbot-corpus, {language}", found)


def _read(settings: Settings) -> Pairs:
    embedded = {name: partial(_conversations, language) for name, language in _LANGUAGES.items()}
    return load_pairs(settings.data, settings.target, settings.encoding, embedded)


def measure(hypotheses: Sequence[str], references: Sequence[Sequence[str]], settings: Settings) -> dict[str, float]:
    """The chrF against the nearest known answer, and how many different answers there are per hundred."""
    distinct = len(set(hypotheses)) / len(hypotheses)
    return {"chrF": chrf(hypotheses, streams(references)).score, "distinct %": 100 * distinct}


def _baselines(train: Sequence[Pair], sources: Sequence[str]) -> dict[str, list[str]]:
    """The commonest answer; and the answer to the training utterance that shares the rarest words."""
    commonest = Counter(pair.target for pair in train).most_common(1)[0][0]
    known = [(set(word_tokenize(pair.source.lower())), pair.target) for pair in train]
    frequency = Counter(word for words, _ in known for word in words)
    weight = {word: math.log(len(known) / n) for word, n in frequency.items()}

    def answer(source: str) -> str:
        asked = set(word_tokenize(source.lower()))
        best = max(known, key=lambda entry: _cosine(asked, entry[0], weight))
        return best[1] if _cosine(asked, best[0], weight) > 0 else commonest

    return {"commonest answer": [commonest] * len(sources), "nearest question": [answer(s) for s in sources]}


def _cosine(a: set[str], b: set[str], weight: dict[str, float]) -> float:
    """The cosine of two sets of words, each word with its inverse document frequency."""
    dot = sum(weight[word] ** 2 for word in a & b)
    norms = math.sqrt(sum(weight.get(w, 0.0) ** 2 for w in a) * sum(weight.get(w, 0.0) ** 2 for w in b))
    return dot / norms if norms else 0.0


TASKS = {"dialogue": PairTask(_read, measure, _baselines)}
