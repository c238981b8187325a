"""Chapter 11, words as vectors: neighbours, the noise law, the slope of negative sampling, analogies."""

from __future__ import annotations

import numpy as np

from tinyllm.course.exercise import Exercise, law_on
from tinyllm.formulas import words
from tinyllm.testing.problem import Array
from tinyllm.testing.suite.answer import Case
from tinyllm.testing.suite.topics import draw

# -- context_pairs -----------------------------------------------------------------------------------------------------


def _texts(rng: np.random.Generator) -> list[Case]:
    return [{"ids": rng.integers(0, 9, n), "window": w} for n, w in ((6, 2), (7, 1), (5, 3))]


def _pairs(ids: Array, window: int, *, back: int = 1, ahead: int = 1, self: int = 0, swap: int = 0) -> Array:
    found = []
    for t in range(len(ids)):
        for s in range(t - window * back, t + window * ahead + 1):
            if 0 <= s < len(ids) and (s != t or self):
                found.append((ids[s], ids[t]) if swap else (ids[t], ids[s]))
    return np.array(found)


def _wrapped(ids: Array, window: int) -> Array:
    places = [(t, s) for t in range(len(ids)) for s in range(t - window, t + window + 1) if s != t]
    return np.array([(ids[t], ids[s % len(ids)]) for t, s in places])


def _one_short(ids: Array, window: int) -> Array:
    places = [(t, s) for t in range(len(ids)) for s in range(t - window, t + window) if s != t and 0 <= s < len(ids)]
    return np.array([(ids[t], ids[s]) for t, s in places])


PAIRS = Exercise(
    name="context_pairs",
    chapter="11",
    asks=(
        "Every (centre, neighbour) of the text ids (T,) that stand at most `window` places apart, for centres and "
        "neighbours in order of the text: an array (N, 2)."
    ),
    arguments=("ids", "window"),
    answer=lambda ids, window: np.array(words.skip_gram_pairs(ids, window)),
    cases=_texts,
    mistakes=(
        ("only the words after the centre: those before it count too", lambda ids, window: _pairs(ids, window, back=0)),
        (
            "only the words before the centre: those after it count too",
            lambda ids, window: _pairs(ids, window, ahead=0),
        ),
        ("a word is not its own neighbour: leave s = t out", lambda ids, window: _pairs(ids, window, self=1)),
        ("the neighbour comes first: the centre should", lambda ids, window: _pairs(ids, window, swap=1)),
        ("range(t - window, t + window) ends one place early", _one_short),
        ("ids[-1] is the last word of the text, no neighbour of the first: keep s within the text", _wrapped),
        ("these are places, not words: look them up in ids", lambda ids, window: _pairs(np.arange(len(ids)), window)),
    ),
    hints=(
        "Two loops: over the place t of the centre, and over the place s of the neighbour.",
        "s runs from t - window to t + window. Which of these are no neighbours?",
        "Leave out s == t, s < 0 and s >= len(ids); collect (ids[t], ids[s]) in a list; np.array at the end.",
    ),
    laws=(
        law_on(
            "short_texts",
            "A window longer than the text reaches to its ends.",
            [{"ids": np.array([4, 4, 2]), "window": 9}, {"ids": np.array([1, 0]), "window": 1}],
        ),
    ),
)

# -- noise_probabilities -----------------------------------------------------------------------------------------------


def _counts(rng: np.random.Generator) -> list[Case]:
    return [{"counts": rng.integers(1, 1000, n)} for n in (5, 2, 9)]


def _normed(weights: Array) -> Array:
    return weights / weights.sum()


NOISE = Exercise(
    name="noise_probabilities",
    chapter="11",
    asks="The law that word2vec draws its noise words from, given how often each word occurs, counts (V,): (V,).",
    arguments=("counts",),
    answer=lambda counts: np.array(words.noise_distribution(counts)),
    cases=_counts,
    mistakes=(
        (
            "these are the shares of the text itself: the counts are to be raised to 3/4 before they are divided",
            lambda counts: _normed(counts.astype(float)),
        ),
        (
            "the shares are raised to 3/4 after they were divided: they no longer sum to 1",
            lambda counts: _normed(counts.astype(float)) ** 0.75,
        ),
        ("raised to 4/3, which favours frequent words still more", lambda counts: _normed(counts ** (4 / 3))),
        ("raised to 1/2; word2vec has 3/4", lambda counts: _normed(counts**0.5)),
        ("all words alike: the counts are not used", lambda counts: np.full(len(counts), 1 / len(counts))),
        ("not divided by the sum", lambda counts: counts**0.75),
        ("divided by the sum of the counts, not of their powers", lambda counts: counts**0.75 / counts.sum()),
    ),
    hints=(
        "It lies between two laws: the words as often as they occur, and all words alike.",
        "An exponent between 1 and 0 does that. Which one is in the formula?",
        "weights = counts ** 0.75, divided by their sum.",
    ),
    laws=(
        law_on(
            "one_rare_word",
            "Counts of 10^9 beside 1 still leave the rare word something.",
            [{"counts": np.array([10**9, 1, 10**9])}],
        ),
    ),
)

# -- pair_loss_slope -------------------------------------------------------------------------------------------


def _triples(rng: np.random.Generator) -> list[Case]:
    return [{"v": draw(rng, c), "u": draw(rng, c), "negatives": draw(rng, k, c)} for c, k in ((4, 3), (2, 1), (5, 6))]


def _sigmoid(x: Array) -> Array:
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))


def _slope(v: Array, u: Array, negatives: Array) -> Array:
    return (_sigmoid(u @ v) - 1) * u + _sigmoid(negatives @ v) @ negatives


