"""Chapter 02, probability: logarithms of probabilities, cross-entropy and its slope, counting pairs."""

from __future__ import annotations

import numpy as np

from tinyllm.course.exercise import Exercise, law_on
from tinyllm.testing.problem import Array
from tinyllm.testing.suite import oracle
from tinyllm.testing.suite.answer import Case
from tinyllm.testing.suite.topics import draw


def _exp(x: Array) -> Array:
    return np.exp(x - x.max(axis=-1, keepdims=True))


def _softmax(x: Array) -> Array:
    return _exp(x) / _exp(x).sum(axis=-1, keepdims=True)


# -- log_probabilities -------------------------------------------------------------------------------------------------


def _rows(rng: np.random.Generator) -> list[Case]:
    return [{"x": draw(rng, *shape)} for shape in ((3, 5), (1, 4), (6, 2))]


LOG_PROBABILITIES = Exercise(
    name="log_probabilities",
    chapter="02",
    asks="The logarithm of softmax along the last axis of x (N, V), in one go: an array (N, V).",
    arguments=("x",),
    answer=lambda x: oracle.log_softmax(x, -1),
    cases=_rows,
    mistakes=(
        (
            "exp(1000) is inf: take the largest of each row off before exp",
            lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True)),
        ),
        ("this is softmax: the logarithm is missing", _softmax),
        (
            "the sum runs over the whole array: each row is a distribution of its own (axis=-1, keepdims=True)",
            lambda x: x - np.log(np.exp(x).sum()),
        ),
        (
            "the maximum is taken off inside the exponential, and not outside: x - max - log(sum(exp(x - max)))",
            lambda x: x - np.log(_exp(x).sum(-1, keepdims=True)),
        ),
        ("the sign is wrong: this is -log p", lambda x: -oracle.log_softmax(x, -1)),
        ("log(softmax(x)) is -inf where softmax underflows to 0", lambda x: np.log(_softmax(x))),
    ),
    hints=(
        "Take the logarithm of exp(x_j) / sum exp(x_k) on paper first: a quotient becomes a difference.",
        "log p_j = x_j - log sum_k exp(x_k). Which x_k makes exp overflow? What if it is taken off all of them?",
        "With m the largest of the row: (x - m) - log(sum(exp(x - m))). Keep the axis, so that both broadcast.",
    ),
    laws=(
        law_on(
            "large_scores",
            "Scores of +-1000 give finite logarithms.",
            [{"x": np.array([[1000.0, 1001.0, 999.0], [-1000.0, 0.0, 1000.0]])}],
        ),
    ),
)

# -- stable_cross_entropy ----------------------------------------------------------------------------------------------


def _labelled(rng: np.random.Generator) -> list[Case]:
    return [
        {"logits": draw(rng, n, v, scale=2.0), "targets": rng.integers(0, v, n)} for n, v in ((4, 5), (1, 3), (7, 4))
    ]


def _picked(logits: Array, targets: Array) -> Array:
    return oracle.log_softmax(logits, -1)[np.arange(len(targets)), targets]


def _naive(logits: Array, targets: Array) -> Array:
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return -np.log(p[np.arange(len(targets)), targets]).mean()


CROSS_ENTROPY = Exercise(
    name="stable_cross_entropy",
    chapter="02",
    asks="F-CE for logits (N, V) and the true classes (N,): the mean of -log softmax(logits)[target], one number.",
    arguments=("logits", "targets"),
    answer=lambda logits, targets: -_picked(logits, targets).mean(),
    cases=_labelled,
    mistakes=(
        (
            "summed over the samples, not averaged: the loss grows with their number",
            lambda logits, targets: -_picked(logits, targets).sum(),
        ),
        ("the minus is missing: a loss is to be lowered", lambda logits, targets: _picked(logits, targets).mean()),
        (
            "the logits themselves are averaged: the normaliser is missing",
            lambda logits, targets: -logits[np.arange(len(targets)), targets].mean(),
        ),
        (
            "averaged over samples and classes: only the true class counts",
            lambda logits, targets: -_picked(logits, targets).sum() / logits.size,
        ),
        (
            "the probability of the true class is averaged, not its logarithm",
            lambda logits, targets: 1 - np.exp(_picked(logits, targets)).mean(),
        ),
        ("exp overflows, or log(0) is reached: use your log_probabilities", _naive),
    ),
    hints=(
        "You have log_probabilities(logits) already. What is left is to pick one number from each row.",
        "Rows and columns together: log_p[np.arange(N), targets] picks the true class of each sample.",
        "The mean of these, with a minus in front.",
    ),
    laws=(
        law_on(
            "large_logits",
            "Logits of +-1000 give the right loss, even where the model is certain and wrong.",
            [{"logits": np.array([[1000.0, 0.0, -1000.0], [5.0, 1000.0, 0.0]]), "targets": np.array([2, 1])}],
        ),
    ),
)

