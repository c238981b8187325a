"""Dropout (F-DROP): a random operation whose key is on the tape."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyllm import buffers
from tinyllm.autograd.operands import as_tensor
from tinyllm.autograd.ops.elementwise import astype
from tinyllm.autograd.ops.shape import zeros_like
from tinyllm.autograd.random import Key, next_key, uniform
from tinyllm.autograd.tape import Kernel, Op, apply
from tinyllm.autograd.tensor import Array, Operand, Tensor, namespace


def dropout_factor(xp: Any, key: Key, shape: tuple[int, ...], p: float, dtype: np.dtype) -> Array:
    """0 with probability `p`, else ``1 / (1 - p)``: what dropout multiplies by. The same key gives the same factors."""
    return (uniform(xp, key, shape) >= xp.float32(p)).astype(dtype) * dtype.type(1 / (1 - p))


def _ref(x: Tensor, p: float, key: Key) -> Tensor:
    return x * Tensor(dropout_factor(namespace(x._storage.array), key, x.shape, p, x.dtype))


# Dropout is linear and diagonal, so it is its own adjoint, with the same key.


def _kernel(values: Callable[[Array, float, Key], Array]) -> Kernel:
    return Kernel(
        lambda x, p, key: (values(x, p, key), None),
        lambda needs, g, y, saved, x, p, key: (values(g, p, key),),
    )


def _numpy_values(x: Array, p: float, key: Key) -> Array:
    return x * dropout_factor(namespace(x), key, x.shape, p, x.dtype)


@functools.cache
def _numba() -> Kernel:
    from tinyllm.autograd.fused.rows import divided
    from tinyllm.kernels.cpu import dropout as kernels

    def values(x: Array, p: float, key: Key) -> Array:
        out = buffers.empty(x.shape, x.dtype)
        rows = np.ascontiguousarray(x).reshape(len(x) if x.ndim else 1, -1)
        words = np.array([key.seed & 0xFFFFFFFF, key.seed >> 32 & 0xFFFFFFFF, key.step, key.layer], dtype=np.uint64)
        to = out.reshape(rows.shape)
        divided(
            lambda i, j: kernels.dropout(rows[i:j], words, key.sample + i, float(p), 1 / (1 - p), to[i:j]),
            rows,
        )
        return out

    return _kernel(values)


_dropout = Op("dropout", ref=_ref, impls={"numpy": functools.cache(lambda: _kernel(_numpy_values)), "numba": _numba})


def dropout(x: Operand, p: float = 0.5, training: bool = True, rng: np.random.Generator | None = None) -> Tensor:
    """Each element zero with probability `p`, the others divided by ``1 - p`` (F-DROP).

    Parameters
    ----------
    x : array_like or Tensor, floating
    p : float in [0, 1]
    training : bool
        False: `x` unchanged.
    rng : numpy.random.Generator, optional
        Needed outside a `random_scope`; one number is drawn from it, the key of the mask.

    Raises
    ------
    ValueError
        If `p` is not a probability, or there is no source of randomness.

    Notes
    -----
    Source: Srivastava et al. 2014, section 4 (there the scaling is at test time).
    """
    x = as_tensor(x)
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p must be between 0 and 1, got {p}")
    if not training or p == 0:
        return x
    if p == 1:
        return x * zeros_like(x)
    return apply(_dropout, astype(x, x.dtype if x.dtype.kind == "f" else np.float64), p=p, key=next_key(rng))
