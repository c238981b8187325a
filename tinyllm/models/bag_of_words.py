"""Text classification by counting words: the lines that a neural classifier must beat.

    naive Bayes           argmax_c  log P(c) + sum_w n_w log P(w | c),  P(w | c) from counts, each one more than seen
    logistic regression   softmax(W x), the F-CE of which is minimised, with a penalty on W
    ridge regression      w x + b for a number, the squared error of which is minimised, with a penalty on w

The features of a text are its words and its pairs of neighbouring words, in lower case.

References
----------
McCallum and Nigam 1998, "A comparison of event models for naive Bayes text classification"; Wang and Manning 2012,
"Baselines and bigrams".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Self

import numpy as np

from tinyllm.text import word_tokenize


class Bags:
    """Texts as counts of features, one row for each, stored as the places that are not zero.

    Attributes
    ----------
    starts : (N + 1,) int
        Row i is in places ``starts[i]:starts[i + 1]``.
    features : (P,) int
        The feature in each place, one of V.
    counts : (P,) float64
        How often it occurs.
    """

    def __init__(self, rows: Sequence[Counter[int]]) -> None:
        self.starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        self.features = np.array([f for row in rows for f in row], dtype=np.int64)
        self.counts = np.array([n for row in rows for n in row.values()], dtype=np.float64)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def row_of(self) -> np.ndarray:
        """The row of each place (P,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def times(self, table: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The rows, with these values in their places, times a table (V, K) -> (N, K)."""
        return _sums(values[:, None] * table[self.features], self.row_of, len(self))

    def adjoint(self, g: np.ndarray, values: np.ndarray, V: int) -> np.ndarray:
        """The adjoint of `times`: from g (N, K) to (V, K)."""
        order = np.argsort(self.features, kind="stable")
        return _sums(values[order, None] * g[self.row_of[order]], self.features[order], V)


def _sums(values: np.ndarray, group: np.ndarray, n: int) -> np.ndarray:
    """The sums of `values` (P, K) over each group; `group` (P,) is sorted, with numbers below `n`."""
    sums = np.zeros((n, values.shape[1]))
    if len(group):
        first = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
        sums[group[first]] = np.add.reduceat(values, first, axis=0)
    return sums


class Counted:
    """What all of them have in common: the vocabulary.

    Parameters
    ----------
    bigrams : bool
        Count pairs of neighbouring words too.
    """

    def __init__(self, bigrams: bool = True) -> None:
        self.bigrams = bigrams
        self.vocabulary: dict[str, int] = {}

    def _first_bags(self, texts: Sequence[str]) -> Bags:
        """Texts as bags; their features become the vocabulary."""
        features = [self._features(text) for text in texts]
        self.vocabulary = {f: i for i, f in enumerate(dict.fromkeys(f for row in features for f in row))}
        return self._bags(features)

    def _features(self, text: str) -> list[str]:
        words = word_tokenize(text.lower())
        return words + [f"{a} {b}" for a, b in pairwise(words)] if self.bigrams else words

    def _bags(self, features: Sequence[Sequence[str]]) -> Bags:
        """Features that were not learnt from are left out."""
        return Bags([Counter(self.vocabulary[f] for f in row if f in self.vocabulary) for row in features])


class BagOfWords(Counted):
    """What naive Bayes and logistic regression have in common: the classes."""

    def __init__(self, bigrams: bool = True) -> None:
        super().__init__(bigrams)
        self.classes: list[str] = []

    def fit(self, texts: Sequence[str], labels: Sequence[str]) -> Self:
        """Learn from texts and their labels."""
        self.classes = sorted(set(labels))
        place = {label: i for i, label in enumerate(self.classes)}
        self._learn(self._first_bags(texts), np.array([place[label] for label in labels]))
        return self

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The likeliest class of each text."""
        best = self._scores(self._bags([self._features(text) for text in texts])).argmax(axis=1)
        return [self.classes[i] for i in best]

    def _learn(self, bags: Bags, y: np.ndarray) -> None:
        """Learn from bags and the places of their classes."""
        raise NotImplementedError(f"{type(self).__name__} defines no _learn")

    def _scores(self, bags: Bags) -> np.ndarray:
        """(N, K)."""
        raise NotImplementedError(f"{type(self).__name__} defines no _scores")


class NaiveBayes(BagOfWords):
    """Multinomial naive Bayes with one added to every count."""

    def _learn(self, bags: Bags, y: np.ndarray) -> None:
        counts = 1 + bags.adjoint(np.eye(len(self.classes))[y], bags.counts, len(self.vocabulary))  # (V, K)
        self._table = np.log(counts) - np.log(counts.sum(axis=0))
        self._prior = np.log(np.bincount(y, minlength=len(self.classes)) / len(y))

    def _scores(self, bags: Bags) -> np.ndarray:
        return bags.times(self._table, bags.counts) + self._prior


class LogisticRegression(BagOfWords):
    """Multinomial logistic regression over whether features occur, each row brought to length 1.

    Parameters
    ----------
    bigrams : bool
    penalty : float
        Half of this times the squares of the weights is added to the sum of the losses.
    steps : int
        Of gradient descent with Nesterov's momentum, whose rate comes from the largest curvature.
    """

    def __init__(self, bigrams: bool = True, penalty: float = 0.1, steps: int = 100) -> None:
        super().__init__(bigrams)
        self.penalty, self.steps = penalty, steps

    def _learn(self, bags: Bags, y: np.ndarray) -> None:
        x, V = unit_length(bags), len(self.vocabulary)
        self._W = softmax_regression(
            lambda W: bags.times(W, x),
            lambda g: bags.adjoint(g, x, V),
            V,
            np.eye(len(self.classes))[y],
            self.penalty,
            self.steps,
        )

    def _scores(self, bags: Bags) -> np.ndarray:
        return bags.times(self._W, unit_length(bags))


class RidgeRegression(Counted):
    """Linear regression of a number over whether features occur, each row brought to length 1.

    Parameters
    ----------
    bigrams : bool
    penalty : float
        This times the squares of the weights is added to the sum of the squared errors.
    steps : int
        At most, of conjugate gradients.
    """

    def __init__(self, bigrams: bool = True, penalty: float = 0.3, steps: int = 200) -> None:
        super().__init__(bigrams)
        self.penalty, self.steps = penalty, steps

    def fit(self, texts: Sequence[str], numbers: Sequence[float]) -> Self:
        """Learn from texts and their numbers: solve ``(X^T X + penalty I) w = X^T (y - mean y)``."""
        bags, y = self._first_bags(texts), np.asarray(numbers, dtype=np.float64)
        x, V, self._mean = unit_length(bags), len(self.vocabulary), float(y.mean())
        self._w = np.zeros((V, 1))
        residual = bags.adjoint((y - self._mean)[:, None], x, V)
        direction, square = residual, float((residual**2).sum())
        least = 1e-20 * square
        for _ in range(self.steps):
            if square <= least:
                break
            image = bags.adjoint(bags.times(direction, x), x, V) + self.penalty * direction
            length = square / float((direction * image).sum())
            self._w = self._w + length * direction
            residual = residual - length * image
            before, square = square, float((residual**2).sum())
            direction = residual + square / before * direction
        return self

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """The number of each text (N,)."""
        bags = self._bags([self._features(text) for text in texts])
        return bags.times(self._w, unit_length(bags))[:, 0] + self._mean


def unit_length(bags: Bags) -> np.ndarray:
    """1 / sqrt(features in the row) in every place."""
    return 1 / np.sqrt(np.maximum(np.diff(bags.starts), 1))[bags.row_of]


def softmax_regression(
    times: Callable[[np.ndarray], np.ndarray],
    adjoint: Callable[[np.ndarray], np.ndarray],
    features: int,
    target: np.ndarray,
    penalty: float,
    steps: int,
) -> np.ndarray:
    """The weights W (V, K) of logistic regression: ``softmax(X W)`` comes near the target.

    Parameters
    ----------
    times, adjoint : callable
        From W (V, K) to X W (N, K), and from G (N, K) to X^T G (V, K).
    features : int
        V.
    target : (N, K)
        Probabilities.
    penalty, steps
        As for `LogisticRegression`.
    """
    W = ahead = np.zeros((features, target.shape[1]))
    v = np.ones((features, 1))
    for _ in range(20):  # the largest eigenvalue of X^T X, by powers of it
        v = adjoint(times(v / np.linalg.norm(v)))
    rate = 1 / (0.5 * float(np.linalg.norm(v)) + penalty)  # softmax's curvature is at most a half
    for step in range(steps):
        new = ahead - rate * (adjoint(_softmax(times(ahead)) - target) + penalty * ahead)
        ahead = new + step / (step + 3) * (new - W)
        W = new
    return W


def _softmax(scores: np.ndarray) -> np.ndarray:
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)
