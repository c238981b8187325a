"""Gradients cut down to a bound, before the step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from tinyllm.autograd.settings import choose_kernel
from tinyllm.autograd.tensor import Array, Tensor, namespace


def clip_grad_norm_(params: Iterable[Tensor] | Tensor, max_norm: float, norm_type: float = 2.0) -> float:
    """Scale all gradients together so that their common norm is at most `max_norm`.

    The factor is ``max_norm / (norm + 1e-6)`` where that is below 1. The directions of the steps stay as they are.

    Parameters
    ----------
    params : iterable of Tensors, or one
        Those without a gradient are passed over.
    max_norm : float
    norm_type : float
        The p of the norm of all gradients taken as one vector; ``inf`` for their largest absolute value.

    Returns
    -------
    float
        The norm before; 0 if there is no gradient; NaN or inf if any element is.

    Raises
    ------
    ValueError
        If `max_norm` is negative or `norm_type` not positive.

    Notes
    -----
    Source: Pascanu, Mikolov and Bengio 2013, algorithm 1.
    """
    if not max_norm >= 0 or not norm_type > 0:
        raise ValueError(f"max_norm must not be negative and norm_type positive, got {max_norm} and {norm_type}")
    grads = _gradients(params)
    norm = _norm([g._storage.array for g in grads], norm_type)
    factor = max_norm / (norm + 1e-6)
    if not factor >= 1:  # a NaN spreads to all of them, as in PyTorch
        for g in grads:
            with np.errstate(invalid="ignore"):  # inf times 0, of which the norm tells
                g._storage.array *= factor
            g._storage.cell[0] += 1
    return norm


def clip_grad_value_(params: Iterable[Tensor] | Tensor, clip_value: float) -> None:
    """Bring every element of every gradient into [-`clip_value`, `clip_value`].

    Parameters
    ----------
    params : iterable of Tensors, or one
        Those without a gradient are passed over.
    clip_value : float

    Raises
    ------
    ValueError
        If `clip_value` is negative.
    """
    if not clip_value >= 0:
        raise ValueError(f"clip_value must not be negative, got {clip_value}")
    for g in _gradients(params):
        array = g._storage.array
        namespace(array).clip(array, -clip_value, clip_value, out=array)
        g._storage.cell[0] += 1


def _gradients(params: Iterable[Tensor] | Tensor) -> list[Tensor]:
    """The gradients, each once."""
    given = [params] if isinstance(params, Tensor) else list(params)
    return [g for g in {id(p): p.grad for p in given}.values() if g is not None]


def _norm(grads: list[Array], norm_type: float) -> float:
    """The norm of all elements together, in float64: squares of float32 overflow at 2e19."""
    if norm_type == math.inf:
        return max((float(abs(g).max()) for g in grads if g.size), default=0.0)
    if norm_type == 2:
        return math.sqrt(sum(_sum_of_squares(g) for g in grads))
    return sum(float((abs(g.astype(np.float64)) ** norm_type).sum()) for g in grads) ** (1 / norm_type)


def _sum_of_squares(g: Array) -> float:
    if choose_kernel(("numpy", "numba"), g) == "numba":
        from tinyllm.kernels.cpu.adamw import sum_of_squares

        return sum_of_squares(np.require(g.ravel(order="K"), requirements="W"))
    return float(namespace(g).square(g, dtype=np.float64).sum())
