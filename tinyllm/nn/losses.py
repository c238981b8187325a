"""Losses that carry their settings. The functions of :mod:`tinyllm` are the losses themselves."""

from __future__ import annotations

from typing import Literal

from numpy.typing import ArrayLike

from tinyllm.autograd import fused, ops
from tinyllm.autograd.tensor import Tensor
from tinyllm.nn.module import Module

Reduction = Literal["mean", "sum", "none"]


class CrossEntropyLoss(Module):
    """:func:`tinyllm.cross_entropy` (F-CE) with fixed settings: logits (..., V), the class on the *last* axis.

    Parameters
    ----------
    weight : (V,) floats, optional
        One factor per class.
    ignore_index : int
    reduction : "mean", "sum" or "none"
    label_smoothing : float
    """

    def __init__(
        self,
        weight: ArrayLike | Tensor | None = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        self.weight = None if weight is None else Tensor(weight)
        self.ignore_index, self.reduction, self.label_smoothing = ignore_index, reduction, label_smoothing

    def forward(self, logits: Tensor, target: Tensor | ArrayLike) -> Tensor:
        """Logits (..., V) and ids (...), or probabilities (..., V) -> one number, or (...) for "none"."""
        return fused.cross_entropy(logits, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing)


class MSELoss(Module):
    """:func:`tinyllm.mse_loss` (F-MSE) with a fixed reduction.

    Parameters
    ----------
    reduction : "mean", "sum" or "none"
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor | ArrayLike) -> Tensor:
        """Two of one shape -> one number, or that shape for "none"."""
        return ops.mse_loss(input, target, self.reduction)


class BCEWithLogitsLoss(Module):
    """:func:`tinyllm.binary_cross_entropy_with_logits` with fixed settings.

    Parameters
    ----------
    weight : floats that broadcast to the input, optional
        One factor per element.
    reduction : "mean", "sum" or "none"
    pos_weight : floats that broadcast to the input, optional
        Factor of the positive examples.
    """

    def __init__(
        self,
        weight: ArrayLike | Tensor | None = None,
        reduction: Reduction = "mean",
        pos_weight: ArrayLike | Tensor | None = None,
    ) -> None:
        self.weight = None if weight is None else Tensor(weight)
        self.pos_weight = None if pos_weight is None else Tensor(pos_weight)
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor | ArrayLike) -> Tensor:
        """Logits and probabilities of one shape -> one number, or that shape for "none"."""
        return ops.binary_cross_entropy_with_logits(input, target, self.weight, self.reduction, self.pos_weight)
