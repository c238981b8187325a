"""Softmax and its logarithm along an axis, each as one operation."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from tinyllm import buffers
from tinyllm.autograd import ops
from tinyllm.autograd.fused.rows import divided
from tinyllm.autograd.operands import as_tensor, axis_number
from tinyllm.autograd.tape import Kernel, Op, apply
from tinyllm.autograd.tensor import Array, Operand, Tensor, namespace
from tinyllm.device import largest

# In both, a shift by a constant changes no derivative, and brings x, however large, to where exp and log keep digits.


def _softmax_ref(x: Tensor, axis: int) -> Tensor:
    e = ops.exp(x - ops.logsumexp(x.detach(), axis, keepdims=True))
    return e / ops.sum(e, axis, keepdims=True)


def _log_softmax_ref(x: Tensor, axis: int) -> Tensor:
    shifted = x - ops.logsumexp(x.detach(), axis, keepdims=True)
    return shifted - ops.logsumexp(shifted, axis, keepdims=True)


# -- NumPy -------------------------------------------------------------------------------------------------------------


def _shifted(x: Array, axis: int) -> Array:
    with np.errstate(invalid="ignore"):  # a row of -inf alone has no softmax: it becomes NaN, silently
        return x - largest(x, axis)


def _softmax(x: Array, axis: int) -> tuple[Array, None]:
    e = namespace(x).exp(_shifted(x, axis))
    return e / e.sum(axis=axis, keepdims=True), None


def _softmax_vjp(needs: tuple[bool], g: Array, y: Array, saved: None, x: Array, axis: int) -> tuple[Array]:
    return (y * (g - (g * y).sum(axis=axis, keepdims=True)),)


def _log_softmax(x: Array, axis: int) -> tuple[Array, None]:
    xp = namespace(x)
    shifted = _shifted(x, axis)
    with np.errstate(divide="ignore"):  # over an empty axis
        return shifted - xp.log(xp.exp(shifted).sum(axis=axis, keepdims=True)), None


def _log_softmax_vjp(needs: tuple[bool], g: Array, y: Array, saved: None, x: Array, axis: int) -> tuple[Array]:
    return (g - namespace(y).exp(y) * g.sum(axis=axis, keepdims=True),)


# -- Numba: over contiguous (rows, cols), so the axis goes last and comes back -----------------------------------------


def _along_last(kernel: Any, axis: int, *arrays: Array) -> Array:
    moved = [np.ascontiguousarray(np.moveaxis(a, axis, -1)) for a in arrays]
    out = buffers.empty(moved[0].shape, moved[0].dtype)
    rows = [a.reshape(math.prod(a.shape[:-1]), a.shape[-1]) for a in (*moved, out)]
    divided(lambda i, j: kernel(*(a[i:j] for a in rows)), rows[0])
    return np.moveaxis(out, -1, axis)


@functools.cache
def _numba_softmax() -> Kernel:
    from tinyllm.kernels.cpu import softmax as kernels

    return Kernel(
        lambda x, axis: (_along_last(kernels.softmax, axis, x), None),
        lambda needs, g, y, saved, x, axis: (_along_last(kernels.softmax_vjp, axis, g, y),),
    )


@functools.cache
def _numba_log_softmax() -> Kernel:
    from tinyllm.kernels.cpu import softmax as kernels

    return Kernel(
        lambda x, axis: (_along_last(kernels.log_softmax, axis, x), None),
        lambda needs, g, y, saved, x, axis: (_along_last(kernels.log_softmax_vjp, axis, g, y),),
    )


_softmax_op = Op(
    "softmax",
    ref=_softmax_ref,
    impls={"numpy": lambda: Kernel(_softmax, _softmax_vjp), "numba": _numba_softmax},
    compiled_from=8192,
)
_log_softmax_op = Op(
    "log_softmax",
    ref=_log_softmax_ref,
    impls={"numpy": lambda: Kernel(_log_softmax, _log_softmax_vjp), "numba": _numba_log_softmax},
    compiled_from=8192,
)


def softmax(x: Operand, axis: int = -1) -> Tensor:
    """``exp(x) / sum(exp(x))`` along `axis`: positive numbers that sum to 1 (part of F-ATTN).

    The largest element is subtracted first, so that nothing overflows. -inf gives 0; -inf alone gives NaN.

    Parameters
    ----------
    x : array_like or Tensor, floating
    axis : int

    Returns
    -------
    Tensor of the shape of `x`
    """
    x = _floating("softmax", x)
    return apply(_softmax_op, x, axis=axis_number(axis, x.ndim))


def log_softmax(x: Operand, axis: int = -1) -> Tensor:
    """The logarithm of `softmax`, without the loss of digits that taking it afterwards would mean."""
    x = _floating("log_softmax", x)
    return apply(_log_softmax_op, x, axis=axis_number(axis, x.ndim))


def _floating(name: str, x: Operand) -> Tensor:
    x = as_tensor(x)
    if x.dtype.kind != "f":
        raise TypeError(f"{name} needs floating numbers, got {x.dtype}; convert them with astype")
    return x
