"""From a wrong number to a report: what else can be said about it, and which operation is to blame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tinyllm.autograd import Tensor
from tinyllm.autograd.tape import Node, apply, reachable
from tinyllm.testing.bench import Bench, prepare
from tinyllm.testing.check import Outcome, check_arguments
from tinyllm.testing.diagnosis import Evidence, diagnose
from tinyllm.testing.judge import judge
from tinyllm.testing.probes import single_probe
from tinyllm.testing.problem import Array, Problem, of_tensors
from tinyllm.testing.report import GradCheckError, Mismatch

# Elements whose numerical gradient is computed for a diagnosis when the check itself left them out.
SAMPLE = 160
SAMPLE_WORK = 5e6
# Nodes of the tape that are checked one by one to find the wrong rule.
NODES = 64


def mismatch(bench: Bench, outcome: Outcome, g: Array, order: int) -> Mismatch:
    """The element of an outcome that is furthest off, with a diagnosis."""
    worst = outcome.worst_first()[0]
    problem, shape = bench.problem, outcome.claimed.shape
    _sample(bench, outcome, g)
    with np.errstate(invalid="ignore"):
        difference = np.nan_to_num(np.abs(outcome.claimed - outcome.numerical), nan=0.0, posinf=0.0)
        difference *= difference > 40 * outcome.error + 1e-6 * np.abs(outcome.numerical)
    if difference.any():  # seen in the gradient itself: more telling than one entry of the Jacobian
        flat = int(np.argmax(difference))
        claimed, value, error = (float(a.flat[flat]) for a in (outcome.claimed, outcome.numerical, outcome.error))
        worst = replace(worst, index=flat, output=None, claimed=claimed, value=value, error=error)
    index = tuple(int(i) for i in np.unravel_index(worst.index, shape))
    inputs = [(problem.label(i), v) for i, v in enumerate(problem.values) if isinstance(v, (np.ndarray, Tensor))]
    evidence = Evidence(
        x=problem.values[outcome.argument],
        label=problem.label(outcome.argument),
        y=bench.y,
        g=g,
        claimed=outcome.claimed,
        numerical=outcome.numerical,
        error=outcome.error,
        doubled=_claim(bench, outcome.argument, 2 * g),
        terms=_terms(bench, outcome, g, index),
        index=index,
        inputs=[(name, np.asarray(v.data if isinstance(v, Tensor) else v)) for name, v in inputs],
    )
    return Mismatch(
        op=_culprit(problem) if order == 1 else problem.name,
        order=order,
        argument=problem.label(outcome.argument),
        index=index,
        output=None if worst.output is None else tuple(int(i) for i in np.unravel_index(worst.output, bench.y.shape)),
        claimed=worst.claimed,
        numerical=worst.value,
        error=worst.error,
        wrong=len({w.index for w in outcome.wrong}),
        compared=0 if outcome.method.startswith("projections") else outcome.claimed.size,
        diagnosis=tuple(diagnose(evidence)),
    )


def _claim(bench: Bench, argument: int, g: Array) -> Array:
    found = bench.pull(g)[bench.problem.active.index(argument)]
    assert found is not None
    return found


def _sample(bench: Bench, outcome: Outcome, g: Array) -> None:
    """If the check compared only sums, compute the numerical gradient along the lines through a wrong element."""
    if np.isfinite(outcome.numerical).any():
        return
    shape, size = outcome.claimed.shape, outcome.claimed.size
    at = np.unravel_index(outcome.wrong[0].index, shape)
    chosen = [outcome.wrong[0].index]
    count = int(np.clip(SAMPLE_WORK / size, 8, 48))
    for axis, n in enumerate(shape):
        line = [np.full(min(n, count), i) for i in at]
        line[axis] = np.unique(np.linspace(0, n - 1, min(n, count)).astype(int))
        chosen += list(np.ravel_multi_index(tuple(np.broadcast_arrays(*line)), shape))
    chosen += list(bench.rng.integers(size, size=count))
    for index in list(dict.fromkeys(int(i) for i in chosen))[:SAMPLE]:
        probe = single_probe(bench, outcome.argument, index, g, float(outcome.claimed.flat[index]), 0.0)
        verdict = judge(bench, probe, 0.0, False)
        outcome.numerical.flat[index], outcome.error.flat[index] = verdict.value[0], verdict.error[0]


def _terms(bench: Bench, outcome: Outcome, g: Array, index: tuple[int, ...]) -> Array:
    """What each output contributes to the true gradient at `index`: ``g * dy / dx[index]``."""
    x = bench.problem.values[outcome.argument]
    step = np.zeros(x.shape)
    step[index] = 2.0 ** (np.floor(np.log2(np.abs(x[index]) or 1.0)) - 8)
    offset = step.astype(x.dtype)
    width = float((x[index] + offset[index]) - (x[index] - offset[index]))
    return g * (bench.at(outcome.argument, offset) - bench.at(outcome.argument, -offset)) / width


def _culprit(problem: Problem) -> str:
    """The operation whose rule is wrong: each node of the tape is checked alone, from the last one back."""
    if problem.record is None:
        return problem.name
    nodes = reachable(problem.record())
    own = [node.op.name for node in nodes]
    if len(set(own)) == 1:
        return own[0] if problem.name == "<lambda>" else problem.name
    for node in nodes[:NODES]:
        if _is_wrong(node):
            return f"{node.op.name} (inside {problem.name})"
    return problem.name


def _is_wrong(node: Node) -> bool:
    needed = [i for i, need in enumerate(node.needs) if need]
    fixed: Sequence[Any] = node.inputs

    def alone(*tensors: Tensor) -> Tensor:
        filled = list(fixed)
        for i, t in zip(needed, tensors, strict=True):
            filled[i] = t
        return apply(node.op, *filled, **node.params)

    try:
        bench, g = prepare(of_tensors(alone, [fixed[i].numpy() for i in needed]), None, None, np.random.default_rng(0))
        return any(outcome.wrong for outcome in check_arguments(bench, g))
    except GradCheckError:
        return True
    except (TypeError, ValueError):  # an operation that cannot be computed again by itself
        return False
