"""Losses between targets and what a model gives, called with its logits where it ends in a softmax."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from tinyllm.autograd import ops
from tinyllm.autograd.fused import cross_entropy
from tinyllm.autograd.tensor import Tensor
from tinyllm.errors import ConfigError, DataError, nearest


class Loss(Protocol):
    """The mean loss of a batch, and how many predictions it is the mean of."""

    def __call__(self, y_true: np.ndarray, y: Tensor, logits: bool) -> Tensor:
        """A number; `logits` says whether `y` is what a softmax would be taken of."""

    def count(self, y_true: np.ndarray) -> int:
        """Predictions in these targets."""


class _Crossentropy:
    """What both kinds share."""

    def __init__(self, from_logits: bool = False, label_smoothing: float = 0.0) -> None:
        self.from_logits, self.label_smoothing = from_logits, label_smoothing

    def _of(self, target: Any, y: Tensor, logits: bool) -> Tensor:
        if not (logits or self.from_logits):  # probabilities: the logarithm of a 0 is that of a small number
            y = ops.log(ops.clip(y, 1e-7, 1.0))
        return cross_entropy(y, target, label_smoothing=self.label_smoothing)


class SparseCategoricalCrossentropy(_Crossentropy):
    """F-CE for targets that are class numbers, (...) for predictions (..., V)."""

    def __call__(self, y_true: np.ndarray, y: Tensor, logits: bool = False) -> Tensor:
        """The mean over all predictions, in nats."""
        if y_true.dtype.kind not in "iu" or y_true.shape != y.shape[:-1]:
            raise DataError(
                f"SparseCategoricalCrossentropy needs class numbers {y.shape[:-1]} for predictions {y.shape}, got "
                f"{y_true.shape} of {y_true.dtype}{_hint(y_true, y)}"
            )
        return self._of(y_true, y, logits)

    def count(self, y_true: np.ndarray) -> int:
        """Each number is one."""
        return y_true.size


class CategoricalCrossentropy(_Crossentropy):
    """F-CE for targets that are one-hot, or probabilities: (..., V), as the predictions."""

    def __call__(self, y_true: np.ndarray, y: Tensor, logits: bool = False) -> Tensor:
        """The mean over all predictions, in nats."""
        if y_true.shape != y.shape:
            raise DataError(
                f"CategoricalCrossentropy needs one-hot targets {y.shape}, as the predictions are; got {y_true.shape}"
                f"{_hint(y_true, y)}"
            )
        return self._of(y_true.astype(y.dtype), y, logits)

    def count(self, y_true: np.ndarray) -> int:
        """Each row is one."""
        return y_true.size // y_true.shape[-1]


def _hint(y_true: np.ndarray, y: Tensor) -> str:
    """What is behind targets that do not fit: the two faults of sample C-001."""
    if y_true.dtype.kind in "iu" and y_true.shape == y.shape[:-1]:
        return ": these are class numbers, which SparseCategoricalCrossentropy takes"
    if y_true.ndim == y.ndim and y_true.shape == y.shape:
        return ": these are one-hot, which CategoricalCrossentropy takes"
    if y_true.ndim >= 2 and y.ndim == 2 and y_true.shape[0] == y.shape[0]:
        return ": a target per position, but one prediction per text: the recurrent layer needs return_sequences=True"
    return ""


class MeanSquaredError:
    """F-MSE."""

    def __call__(self, y_true: np.ndarray, y: Tensor, logits: bool = False) -> Tensor:
        """The mean over all numbers."""
        if y_true.shape != y.shape:
            raise DataError(f"MeanSquaredError needs targets of the predictions' shape {y.shape}, got {y_true.shape}")
        y = ops.exp(ops.subtract(y, ops.logsumexp(y, axis=-1, keepdims=True))) if logits else y
        return ops.mse_loss(y, y_true.astype(y.dtype))

    def count(self, y_true: np.ndarray) -> int:
        """Each number is one."""
        return y_true.size


_NAMED = {
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
}


def get(loss: str | Loss) -> Loss:
    """The loss of this name, or the one given.

    Raises
    ------
    ConfigError
        If there is none of this name.
    """
    if not isinstance(loss, str):
        return loss
    if loss not in _NAMED:
        raise ConfigError(f"unknown loss {loss!r}{nearest(loss, _NAMED)}")
    return _NAMED[loss]()
