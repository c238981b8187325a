"""Chapter 08, fast: sums that are rescaled as the maximum grows, in pieces; and what a product computes per byte."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinyllm.course.exercise import Exercise, law_on
from tinyllm.formulas import attention as loops
from tinyllm.testing.problem import Array
from tinyllm.testing.suite import oracle
from tinyllm.testing.suite.answer import Case
from tinyllm.testing.suite.topics import draw

# -- merge_pieces ------------------------------------------------------------------------------------------------------


def _pairs(rng: np.random.Generator) -> list[Case]:
    return [
        {"m1": draw(rng, n), "s1": 1 + np.abs(draw(rng, n)), "m2": draw(rng, n), "s2": 1 + np.abs(draw(rng, n))}
        for n in (6, 1, 4)
    ]


def _empty_pieces() -> list[Case]:
    hidden = -np.inf
    m1, s1 = np.array([hidden, 2.0, hidden]), np.array([0.0, 1.5, 0.0])
    return [{"m1": m1, "s1": s1, "m2": np.array([1.0, hidden, hidden]), "s2": np.array([2.0, 0.0, 0.0])}]


def _far_apart() -> list[Case]:
    ones = np.ones(2)
    return [{"m1": np.array([1000.0, -1000.0]), "s1": ones, "m2": np.array([-1000.0, 1000.0]), "s2": 2 * ones}]


def _merged(m1: Array, s1: Array, m2: Array, s2: Array) -> Array:
    """The right pair; where both pieces are empty, an empty piece."""
    top = np.maximum(m1, m2)
    base = np.where(np.isinf(top), 0, top)
    return np.stack([top, s1 * np.exp(m1 - base) + s2 * np.exp(m2 - base)])


def _not_guarded(m1: Array, s1: Array, m2: Array, s2: Array) -> Array:
    top = np.maximum(m1, m2)
    return np.stack([top, s1 * np.exp(m1 - top) + s2 * np.exp(m2 - top)])


MERGE = Exercise(
    name="merge_pieces",
    chapter="08",
    asks="From the maxima and the sums of exponentials of two pieces, those of both together: (m, s), each (N,).",
    arguments=("m1", "s1", "m2", "s2"),
    answer=_merged,
    cases=_pairs,
    results=2,
    mistakes=(
        (
            "two empty pieces give -inf - (-inf), which is NaN: where the maximum is -inf, take 0 off instead",
            _not_guarded,
        ),
        (
            "the sums are added as they are: each is relative to a maximum of its own",
            lambda m1, s1, m2, s2: np.stack([np.maximum(m1, m2), s1 + s2]),
        ),
        (
            "only the first sum is rescaled: the second may be the one with the smaller maximum",
            lambda m1, s1, m2, s2: np.stack([np.maximum(m1, m2), s1 * np.exp(m1 - np.maximum(m1, m2)) + s2]),
        ),
        (
            "the factor is upside down: e^(old maximum - new maximum) is at most 1",
            lambda m1, s1, m2, s2: np.stack(
                [np.maximum(m1, m2), s1 * np.exp(np.maximum(m1, m2) - m1) + s2 * np.exp(np.maximum(m1, m2) - m2)]
            ),
        ),
        (
            "everything is kept relative to the first maximum: if the second is far above it, e^(m2 - m1) overflows",
            lambda m1, s1, m2, s2: np.stack([m1, s1 + s2 * np.exp(m2 - m1)]),
        ),
        (
            "the maximum is not taken off at all: the sum is that of e^score itself",
            lambda m1, s1, m2, s2: np.stack([np.maximum(m1, m2), s1 * np.exp(m1) + s2 * np.exp(m2)]),
        ),
        (
            "the maxima are added, not compared",
            lambda m1, s1, m2, s2: np.stack([m1 + m2, s1 * np.exp(-m2) + s2 * np.exp(-m1)]),
        ),
    ),
    hints=(
        "The new maximum is the larger of the two. By which factor does e^(x - m1) become e^(x - m)?",
        "e^(x - m) = e^(x - m1) e^(m1 - m): each sum is multiplied by e^(own maximum - new maximum), then they add.",
        "An empty piece is (-inf, 0). For two of them, use base = np.where(np.isinf(m), 0, m) in the exponents.",
    ),
    laws=(
        law_on("empty_pieces", "A piece without numbers, (-inf, 0), changes nothing; two make another.", _empty_pieces),
        law_on("far_apart", "Maxima 2000 apart overflow nowhere.", _far_apart),
    ),
)

# -- running_logsumexp -------------------------------------------------------------------------------------------------


def _chunks(size: int, chunk: int) -> Iterator[slice]:
    return (slice(begin, min(begin + chunk, size)) for begin in range(0, size, chunk))


def _rows(rng: np.random.Generator) -> list[Case]:
    return [{"x": draw(rng, n, s, scale=2.0), "chunk": c} for n, s, c in ((3, 7, 3), (2, 6, 2), (1, 4, 5))]


def _large_rows() -> list[Case]:
    x = np.array([[1000.0, 0.0, -1000.0, 1001.0, 5.0], [-1000.0, -999.0, -1001.0, -1000.0, -998.0]])
    return [{"x": x, "chunk": 2}]


def _running(x: Array, chunk: int, mistake: str = "") -> Array:
    top, total, found = np.full(len(x), -np.inf), np.zeros(len(x)), []
    if mistake == "whole chunks":
        x = x[:, : x.shape[1] // chunk * chunk]
    for part in _chunks(x.shape[1], chunk):
        piece = x[:, part]
        new = np.maximum(top, piece.max(axis=1))
        if mistake == "not rescaled":
            total = total + np.exp(piece - new[:, None]).sum(axis=1)
        elif mistake == "own maximum":
            total = total * np.exp(top - new) + np.exp(piece - piece.max(axis=1, keepdims=True)).sum(axis=1)
        elif mistake == "all rescaled":
            total = (total + np.exp(piece - new[:, None]).sum(axis=1)) * np.exp(np.where(np.isinf(top), 0, top - new))
        elif mistake == "alone":
            total = np.exp(piece - new[:, None]).sum(axis=1)
        else:
            total = total * np.exp(top - new) + np.exp(piece - new[:, None]).sum(axis=1)
        top = new
        found.append(np.log(total) if mistake == "no maximum" else top + np.log(total))
    return np.stack(found, axis=1)


def _told(x: Array, chunk: int) -> Array:
    return np.stack([oracle.logsumexp(x[:, : part.stop], -1, False) for part in _chunks(x.shape[1], chunk)], axis=1)


LOGSUMEXP = Exercise(
    name="running_logsumexp",
    chapter="08",
    asks="log sum exp of each row of x (N, S), as known after each chunk of columns: an array (N, ceil(S / chunk)).",
    arguments=("x", "chunk"),
    answer=_told,
    cases=_rows,
    mistakes=(
        (
            "what was summed before is not rescaled when the maximum grows",
            lambda x, chunk: _running(x, chunk, "not rescaled"),
        ),
        (
            "a chunk's exponentials are relative to its own maximum, not to the running one",
            lambda x, chunk: _running(x, chunk, "own maximum"),
        ),
        (
            "the new exponentials are rescaled too: only what was summed before shrinks",
            lambda x, chunk: _running(x, chunk, "all rescaled"),
        ),
        (
            "the running maximum is not added to the logarithm at the end",
            lambda x, chunk: _running(x, chunk, "no maximum"),
        ),
        ("the last chunk is left out when it is not a whole one", lambda x, chunk: _running(x, chunk, "whole chunks")),
        ("each chunk forgets the sum of those before it", lambda x, chunk: _running(x, chunk, "alone")),
        (
            "no maximum is taken off: exp(1000) overflows",
            lambda x, chunk: np.log(
                np.stack([np.exp(x[:, : part.stop]).sum(axis=1) for part in _chunks(x.shape[1], chunk)], axis=1)
            ),
        ),
    ),
    hints=(
        "Keep two numbers for each row: the largest so far, and the sum of e^(x - largest). How do they change?",
        "new = maximum(top, the chunk's largest); the old sum is multiplied by e^(top - new), then the chunk is added.",
        "Begin with top = -inf and sum = 0. After each chunk the answer so far is top + log(sum).",
    ),
    laws=(law_on("large_numbers", "Numbers of +-1000 overflow nowhere.", _large_rows),),
)

# -- attention_in_chunks -----------------------------------------------------------------------------------------------


def _triples(rng: np.random.Generator) -> list[Case]:
    return [
        {"q": 2 * draw(rng, t, d), "k": draw(rng, s, d), "v": draw(rng, s, d), "chunk": c}
        for t, s, d, c in ((4, 7, 2, 3), (6, 6, 2, 2), (1, 5, 3, 8))
    ]


def _steep() -> list[Case]:
    k = np.array([[0.0, 1.0], [-90.0, 3.0], [2.0, -60.0], [0.0, 100.0], [80.0, 80.0]])
    q, v = np.array([[0.0, 100.0], [100.0, 0.0]]), np.arange(10.0).reshape(5, 2)
    return [{"q": q, "k": k, "v": v, "chunk": 2}]


def _streamed(q: Array, k: Array, v: Array, chunk: int, mistake: str = "") -> Array:
    """Attention over chunks of keys; without a mistake, F-ATTN."""
    top, total, sums = np.full(len(q), -np.inf), np.zeros(len(q)), np.zeros((len(q), v.shape[1]))
    size = len(k) // chunk * chunk if mistake == "whole chunks" else len(k)
    for part in _chunks(size, chunk):
        scores = q @ k[part].T / (1 if mistake == "no root" else np.sqrt(q.shape[1]))
        new = np.maximum(top, scores.max(axis=1))
        p, shrink = np.exp(scores - new[:, None]), np.exp(top - new)
        total = total * (1 if mistake == "total kept" else shrink) + p.sum(axis=1)
        sums = sums * (1 if mistake == "sums kept" else shrink[:, None]) + p @ v[part]
        top = new
    return sums if mistake == "not divided" else sums / total[:, None]


def _each_chunk(q: Array, k: Array, v: Array, chunk: int) -> Array:
    return np.stack([_streamed(q, k[part], v[part], chunk) for part in _chunks(len(k), chunk)])


STREAMED = Exercise(
    name="attention_in_chunks",
    chapter="08",
    asks="F-ATTN for q (T, D), k and v (S, D), `chunk` keys at a time, never all weights at once: (T, D).",
    arguments=("q", "k", "v", "chunk"),
    answer=lambda q, k, v, chunk: np.array(loops.attention(q, k, v)),
    cases=_triples,
    points=2,
    mistakes=(
        (
            "the sums of values are not rescaled when the maximum grows (the totals are)",
            lambda q, k, v, chunk: _streamed(q, k, v, chunk, "sums kept"),
        ),
        (
            "the totals are not rescaled when the maximum grows (the sums of values are)",
            lambda q, k, v, chunk: _streamed(q, k, v, chunk, "total kept"),
        ),
        (
            "each chunk has a softmax of its own, and the results are added: the weights of all keys must sum to 1",
            lambda q, k, v, chunk: _each_chunk(q, k, v, chunk).sum(axis=0),
        ),
        (
            "the results of the chunks are averaged: a chunk counts by its share of the total",
            lambda q, k, v, chunk: _each_chunk(q, k, v, chunk).mean(axis=0),
        ),
        (
            "the division by the totals is missing at the end",
            lambda q, k, v, chunk: _streamed(q, k, v, chunk, "not divided"),
        ),
        ("the scores are not divided by sqrt(D)", lambda q, k, v, chunk: _streamed(q, k, v, chunk, "no root")),
        (
            "the last chunk is left out when it is not a whole one",
            lambda q, k, v, chunk: _streamed(q, k, v, chunk, "whole chunks"),
        ),
    ),
    hints=(
        "Keep three things for each query: the maximum so far, the total of the exponentials, and their sum times v.",
        "For each chunk: scores, new maximum, shrink = exp(top - new); total and sums both shrink before they grow.",
        "p = np.exp(scores - new[:, None]); total = total * shrink + p.sum(1); sums = sums * shrink[:, None] + p @ v.",
    ),
    laws=(law_on("steep_scores", "Scores in the thousands, the largest last, overflow nowhere.", _steep),),
)

# -- product_intensity -------------------------------------------------------------------------------------------------


def _sizes(rng: np.random.Generator) -> list[Case]:
    return [
        {"m": m, "k": k, "n": n, "itemsize": b}
        for m, k, n, b in ((6, 3, 6, 8), (1024, 64, 1024, 4), (1, 768, 3072, 2), (512, 512, 512, 4))
    ]


INTENSITY = Exercise(
    name="product_intensity",
    chapter="08",
    asks="Operations per byte of the product (m, k) @ (k, n), each matrix read or written once: one number.",
    arguments=("m", "k", "n", "itemsize"),
    answer=lambda m, k, n, itemsize: np.float64(2 * m * k * n / (itemsize * (m * k + k * n + m * n))),
    cases=_sizes,
    mistakes=(
        (
            "a multiplication and an addition are two operations, not one",
            lambda m, k, n, itemsize: m * k * n / (itemsize * (m * k + k * n + m * n)),
        ),
        (
            "the result is written to memory, too: m n numbers",
            lambda m, k, n, itemsize: 2 * m * k * n / (itemsize * (m * k + k * n)),
        ),
        (
            "per number, not per byte: a number has `itemsize` bytes",
            lambda m, k, n, itemsize: 2 * m * k * n / (m * k + k * n + m * n),
        ),
        (
            "every operand of every multiplication is counted: a number that is used again is read from memory once",
            lambda m, k, n, itemsize: 2 * m * k * n / (itemsize * (2 * m * k * n + m * n)),
        ),
        (
            "upside down: operations per byte",
            lambda m, k, n, itemsize: itemsize * (m * k + k * n + m * n) / (2 * m * k * n),
        ),
        (
            "only the result's operations are counted, not the sum over k of each",
            lambda m, k, n, itemsize: 2 * m * n / (itemsize * (m * k + k * n + m * n)),
        ),
    ),
    hints=(
        "Count two things apart: the operations of the three loops, and the numbers in the three matrices.",
        "Each of the m n results is a sum of k products: 2 m k n operations.",
        "m k + k n numbers come in, m n go out; each has itemsize bytes.",
    ),
)

EXERCISES = (MERGE, LOGSUMEXP, STREAMED, INTENSITY)
