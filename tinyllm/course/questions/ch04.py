"""Chapter 04, text to tokens: which pair to merge, merging it, replaying merges, bits per byte."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np

from tinyllm.course.exercise import Exercise, law_on
from tinyllm.testing.problem import Array
from tinyllm.testing.suite.answer import Case
from tinyllm.testing.suite.topics import draw
from tinyllm.text.merges import merge_word_naive

Pair = tuple[int, int]

# -- most_frequent_pair ------------------------------------------------------------------------------------------------


def _ids(*texts: str) -> list[Case]:
    return [{"ids": np.array(list(text.encode()))} for text in texts]


def _ties() -> list[Case]:
    return _ids("ccabcedbea", "banana")


def _best(pairs: Iterable[Pair], rank: Callable[[int, Pair], tuple[int, ...]] = lambda n, p: (-n, *p)) -> Array:
    counts = Counter(pairs)
    return np.array(min(counts, key=lambda pair: rank(counts[pair], pair)))


def _without_overlap(ids: Array) -> Iterable[Pair]:
    last = (-1, (-1, -1))
    for i, pair in enumerate(pairwise(ids.tolist())):
        if (i - 1, pair) != last:
            last = (i, pair)
            yield pair


MOST_FREQUENT = Exercise(
    name="most_frequent_pair",
    chapter="04",
    asks="The pair of neighbours that occurs most often in ids (T,), as (left, right); of equals the smallest ids.",
    arguments=("ids",),
    answer=lambda ids: _best(pairwise(ids.tolist())),
    cases=lambda rng: [*_ids("dadccbddcaa", "cabcccccab"), {"ids": rng.integers(0, 4, 60)}],
    results=2,
    mistakes=(
        (
            "the text is cut into pairs, so that every second one is missed: neighbours overlap",
            lambda ids: _best(zip(ids[::2].tolist(), ids[1::2].tolist(), strict=False)),
        ),
        (
            "(a, b) and (b, a) are counted as one: the order matters",
            lambda ids: _best((min(pair), max(pair)) for pair in pairwise(ids.tolist())),
        ),
        ("this is the rarest pair", lambda ids: _best(pairwise(ids.tolist()), lambda n, p: (n, *p))),
        (
            "these are the two most frequent ids, which need not stand side by side",
            lambda ids: np.array([i for i, _ in Counter(ids.tolist()).most_common(2)]),
        ),
        ("left and right are exchanged", lambda ids: _best(pairwise(ids.tolist()))[::-1]),
        (
            "of equally frequent pairs, the one that was seen first: the smallest ids are asked for",
            lambda ids: np.array(Counter(pairwise(ids.tolist())).most_common(1)[0][0]),
        ),
        (
            "of equally frequent pairs, the one with the largest ids: the smallest are asked for",
            lambda ids: _best(pairwise(ids.tolist()), lambda n, p: (-n, -p[0], -p[1])),
        ),
        (
            "a pair that overlaps itself, as in 'aaa', is counted once: count every place, as trainers do",
            lambda ids: _best(_without_overlap(ids)),
        ),
    ),
    hints=(
        "A text of T tokens has T - 1 pairs of neighbours. Count them all, then look for the largest count.",
        "Counter(pairwise(ids.tolist())) counts them. Which of several equals does max() give you?",
        "min() over the pairs with the key (-count, pair): the largest count first, then the smallest ids.",
    ),
    laws=(law_on("ties", "Of equally frequent pairs it is the one with the smallest ids.", _ties),),
)

# -- merge_pair --------------------------------------------------------------------------------------------------------


def _merged(ids: Array, pair: Pair, new: int, most: int = -1) -> list[int]:
    """From left to right, at most `most` times unless that is negative."""
    out: list[int] = []
    i = 0
    while i < len(ids):
        if (*ids[i : i + 2],) == tuple(pair) and most != 0:
            out.append(new)
            i, most = i + 2, most - 1
        else:
            out.append(int(ids[i]))
            i += 1
    return out


def _at_every_place(ids: Array, pair: Pair, new: int) -> list[int]:
    out = [new if (a, b) == tuple(pair) else int(a) for a, b in pairwise(ids)]
    return out if (*ids[-2:],) == tuple(pair) else [*out, int(ids[-1])]


def _second_kept(ids: Array, pair: Pair, new: int) -> list[int]:
    return [new if (*ids[i : i + 2],) == tuple(pair) else int(ids[i]) for i in range(len(ids))]


def _end_lost(ids: Array, pair: Pair, new: int) -> list[int]:
    whole = _merged(ids, pair, new)
    return whole if whole[-1] == new else whole[:-1]


def _either_order(ids: Array, pair: Pair, new: int) -> list[int]:
    out: list[int] = []
    i = 0
    while i < len(ids):
        both = sorted(ids[i : i + 2]) == sorted(pair)
        out.append(new if both else int(ids[i]))
        i += 1 + both
    return out


def _places(rng: np.random.Generator) -> list[Case]:
    return [
        {"ids": np.array([*b"aaabdaaabacba"]), "pair": (97, 97), "new": 256},
        {"ids": np.array([*b"abbabaabcab"]), "pair": (97, 98), "new": 257},
        {"ids": rng.integers(0, 3, 40), "pair": (2, 1), "new": 9},
    ]


def _edges() -> list[Case]:
    return [
        {"ids": np.array([5, 5, 5, 5, 5]), "pair": (5, 5), "new": 7},
        {"ids": np.array([1, 2]), "pair": (1, 2), "new": 3},
        {"ids": np.array([1, 2, 1]), "pair": (2, 2), "new": 3},
        {"ids": np.array([4]), "pair": (4, 4), "new": 3},
    ]


MERGE = Exercise(
    name="merge_pair",
    chapter="04",
    asks="The ids (T,) with each occurrence of the pair (left, right), from left to right, replaced by the id new.",
    arguments=("ids", "pair", "new"),
    answer=_merged,
    cases=_places,
    mistakes=(
        (
            "the second token of the pair stays behind: after a merge go on two places further",
            _second_kept,
        ),
        (
            "occurrences that overlap are all replaced: in 'aaa' the middle 'a' can be used once",
            _at_every_place,
        ),
        (
            "replaced from right to left: 'aaa' becomes a, aa and should become aa, a",
            lambda ids, pair, new: _merged(ids[::-1], pair[::-1], new)[::-1],
        ),
        ("only the first occurrence is replaced", lambda ids, pair, new: _merged(ids, pair, new, most=1)),
        (
            "the last token is lost: the loop over pairs ends one place early",
            _end_lost,
        ),
        ("(b, a) is merged like (a, b): the order matters", _either_order),
        (
            "the merged token is left out: append new where the pair stood",
            lambda ids, pair, new: [i for i in _merged(ids, pair, new) if i != new],
        ),
    ),
    hints=(
        "A while loop with its own index: it moves by two after a merge, by one otherwise.",
        "At place i, look at ids[i] and ids[i + 1], if there is an ids[i + 1].",
        "If they are the pair: append new, i += 2. Else: append ids[i], i += 1. Until i reaches len(ids).",
    ),
    laws=(
        law_on("edges", "It holds for runs of one token, at the ends, for one token, and with nothing to do.", _edges),
    ),
)

# -- apply_merges ------------------------------------------------------------------------------------------------------

Pairs = Sequence[Pair]

# el, lo, ello, Hello, He, ow, low; then what tells the usual mistakes apart.
_LEARNED: Pairs = [(101, 108), (108, 111), (256, 257), (72, 258), (72, 101), (111, 119), (108, 261)]


def _replayed(ids: Array, pairs: Pairs, first: int = 256) -> list[int]:
    return merge_word_naive(ids.tolist(), {pair: (rank, first + rank) for rank, pair in enumerate(pairs)})


def _passes(ids: Array, pairs: Pairs, passes: int = 100) -> list[int]:
    """Passes from left to right, in which every pair that has a merge is merged at once."""
    table = {pair: 256 + rank for rank, pair in enumerate(pairs)}
    now: list[int] = ids.tolist()
    for _ in range(passes):
        out: list[int] = []
        i = 0
        while i < len(now):
            merged = table.get((*now[i : i + 2],))  # type: ignore[arg-type]
            out.append(now[i] if merged is None else merged)
            i += 1 if merged is None else 2
        now = out
    return now


def _in_order(ids: Array, pairs: Pairs, order: Iterable[int], most: int = -1) -> list[int]:
    for rank in order:
        ids = np.array(_merged(ids, pairs[rank], 256 + rank, most))
    return ids.tolist()


def _by_frequency(ids: Array, pairs: Pairs) -> list[int]:
    """As in training: of the pairs that have a merge, the one that is most frequent in this text."""
    table = {pair: 256 + rank for rank, pair in enumerate(pairs)}
    while True:
        counts = Counter(pair for pair in pairwise(ids.tolist()) if pair in table)
        if not counts:
            return ids.tolist()
        pair = min(counts, key=lambda p: (-counts[p], table[p]))
        ids = np.array(_merged(ids, pair, table[pair]))


def _words(rng: np.random.Generator) -> list[Case]:
    texts = ("Hello, yellow lower Hello; lo lo lo ow", "Hello,", "owlow")
    return [{"ids": np.array([*text.encode()]), "pairs": list(_LEARNED)} for text in texts]


def _runs() -> list[Case]:
    pairs = [(97, 97), (256, 97), (257, 98)]
    return [{"ids": np.array([*text]), "pairs": pairs} for text in (b"aaabdaaabac", b"aaaaa", b"b")]


APPLY = Exercise(
    name="apply_merges",
    chapter="04",
    asks="Encode the bytes ids (T,): replay the learned merges in their order; pairs[k] becomes the id 256 + k.",
    arguments=("ids", "pairs"),
    answer=_replayed,
    cases=_words,
    points=2,
    mistakes=(
        (
            "whatever pair comes first is merged, from left to right: the one that was learned first goes first",
            _passes,
        ),
        ("one pass from left to right, and what it made never merges again", lambda ids, pairs: _passes(ids, pairs, 1)),
        (
            "the merges are applied latest first",
            lambda ids, pairs: _in_order(ids, pairs, reversed(range(len(pairs)))),
        ),
        (
            "off by one: pairs[k] makes the id 256 + k, and pairs[0] makes 256",
            lambda ids, pairs: [i + (i > 255) for i in _replayed(ids, pairs)],
        ),
        (
            "each merge is done once: a pair may occur several times",
            lambda ids, pairs: _in_order(ids, pairs, range(len(pairs)), most=1),
        ),
        (
            "only pairs of bytes are merged: merged tokens merge with their neighbours again",
            lambda ids, pairs: _in_order(ids, pairs, [k for k, pair in enumerate(pairs) if max(pair) < 256]),
        ),
        (
            "the pair that is most frequent in this text goes first: that was training; encoding replays its order",
            _by_frequency,
        ),
    ),
    hints=(
        "Training merged pairs[0] everywhere, then pairs[1], and so on. Do the same to the new text, in that order.",
        "One loop over enumerate(pairs), and you have written merge_pair already.",
        "Start from ids; for each k and pair, ids = merge_pair(ids, pair, 256 + k).",
    ),
    laws=(
        law_on(
            "runs", "minbpe's example gives 258, 100, 258, 97, 99; runs of one letter and one byte work too.", _runs
        ),
    ),
)

# -- bits_per_byte -----------------------------------------------------------------------------------------------------


def _texts(rng: np.random.Generator) -> list[Case]:
    texts = ("the cat", "\u732b\u5750\u5728\u57ab\u5b50\u4e0a", "na\u00efve \u732b")
    return [
        {"log_probs": -np.abs(draw(rng, n)) - 0.125, "text": text} for n, text in zip((3, 4, 5), texts, strict=True)
    ]


def _bits(log_probs: Array, text: str) -> float:
    return float(-log_probs.sum() / np.log(2) / len(text.encode()))


BITS = Exercise(
    name="bits_per_byte",
    chapter="04",
    asks="Bits per UTF-8 byte of a text (a str), given the log-probabilities (T,) in nats of its T tokens: one number.",
    arguments=("log_probs", "text"),
    answer=_bits,
    cases=_texts,
    mistakes=(
        (
            "divided by the number of tokens: that is bits per token, and the tokenizer decides how many there are",
            lambda log_probs, text: -log_probs.mean() / np.log(2),
        ),
        (
            "these are nats: divide by log 2",
            lambda log_probs, text: _bits(log_probs, text) * np.log(2),
        ),
        (
            "multiplied by log 2: one nat is 1 / log 2 = 1.44 bits",
            lambda log_probs, text: _bits(log_probs, text) * np.log(2) ** 2,
        ),
        ("the minus is missing", lambda log_probs, text: -_bits(log_probs, text)),
        (
            "averaged over tokens and divided by bytes too: the sum over the text is divided once",
            lambda log_probs, text: _bits(log_probs, text) / len(log_probs),
        ),
        (
            "the bits of the whole text: divide by its bytes",
            lambda log_probs, text: -log_probs.sum() / np.log(2),
        ),
        (
            "divided by characters: a Chinese character has three bytes, so take len(text.encode('utf-8'))",
            lambda log_probs, text: -log_probs.sum() / np.log(2) / len(text),
        ),
    ),
    hints=(
        "What does the model pay for the whole text? Surprises add up. Only then divide.",
        "-log_probs.sum() is the price in nats; log 2 = 0.693 nats are one bit.",
        "len(text) counts characters; len(text.encode('utf-8')) counts bytes.",
    ),
    laws=(
        law_on(
            "chinese",
            "Six Chinese characters in two tokens are judged by their 18 bytes.",
            [{"log_probs": np.array([-9.0, -9.0]), "text": "\u732b\u5750\u5728\u57ab\u5b50\u4e0a"}],
        ),
    ),
)

EXERCISES = (MOST_FREQUENT, MERGE, APPLY, BITS)
