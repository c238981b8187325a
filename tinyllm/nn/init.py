"""First values of parameters (F-INIT): large enough that signals do not die out, small enough that they do not explode.

Every function takes a shape and a generator and returns an array. The draws are made in float64 and then converted, so
that the same seed gives the same numbers, but for rounding, in every dtype.

A sum of n independent terms has n times the variance of one. So a layer whose n inputs have variance 1 gives outputs of
variance 1 if its weights have variance 1/n: n is `fan_in` on the way forward and `fan_out` on the way back.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike

Shape = tuple[int, ...]
Mode = Literal["fan_in", "fan_out"]


def fans(shape: Shape) -> tuple[int, int]:
    """``(fan_in, fan_out)`` of a weight of shape (out, in) or, for a convolution, (out, in, *kernel).

    Raises
    ------
    ValueError
        If there are fewer than two axes: a vector does not say what it connects.
    """
    if len(shape) < 2:
        raise ValueError(f"a weight of shape (out, in, ...) is needed to know its fans, got {shape}")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def zeros(shape: Shape, *, dtype: DTypeLike = np.float32) -> np.ndarray:
    """All 0."""
    return np.zeros(shape, dtype)


def ones(shape: Shape, *, dtype: DTypeLike = np.float32) -> np.ndarray:
    """All 1."""
    return np.ones(shape, dtype)


def uniform(
    shape: Shape, rng: np.random.Generator, low: float = 0.0, high: float = 1.0, *, dtype: DTypeLike = np.float32
) -> np.ndarray:
    """Uniform in [`low`, `high`): mean (low + high) / 2, variance (high - low)^2 / 12."""
    return rng.uniform(low, high, shape).astype(dtype)


def normal(
    shape: Shape, rng: np.random.Generator, mean: float = 0.0, std: float = 1.0, *, dtype: DTypeLike = np.float32
) -> np.ndarray:
    """Normal with mean `mean` and variance `std`^2."""
    return rng.normal(mean, std, shape).astype(dtype)


def trunc_normal(
    shape: Shape,
    rng: np.random.Generator,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    *,
    dtype: DTypeLike = np.float32,
) -> np.ndarray:
    """Normal with `mean` and `std`, those outside [`a`, `b`] drawn again.

    With the bounds two deviations from the mean the standard deviation is 0.8796 `std`, not `std`.

    Parameters
    ----------
    a, b : float
        The bounds themselves, not multiples of `std`.

    Raises
    ------
    ValueError
        If fewer than one draw in a thousand would fall between the bounds.
    """
    below, above = (0.5 * math.erfc((mean - bound) / (std * math.sqrt(2))) for bound in (a, b))
    if above - below < 1e-3:
        raise ValueError(f"trunc_normal: almost nothing of a normal({mean}, {std}) lies between a={a} and b={b}")
    x = rng.normal(mean, std, shape)
    outside = (x < a) | (x > b)
    while outside.any():
        x[outside] = rng.normal(mean, std, int(outside.sum()))
        outside = (x < a) | (x > b)
    return x.astype(dtype)


def xavier_uniform(
    shape: Shape, rng: np.random.Generator, gain: float = 1.0, *, dtype: DTypeLike = np.float32
) -> np.ndarray:
    """Uniform in +- gain sqrt(6 / (fan_in + fan_out)) (F-INIT): variance gain^2 2 / (fan_in + fan_out).

    The mean of both fans is a compromise: 1 / fan_in keeps the variance forward, 1 / fan_out backward.

    Notes
    -----
    Source: Glorot and Bengio 2010, equation 16.
    """
    bound = gain * math.sqrt(6 / sum(fans(shape)))
    return uniform(shape, rng, -bound, bound, dtype=dtype)


def xavier_normal(
    shape: Shape, rng: np.random.Generator, gain: float = 1.0, *, dtype: DTypeLike = np.float32
) -> np.ndarray:
    """Normal with variance gain^2 2 / (fan_in + fan_out) (F-INIT).

    Notes
    -----
    Source: Glorot and Bengio 2010, equation 12.
    """
    return normal(shape, rng, std=gain * math.sqrt(2 / sum(fans(shape))), dtype=dtype)


def he_uniform(
    shape: Shape,
    rng: np.random.Generator,
    gain: float = math.sqrt(2),
    mode: Mode = "fan_in",
    *,
    dtype: DTypeLike = np.float32,
) -> np.ndarray:
    """Uniform in +- gain sqrt(3 / fan) (F-INIT): variance gain^2 / fan.

    Parameters
    ----------
    gain : float
        sqrt(2) makes up for the half of the signal that ReLU cuts off.
    mode : "fan_in" or "fan_out"
        Whether the variance is kept on the way forward or back.

    Notes
    -----
    Source: He et al. 2015, equations 10 (fan_in) and 14 (fan_out).
    """
    bound = gain * math.sqrt(3 / _fan(shape, mode))
    return uniform(shape, rng, -bound, bound, dtype=dtype)


def he_normal(
    shape: Shape,
    rng: np.random.Generator,
    gain: float = math.sqrt(2),
    mode: Mode = "fan_in",
    *,
    dtype: DTypeLike = np.float32,
) -> np.ndarray:
    """Normal with variance gain^2 / fan (F-INIT); see :func:`he_uniform`.

    Notes
    -----
    Source: He et al. 2015, equations 10 (fan_in) and 14 (fan_out).
    """
    return normal(shape, rng, std=gain / math.sqrt(_fan(shape, mode)), dtype=dtype)


def _fan(shape: Shape, mode: Mode) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"unknown mode {mode!r}; known: 'fan_in', 'fan_out'")
    return fans(shape)[0 if mode == "fan_in" else 1]


def orthogonal(
    shape: Shape, rng: np.random.Generator, gain: float = 1.0, *, dtype: DTypeLike = np.float32
) -> np.ndarray:
    """`gain` times a random matrix with orthonormal rows or columns, whichever are fewer: no direction is stretched.

    A shape of more than two axes is taken as (out, in * kernel). Each element has mean 0 and variance
    gain^2 / max(rows, columns).

    Notes
    -----
    Source: Saxe et al. 2014; the signs after Mezzadri 2007, without which QR's factor is not uniformly distributed.
    """
    if len(shape) < 2:
        raise ValueError(f"orthogonal needs at least two axes, got shape {shape}")
    rows, columns = shape[0], math.prod(shape[1:])
    q, r = np.linalg.qr(rng.normal(size=(max(rows, columns), min(rows, columns))))
    q *= np.where(np.diag(r) < 0, -1.0, 1.0)
    return (gain * (q if rows >= columns else q.T)).reshape(shape).astype(dtype)
