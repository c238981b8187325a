"""Four tasks whose rule is known, so that every mistake is the model's: sort, copy, reverse, add."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from tinyllm.tasks.pair_task import PairTask
from tinyllm.tasks.pairs import Pair, Pairs, load_pairs
from tinyllm.train.settings import Settings

_EXAMPLES = 20_000
_LONGEST = 10  # characters of a source that is sorted, copied or reversed
_DIGITS = 3  # of a summand


def _letters(alphabet: str, change: Callable[[str], str], rng: np.random.Generator) -> tuple[str, str]:
    """A source of up to 10 characters, and what becomes of it."""
    chosen = rng.integers(0, len(alphabet), rng.integers(1, _LONGEST + 1))
    source = "".join(alphabet[i] for i in chosen)
    return source, change(source)


def _sum(rng: np.random.Generator) -> tuple[str, str]:
    """A sum of numbers of up to three digits; the answer begins with its last digit, as one adds by hand."""
    a, b = (int(n) for n in rng.integers(0, 10 ** rng.integers(1, _DIGITS + 1, size=2)))
    return f"{a}+{b}", str(a + b)[::-1]


_MAKERS: dict[str, Callable[[np.random.Generator], tuple[str, str]]] = {
    "sort": partial(_letters, string.digits, lambda text: "".join(sorted(text))),
    "copy": partial(_letters, string.ascii_lowercase, lambda text: text),
    "reverse": partial(_letters, string.ascii_lowercase, lambda text: text[::-1]),
    "addition": _sum,
}


def _embedded(name: str, seed: int) -> Pairs:
    """Examples drawn from the seed, each once."""
    rng = np.random.default_rng(seed)
    found = dict(_MAKERS[name](rng) for _ in range(_EXAMPLES))
    return Pairs(f"{name}, drawn from seed {seed}", tuple(Pair(source, target) for source, target in found.items()))


def _read(settings: Settings) -> Pairs:
    embedded = {"embedded": lambda: _embedded(settings.task, settings.seed)}
    return load_pairs(settings.data, settings.target, settings.encoding, embedded)


def exact(hypotheses: Sequence[str], references: Sequence[Sequence[str]], settings: Settings) -> dict[str, float]:
    """The share, in percent, of hypotheses that are a reference to the character."""
    right = [hypothesis in known for hypothesis, known in zip(hypotheses, references, strict=True)]
    return {"exact %": 100 * sum(right) / len(right)}


def _baselines(train: Sequence[Pair], sources: Sequence[str]) -> dict[str, list[str]]:
    """The source itself; and the target of the training source that has the longest beginning in common."""
    return {"copy": list(sources), "nearest beginning": nearest_beginning(train, sources)}


def nearest_beginning(train: Sequence[Pair], sources: Sequence[str]) -> list[str]:
    """For each source the target of the training source that shares the longest beginning with it."""
    known = sorted((pair.source, pair.target) for pair in train)
    names = np.array([source for source, _ in known])
    answers = []
    for source in sources:
        at = int(np.searchsorted(names, source))
        near = known[max(0, at - 1) : at + 1]
        answers.append(max(near, key=lambda pair: _common(pair[0], source))[1])
    return answers


def _common(a: str, b: str) -> int:
    """The length of the beginning that two texts share."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


TASKS = {name: PairTask(_read, exact, _baselines) for name in _MAKERS}
