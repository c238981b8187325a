"""What is to be told of a text: one class, any number of labels, or a number, under the names of transformers.

    single_label_classification    one of K classes; the loss is F-CE
    multi_label_classification     any of K labels, "a|b"; the loss is the binary F-CE of each of them
    regression                     a number; the loss is F-MSE over the variance of the training numbers

Labels are texts wherever they come from and wherever they are shown; a problem turns them into numbers for the loss,
and the scores of a model into labels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from tinyllm.autograd import Tensor
from tinyllm.autograd.fused import cross_entropy
from tinyllm.autograd.ops import binary_cross_entropy_with_logits, mse_loss
from tinyllm.errors import ConfigError, DataError
from tinyllm.metrics import accuracy, classification_report, f1, spearman
from tinyllm.models.bag_of_words import BagOfWords, LogisticRegression, NaiveBayes, RidgeRegression

SEPARATOR = "|"  # between the labels of one text


class Report(Protocol):
    """How well labels were told; printing shows a table."""

    def as_dict(self) -> dict[str, Any]:
        """The same as plain dicts and numbers."""


class Problem(ABC):
    """How labels become numbers, scores become labels, and labels are judged.

    Parameters
    ----------
    labels : sequence of str
        What each of the model's K scores is about.
    """

    name: ClassVar[str]
    unit: ClassVar[str]  # of the loss
    lowest_is_best: ClassVar[bool] = False  # of the first metric

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = list(labels)

    @classmethod
    @abstractmethod
    def of(cls, given: Sequence[str], balanced: bool = False) -> Self:
        """The problem that training labels pose; `balanced` lets rare classes count for as much as frequent ones.

        Raises
        ------
        DataError
            For labels that leave nothing to learn, or are not of this kind.
        ConfigError
            If there is nothing to balance.
        """

    @abstractmethod
    def unknown(self, label: str) -> list[str]:
        """What of a label did not occur in training, so that the model cannot tell it."""

    @abstractmethod
    def row(self, label: str) -> list[Any]:
        """The label in numbers, as they stand in a batch; it is known."""

    @abstractmethod
    def loss(self, scores: Tensor, labels: np.ndarray, smoothing: float) -> Tensor:
        """The mean over the texts, from (B, K) and a row for each text."""

    @abstractmethod
    def constant(self, given: Sequence[str]) -> np.ndarray:
        """The scores (K,) that have the lowest loss among those that are the same for all texts."""

    @abstractmethod
    def told(self, scores: np.ndarray) -> list[str]:
        """The label of each row of scores (N, K)."""

    @abstractmethod
    def probabilities(self, scores: np.ndarray) -> np.ndarray | None:
        """That of each label (N, K); None where there are none."""

    def ready(self, head: Any) -> None:  # noqa: B027 - most heads are ready
        """Told of a new head, a `Dense`, before it is trained."""

    @abstractmethod
    def measure(self, true: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
        """The metrics of F-EVAL."""

    @abstractmethod
    def report(self, true: Sequence[str], predicted: Sequence[str]) -> Report:
        """All that there is to say about the predictions."""

    @abstractmethod
    def guesses(self, texts: Sequence[str], given: Sequence[str], new: Sequence[str]) -> dict[str, list[str]]:
        """What simple methods that learn from texts and their labels say of new texts."""


class SingleLabel(Problem):
    """One class of several.

    Parameters
    ----------
    labels : sequence of str
    weights : (K,), optional
        Of each class in the loss; their mean over the training texts is 1.
    """

    name = "single_label_classification"
    unit = "nats per text"

    def __init__(self, labels: Sequence[str], weights: np.ndarray | None = None) -> None:
        super().__init__(labels)
        self.weights = np.ones(len(self.labels)) if weights is None else weights
        self._place = {label: i for i, label in enumerate(self.labels)}

    @classmethod
    def of(cls, given: Sequence[str], balanced: bool = False) -> Self:
        """The classes that occur."""
        counts = Counter(given)
        labels = sorted(counts)
        if len(labels) < 2:
            raise DataError(f"all training texts have the label {labels[0]!r}: classification needs two or more")
        return cls(labels, np.array([len(given) / (len(labels) * counts[n]) for n in labels]) if balanced else None)

    def unknown(self, label: str) -> list[str]:
        """The class itself."""
        return [] if label in self._place else [label]

    def row(self, label: str) -> list[Any]:
        """The place of the class."""
        return [self._place[label]]

    def loss(self, scores: Tensor, labels: np.ndarray, smoothing: float) -> Tensor:
        """F-CE, each text with the weight of its class."""
        labels = labels[:, 0]
        losses = cross_entropy(scores, labels, reduction="none", label_smoothing=smoothing)
        return (losses * self.weights[labels].astype(scores.dtype)).mean()

    def constant(self, given: Sequence[str]) -> np.ndarray:
        """The logarithms of the classes' shares."""
        counts = Counter(given)
        return np.log([counts[label] / len(given) for label in self.labels])

    def told(self, scores: np.ndarray) -> list[str]:
        """The class with the highest score."""
        return [self.labels[i] for i in scores.argmax(axis=1)]

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Softmax."""
        e = np.exp(scores - scores.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def measure(self, true: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
        """Accuracy and macro F1, in percent."""
        macro = float(f1(true, predicted, average="macro"))
        return {"accuracy %": 100 * accuracy(true, predicted), "macro F1 %": 100 * macro}

    def report(self, true: Sequence[str], predicted: Sequence[str]) -> Report:
        """Precision, recall and F1 of each class."""
        return classification_report(true, predicted)

    def guesses(self, texts: Sequence[str], given: Sequence[str], new: Sequence[str]) -> dict[str, list[str]]:
        """The commonest class, and three ways of counting words."""
        models: dict[str, BagOfWords] = {
            "naive Bayes, words": NaiveBayes(bigrams=False),
            "naive Bayes, words and pairs": NaiveBayes(),
            "logistic regression": LogisticRegression(),
        }
        commonest = Counter(given).most_common(1)[0][0]
        found = {"commonest label": [commonest] * len(new)}
        return found | {name: model.fit(texts, given).predict(new) for name, model in models.items()}


class MultiLabel(Problem):
    """Any number of labels, none among them: "a|b". A label is told where its probability is a half or more."""

    name = "multi_label_classification"
    unit = "nats per text and label"

    @classmethod
    def of(cls, given: Sequence[str], balanced: bool = False) -> Self:
        """All labels that occur."""
        if balanced:
            raise ConfigError(
                f"there is nothing to balance in a {cls.name}: class_weights are for single_label_classification"
            )
        labels = sorted({part for label in given for part in parts(label)})
        if not labels:
            raise DataError("no training text has a label: there is nothing to learn")
        return cls(labels)

    def unknown(self, label: str) -> list[str]:
        """The labels that did not occur."""
        return [part for part in parts(label) if part not in self.labels]

    def row(self, label: str) -> list[Any]:
        """1 for each of the K labels that the text has, 0 for the others."""
        own = parts(label)
        return [int(name in own) for name in self.labels]

    def loss(self, scores: Tensor, labels: np.ndarray, smoothing: float) -> Tensor:
        """The binary F-CE, the mean over texts and labels."""
        target = labels.astype(scores.dtype)
        return binary_cross_entropy_with_logits(scores, (1 - smoothing) * target + scores.dtype.type(smoothing / 2))

    def constant(self, given: Sequence[str]) -> np.ndarray:
        """The log-odds of each label."""
        with_it = np.array([self.row(label) for label in given]).sum(axis=0)
        return np.log((with_it + 0.5) / (len(given) - with_it + 0.5))  # the halves keep it finite

    def told(self, scores: np.ndarray) -> list[str]:
        """All labels with a score of 0 or more."""
        return [SEPARATOR.join(n for n, s in zip(self.labels, row, strict=True) if s >= 0) for row in scores]

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Sigmoid."""
        return 0.5 * (1 + np.tanh(0.5 * scores))

    def measure(self, true: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
        """F1 on average, and the share of texts with all labels right, in percent."""
        _, t, p = self._indicators(true, predicted)
        averages: dict[str, float] = {
            f"{average} F1 %": 100 * float(f1(t, p, average=average)) for average in ("micro", "macro")
        }
        return averages | {"all right %": 100 * accuracy(t, p)}

    def report(self, true: Sequence[str], predicted: Sequence[str]) -> Report:
        """Precision, recall and F1 of each label."""
        names, t, p = self._indicators(true, predicted)
        return classification_report(t, p, names=names)

    def guesses(self, texts: Sequence[str], given: Sequence[str], new: Sequence[str]) -> dict[str, list[str]]:
        """The labels that most texts have, and naive Bayes for each label alone."""
        counts = Counter(part for label in given for part in parts(label))
        usual = SEPARATOR.join(sorted(n for n in counts if 2 * counts[n] >= len(given))) or counts.most_common(1)[0][0]
        found = {"commonest labels": [usual] * len(new)}
        for name, bigrams in (("naive Bayes, words", False), ("naive Bayes, words and pairs", True)):
            yes = []
            for one in self.labels:
                has_it = ["yes" if one in parts(label) else "no" for label in given]
                yes.append([told == "yes" for told in NaiveBayes(bigrams).fit(texts, has_it).predict(new)])
            found[name] = self.told(np.where(np.array(yes).T, 1.0, -1.0))
        return found

    def _indicators(self, true: Sequence[str], predicted: Sequence[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
        """All labels that occur or are known, and who has which, truly and as predicted (N, L)."""
        names = sorted({*self.labels, *(part for label in true for part in parts(label))})
        t, p = ([[int(n in parts(label)) for n in names] for label in some] for some in (true, predicted))
        return names, np.array(t), np.array(p)


@dataclass(frozen=True)
class NumberReport:
    """How near predicted numbers are to the true ones.

    Attributes
    ----------
    mse : float
        The mean squared error.
    spearman : float
        The correlation of their ranks; 0 where all predicted ones are equal.
    support : int
        How many there are.
    """

    mse: float
    spearman: float
    support: int

    def as_dict(self) -> dict[str, Any]:
        """The same as a plain dict."""
        return asdict(self)

    def __str__(self) -> str:
        return f"MSE {self.mse:.4g}  Spearman {self.spearman:.3f}  support {self.support:,}"


class Regression(Problem):
    """A number.

    Parameters
    ----------
    labels : sequence of str
        The name of the number alone.
    mean, deviation : float
        Of the training numbers.
    """

    name = "regression"
    unit = "of the variance of the training numbers"
    lowest_is_best = True

    def __init__(self, labels: Sequence[str] = ("number",), mean: float = 0.0, deviation: float = 1.0) -> None:
        super().__init__(labels)
        self.mean, self.deviation = mean, deviation

    @classmethod
    def of(cls, given: Sequence[str], balanced: bool = False) -> Self:
        """Mean and deviation of the numbers."""
        if balanced:
            raise ConfigError(
                f"there is nothing to balance in a {cls.name}: class_weights are for single_label_classification"
            )
        numbers = np.array([number(label) for label in given])
        if not numbers.std() > 0:
            raise DataError(f"all training texts have the number {numbers[0]:g}: there is nothing to learn")
        return cls(mean=float(numbers.mean()), deviation=float(numbers.std()))

    def unknown(self, label: str) -> list[str]:
        """Nothing: any number can be told."""
        return []

    def row(self, label: str) -> list[Any]:
        """The number."""
        return [number(label)]

    def loss(self, scores: Tensor, labels: np.ndarray, smoothing: float) -> Tensor:
        """F-MSE over the variance of the training numbers: 1 for always telling their mean."""
        return mse_loss(scores / self.deviation, (labels / self.deviation).astype(scores.dtype))

    def constant(self, given: Sequence[str]) -> np.ndarray:
        """The mean."""
        return np.array([self.mean])

    def told(self, scores: np.ndarray) -> list[str]:
        """The score itself."""
        return [f"{score:.6g}" for score in scores[:, 0].tolist()]

    def probabilities(self, scores: np.ndarray) -> None:
        """None."""
        return None

    def measure(self, true: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
        """The mean squared error, and Spearman's correlation."""
        found = self.report(true, predicted)
        return {"MSE": found.mse, "Spearman": found.spearman}

    def report(self, true: Sequence[str], predicted: Sequence[str]) -> NumberReport:
        """The same, and how many there are."""
        t, p = (np.array([number(label) for label in some]) for some in (true, predicted))
        order = spearman(t, p) if len(t) > 1 else math.nan
        return NumberReport(float(np.mean((t - p) ** 2)), 0.0 if math.isnan(order) else order, len(t))

    def guesses(self, texts: Sequence[str], given: Sequence[str], new: Sequence[str]) -> dict[str, list[str]]:
        """The mean, and ridge regression on words."""
        numbers = [number(label) for label in given]
        ridge = RidgeRegression().fit(texts, numbers).predict(new)
        return {"the mean": self.told(np.full((len(new), 1), self.mean)), "ridge regression": self.told(ridge[:, None])}

    def ready(self, head: Any) -> None:
        """Let it tell numbers of the training numbers' size at once: its weights would need long to grow."""
        head.weight.assign_(head.weight.numpy() * self.deviation)
        head.bias.assign_(head.bias.numpy() + self.mean)


PROBLEMS: dict[str, type[Problem]] = {kind.name: kind for kind in (SingleLabel, MultiLabel, Regression)}


def parts(label: str) -> list[str]:
    """The labels in "a|b"."""
    return [part.strip() for part in label.split(SEPARATOR) if part.strip()]


def number(label: str) -> float:
    """A label that is a number.

    Raises
    ------
    DataError
        For anything else, infinities and NaN included.
    """
    try:
        found = float(label)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise DataError(
            f"the label {label!r} is no number, which regression needs: clean the data, or choose a problem"
        )
    return found
