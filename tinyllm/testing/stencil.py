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


# An estimated error that grows by this factor with the step ends the search for a better one.
RISE = 30.0
# The relative error of estimates that may contradict others.
CERTAIN = 1e-3


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


def settle(found: Sequence[Estimates], claimed: Array, unsure: Array, typical: float) -> Estimates:
    """The best value, its error, and its step, from estimates at many steps: (N,) each.

    From the smallest step upwards the more certain of two estimates is kept, as long as they agree. When one
    contradicts what is kept by more than both errors, something lies between the points of its steps and the smaller
    ones (a kink, a wave, the resolution of the numbers), and a second cluster of estimates begins. Of several clusters
    the one nearest to the claim is returned: at one scale or another the claim may be right.

    Parameters
    ----------
    found : sequence of Estimates
    claimed : (N,)
    unsure : (N,)
        What may be between a right claim and an exact value.
    typical : float
        The size of a claim.
    """
    value, error, step = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(step, axis=0, kind="stable")
    value, error, step = (np.take_along_axis(a, order, axis=0) for a in (value, error, step))
    with np.errstate(all="ignore"):
        # Noise in the values does the more harm the smaller the step: step * error there is its size, and two noisy
        # values that happen to agree do not make it smaller.
        noise = np.maximum.accumulate(np.where(np.isfinite(error), step * error, 0.0), axis=0)
        error = np.maximum(error, np.nan_to_num(noise / step))
    best, best_error, best_step = value[0], error[0], step[0]
    chosen, distance = Estimates(best, best_error, best_step), np.full(best.shape, np.inf)
    blunt, first = np.zeros(best.shape, dtype=bool), np.ones(best.shape, dtype=bool)
    with np.errstate(invalid="ignore"):

        def closer(before: Estimates, at: Array, where: Array) -> tuple[Estimates, Array]:
            """The choice between what was chosen before and a cluster that is complete."""
            size = np.maximum(np.maximum(np.abs(best), np.abs(claimed)), 1e-3 * typical)
            trusted = where & (first | (best_error <= CERTAIN * size))
            far = np.abs(best - claimed) / (best_error + unsure)
            use = trusted & ~(far >= at)
            picked = (np.where(use, new, old) for new, old in zip((best, best_error, best_step), before, strict=True))
            return Estimates(*picked), np.where(use, far, at)

        for v, e, h in zip(value[1:], error[1:], step[1:], strict=True):
            usable = np.isfinite(e)
            contradicts = usable & (np.abs(v - best) > e + best_error)
            chosen, distance = closer(chosen, distance, contradicts)
            first &= ~contradicts
            # after an error that grew there may be small ones again, from steps over whole waves
            blunt = (blunt | (usable & (e > RISE * best_error))) & ~contradicts
            adopt = contradicts | (~blunt & (e <= best_error))
            best, best_error, best_step = (
                np.where(adopt, new, old) for new, old in ((v, best), (e, best_error), (h, best_step))
            )
        chosen, _ = closer(chosen, distance, np.ones(best.shape, dtype=bool))
    return chosen


def typical_size(x: Array) -> float:
    """The median size of the elements that are neither 0 nor infinite."""
    size = np.abs(x[np.isfinite(x) & (x != 0)])
    return float(np.median(size)) if size.size else 1.0


def scales(x: Array, typical: float) -> Iterator[Array]:
    """Sizes of step to try for each element, likeliest first: powers of two, 0 for elements that cannot be moved."""
    size = np.abs(np.where(np.isfinite(x), x, 0.0).astype(float))
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
