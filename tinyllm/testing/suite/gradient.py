"""An answer's backward pass, or the tape's where it is written with Tensors, held against its own forward pass."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyllm.autograd import Tensor, backend
from tinyllm.testing.gradcheck import gradcheck
from tinyllm.testing.problem import Array
from tinyllm.testing.report import GradCheckError, GradCheckReport
from tinyllm.testing.suite.answer import Answer, Case, is_floating
from tinyllm.testing.suite.compare import label
from tinyllm.testing.suite.outcome import Broken


def hold_gradient(answer: Answer, case: Case) -> None:
    """Check the gradient at one point; raises `Broken` with gradcheck's diagnosis."""
    names = [n for n, v in case.items() if isinstance(v, np.ndarray)]
    values = [case[n] for n in names]
    if answer.single or (answer.backward is not None and _gives_single(answer, case)):
        values = [v.astype(np.float32) if is_floating(v) else v for v in values]
    try:
        with backend("numpy"):
            report = _check(answer, case, names, values)
    except GradCheckError as error:
        raise Broken(f"for {label(case)}: {_message(error)}", _diagnosis(error)) from None
    for note in report.notes:
        if note not in answer.remarks:
            answer.remarks.append(note)


def _check(answer: Answer, case: Case, names: list[str], values: list[Any]) -> GradCheckReport:
    def filled(given: tuple[Any, ...]) -> Case:
        return {**case, **dict(zip(names, given, strict=True))}

    def of_tensors(*given: Any) -> Any:
        return answer.parts(answer.raw(filled(given), tensors=True))[0]

    def of_arrays(*given: Any) -> Array:
        if any(isinstance(v, np.ndarray) and v.dtype.kind == "c" for v in given):
            raise TypeError("answers are not asked to take complex numbers")
        return answer.as_array(answer.raw(filled(given), answer.uses_tensors)).astype(dtype)

    def backward(g: Array, *given: Any) -> tuple[Any, ...]:
        found = answer.gradients(g, filled(given))
        return tuple(_like(v, found.get(n)) for n, v in zip(names, given, strict=True))

    dtype = np.result_type(*(v for v in values if is_floating(v)))
    if answer.backward is None:
        return gradcheck(_named(of_tensors, answer.name, names), *values)
    return gradcheck(_named(of_arrays, answer.name, names), *values, vjp=backward)


def _gives_single(answer: Answer, case: Case) -> bool:
    """Whether the backward pass computes in single precision."""
    g = np.ones(answer(**case).shape)
    found = answer.gradients(g, {n: v.copy() if isinstance(v, np.ndarray) else v for n, v in case.items()})
    return any(d is not None and d.dtype == np.float32 for d in found.values())


def _like(x: Any, d: Array | None) -> Array | None:
    """A gradient in memory of its own and in the dtype of its input: neither is this law's business."""
    if d is None or not is_floating(x) or d.dtype.kind not in "fiu":
        return d
    return d.astype(x.dtype)


def _named(f: Callable[..., Any], name: str, arguments: list[str]) -> Callable[..., Any]:
    """`f` under the names that messages show."""
    f.__name__ = name
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    f.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in arguments])  # type: ignore[attr-defined]
    return f


def _message(error: GradCheckError) -> str:
    """The report without its diagnosis, which is shown apart."""
    lines = str(error).removeprefix("gradcheck: ").splitlines()
    return "\n".join(line for line in lines if not line.strip().startswith(("diagnosis", "(random cotangent")))


def _diagnosis(error: GradCheckError) -> list[str]:
    if error.mismatches:
        return list(error.mismatches[0].diagnosis)
    marked = (line.strip() for line in str(error).splitlines())
    return [line.removeprefix("diagnosis").strip() for line in marked if line.startswith("diagnosis")]


def tape_gradient(answer: Answer, g: Array, case: Case) -> dict[str, Array | None]:
    """The gradients for one cotangent: the answer's own, or the tape's."""
    if answer.backward is not None:
        return answer.gradients(g, case)
    leaves = {n: Tensor(v, requires_grad=True) for n, v in case.items() if is_floating(v)}
    with backend("numpy"):
        answer.parts(answer.raw({**case, **leaves}, tensors=False))[0].backward(g)
    return {n: None if t.grad is None else t.grad.numpy() for n, t in leaves.items()}
