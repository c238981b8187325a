"""Sums, products and extremes over axes. `sum_to` and `broadcast_to` are each other's adjoint."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np

from tinyllm.autograd import ops
from tinyllm.autograd.operands import as_tensor, axis_number, broadcast_shape
from tinyllm.autograd.ops.primitive import primitive
from tinyllm.autograd.tape import apply
from tinyllm.autograd.tensor import Array, Axis, Operand, Tensor
from tinyllm.device import largest


def _keep(t: Tensor, x: Tensor, axis: tuple[int, ...]) -> Tensor:
    """A reduced tensor with its axes put back as axes of length 1."""
    return ops.reshape(t, tuple(1 if i in axis else n for i, n in enumerate(x.shape)))


def _share_of_extreme(g: Tensor, y: Tensor, x: Tensor, axis: tuple[int, ...], keepdims: bool) -> Tensor:
    """The gradient of max and min: all elements that attain the extreme share it equally."""
    attained = ops.astype((x == _keep(y, x, axis)) | ops.isnan(x), x.dtype)  # a NaN is the extreme of any row it is in
    return attained * (_keep(g, x, axis) / sum(attained, axis, keepdims=True))


def _sum_to_values(xp: Any, x: Array, shape: tuple[int, ...]) -> Array:
    added = x.ndim - len(shape)
    axes = tuple(range(added)) + tuple(i + added for i, n in enumerate(shape) if n == 1 and x.shape[i + added] != 1)
    return xp.sum(x, axis=axes, keepdims=True).reshape(shape) if axes else x


def _logsumexp_values(xp: Any, x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    top = largest(x, axis)
    top = xp.where(xp.isfinite(top), top, 0).astype(x.dtype)
    with np.errstate(divide="ignore", over="ignore"):  # the logarithms of 0 and of inf are meant
        y = xp.log(xp.sum(xp.exp(x - top), axis=axis, keepdims=True)) + top
    return y if keepdims else y.reshape(tuple(n for i, n in enumerate(x.shape) if i not in axis))


_sum = primitive("sum", lambda g, y, x, axis, keepdims: ops.broadcast_to(_keep(g, x, axis), x.shape))
_sum_to = primitive("sum_to", lambda g, y, x, shape: ops.broadcast_to(g, x.shape), forward=_sum_to_values, view=True)
_max = primitive("max", _share_of_extreme)
_min = primitive("min", _share_of_extreme)
_logsumexp = primitive(
    "logsumexp",
    lambda g, y, x, axis, keepdims: _keep(g, x, axis) * ops.exp(x - _keep(y, x, axis)),
    forward=_logsumexp_values,
)
_cumsum = primitive("cumsum", lambda g, y, x, axis: ops.flip(cumsum(ops.flip(g, axis), axis), axis))
_argmax = primitive("argmax")
_argmin = primitive("argmin")


def _axes(x: Tensor, axis: Axis) -> tuple[int, ...]:
    """Axes as a sorted tuple of numbers from 0; None is all of them."""
    if axis is None:
        return tuple(range(x.ndim))
    given = axis if isinstance(axis, tuple) else (axis,)
    axes = tuple(sorted(axis_number(a, x.ndim) for a in given))
    if len(set(axes)) != len(axes):
        raise ValueError(f"axis {axis} names an axis twice")
    return axes


def _floating(x: Operand) -> Tensor:
    x = as_tensor(x)
    return x if x.dtype.kind == "f" else ops.astype(x, np.float64)


def _count(x: Tensor, axis: Axis) -> int:
    return math.prod(x.shape[a] for a in _axes(x, axis))


def sum(x: Operand, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Sum over `axis` (an int, a tuple, or None for all)."""
    x = as_tensor(x)
    return apply(_sum, x, axis=_axes(x, axis), keepdims=keepdims)


def sum_to(x: Operand, shape: tuple[int, ...]) -> Tensor:
    """Sum over the axes along which `shape` was broadcast to the shape of `x`: the adjoint of `broadcast_to`.

    Raises
    ------
    ValueError
        If `shape` does not broadcast to the shape of `x`.
    """
    x = as_tensor(x)
    if broadcast_shape("sum_to", shape, x.shape) != x.shape:
        raise ValueError(f"sum_to: {shape} does not broadcast to {x.shape}")
    return apply(_sum_to, x, shape=tuple(shape))


