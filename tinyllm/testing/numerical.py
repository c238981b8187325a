"""The vector-Jacobian product from values alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tinyllm.autograd import Tensor
from tinyllm.testing.bench import Bench, bench_of
from tinyllm.testing.judge import judge
from tinyllm.testing.probes import find_pairing, paired_probes
from tinyllm.testing.problem import Array, Problem, as_value, of_tensors


def numerical_vjp(f: Callable[..., Any], g: Any, *inputs: Any) -> tuple[Array | None, ...]:
    """The gradient of ``sum(g * f(*inputs))`` by a five-point stencil with Richardson's extrapolation.

    Where the structure of `f` allows (every element of an element-wise function, every row of a softmax), many elements
    are moved at once; otherwise the function is evaluated some 14 times for each element of the inputs.

    Parameters
    ----------
    f : callable
        Called with Tensors if any of the inputs is a Tensor, else with the inputs as they are.
    g : array_like of the result's shape
        The cotangent.
    *inputs : array_like or Tensor

    Returns
    -------
    tuple of arrays
        One in the shape of every input of floating dtype, None for the others.

    Examples
    --------
    >>> import numpy as np
    >>> (d,) = numerical_vjp(np.sin, 1.0, np.array(0.0))
    >>> round(float(d), 12)
    1.0
    """
    problem = _without_claims(f, inputs)
    bench = bench_of(problem, 0.0, 0.0, np.random.default_rng(0))
    cotangent = np.asarray(g.numpy() if isinstance(g, Tensor) else g, dtype=float)
    if cotangent.shape != bench.y.shape:
        raise ValueError(f"the cotangent has shape {cotangent.shape}, but the result has shape {bench.y.shape}")
    results: list[Array | None] = [None] * len(inputs)
    for i in problem.active:
        results[i] = gradient_from_values(bench, i, np.where(bench.finite, cotangent, 0.0))[0]
    return tuple(results)


def gradient_from_values(bench: Bench, argument: int, g: Array) -> tuple[Array, Array]:
    """The numerical gradient with respect to one argument, and its estimated errors."""
    x = bench.problem.values[argument]
    value, error = np.zeros(x.shape), np.full(x.shape, np.inf)
    if not (x.size and bench.y.size):
        return value, np.zeros(x.shape)
    unknown = np.zeros(x.shape)
    for probe in paired_probes(bench, argument, find_pairing(bench, argument), [g], unknown, unknown):
        verdict = judge(bench, probe, typical=0.0, patient=False)
        if not np.all(verdict.error <= bench.eps**0.5 * np.abs(verdict.value)):
            size = float(np.max(np.abs(verdict.value), initial=0.0, where=np.isfinite(verdict.value)))
            verdict = judge(bench, replace(probe, claimed=verdict.value), typical=size)
        assert probe.sources is not None
        value.flat[probe.sources], error.flat[probe.sources] = verdict.value, verdict.error
    return np.where(np.isfinite(error), value, np.nan), error


def _without_claims(f: Callable[..., Any], inputs: tuple[Any, ...]) -> Problem:
    if any(isinstance(x, Tensor) for x in inputs):
        return of_tensors(f, inputs)
    pairs = [as_value(x) for x in inputs]
    active = tuple(i for i, (_, floating) in enumerate(pairs) if floating)
    return Problem("f", (), [v for v, _ in pairs], active, lambda given: np.array(f(*given)), lambda g, given: [])
