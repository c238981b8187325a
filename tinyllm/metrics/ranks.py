"""Figures that depend on the order of scores alone: the area under the ROC curve, Spearman's correlation."""

from __future__ import annotations

from typing import Any

import numpy as np


def ranks(x: Any) -> np.ndarray:
    """Ranks 1..N of the values; equal ones share the mean of the ranks that they occupy.

    Parameters
    ----------
    x : (N,) numbers
        Without nan.

    Returns
    -------
    (N,) float64
    """
    _, which, counts = np.unique(np.asarray(x), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[which]


def roc_auc(y_true: Any, y_score: Any) -> float:
    """The area under the ROC curve: how probably a positive sample scores higher than a negative one, ties half.

    Parameters
    ----------
    y_true : (N,) labels
        Two labels, of which the greater is positive; or C labels.
    y_score : (N,) or (N, C) floats
        The score of the positive label; or a column for each of the C labels in sorted order: then the result is the
        mean over the labels, each against the rest.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For shapes that do not fit, nan, one label alone, or columns that are not as many as labels.

    Notes
    -----
    The area is Mann and Whitney's U over the number of pairs. Source: Hanley and McNeil 1982, section "Meaning of the
    area".
    """
    y_true, y_score = np.asarray(y_true), np.asarray(y_score, dtype=np.float64)
    if y_true.ndim != 1 or y_score.ndim not in (1, 2) or len(y_true) != len(y_score):
        raise ValueError(f"y_true must be (N,) and y_score (N,) or (N, C), got {y_true.shape} and {y_score.shape}")
    if np.isnan(y_score).any():
        raise ValueError("y_score has nan: it has no rank")
    labels = np.unique(y_true)
    if len(labels) < 2:
        raise ValueError(f"the area needs samples of both kinds, all {len(y_true)} are {labels.tolist()}")
    if y_score.ndim == 1:
        if len(labels) > 2:
            raise ValueError(f"{len(labels)} labels need a column of scores each, y_score is {y_score.shape}")
        return _area(y_true == labels[1], y_score)
    if y_score.shape[1] != len(labels):
        raise ValueError(f"y_score has {y_score.shape[1]} columns for the {len(labels)} labels that occur")
    return float(np.mean([_area(y_true == label, y_score[:, i]) for i, label in enumerate(labels)]))


def _area(positive: np.ndarray, score: np.ndarray) -> float:
    n = int(positive.sum())
    u = ranks(score)[positive].sum() - n * (n + 1) / 2
    return float(u / (n * (len(positive) - n)))


def spearman(x: Any, y: Any) -> float:
    """Spearman's rank correlation: Pearson's correlation of the ranks, equal values sharing theirs.

    Parameters
    ----------
    x, y : (N,) numbers
        At least two pairs, without nan.

    Returns
    -------
    float
        From -1 to 1; nan where all x or all y are equal.

    Notes
    -----
    Source: Spearman 1904, The proof and measurement of association between two things.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
        raise ValueError(f"x and y must be (N,) with N >= 2, got {x.shape} and {y.shape}")
    if np.isnan(x).any() or np.isnan(y).any():
        raise ValueError("x or y has nan: it has no rank")
    a, b = ranks(x), ranks(y)
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(np.clip(a @ b / scale, -1.0, 1.0)) if scale > 0 else float("nan")