# -- cross_entropy_slope -----------------------------------------------------------------------------------------------


def _one_hot(logits: Array, targets: Array) -> Array:
    return (np.arange(logits.shape[-1]) == targets[:, None]).astype(float)


def _slope(logits: Array, targets: Array) -> Array:
    return (_softmax(logits) - _one_hot(logits, targets)) / len(targets)


SLOPE = Exercise(
    name="cross_entropy_slope",
    chapter="02",
    asks="The gradient of the mean cross-entropy with respect to the logits (N, V): an array (N, V).",
    arguments=("logits", "targets"),
    answer=_slope,
    cases=_labelled,
    mistakes=(
        (
            "not divided by the number of samples: the loss is a mean",
            lambda logits, targets: _slope(logits, targets) * len(targets),
        ),
        ("the sign is wrong: p - y, not y - p", lambda logits, targets: -_slope(logits, targets)),
        (
            "this is the gradient of the probabilities, -y / p: the softmax lies between",
            lambda logits, targets: -_one_hot(logits, targets) / _softmax(logits) / len(targets),
        ),
        ("the one-hot truth is not subtracted", lambda logits, targets: _softmax(logits) / len(targets)),
        (
            "divided by all numbers of the array, not by the number of samples",
            lambda logits, targets: _slope(logits, targets) * len(targets) / logits.size,
        ),
    ),
    hints=(
        "Differentiate log sum_k exp(x_k) - x_t with respect to x_j. The first part gives something you know.",
        "d/dx_j of log sum exp is the softmax p_j; of -x_t it is -1 for j = t, else 0.",
        "(p - one_hot) / N. To subtract the one-hot: p[np.arange(N), targets] -= 1, on a fresh array.",
    ),
)

# -- bigram_probabilities ----------------------------------------------------------------------------------------------


def _texts(rng: np.random.Generator) -> list[Case]:
    return [{"ids": rng.integers(0, v, n), "vocab_size": v} for n, v in ((30, 4), (8, 5), (2, 3))]


def _counts(ids: Array, vocab_size: int) -> Array:
    counts = np.zeros((vocab_size, vocab_size))
    np.add.at(counts, (ids[:-1], ids[1:]), 1.0)
    return counts


def _normed(counts: Array) -> Array:
    return counts / counts.sum(axis=1, keepdims=True)


BIGRAMS = Exercise(
    name="bigram_probabilities",
    chapter="02",
    asks="P(next | this) from a text of ids (T,), one added to every count: an array (vocab_size, vocab_size).",
    arguments=("ids", "vocab_size"),
    answer=lambda ids, vocab_size: _normed(_counts(ids, vocab_size) + 1),
    cases=_texts,
    mistakes=(
        (
            "a pair that occurs twice is counted once: counts[a, b] += 1 with arrays; use np.add.at or a loop",
            lambda ids, vocab_size: _normed((_counts(ids, vocab_size) > 0) + 1.0),
        ),
        (
            "nothing is added: a pair that was never seen gets probability 0 (or 0 / 0)",
            lambda ids, vocab_size: _normed(_counts(ids, vocab_size)),
        ),
        (
            "normalised along the wrong axis: each row is a distribution",
            lambda ids, vocab_size: _normed(_counts(ids, vocab_size).T + 1).T,
        ),
        (
            "transposed: the row is this token, the column the next",
            lambda ids, vocab_size: _normed(_counts(ids, vocab_size).T + 1),
        ),
        (
            "divided by the sum over the whole table",
            lambda ids, vocab_size: (_counts(ids, vocab_size) + 1) / (_counts(ids, vocab_size) + 1).sum(),
        ),
        ("the counts are not divided", lambda ids, vocab_size: _counts(ids, vocab_size) + 1),
    ),
    hints=(
        "Two shifted views of the text are all pairs: ids[:-1] and ids[1:].",
        "np.add.at(counts, (ids[:-1], ids[1:]), 1) counts pairs, repeated ones too.",
        "Add one to every count, then divide each row by its sum (axis=1, keepdims=True).",
    ),
)

EXERCISES = (LOG_PROBABILITIES, CROSS_ENTROPY, SLOPE, BIGRAMS)
