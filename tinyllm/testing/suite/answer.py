"""A function to be checked, made uniform: named arguments in, an array out, whatever it is written with."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyllm.autograd import Tensor, backend
from tinyllm.testing.problem import Array, quiet
from tinyllm.testing.suite.outcome import Broken, NotApplicable
from tinyllm.testing.suite.signature import REQUIRED, Argument, Parameters

Case = dict[str, Any]
Wrong = Callable[..., Any]


@dataclass(frozen=True)
class Topic:
    """What is known about one function: what it takes, what it should give, and how it is usually got wrong.

    Attributes
    ----------
    arguments : tuple of Argument
    formula : callable
        The right result for a case, in float64: the loops of `tinyllm.formulas`. None for a function that only a
        teacher's own laws know; it is given arrays.
    cases : callable
        ``cases(rng) ->`` arguments to try, small and of odd shapes.
    mistakes : tuple of (str, callable)
        What to say, and a function that makes the mistake.
    results : int
        How many arrays are returned.
    tuples : bool
        Whether an answer may return more than that, of which the first counts (attention and its weights).
    """

    arguments: tuple[Argument, ...]
    formula: Callable[..., Any] | None
    cases: Callable[[np.random.Generator], list[Case]]
    mistakes: tuple[tuple[str, Wrong], ...] = ()
    results: int = 1
    tuples: bool = False


class Answer:
    """The functions of a file that answer one question.

    Attributes
    ----------
    name : str
        Of the library's function.
    topic : Topic
    forward, backward : callable or None
    remarks : list of str
        What was noticed, and is no fault.
    """

    def __init__(
        self, name: str, topic: Topic, forward: Callable[..., Any] | None, backward: Callable[..., Any] | None
    ) -> None:
        self.name = name
        self.topic = topic
        self._forward = forward
        self.backward = backward
        self.remarks: list[str] = []

    @property
    def forward(self) -> Callable[..., Any]:
        """The function itself."""
        if self._forward is None:
            raise Broken(f"there is {self.name}_backward, and no {self.name} that it could be the derivative of")
        return self._forward

    @functools.cached_property
    def parameters(self) -> Parameters:
        """Of the forward function."""
        return Parameters(self.forward, self.topic.arguments)

    def takes(self, *names: str) -> bool:
        """Whether all these arguments can be handed on."""
        return all(self.parameters.takes(name) for name in names)

    def cases(self) -> list[Case]:
        """Those of the topic's cases that the answer provides for."""
        cases = [c for c in self.topic.cases(np.random.default_rng(7)) if self.parameters.accepts(c)]
        if not cases and self.topic.formula is not None:
            arguments = ", ".join(a.name for a in self.topic.arguments)
            raise Broken(f"its arguments cannot be matched with ({arguments})")
        return cases

    def __call__(self, **case: Any) -> Array:
        """The result for a case, as an array; the answer gets copies."""
        return self.as_array(self.raw(copied(case), self.uses_tensors))

    def raw(self, case: Case, tensors: bool, track: bool = False) -> Any:
        """What the answer returns, given Tensors (with a tape, if `track`) or arrays."""
        if not self.parameters.accepts(case):
            lacking = [n for n, v in case.items() if not (self.takes(n) or self.parameters.arguments[n].may_lack(v))]
            raise NotApplicable(f"takes no {', '.join(lacking)}" if lacking else "demands more arguments")
        if tensors:
            case = {n: Tensor(v, requires_grad=track) if is_floating(v) else v for n, v in case.items()}
        positional, keywords = self.parameters.fill(case)
        with quiet(), backend("numpy"):
            return self.forward(*positional, **keywords)

    def as_array(self, result: Any) -> Array:
        """A result as one array; several are stacked."""
        parts = self.parts(result)
        arrays = [r.numpy() if isinstance(r, Tensor) else np.asarray(r) for r in parts]
        if len(arrays) > 1 and len({a.shape for a in arrays}) > 1:
            raise Broken(f"its results have different shapes: {', '.join(str(a.shape) for a in arrays)}")
        y = arrays[0] if self.topic.results == 1 else np.stack(arrays)
        if y.dtype.kind not in "fiub":
            raise Broken(f"it returned an array of dtype {y.dtype}: floating numbers are expected")
        return y

    def parts(self, result: Any) -> tuple[Any, ...]:
        """The results, in a tuple of the right length."""
        if result is None:
            raise Broken("it returned None", ["a return is missing; one that works in place must return its results"])
        if self.topic.results > 1:
            if not isinstance(result, (tuple, list)) or len(result) != self.topic.results:
                got = f"{len(result)} results" if isinstance(result, (tuple, list)) else type(result).__name__
                raise Broken(f"it must return a tuple of {self.topic.results} arrays, and returned {got}")
            return tuple(result)
        if isinstance(result, tuple):
            if not (self.topic.tuples and result):
                raise Broken(f"it returned a tuple of {len(result)}, where one array is expected")
            return result[:1]
        return (result,)

    @functools.cached_property
    def uses_tensors(self) -> bool:
        """Whether it is written with Tensors: found by calling it with arrays first."""
        if self.topic.formula is None:
            return False
        case = self.cases()[0]
        try:
            result = self.raw(copied(case), tensors=False)
        except Exception:  # NumPy code that fails, or code that needs Tensors?
            try:
                result = self.raw(copied(case), tensors=True)
            except Exception:
                return False
        return isinstance(result[0] if isinstance(result, tuple) and result else result, Tensor)

    @functools.cached_property
    def differentiable(self) -> bool:
        """Whether Tensors go through it, so that the tape has its gradient."""
        if self.uses_tensors:
            return True
        try:
            result = self.raw(copied(self.cases()[0]), tensors=True, track=True)
        except Exception:  # NumPy functions refuse Tensors that have a tape
            return False
        first = result[0] if isinstance(result, tuple) and result else result
        return isinstance(first, Tensor) and first.requires_grad

    def gradients(self, g: Array, case: Case) -> dict[str, Array | None]:
        """What its backward pass gives for each floating argument of a case."""
        assert self.backward is not None
        parameters = Parameters(self.backward, self.topic.arguments, leading=1)
        floating = [n for n, v in case.items() if is_floating(v)]
        if not parameters.accepts(case):
            wanted = ", ".join(["g", *(n for n, v in case.items() if not parameters.arguments[n].may_lack(v))])
            taken = ", ".join(inspect.signature(self.backward).parameters)
            raise Broken(
                f"{self.name}_backward takes ({taken}), and ({wanted}) is expected: "
                "the incoming gradient g first, then what the function itself takes"
            )
        positional, keywords = parameters.fill(case)
        with quiet(), backend("numpy"):
            result = self.backward(g, *positional, **keywords)
        if not isinstance(result, (tuple, list)):
            result = (result,)
        given = [n for n in parameters.found if n in case]
        arrays = [n for n in parameters.found if parameters.arguments[n].default in (REQUIRED, None)]
        names = next((n for n in (floating, given, arrays) if len(n) == len(result)), list(parameters.found))
        if len(result) != len(names):
            raise Broken(
                f"{self.name}_backward returned {len(result)} gradient(s), and one for each of "
                f"{', '.join(floating)} is expected"
            )
        found = dict(zip(names, result, strict=True))
        return {n: _plain(found.get(n)) for n in floating}

    @functools.cached_property
    def single(self) -> bool:
        """Whether it computes in single precision, whatever it is given: judged accordingly, and no fault."""
        from tinyllm.testing.suite.compare import deviation

        case = self.cases()[0]
        y = self(**case)
        if y.dtype == np.float32:
            return True
        expected = np.asarray(self.expected(case), dtype=float)
        return y.shape == expected.shape and 1e-10 < deviation(y, expected).max(initial=0.0) < 1e-5

    def expected(self, case: Case) -> Array:
        """The right result."""
        assert self.topic.formula is not None
        with quiet():
            return np.asarray(self.topic.formula(**self.complete(case)), dtype=float)

    def complete(self, case: Case) -> Case:
        """A case with the defaults of the library written out."""
        return {a.name: case.get(a.name, a.default) for a in self.topic.arguments}


def is_floating(x: Any) -> bool:
    """Whether something is differentiated."""
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"


def copied(case: Case) -> Case:
    """A case whose arrays may be spoiled."""
    return {n: v.copy() if isinstance(v, np.ndarray) else v for n, v in case.items()}


def _plain(d: Any) -> Array | None:
    if d is None:
        return None
    return d.numpy() if isinstance(d, Tensor) else np.asarray(d)
