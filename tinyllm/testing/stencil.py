"""Derivatives from values alone: stencils, their extrapolation, and an honest estimate of how wrong they are.

A central difference over a ladder of halved steps, ``c(h) = (f(x + h) - f(x - h)) / 2h``, gives

    the five-point stencil       D(h) = (4 c(h) - c(2h)) / 3         error of order h^4
    Richardson's extrapolation   R(h) = (16 D(h) - D(2h)) / 15       error of order h^6

The difference of two neighbouring R bounds what truncation and noise do to the finer one; to it is added what the
rounding of the function values alone must do. (Fornberg 1988, "Generation of finite difference formulas"; Ridders 1982,
"Accurate computation of F'(x)", for choosing the step by the estimated error.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tinyllm.testing.problem import Array

LEVELS = tuple(2.0**-k for k in range(2, 9))


class Estimates(NamedTuple):
    """Values of a derivative with their estimated errors, one row for each step: (K, N) each."""

    value: Array
    error: Array
    step: Array


def extrapolate(slopes: Array, floors: Array, steps: Array) -> Estimates:
    """Estimates from central differences at steps that halve from row to row.

    Parameters
    ----------
    slopes : (L, N)
        Central differences.
    floors : (L, N)
        What rounding of the function values alone may have done to each.
    steps : (L, N)
        The steps.
    """
    with np.errstate(all="ignore"):
        five_point = (4 * slopes[1:] - slopes[:-1]) / 3
        refined = (16 * five_point[1:] - five_point[:-1]) / 15
        error = np.abs(np.diff(refined, axis=0)) + floors[3:]
    return Estimates(refined[1:], np.where(np.isfinite(error), error, np.inf), steps[3:])


def settle(found: Sequence[Estimates], claimed: Array, coarse: float) -> Estimates:
    """The best value, its error, and its step, from estimates at many steps: (N,) each.

    Where estimates contradict each other although each looks certain, something lies between the points of the larger
    steps (a kink, an edge of the domain): the smaller steps are believed. Where they agree, the most certain is taken.

    Parameters
    ----------
    found : sequence of Estimates
    claimed : (N,)
        Only to tell which errors are large.
    coarse : float
        Estimates with a larger relative error are not used to contradict others.
    """
    value, error, step = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(step, axis=0, kind="stable")
    value, error, step = (np.take_along_axis(a, order, axis=0) for a in (value, error, step))
    if len(value) >= 12:
        # Noise in the values does the more harm the smaller the step: its size is step * error at the small steps,
        # and the median does not fall for two noisy values that happen to agree.
        with np.errstate(invalid="ignore"):
            noise = np.median((step * error)[: len(value) // 2], axis=0)
            error = np.maximum(error, np.where(np.isfinite(noise), noise / step, 0.0))
    least = np.argmin(error, axis=0)[None]
    best, best_error, best_step = (np.take_along_axis(a, least, axis=0)[0] for a in (value, error, step))
    kept, kept_step = np.full(best.shape, np.nan), best_step
    kept_error = np.full(best.shape, np.inf)
    members = np.zeros(best.shape, dtype=int)
    done = np.zeros(best.shape, dtype=bool)
    with np.errstate(invalid="ignore"):
        for v, e, h in zip(value, error, step, strict=True):
            certain = (e <= coarse * np.maximum(np.abs(v), np.abs(claimed))) & ~done
            agrees = np.abs(v - kept) <= 4 * (e + kept_error)
            done |= certain & ~agrees & (members >= 2)
            begin = certain & ~agrees & (members < 2)
            join = certain & agrees
            members = np.where(begin, 1, members + join)
            adopt = begin | (join & (e < kept_error))
            kept, kept_error, kept_step = (
                np.where(adopt, new, old) for new, old in ((v, kept), (e, kept_error), (h, kept_step))
            )
    use = members >= 2
    return Estimates(
        np.where(use, kept, best), np.where(use, kept_error, best_error), np.where(use, kept_step, best_step)
    )


def scales(x: Array) -> Iterator[Array]:
    """Sizes of step to try for each element, likeliest first: powers of two, 0 for elements that cannot be moved."""
    size = np.abs(np.where(np.isfinite(x), x, 0.0).astype(float))
    present = size[size > 0]
    typical = float(np.median(present)) if present.size else 1.0
    movable = np.isfinite(x)

    def power_of_two(s: Array) -> Array:
        return np.where(movable, np.exp2(np.floor(np.log2(s))), 0.0)

    usual = power_of_two(np.maximum(size, typical / 16))
    yield usual
    own = power_of_two(np.where(size > 0, size, typical))
    if not np.array_equal(own, usual):
        yield own
    one = power_of_two(np.ones(x.shape))
    if not np.array_equal(one, usual):
        yield one
    for exponent in (-8, -16, -24, 8):
        yield usual * 2.0**exponent
