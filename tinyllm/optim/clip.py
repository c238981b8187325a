"""Gradients cut down to a bound, before the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tinyllm.autograd.settings import choose_kernel
from tinyllm.autograd.tensor import Array, Tensor, namespace
from tinyllm.optim.ranges import over_ranges


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
    arrays = [g._storage.array for g in grads]
    norm = math.sqrt(sum_of_squares(arrays)) if norm_type == 2 else _other_norm(arrays, norm_type)
    factor = clip_factor(norm, max_norm)
    if factor != 1:  # a NaN spreads to all of them, as in PyTorch
        _scale(arrays, factor)
        for g in grads:
            g._storage.cell[0] += 1
    return norm


def clip_factor(norm: float, max_norm: float) -> float:
    """What gradients of this common norm are multiplied by, so that it is at most `max_norm`.

    ``opt.step(scale=clip_factor(norm, max_norm))`` is clipping and step in one pass.
    """
    factor = max_norm / (norm + 1e-6)
    return 1.0 if factor >= 1 else factor


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


def sum_of_squares(arrays: Sequence[Array]) -> float:
    """The sum of the squares of all elements, in float64: those of float32 overflow at 2e19."""
    if not arrays:
        return 0.0
    if not all(type(a) is np.ndarray for a in arrays):
        return float(sum(namespace(a).square(a, dtype=np.float64).sum() for a in arrays))  # read once, at the end
    squares = _squares(max(arrays, key=lambda a: a.size))
    flat = [a.ravel(order="K") for a in arrays]  # any order will do
    return sum(over_ranges(lambda i, begin, end: squares(flat[i][begin:end]), [a.size for a in flat]))


def _squares(largest: Array) -> Callable[[Array], float]:
    if choose_kernel(("numpy", "numba"), largest) == "numba":
        from tinyllm.kernels.cpu import adamw

        return adamw.sum_of_squares
    return lambda x: float(np.square(x, dtype=np.float64).sum())


def _other_norm(arrays: Sequence[Array], norm_type: float) -> float:
    if norm_type == math.inf:
        return max((float(abs(a).max()) for a in arrays if a.size), default=0.0)
    return sum(float((abs(a.astype(np.float64)) ** norm_type).sum()) for a in arrays) ** (1 / norm_type)


def _scale(arrays: Sequence[Array], factor: float) -> None:
    """Multiply all of them, in place."""
    whole = [a for a in arrays if type(a) is not np.ndarray or not a.flags.c_contiguous]
    flat = [a.reshape(-1) for a in arrays if type(a) is np.ndarray and a.flags.c_contiguous]

    def piece(i: int, begin: int, end: int) -> None:
        with np.errstate(invalid="ignore"):  # inf times 0, of which the norm tells
            flat[i][begin:end] *= factor

    over_ranges(piece, [a.size for a in flat])
    for a in whole:
        with np.errstate(invalid="ignore"):
            a *= factor
