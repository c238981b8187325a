"""Losses that are compositions (cross-entropy is fused)."""

from __future__ import annotations

from tinyllm.autograd.operands import as_tensor
from tinyllm.autograd.ops.activations import softplus
from tinyllm.autograd.ops.elementwise import exp, log, where
from tinyllm.autograd.ops.reduce import mean, sum
from tinyllm.autograd.tensor import Operand, Tensor


def reduced(losses: Tensor, reduction: str) -> Tensor:
    """The losses of all places as one number, or as they are.

    Raises
    ------
    ValueError
        If `reduction` is none of "mean", "sum", "none".
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    return losses if reduction == "none" else mean(losses) if reduction == "mean" else sum(losses)


def _pair(name: str, input: Operand, target: Operand) -> tuple[Tensor, Tensor]:
    input, target = (as_tensor(t) for t in (input, target))
    if input.shape != target.shape:
        raise ValueError(f"{name}: input {input.shape} and target {target.shape} must have the same shape")
    return input, target


def mse_loss(input: Operand, target: Operand, reduction: str = "mean") -> Tensor:
    """The squared error ``(input - target)^2``, averaged over all elements (F-MSE)."""
    input, target = _pair("mse_loss", input, target)
    error = input - target
    return reduced(error * error, reduction)


def binary_cross_entropy_with_logits(
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    reduction: str = "mean",
    pos_weight: Operand | None = None,
) -> Tensor:
    """``-(p t log s(x) + (1 - t) log(1 - s(x)))`` with `s` the sigmoid, from the logit x, without overflow.

    Parameters
    ----------
    input, target : tensors of one shape
        Logits, and targets between 0 and 1.
    weight : broadcastable, optional
        A factor for each element.
    reduction : {"mean", "sum", "none"}
    pos_weight : broadcastable, optional
        p, a factor for the positive part.
    """
    input, target = _pair("binary_cross_entropy_with_logits", input, target)
    # -log s(x) = softplus(-x), -log(1 - s(x)) = softplus(-x) + x
    below = softplus(-input)
    if pos_weight is not None:
        below = below * (1 + (as_tensor(pos_weight, like=(target,)) - 1) * target)
    losses = (1 - target) * input + below
    return reduced(losses if weight is None else losses * weight, reduction)


def kl_div(input: Operand, target: Operand, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """``target (log target - input)``: the divergence of a distribution from one given by its logarithm.

    Parameters
    ----------
    input : log-probabilities
    target : probabilities, or log-probabilities with `log_target`
    reduction : {"mean", "batchmean", "sum", "none"}
        "mean" is over all elements; "batchmean" sums and divides by the first axis, which is the divergence itself.
    log_target : bool
    """
    input, target = _pair("kl_div", input, target)
    if log_target:
        losses = exp(target) * (target - input)
    else:
        positive = target > 0
        losses = target * (log(where(positive, target, 1.0)) - input)
    if reduction == "batchmean":
        return sum(losses) / input.shape[0]
    return reduced(losses, reduction)
