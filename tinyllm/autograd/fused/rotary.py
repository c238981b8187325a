"""Rotary positions (RoPE), as one operation."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinyllm.autograd import ops
from tinyllm.autograd.operands import as_tensor, axis_number
from tinyllm.autograd.tape import Kernel, Op, apply
from tinyllm.autograd.tensor import Array, Operand, Tensor, namespace

# The operation takes x (N, T, M, D), and cosines and sines (N or 1, T, D/2).


def _turn(x: Any, cos: Array, sin: Array, concatenate: Any) -> Any:
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    cos, sin = cos[:, :, None], sin[:, :, None]  # (N or 1, T, 1, D/2): the same for all M
    return concatenate([first * cos - second * sin, second * cos + first * sin], -1)


def _ref(x: Tensor, cos: Array, sin: Array) -> Tensor:
    xp = namespace(x._storage.array)
    return _turn(x, xp.asarray(cos), xp.asarray(sin), ops.concatenate)


def _forward(x: Array, cos: Array, sin: Array) -> tuple[Array, None]:
    xp = namespace(x)
    return _turn(x, xp.asarray(cos), xp.asarray(sin), xp.concatenate), None


# A turn is orthogonal: its adjoint is the turn back.
def _vjp(needs: tuple[bool], g: Array, y: Array, saved: None, x: Array, cos: Array, sin: Array) -> tuple[Array]:
    xp = namespace(g)
    return (_turn(g, xp.asarray(cos), -xp.asarray(sin), xp.concatenate),)


@functools.cache
def _numba() -> Kernel:
    from tinyllm.kernels.cpu.rotary import rotate as kernel

    def turned(x: Array, cos: Array, sin: Array) -> Array:
        out = np.empty(x.shape, x.dtype)
        kernel(np.ascontiguousarray(x), cos, sin, out)
        return out

    return Kernel(
        lambda x, cos, sin: (turned(x, cos, sin), None),
        lambda needs, g, y, saved, x, cos, sin: (turned(g, cos, -sin),),
    )


_rotary = Op("rotary", ref=_ref, impls={"numpy": lambda: Kernel(_forward, _vjp), "numba": _numba})


def rotary_tables(
    positions: ArrayLike, frequencies: ArrayLike, scale: float = 1.0, *, dtype: DTypeLike = np.float32
) -> tuple[Array, Array]:
    """``scale cos(t f)`` and ``scale sin(t f)`` for every position t and frequency f: what `rotate` takes.

    Parameters
    ----------
    positions : (..., T)
    frequencies : (D/2,)
        Radians per position, of each pair of channels.
    scale : float
        The turned vectors are longer by so much.
    dtype : dtype
        Of the result; the angles are computed in float64.

    Returns
    -------
    two arrays (..., T, D/2)
    """
    angles = np.asarray(positions, np.float64)[..., None] * np.asarray(frequencies, np.float64)
    return (scale * np.cos(angles)).astype(dtype), (scale * np.sin(angles)).astype(dtype)


def rotate(x: Operand, cos: Array, sin: Array, *, axis: int = -2) -> Tensor:
    """Turn channels i and i + D/2 by the angles whose cosines and sines are given, one for each position.

    Parameters
    ----------
    x : (..., T, ..., D), floating
        Queries or keys, D even.
    cos, sin : (T, D/2), or (..., T, D/2) whose leading axes broadcast to those of `x` before T
    axis : int
        Which axis of `x` is T.

    Returns
    -------
    Tensor of the shape of `x`

    Raises
    ------
    ValueError
        If D is odd, `axis` is the last one, or the tables do not fit.

    Notes
    -----
    Source: Su et al. 2021, section 3.4.2. Pairs of channels as in Hugging Face's Llama; the paper pairs neighbours.
    """
    x, axis = _checked(x, axis)
    shape, half = x.shape, x.shape[-1] // 2
    lead, T = shape[:axis], shape[axis]
    if cos.shape != sin.shape or cos.shape[-2:] != (T, half):
        raise ValueError(f"rotate: x {shape} needs cosines and sines (..., {T}, {half}), got {cos.shape}, {sin.shape}")
    N = 1 if math.prod(cos.shape[:-2]) == 1 else math.prod(lead)
    cos, sin = (
        np.ascontiguousarray(np.broadcast_to(t, (*lead, T, half)) if N > 1 else t, x.dtype).reshape(N, T, half)
        for t in (cos, sin)
    )
    flat = ops.reshape(x, (math.prod(lead), T, math.prod(shape[axis + 1 : -1]), 2 * half))
    return ops.reshape(apply(_rotary, flat, cos=cos, sin=sin), shape)


def rotary(x: Operand, base: float = 10000.0, *, offset: int = 0, axis: int = -2) -> Tensor:
    """Turn channels i and i + D/2 by ``t base^(-2 i / D)``, so that q . k depends on the distance of the two alone.

    Parameters
    ----------
    x : (..., T, ..., D), floating
        Queries or keys, D even.
    base : float
    offset : int
        Position of the first token: the length of a cache.
    axis : int
        Which axis is T.

    Returns
    -------
    Tensor of the shape of `x`

    Raises
    ------
    ValueError
        If D is odd, or `axis` is the last one.

    Notes
    -----
    Source: Su et al. 2021, section 3.2. Pairs of channels as in Hugging Face's Llama; the paper pairs neighbours.
    """
    x, axis = _checked(x, axis)
    half = x.shape[-1] // 2
    frequencies = float(base) ** (-np.arange(half) / half)
    return rotate(x, *rotary_tables(offset + np.arange(x.shape[axis]), frequencies, dtype=x.dtype), axis=axis)


def _checked(x: Operand, axis: int) -> tuple[Tensor, int]:
    x = as_tensor(x)
    if x.dtype.kind != "f":
        raise TypeError(f"rotary needs floating numbers, got {x.dtype}; convert them with astype")
    if x.ndim < 2 or x.shape[-1] % 2:
        raise ValueError(f"rotary turns pairs of channels: x must have shape (..., T, ..., D), D even, got {x.shape}")
    axis = axis_number(axis, x.ndim)
    if axis == x.ndim - 1:
        raise ValueError("rotary: the last axis is the channels, it cannot be the positions")
    return x, axis
