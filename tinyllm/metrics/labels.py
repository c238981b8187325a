"""Right and wrong labels: accuracy, precision, recall, F1, the table of confusions, and the usual report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import numpy as np

from tinyllm.errors import nearest

Average = Literal["binary", "micro", "macro", "weighted"]
AVERAGES = ("binary", "micro", "macro", "weighted")


def accuracy(y_true: Any, y_pred: Any) -> float:
    """The share of predictions that are right (F-EVAL).

    Parameters
    ----------
    y_true, y_pred : (N,) labels, or (N, L) of 0 and 1
        True and predicted. With several labels to a sample, all of them have to be right.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For no sample, or different numbers of them.
    """
    y_true, y_pred = _pair(y_true, y_pred)
    right = y_true == y_pred
    return float(np.mean(right if right.ndim == 1 else right.all(axis=1)))


def confusion_matrix(
    y_true: Any, y_pred: Any, labels: Sequence[Any] | None = None, normalize: str | None = None
) -> np.ndarray:
    """How often label i was called label j: row i is the truth, column j the prediction.

    Parameters
    ----------
    y_true, y_pred : (N,) labels
        True and predicted.
    labels : sequence, optional
        Order of rows and columns; samples with another label are left out. All that occur, sorted, without it.
    normalize : {"true", "pred", "all"}, optional
        Divide by the sum of the row, of the column, or of everything; a sum of 0 gives 0.

    Returns
    -------
    (L, L) int64, or float64 when normalised
    """
    y_true, y_pred = _pair(y_true, y_pred)
    if y_true.ndim == 2:
        raise ValueError("a table of confusions needs one label for each sample, got (N, L) of them")
    names = _labels(y_true, y_pred, labels)
    rows, columns = _positions(y_true, names), _positions(y_pred, names)
    size = len(names)
    both = (rows >= 0) & (columns >= 0)
    table = np.bincount(rows[both] * size + columns[both], minlength=size * size).reshape(size, size)
    if normalize is None:
        return table
    axes: dict[str, int | None] = {"true": 1, "pred": 0, "all": None}
    if normalize not in axes:
        raise ValueError(f"normalize={normalize!r}{nearest(str(normalize), axes)}")
    total = table.sum(axis=axes[normalize], keepdims=True)
    return np.divide(table, total, out=np.zeros(table.shape), where=total > 0)


def precision(
    y_true: Any,
    y_pred: Any,
    average: Average | None = None,
    labels: Sequence[Any] | None = None,
    zero_division: float = 0.0,
    pos_label: Any = 1,
) -> Any:
    """Precision, tp / (tp + fp): how much of what was called a label is (F-EVAL).

    Parameters
    ----------
    y_true, y_pred : (N,) labels, or (N, L) of 0 and 1
        True and predicted.
    average : {"binary", "micro", "macro", "weighted"}, optional
        None gives one number for each label. "macro" is their mean, "weighted" the mean weighted by how often each
        label is true, "micro" counts over all labels first, "binary" is the number of `pos_label`.
    labels : sequence, optional
        Which labels count, in which order; all that occur, sorted, without it.
    zero_division : float
        The value of 0 / 0; labels whose value is nan are left out of a mean.
    pos_label
        The positive one for "binary".

    Returns
    -------
    float, or (L,) float64 without `average`

    Raises
    ------
    ValueError
        For no sample, different numbers of samples, an unknown average, or "binary" with more than two labels.

    Notes
    -----
    Source: van Rijsbergen 1979, chapter 7.
    """
    return _measure("precision", y_true, y_pred, average, labels, zero_division, pos_label)


def recall(
    y_true: Any,
    y_pred: Any,
    average: Average | None = None,
    labels: Sequence[Any] | None = None,
    zero_division: float = 0.0,
    pos_label: Any = 1,
) -> Any:
    """Recall, tp / (tp + fn): how much of what is a label was found (F-EVAL).

    Arguments and result are those of `precision`.
    """
    return _measure("recall", y_true, y_pred, average, labels, zero_division, pos_label)


def f1(
    y_true: Any,
    y_pred: Any,
    average: Average | None = None,
    labels: Sequence[Any] | None = None,
    zero_division: float = 0.0,
    pos_label: Any = 1,
) -> Any:
    """F1, 2 P R / (P + R) = 2 tp / (2 tp + fp + fn), the harmonic mean of precision and recall (F-EVAL).

    Arguments and result are those of `precision`. The value is 0 / 0 only for a label that was neither true nor
    predicted.
    """
    return _measure("f1", y_true, y_pred, average, labels, zero_division, pos_label)


@dataclass(frozen=True)
class ClassificationReport:
    """Precision, recall and F1 of every label and on average; `print` shows the table.

    Attributes
    ----------
    labels : tuple
        The L labels.
    names : tuple of str
        How they are printed.
    precision, recall, f1 : tuple of L floats
        Of each label.
    support : tuple of L ints
        How often each is true.
    averages : dict
        For "accuracy" (or "micro avg", where not all labels count), "macro avg" and "weighted avg": the three measures.
    digits : int
        Of the table.
    """

    labels: tuple[Any, ...]
    names: tuple[str, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    f1: tuple[float, ...]
    support: tuple[int, ...]
    averages: dict[str, tuple[float, float, float]]
    digits: int = 2

    def as_dict(self) -> dict[str, Any]:
        """The same as plain dicts and numbers."""
        return asdict(self)

    def __str__(self) -> str:
        width = max(len("weighted avg"), self.digits, *map(len, self.names))
        head = "".join(f" {word:>9}" for word in ("precision", "recall", "f1-score", "support"))
        lines = [f"{'':>{width}} {head}", ""]
        for row in zip(self.names, self.precision, self.recall, self.f1, self.support, strict=True):
            lines.append(self._row(width, row[0], row[1:4], row[4]))
        lines.append("")
        for name, values in self.averages.items():
            shown = ("", "", values[2]) if name == "accuracy" else values
            lines.append(self._row(width, name, shown, sum(self.support)))
        return "\n".join(lines)

    def _row(self, width: int, name: str, values: Sequence[float | str], support: int) -> str:
        cells = (value if isinstance(value, str) else f"{value:.{self.digits}f}" for value in values)
        return f"{name:>{width}} " + "".join(f" {cell:>9}" for cell in cells) + f" {support:>9}"


def classification_report(
    y_true: Any,
    y_pred: Any,
    labels: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
    digits: int = 2,
    zero_division: float = 0.0,
) -> ClassificationReport:
    """Precision, recall and F1 of every label and on average, as a table to print.

    Parameters
    ----------
    y_true, y_pred : (N,) labels, or (N, L) of 0 and 1
        True and predicted.
    labels : sequence, optional
        Which labels count, in which order; all that occur, sorted, without it.
    names : sequence of str, optional
        How the labels are printed.
    digits : int
        Digits after the point in the table.
    zero_division : float
        The value of 0 / 0.

    Returns
    -------
    ClassificationReport
    """
    y_true, y_pred = _pair(y_true, y_pred)
    chosen = _labels(y_true, y_pred, labels)
    printed = tuple(str(label) for label in chosen) if names is None else tuple(names)
    if len(printed) != len(chosen):
        raise ValueError(f"{len(printed)} names for {len(chosen)} labels")
    measures = ("precision", "recall", "f1")
    each = {m: tuple(_measure(m, y_true, y_pred, None, chosen, zero_division, 1).tolist()) for m in measures}

    def mean(average: Average) -> tuple[float, float, float]:
        values = (_measure(m, y_true, y_pred, average, chosen, zero_division, 1) for m in measures)
        return cast(tuple[float, float, float], tuple(values))

    everything = y_true.ndim == 1 and set(_labels(y_true, y_pred, None)) <= set(chosen)
    averages = {"accuracy" if everything else "micro avg": mean("micro"), "macro avg": mean("macro")}
    return ClassificationReport(
        labels=tuple(chosen),
        names=printed,
        support=tuple(int(n) for n in _counts(y_true, y_pred, chosen)[2]),
        averages=averages | {"weighted avg": mean("weighted")},
        digits=digits,
        **each,
    )


def _measure(
    name: str,
    y_true: Any,
    y_pred: Any,
    average: Average | None,
    labels: Sequence[Any] | None,
    zero_division: float,
    pos_label: Any,
) -> Any:
    y_true, y_pred = _pair(y_true, y_pred)
    if average is not None and average not in AVERAGES:
        raise ValueError(f"average={average!r}{nearest(str(average), AVERAGES)}")
    if average == "binary":
        labels = _only_positive(y_true, y_pred, pos_label)
    right, predicted, true = _counts(y_true, y_pred, _labels(y_true, y_pred, labels))
    if average == "micro":
        right, predicted, true = (count.sum(keepdims=True) for count in (right, predicted, true))
    numerator, denominator = {
        "precision": (right, predicted),
        "recall": (right, true),
        "f1": (2 * right, predicted + true),
    }[name]
    values = np.full(len(right), float(zero_division))
    np.divide(numerator, denominator, out=values, where=denominator > 0)
    if average is None:
        return values
    defined = ~np.isnan(values)
    if not defined.any():
        return float("nan")
    weights = true[defined] if average == "weighted" and true[defined].any() else None
    return float(np.average(values[defined], weights=weights))


def _pair(y_true: Any, y_pred: Any) -> tuple[np.ndarray, np.ndarray]:
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if y_true.shape != y_pred.shape or y_true.ndim not in (1, 2):
        raise ValueError(
            f"y_true and y_pred must have the same shape, (N,) or (N, L); got {y_true.shape} and {y_pred.shape}"
        )
    if len(y_true) == 0:
        raise ValueError("there is no sample to judge")
    if (y_true.dtype.kind in "US") != (y_pred.dtype.kind in "US"):
        raise ValueError(f"y_true and y_pred hold labels of different kinds: {y_true.dtype} and {y_pred.dtype}")
    return y_true, y_pred


def _labels(y_true: np.ndarray, y_pred: np.ndarray, labels: Sequence[Any] | None) -> list[Any]:
    """The labels that count: the given ones, else the columns of (N, L), else all that occur, sorted."""
    if labels is None:
        return list(range(y_true.shape[1])) if y_true.ndim == 2 else np.union1d(y_true, y_pred).tolist()
    chosen = np.asarray(labels).tolist()
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"labels must be at least one, each named once; got {chosen}")
    return chosen


def _only_positive(y_true: np.ndarray, y_pred: np.ndarray, pos_label: Any) -> list[Any]:
    present = _labels(y_true, y_pred, None)
    if y_true.ndim == 2 or len(present) > 2:
        raise ValueError(
            f"average='binary' is for two labels, got {len(present)}; choose 'macro', 'micro' or 'weighted'"
        )
    if pos_label not in present and len(present) == 2:
        raise ValueError(f"pos_label={pos_label!r} is neither of the labels {present}")
    return [pos_label]


def _positions(y: np.ndarray, labels: list[Any]) -> np.ndarray:
    """The place of each element of `y` in `labels`, -1 where it is not among them."""
    place = {label: i for i, label in enumerate(labels)}
    return np.array([place.get(value, -1) for value in y.tolist()], dtype=np.int64)


def _counts(y_true: np.ndarray, y_pred: np.ndarray, labels: list[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each label (L,): how often it is predicted and true, predicted, true."""
    if y_true.ndim == 2:
        t, p = (y[:, labels] != 0 for y in (y_true, y_pred))
        return (t & p).sum(axis=0), p.sum(axis=0), t.sum(axis=0)
    t, p = _positions(y_true, labels), _positions(y_pred, labels)
    size = len(labels)
    return (
        np.bincount(t[(t == p) & (t >= 0)], minlength=size),
        np.bincount(p[p >= 0], minlength=size),
        np.bincount(t[t >= 0], minlength=size),
    )