SLOPE = Exercise(
    name="pair_loss_slope",
    chapter="11",
    asks=(
        "The gradient of -log sigmoid(u . v) - sum_k log sigmoid(- u_k . v) with respect to v (C,), given u (C,) and "
        "the u_k in negatives (K, C): (C,)."
    ),
    arguments=("v", "u", "negatives"),
    answer=_slope,
    cases=_triples,
    mistakes=(
        ("the sign is wrong: this is the way down", lambda v, u, negatives: -_slope(v, u, negatives)),
        (
            "the noise words are left out: their term has a slope too",
            lambda v, u, negatives: (_sigmoid(u @ v) - 1) * u,
        ),
        (
            "the neighbour gets the noise words' factor: its label is 1, so that sigmoid - 1 belongs there",
            lambda v, u, negatives: _sigmoid(u @ v) * u + _sigmoid(negatives @ v) @ negatives,
        ),
        (
            "the noise words get the neighbour's factor: their label is 0, so that sigmoid alone belongs there",
            lambda v, u, negatives: (_sigmoid(u @ v) - 1) * u + (_sigmoid(negatives @ v) - 1) @ negatives,
        ),
        (
            "averaged over the noise words: the loss is their sum",
            lambda v, u, negatives: (_sigmoid(u @ v) - 1) * u + _sigmoid(negatives @ v) @ negatives / len(negatives),
        ),
        (
            "this is the slope with respect to u: by v, the factors multiply u and the u_k",
            lambda v, u, negatives: (_sigmoid(u @ v) - 1) * v + _sigmoid(negatives @ v).sum() * v,
        ),
        (
            "sigmoid (1 - sigmoid) is the slope of the sigmoid, not of its logarithm",
            lambda v, u, negatives: (
                -_sigmoid(u @ v) * _sigmoid(-u @ v) * u
                + (_sigmoid(negatives @ v) * _sigmoid(-negatives @ v)) @ negatives
            ),
        ),
    ),
    hints=(
        "One term after the other. The slope of -log sigmoid(x) by x is sigmoid(x) - 1.",
        "The slope of -log sigmoid(-x) is sigmoid(x). Then the chain rule: by v, the slope of u . v is u.",
        "(s - 1) * u for the neighbour, plus s_k * u_k summed over the noise words: a product of (K,) with (K, C).",
    ),
)

# -- best_analogies ----------------------------------------------------------------------------------------------------


def _tables(rng: np.random.Generator) -> list[Case]:
    """Vectors of very different lengths, and enough questions for the mistakes to differ."""
    cases = []
    for n in (12, 9):
        a, b, c = np.array([rng.permutation(n)[:3] for _ in range(20)]).T
        cases.append({"vectors": draw(rng, n, 4) * np.exp(draw(rng, n, 1)), "a": a, "b": b, "c": c})
    return cases


def _unit(x: Array) -> Array:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _best(scores: Array, *without: Array) -> Array:
    for rows in without:
        scores[np.arange(len(scores)), rows] = -np.inf
    return scores.argmax(axis=1)


def _step(vectors: Array, a: Array, b: Array, c: Array) -> Array:
    return vectors[b] - vectors[a] + vectors[c]


def _nearest_in_space(vectors: Array, a: Array, b: Array, c: Array) -> Array:
    distance = np.linalg.norm(vectors - _step(vectors, a, b, c)[:, None], axis=-1)
    return _best(-distance, a, b, c)


ANALOGIES = Exercise(
    name="best_analogies",
    chapter="11",
    asks=(
        "The rows of the words that are to c as b is to a, for rows a, b, c (N,) of vectors (V, C): with all vectors "
        "at length 1, the greatest scalar product with b - a + c, the question's own three left out. An array (N,)."
    ),
    arguments=("vectors", "a", "b", "c"),
    answer=lambda vectors, a, b, c: _best(_step(_unit(vectors), a, b, c) @ _unit(vectors).T, a, b, c),
    cases=_tables,
    points=2,
    mistakes=(
        (
            "a, b and c are among the candidates, and c is often the nearest of all: leave the three out",
            lambda vectors, a, b, c: _best(_step(_unit(vectors), a, b, c) @ _unit(vectors).T),
        ),
        (
            "only c is left out: b is often the nearest, and no answer either",
            lambda vectors, a, b, c: _best(_step(_unit(vectors), a, b, c) @ _unit(vectors).T, c),
        ),
        (
            "a - b + c: the step leads from a to b, so that it is b - a",
            lambda vectors, a, b, c: _best(_step(_unit(vectors), b, a, c) @ _unit(vectors).T, a, b, c),
        ),
        (
            "the vectors are not at length 1: long ones win whatever their direction",
            lambda vectors, a, b, c: _best(_step(vectors, a, b, c) @ vectors.T, a, b, c),
        ),
        (
            "b - a + c is made of vectors of all lengths: bring them to length 1 before adding",
            lambda vectors, a, b, c: _best(_step(vectors, a, b, c) @ _unit(vectors).T, a, b, c),
        ),
        ("the nearest by distance, of vectors that are not at length 1", _nearest_in_space),
        (
            "the words nearest to c: the step b - a is missing",
            lambda vectors, a, b, c: _best(_unit(vectors)[c] @ _unit(vectors).T, a, b, c),
        ),
    ),
    hints=(
        "First bring every row to length 1: divide by np.linalg.norm(vectors, axis=1, keepdims=True).",
        "With targets (N, C), one product with the transposed table gives the scores (N, V) of all words.",
        "Three times scores[np.arange(len(a)), a] = -np.inf, for a, b and c; then argmax(axis=1).",
    ),
)

EXERCISES = (PAIRS, NOISE, SLOPE, ANALOGIES)
