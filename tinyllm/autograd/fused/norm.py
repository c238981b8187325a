"""Layer normalisation and RMS normalisation over the last axes, each as one operation."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyllm import buffers
from tinyllm.autograd import ops
from tinyllm.autograd.fused.rows import as_rows, divided, flat, in_order
from tinyllm.autograd.operands import as_tensor
from tinyllm.autograd.tape import Kernel, Op, apply
from tinyllm.autograd.tensor import Array, Operand, Storage, Tensor, namespace

# Every kernel works on rows: (R, C), with C the product of the normalised axes.


def _layer_norm_ref(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    axes = tuple(range(-weight.ndim, 0))
    centred = x - ops.mean(x, axes, keepdims=True)
    variance = ops.mean(centred * centred, axes, keepdims=True)
    return centred / ops.sqrt(variance + eps) * weight + bias


def _rms_norm_ref(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    mean_square = ops.mean(x * x, tuple(range(-weight.ndim, 0)), keepdims=True)
    return x / ops.sqrt(mean_square + eps) * weight


# -- NumPy -------------------------------------------------------------------------------------------------------------


def _layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> tuple[Array, Any]:
    xp, rows = namespace(x), x.reshape(-1, weight.size)
    mean = rows.mean(axis=1, keepdims=True)
    centred = rows - mean
    rstd = 1 / xp.sqrt((centred * centred).mean(axis=1, keepdims=True) + eps)
    return (centred * rstd * weight.reshape(-1) + bias.reshape(-1)).reshape(x.shape), (mean, rstd)


def _layer_norm_vjp(
    needs: tuple[bool, ...], g: Array, y: Array, saved: Any, x: Array, weight: Array, bias: Array, eps: float
) -> tuple[Array, ...]:
    mean, rstd = saved
    g = g.reshape(-1, weight.size)
    normed = (x.reshape(-1, weight.size) - mean) * rstd
    u = g * weight.reshape(-1)
    dx = (u - u.mean(axis=1, keepdims=True) - normed * (u * normed).mean(axis=1, keepdims=True)) * rstd
    return dx.reshape(x.shape), (g * normed).sum(axis=0).reshape(weight.shape), g.sum(axis=0).reshape(bias.shape)


def _rms_norm(x: Array, weight: Array, eps: float) -> tuple[Array, Any]:
    xp, rows = namespace(x), x.reshape(-1, weight.size)
    rstd = 1 / xp.sqrt((rows * rows).mean(axis=1, keepdims=True) + eps)
    return (rows * rstd * weight.reshape(-1)).reshape(x.shape), rstd


def _rms_norm_vjp(
    needs: tuple[bool, ...], g: Array, y: Array, rstd: Any, x: Array, weight: Array, eps: float
) -> tuple[Array, ...]:
    g = g.reshape(-1, weight.size)
    normed = x.reshape(-1, weight.size) * rstd
    u = g * weight.reshape(-1)
    dx = (u - normed * (u * normed).mean(axis=1, keepdims=True)) * rstd
    return dx.reshape(x.shape), (g * normed).sum(axis=0).reshape(weight.shape)


# -- Numba -------------------------------------------------------------------------------------------------------------


@functools.cache
def _numba_layer_norm() -> Kernel:
    from tinyllm.kernels.cpu import norm as kernels

    def forward(x: Array, weight: Array, bias: Array, eps: float) -> tuple[Array, Any]:
        rows, w, b = as_rows(x, weight.size), flat(weight), flat(bias)
        out = buffers.empty(rows.shape, x.dtype)
        mean, rstd = np.empty((2, len(rows)), x.dtype)
        divided(lambda i, j: kernels.layer_norm(rows[i:j], w, b, eps, out[i:j], mean[i:j], rstd[i:j]), rows)
        return out.reshape(x.shape), (mean, rstd)

    def vjp(
        needs: tuple[bool, ...], g: Array, y: Array, saved: Any, x: Array, weight: Array, bias: Array, eps: float
    ) -> tuple[Array, ...]:
        mean, rstd = saved
        g_rows, rows, w = as_rows(g, weight.size), as_rows(x, weight.size), flat(weight)
        dx = buffers.empty(rows.shape, x.dtype)

        def of_range(i: int, j: int) -> tuple[Array, Array]:
            dweight, dbias = np.empty(w.size, w.dtype), np.empty(w.size, w.dtype)
            kernels.layer_norm_vjp(g_rows[i:j], rows[i:j], w, mean[i:j], rstd[i:j], dx[i:j], dweight, dbias)
            return dweight, dbias

        dweight, dbias = in_order(divided(of_range, rows))
        return dx.reshape(x.shape), dweight.reshape(weight.shape), dbias.reshape(bias.shape)

    return Kernel(forward, vjp)


@functools.cache
def _numba_rms_norm() -> Kernel:
    from tinyllm.kernels.cpu import norm as kernels

    def forward(x: Array, weight: Array, eps: float) -> tuple[Array, Any]:
        rows, w = as_rows(x, weight.size), flat(weight)
        out, rstd = buffers.empty(rows.shape, x.dtype), np.empty(len(rows), x.dtype)
        divided(lambda i, j: kernels.rms_norm(rows[i:j], w, eps, out[i:j], rstd[i:j]), rows)
        return out.reshape(x.shape), rstd

    def vjp(
        needs: tuple[bool, ...], g: Array, y: Array, rstd: Any, x: Array, weight: Array, eps: float
    ) -> tuple[Array, ...]:
        g_rows, rows, w = as_rows(g, weight.size), as_rows(x, weight.size), flat(weight)
        dx = buffers.empty(rows.shape, x.dtype)

        def of_range(i: int, j: int) -> tuple[Array]:
            dweight = np.empty(w.size, w.dtype)
            kernels.rms_norm_vjp(g_rows[i:j], rows[i:j], w, rstd[i:j], dx[i:j], dweight)
            return (dweight,)

        (dweight,) = in_order(divided(of_range, rows))
        return dx.reshape(x.shape), dweight.reshape(weight.shape)

    return Kernel(forward, vjp)


_layer_norm_op = Op(
    "layer_norm",
    ref=_layer_norm_ref,
    impls={"numpy": lambda: Kernel(_layer_norm, _layer_norm_vjp), "numba": _numba_layer_norm},
)
_rms_norm_op = Op(
    "rms_norm",
    ref=_rms_norm_ref,
    impls={"numpy": lambda: Kernel(_rms_norm, _rms_norm_vjp), "numba": _numba_rms_norm},
)


def layer_norm(
    x: Operand,
    normalized_shape: int | Sequence[int],
    weight: Operand | None = None,
    bias: Operand | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` over the last axes (part of F-BLOCK).

    The variance is the biased one, the mean of the squared deviations, and `eps` stands inside the root.

    Parameters
    ----------
    x : (..., *normalized_shape), floating
    normalized_shape : int or sequence of ints
        The lengths of the axes that are normalised together.
    weight, bias : of shape `normalized_shape`, optional
        One and zero when left out.
    eps : float

    Returns
    -------
    Tensor of the shape of `x`

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Notes
    -----
    Source: Ba, Kiros and Hinton 2016, section 3.
    """
    return apply(_layer_norm_op, *_layer_norm_inputs(x, normalized_shape, weight, bias), eps=eps)


