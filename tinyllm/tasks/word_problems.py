"""Arithmetic word problems: from a little story to a number, written digit by digit."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinyllm.errors import DataError
from tinyllm.tasks.pair_task import PairTask
from tinyllm.tasks.pairs import Pair, Pairs, clean_pairs, load_pairs
from tinyllm.tasks.sequences import exact
from tinyllm.train.settings import Settings

_EXAMPLES = 20_000
_NAMES = ("Ada", "Alan", "Grace", "Kurt", "Emmy", "Sofia", "Ming", "Omar")
_THINGS = ("apples", "pens", "books", "coins", "stamps", "shells", "eggs", "cards")
# The story, in which a and b are numbers, and what it asks for.
_STORIES = (
    ("{x} has {a} {things} . {y} gives {x} {b} more . How many {things} does {x} have now ?", lambda a, b: a + b),
    ("{x} has {a} {things} and {y} has {b} . How many {things} do they have together ?", lambda a, b: a + b),
    ("{x} had {a} {things} and gave {b} of them to {y} . How many {things} are left ?", lambda a, b: a - b),
    ("{x} has {a} {things} . {y} has {b} fewer . How many {things} does {y} have ?", lambda a, b: a - b),
    ("There are {c} boxes with {d} {things} each . How many {things} does {x} find in them ?", lambda c, d: c * d),
    ("{x} buys {d} {things} at {c} coins each . How much does {x} pay ?", lambda c, d: c * d),
)


def spaced(text: str) -> str:
    """`text` with a space between digits, so that each is a word of its own."""
    return re.sub(r"(?<=\d)(?=\d)", " ", text)


def _embedded(seed: int) -> Pairs:
    """Stories with numbers below 100, products of numbers below 13, drawn from the seed."""
    rng = np.random.default_rng(seed)
    found: dict[str, str] = {}
    for _ in range(_EXAMPLES):
        story, rule = _STORIES[rng.integers(len(_STORIES))]
        x, y = (_NAMES[i] for i in rng.choice(len(_NAMES), 2, replace=False))
        b, a = sorted(int(n) for n in rng.integers(1, 100, 2))  # nothing is below 0
        c, d = (int(n) for n in rng.integers(2, 13, 2))
        answer = rule(c, d) if "{c}" in story else rule(a, b)
        text = story.format(x=x, y=y, a=a, b=b, c=c, d=d, things=_THINGS[rng.integers(len(_THINGS))])
        found[spaced(text)] = spaced(str(answer))
    return Pairs(f"word problems, drawn from seed {seed}", tuple(Pair(s, t) for s, t in found.items()))


def _read_jsonl(path: Path) -> Pairs:
    """Problems in the form of GSM8K: ``{"question": ..., "answer": "... #### 18"}`` on each line; plain or gzip."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            question, answer = record["question"], record["answer"].rpartition("####")[2].strip()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f'{path}, line {number}: a JSON object with "question" and "answer" was expected, got {line[:60]!r}'
            ) from error
        found.append((f"line {number}", Pair(spaced(question), spaced(answer.replace(",", "")))))
    return clean_pairs(str(path), found)


def _read(settings: Settings) -> Pairs:
    if settings.data.endswith((".jsonl", ".jsonl.gz")) and Path(settings.data).exists():
        return _read_jsonl(Path(settings.data))
    embedded = {"embedded": lambda: _embedded(settings.seed)}
    return load_pairs(settings.data, settings.target, settings.encoding, embedded)


def _baselines(train: Sequence[Pair], sources: Sequence[str]) -> dict[str, list[str]]:
    """The commonest answer, and the sum of all numbers of the story."""
    commonest = Counter(pair.target for pair in train).most_common(1)[0][0]
    return {"commonest answer": [commonest] * len(sources), "sum of all numbers": [_sum_of_all(s) for s in sources]}


def _sum_of_all(source: str) -> str:
    numbers = re.findall(r"\d(?: ?\d)*", source)  # digits stand apart
    return spaced(str(sum(int(number.replace(" ", "")) for number in numbers)))


TASKS = {"word-problems": PairTask(_read, exact, _baselines)}
