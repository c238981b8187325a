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


def settle(found: Sequence[Estimates]) -> Estimates:
    """The best value, its error, and its step, from estimates at many steps: (N,) each.

    From the smallest step upwards the more certain of two estimates that agree is kept, until one contradicts it:
    then something lies between the points of the larger steps (a kink, an edge of the domain, a bend), and the smaller
    are believed. The errors are bounds, so that an estimate that is off by more than both contradicts.
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
    best, best_error, best_step = value[0], error[0], step[0]
    contradicted = np.zeros(best.shape, dtype=bool)
    for v, e, h in zip(value[1:], error[1:], step[1:], strict=True):
        with np.errstate(invalid="ignore"):
            contradicted |= np.isfinite(e) & (np.abs(v - best) > e + best_error)
        adopt = ~contradicted & (e <= best_error)
        best, best_error, best_step = (
            np.where(adopt, new, old) for new, old in ((v, best), (e, best_error), (h, best_step))
        )
    return Estimates(best, best_error, best_step)


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