def rms_norm(
    x: Operand, normalized_shape: int | Sequence[int], weight: Operand | None = None, eps: float | None = None
) -> Tensor:
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last axes.

    Parameters
    ----------
    x : (..., *normalized_shape), floating
    normalized_shape : int or sequence of ints
    weight : of shape `normalized_shape`, optional
    eps : float, optional
        By default the distance from 1 to the next number of the dtype.

    Notes
    -----
    Source: Zhang and Sennrich 2019, eq. 4.
    """
    x, weight = _rms_norm_inputs(x, normalized_shape, weight)
    return apply(_rms_norm_op, x, weight, eps=float(np.finfo(x.dtype).eps) if eps is None else eps)


def _layer_norm_inputs(
    x: Operand, normalized_shape: int | Sequence[int], weight: Operand | None, bias: Operand | None
) -> tuple[Tensor, Tensor, Tensor]:
    x, shape = _checked("layer_norm", x, normalized_shape, weight, bias)
    weight = _filled(x, shape, 1) if weight is None else weight
    bias = _filled(x, shape, 0) if bias is None else bias
    return x, _as_dtype(weight, x), _as_dtype(bias, x)


def _rms_norm_inputs(
    x: Operand, normalized_shape: int | Sequence[int], weight: Operand | None
) -> tuple[Tensor, Tensor]:
    x, shape = _checked("rms_norm", x, normalized_shape, weight)
    return x, _as_dtype(_filled(x, shape, 1) if weight is None else weight, x)


def _checked(
    name: str, x: Operand, normalized_shape: int | Sequence[int], *affine: Operand | None
) -> tuple[Tensor, tuple[int, ...]]:
    x = as_tensor(x)
    shape = (normalized_shape,) if isinstance(normalized_shape, (int, np.integer)) else tuple(normalized_shape)
    if x.dtype.kind != "f":
        raise TypeError(f"{name} needs floating numbers, got {x.dtype}; convert them with astype")
    if not shape or x.shape[-len(shape) :] != shape:
        raise ValueError(f"{name}: normalized_shape {shape} must be the last axes of x, whose shape is {x.shape}")
    for given in affine:
        if given is not None and np.shape(given.data if isinstance(given, Tensor) else given) != shape:
            raise ValueError(f"{name}: weight and bias must have the shape {shape} of the normalised axes")
    return x, shape


def _filled(x: Tensor, shape: tuple[int, ...], value: int) -> Tensor:
    return Tensor._wrap(Storage(namespace(x._storage.array).full(shape, value, dtype=x.dtype)))


def _as_dtype(t: Operand, x: Tensor) -> Tensor:
    return ops.astype(t, x.dtype)