def mean(x: Operand, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Arithmetic mean over `axis`."""
    x = as_tensor(x)
    return sum(x, axis, keepdims) / _count(x, axis)


def var(x: Operand, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """Variance over `axis`: the squared deviations from the mean, summed and divided by ``count - ddof``."""
    x = as_tensor(x)
    deviation = x - mean(x, axis, keepdims=True)
    return sum(deviation * deviation, axis, keepdims) / builtins.max(_count(x, axis) - ddof, 0)


def std(x: Operand, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """Standard deviation over `axis`: the root of `var`. Where it is 0 its gradient is declared 0."""
    variance = var(x, axis, ddof, keepdims)
    zero = variance == 0
    return ops.where(zero, 0.0, ops.sqrt(ops.where(zero, 1.0, variance)))


def max(x: Operand, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Largest value over `axis`; equal largest values share the gradient."""
    x = as_tensor(x)
    return apply(_max, x, axis=_axes(x, axis), keepdims=keepdims)


def min(x: Operand, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Smallest value over `axis`; equal smallest values share the gradient."""
    x = as_tensor(x)
    return apply(_min, x, axis=_axes(x, axis), keepdims=keepdims)


def prod(x: Operand, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Product over `axis`, by halves: every derivative is a product of the others, so zeros do no harm."""
    x = as_tensor(x)
    x = ops.astype(x, np.prod(np.empty(0, x.dtype)).dtype)  # integers grow as NumPy's do
    axes = _axes(x, axis)
    rest = tuple(i for i in range(x.ndim) if i not in axes)
    shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape)) if keepdims else tuple(x.shape[i] for i in rest)
    factors = ops.reshape(ops.transpose(x, (*axes, *rest)), (_count(x, axis), *(x.shape[i] for i in rest)))
    if len(factors) == 0:
        return ops.reshape(sum(factors, 0) + 1, shape)
    while len(factors) > 1:
        half = len(factors) // 2
        pairs = factors[:half] * factors[half : 2 * half]
        factors = ops.concatenate([pairs, factors[2 * half :]]) if len(factors) % 2 else pairs
    return ops.reshape(factors, shape)


def logsumexp(x: Operand, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """``log(sum(exp(x)))`` over `axis`, without overflow."""
    x = _floating(x)
    return apply(_logsumexp, x, axis=_axes(x, axis), keepdims=keepdims)


def cumsum(x: Operand, axis: int | None = None) -> Tensor:
    """Running sum along `axis` (of the flattened tensor when None)."""
    x = as_tensor(x)
    if axis is None:
        x, axis = ops.reshape(x, (-1,)), 0
    return apply(_cumsum, x, axis=_axes(x, axis)[0])


def norm(x: Operand, ord: float | None = None, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The vector norm of order `ord` over `axis`: the Euclidean one by default.

    Parameters
    ----------
    x : array_like or Tensor
    ord : float, optional
        2 (default), 1, any other number, ``inf`` (largest), ``-inf`` (smallest) or 0 (how many are not zero).
    axis : int, tuple of ints or None
        The axes that hold the vector; None for all. The gradient of a norm that is 0 is declared 0.
    """
    x = _floating(x)
    size = ops.abs(x)
    if ord == 0:
        return sum(ops.astype(x != 0, x.dtype), axis, keepdims)
    if ord == 1:
        return sum(size, axis, keepdims)
    if ord in (math.inf, -math.inf):
        return (max if ord > 0 else min)(size, axis, keepdims)
    p = 2.0 if ord is None else float(ord)
    if p == 2:
        total = sum(x * x, axis, keepdims)
    else:
        # where x = 0 the power's slope is 0 for p > 1; for p < 1 it has none, and 0 is declared
        zero = size == 0
        total = sum(ops.where(zero, 0.0 if p > 0 else math.inf, ops.where(zero, 1.0, size) ** p), axis, keepdims)
    positive = (total > 0) & ops.isfinite(total)
    inner = ops.where(positive, total, 1.0)
    root = ops.sqrt(inner) if p == 2 else inner ** (1 / p)
    # What is left, 0, inf and NaN, is its own root; for p < 0 the first two change places.
    rest = total if p > 0 else ops.where(ops.isnan(total), total, ops.where(total > 0, total.dtype.type(0), math.inf))
    return ops.where(positive, root, ops.astype(rest, x.dtype))


def argmax(x: Operand, axis: int | None = None) -> Tensor:
    """Index of the first largest value along `axis` (of the flattened tensor when None)."""
    return apply(_argmax, x, axis=axis)


def argmin(x: Operand, axis: int | None = None) -> Tensor:
    """Index of the first smallest value along `axis` (of the flattened tensor when None)."""
    return apply(_argmin, x, axis=axis)
