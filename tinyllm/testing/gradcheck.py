"""`gradcheck`: hold a claimed derivative against the function it is said to be the derivative of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tinyllm.autograd import Tensor, ops
from tinyllm.autograd import vjp as tensor_vjp
from tinyllm.testing.bench import prepare
from tinyllm.testing.blame import mismatch
from tinyllm.testing.check import check_arguments
from tinyllm.testing.problem import Problem, describe, of_arrays, of_tensors, quiet, short_name
from tinyllm.testing.report import ArgumentReport, GradCheckReport, Mismatch, failure
from tinyllm.testing.stencil import typical_size


def gradcheck(
    f: Callable[..., Any],
    *inputs: Any,
    vjp: Callable[..., Any] | None = None,
    order: int = 1,
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = 0,
) -> GradCheckReport:
    """Check the gradient of `f` against derivatives computed from its values alone.

    Besides the numbers, it checks that two runs agree, that no input is changed, that shapes and dtypes of the
    gradients are those of the inputs, that nothing is NaN, and that a vjp returns no memory that it shares with others.
    Where `f` has a kink the claim must be a subgradient, and the report says so. float32 functions are judged by the
    order at which the remainder of the Taylor expansion vanishes.

    Parameters
    ----------
    f : callable
        Of Tensors, to a Tensor, whose derivative is the tape's; or, when `vjp` is given, of arrays to an array.
    *inputs : array_like or Tensor
        The point. Those of floating dtype are differentiated; others (ids, masks, strings) are handed on as they are.
        Elements that are infinite (a mask of -inf) stay where they are.
    vjp : callable, optional
        ``vjp(g, *inputs)``: a tuple with the gradient of ``sum(g * f(*inputs))`` for each input, None where it is not
        differentiable.
    order : int
        2 checks the gradient of the gradient as well (for functions of Tensors).
    rtol, atol : float, optional
        Tolerances granted on top of the estimated numerical errors; none by default.
    seed : int
        Of the random cotangents and directions.

    Returns
    -------
    GradCheckReport

    Raises
    ------
    GradCheckError
        With the argument, the index, both values, the estimated error, and a diagnosis.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([0.5, -2.0])
    >>> report = gradcheck(np.sin, x, vjp=lambda g, x: (g * np.cos(x),))
    >>> gradcheck(np.sin, x, vjp=lambda g, x: (-g * np.cos(x),))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    tinyllm.testing.report.GradCheckError: ... the sign is wrong
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order}")
    if vjp is not None and order == 2:
        raise ValueError(
            "order=2 needs a function of Tensors; for a backward pass written by hand, check it as a function of its "
            "own: gradcheck(lambda g, x: my_vjp(g, x)[0], g, x, vjp=its_vjp)"
        )
    problem = of_tensors(f, inputs) if vjp is None else of_arrays(f, vjp, inputs)
    arguments, notes, wrong = _run(problem, 1, rtol, atol, seed)
    evaluations = problem.evaluations
    if wrong:
        raise failure(wrong, seed)
    if order == 2:
        for place, argument in enumerate(problem.active):
            inner = _gradient_as_function(f, problem, place, seed)
            more, said, wrong = _run(inner, 2, rtol, atol, seed)
            arguments += [replace(a, argument=f"{a.argument} of d{short_name(argument, problem.names)}") for a in more]
            notes += said
            evaluations += inner.evaluations
            if wrong:
                raise failure(wrong, seed)
    return GradCheckReport(problem.name, tuple(arguments), tuple(dict.fromkeys(notes)), evaluations)


def _run(
    problem: Problem, order: int, rtol: float | None, atol: float | None, seed: int
) -> tuple[list[ArgumentReport], list[str], list[Mismatch]]:
    bench, g = prepare(problem, rtol, atol, np.random.default_rng(seed))
    outcomes = check_arguments(bench, g)
    notes = [note for outcome in outcomes for note in outcome.notes]
    checked = {outcome.argument for outcome in outcomes}
    notes += [f"{problem.label(i)} has no gradient (None): not checked" for i in problem.active if i not in checked]
    wrong = [mismatch(bench, outcome, g, order) for outcome in outcomes if outcome.wrong]
    return [outcome.report(bench, order) for outcome in outcomes], notes, wrong


def _gradient_as_function(f: Callable[..., Tensor], problem: Problem, place: int, seed: int) -> Problem:
    """The gradient for one argument as a function of the cotangent and of all inputs."""
    y = problem.value()
    rng = np.random.default_rng(seed + 1)
    finite = np.isfinite(y)
    g = np.where(finite, rng.uniform(0.5, 1.5, y.shape) * rng.choice([-1.0, 1.0], y.shape), 0.0)
    active = problem.active
    with quiet():
        claimed = problem.pull(g.astype(y.dtype), problem.copies())[place]
    undefined = np.isnan(np.zeros(()) if claimed is None else claimed)  # 0 * inf: there is no derivative there

    def gradient(g: Tensor, *given: Any) -> Tensor:
        def of_active(*chosen: Tensor) -> Tensor:
            filled = list(given)
            for i, x in zip(active, chosen, strict=True):
                filled[i] = x
            return f(*filled)

        _, pull = tensor_vjp(of_active, *(given[i] for i in active))
        d = pull(g)[place]
        return ops.where(undefined, math.inf, d) if undefined.any() else d

    inner = of_tensors(gradient, [g.astype(y.dtype), *problem.values])
    inner.name = f"the gradient of {problem.name} ({describe(active[place], problem.names)})"
    inner.scale = float(np.max(np.abs(y), initial=0.0, where=finite)) / typical_size(problem.values[active[place]])
    inner.names = ("g", *(short_name(i, problem.names) for i in range(len(problem.values))))
    return inner
