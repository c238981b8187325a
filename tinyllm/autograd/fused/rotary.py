"""Rotary positions (RoPE), as one operation."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from tinyllm.autograd import ops
from tinyllm.autograd.operands import as_tensor, axis_number
from tinyllm.autograd.tape import Kernel, Op, apply
from tinyllm.autograd.tensor import Array, Operand, Tensor, namespace

# The operation takes x (N, T, M, D).


def _tables(xp: Any, x: Array, base: float, offset: int) -> tuple[Array, Array]:
    """Cosines and sines (T, D/2), angles computed in float64."""
    half = x.shape[-1] // 2
    angles = (offset + xp.arange(x.shape[1]))[:, None] * base ** (-xp.arange(half) / half)
    return xp.cos(angles).astype(x.dtype), xp.sin(angles).astype(x.dtype)


def _turn(x: Any, cos: Array, sin: Array, concatenate: Any) -> Any:
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    cos, sin = cos[:, None], sin[:, None]  # (T, 1, D/2): the same for all M
    return concatenate([first * cos - second * sin, second * cos + first * sin], -1)


def _ref(x: Tensor, base: float, offset: int) -> Tensor:
    array = x._storage.array
    return _turn(x, *_tables(namespace(array), array, base, offset), ops.concatenate)


def _forward(x: Array, base: float, offset: int) -> tuple[Array, Any]:
    xp = namespace(x)
    tables = _tables(xp, x, base, offset)
    return _turn(x, *tables, xp.concatenate), tables


# A turn is orthogonal: its adjoint is the turn back.
def _vjp(needs: tuple[bool], g: Array, y: Array, tables: Any, x: Array, base: float, offset: int) -> tuple[Array]:
    cos, sin = tables
    return (_turn(g, cos, -sin, namespace(g).concatenate),)


@functools.cache
def _numba() -> Kernel:
    from tinyllm.kernels.cpu.rotary import rotate

    def turned(x: Array, cos: Array, sin: Array) -> Array:
        out = np.empty(x.shape, x.dtype)
        rotate(np.ascontiguousarray(x), cos, sin, out)
        return out

    def forward(x: Array, base: float, offset: int) -> tuple[Array, Any]:
        tables = _tables(np, x, base, offset)
        return turned(x, *tables), tables

    def vjp(needs: tuple[bool], g: Array, y: Array, tables: Any, x: Array, base: float, offset: int) -> tuple[Array]:
        cos, sin = tables
        return (turned(g, cos, -sin),)

    return Kernel(forward, vjp)


_rotary = Op("rotary", ref=_ref, impls={"numpy": lambda: Kernel(_forward, _vjp), "numba": _numba})


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
    x = as_tensor(x)
    if x.dtype.kind != "f":
        raise TypeError(f"rotary needs floating numbers, got {x.dtype}; convert them with astype")
    if x.ndim < 2 or x.shape[-1] % 2:
        raise ValueError(f"rotary turns pairs of channels: x must have shape (..., T, ..., D), D even, got {x.shape}")
    axis = axis_number(axis, x.ndim)
    if axis == x.ndim - 1:
        raise ValueError("rotary: the last axis is the channels, it cannot be the positions")
    shape = x.shape
    flat = ops.reshape(x, (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 : -1]), shape[-1]))
    return ops.reshape(apply(_rotary, flat, base=float(base), offset=offset), shape)
