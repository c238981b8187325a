"""Activation functions (F-ACT and its successors), apart from GELU and SiLU, which are fused."""

from __future__ import annotations

from typing import Any

from tinyllm.autograd.operands import as_tensor
from tinyllm.autograd.ops.elementwise import clip, expm1, greater, where
from tinyllm.autograd.ops.primitive import primitive
from tinyllm.autograd.tape import apply
from tinyllm.autograd.tensor import Array, Operand, Tensor


def sigmoid_values(xp: Any, x: Array) -> Array:
    """The sigmoid of an array."""
    e = xp.exp(-xp.abs(x))  # never above 1, so nothing overflows
    return xp.where(x >= 0, 1, e).astype(e.dtype) / (1 + e)


def _softplus_values(xp: Any, x: Array) -> Array:
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.abs(x)))


_sigmoid = primitive("sigmoid", lambda g, y, x: g * y * (1 - y), forward=sigmoid_values, arithmetic=True)
_softplus = primitive("softplus", lambda g, y, x: g * sigmoid(x), forward=_softplus_values)
_relu = primitive("relu", lambda g, y, x: where(x > 0, g, 0.0), forward=lambda xp, x: xp.maximum(x, 0))


def sigmoid(x: Operand) -> Tensor:
    """``1 / (1 + exp(-x))`` (F-ACT), without overflow."""
    return apply(_sigmoid, x)


def softplus(x: Operand) -> Tensor:
    """``log(1 + exp(x))``, without overflow; its derivative is the sigmoid."""
    return apply(_softplus, x)


def relu(x: Operand) -> Tensor:
    """``max(x, 0)`` (F-ACT); the derivative at 0 is declared 0."""
    return apply(_relu, x)


def leaky_relu(x: Operand, negative_slope: float = 0.01) -> Tensor:
    """`x` where positive, else ``negative_slope * x``; the derivative at 0 is `negative_slope`."""
    x = as_tensor(x)
    return where(greater(x, 0), x, negative_slope * x)


def elu(x: Operand, alpha: float = 1.0) -> Tensor:
    """`x` where positive, else ``alpha * (exp(x) - 1)`` (Clevert 2016, eq. 15)."""
    x = as_tensor(x)
    return where(greater(x, 0), x, alpha * expm1(clip(x, max=0)))  # the clip keeps the branch not taken finite
