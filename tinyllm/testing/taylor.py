"""The order at which the remainder of a Taylor expansion vanishes: 2 with the right gradient, 1 with a wrong one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyllm.testing.problem import Array, of_arrays, of_tensors, quiet


def remainder_order(steps: Array, remainders: Array, noise: Array) -> float:
    """The median slope of log(remainder) against log(step), over the steps at which it stands out of the noise.

    Infinite when it stands out at fewer than three steps: the remainder is zero as far as can be seen.
    """
    order = np.argsort(steps, kind="stable")
    steps, remainders, noise = steps[order], remainders[order], noise[order]
    seen = np.isfinite(remainders) & (remainders > 4 * noise) & (remainders > 0)
    if seen.sum() < 3:
        return np.inf
    steps, remainders = np.log2(steps[seen]), np.log2(remainders[seen])
    distinct = np.diff(steps) > 0.5
    if not distinct.any():
        return np.inf
    return float(np.median((np.diff(remainders) / np.where(distinct, np.diff(steps), 1.0))[distinct]))


def taylor_order(f: Callable[..., Any], *inputs: Any, vjp: Callable[..., Any] | None = None, seed: int = 0) -> float:
    """The order p in ``|f(x + t d) - f(x) - t f'(x) d| = O(t^p)``: 2 with the right gradient, 1 with a wrong one.

    All inputs are moved at once, in a random direction, and the outputs are summed with random weights. No tolerance
    is needed, which makes it the test for float32.

    Parameters
    ----------
    f, *inputs, vjp, seed
        As in :func:`gradcheck`.

    Returns
    -------
    float
        The measured order; infinite where no remainder stands out of the rounding errors (a linear function).

    Examples
    --------
    >>> import numpy as np, tinyllm as tl
    >>> round(taylor_order(tl.exp, np.array([0.3, -1.2])))
    2
    """
    problem = of_tensors(f, inputs) if vjp is None else of_arrays(f, vjp, inputs)
    rng = np.random.default_rng(seed)
    y = problem.value()
    g = rng.uniform(0.5, 1.5, y.shape) * rng.choice([-1.0, 1.0], y.shape)
    with quiet():
        claimed = problem.pull(g.astype(y.dtype), problem.copies())
    directions, slope = {}, 0.0
    for i, d in zip(problem.active, claimed, strict=True):
        x = problem.values[i]
        usual = float(np.median(np.abs(x[x != 0]))) if np.any(x) else 1.0
        direction = rng.uniform(0.5, 1.5, x.shape) * rng.choice([-1.0, 1.0], x.shape)
        directions[i] = (direction * 2.0 ** np.floor(np.log2(usual))).astype(x.dtype)
        slope += 0.0 if d is None else float(np.sum(np.asarray(d, dtype=float) * directions[i]))
    eps = max(float(np.finfo(a.dtype).eps) for a in (y, *directions.values()))
    steps = 2.0 ** -np.arange(1.0, 24.0)
    remainders, noise = [], []
    for t in steps:
        values = problem.copies()
        for i, direction in directions.items():
            values[i] = values[i] + (t * direction).astype(direction.dtype)
        with quiet():
            moved = problem.call(values).astype(float)
            remainders.append(abs(float(np.sum(g * (moved - y))) - t * slope))
            noise.append(2 * eps * float(np.sum(np.abs(g) * np.maximum(np.abs(moved), np.abs(y)))))
    return remainder_order(steps, np.array(remainders), np.array(noise))
