"""What an exercise is: the function to be written, how it is judged, the mistakes that are usually made, and hints."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyllm.errors import TinyLLMError, nearest
from tinyllm.testing.suite import laws
from tinyllm.testing.suite.answer import Answer, Case, Topic
from tinyllm.testing.suite.compare import check as hold
from tinyllm.testing.suite.signature import Argument
from tinyllm.testing.suite.table import Law


class ExerciseError(TinyLLMError, LookupError):
    """An exercise that does not exist."""


@dataclass(frozen=True)
class Exercise:
    """A function that the reader of a chapter writes.

    Attributes
    ----------
    name : str
        Of the function; no two exercises share one.
    chapter : str
        The chapter's number, two digits.
    asks : str
        What the function is to do, in a sentence.
    arguments : tuple of str
        Names of its arguments.
    answer : callable
        The right result, from the arguments by name, in float64: built on the loops of `tinyllm.formulas` or on the
        library, never shown to the reader.
    cases : callable
        ``cases(rng)`` gives the arguments to try, as dicts.
    mistakes : tuple of (str, callable)
        At least four usual mistakes: what to say, and a function of the same arguments that makes the mistake.
    hints : tuple of three str
        Each says more than the one before; none is the solution.
    laws : tuple of Law
        What must hold beside the right numbers on `cases` and unchanged inputs; see `law_on`.
    results : int
        How many arrays are returned, as a tuple if more than one.
    points : int
        What it is worth.
    """

    name: str
    chapter: str
    asks: str
    arguments: tuple[str, ...]
    answer: Callable[..., Any]
    cases: Callable[[np.random.Generator], list[Case]]
    mistakes: tuple[tuple[str, Callable[..., Any]], ...]
    hints: tuple[str, str, str]
    laws: tuple[Law, ...] = ()
    results: int = 1
    points: int = 1

    @property
    def topic(self) -> Topic:
        """The same, as the checking suite wants it."""
        arguments = tuple(Argument(name) for name in self.arguments)
        return Topic(arguments, self.answer, self.cases, self.mistakes, self.results)

    @property
    def every_law(self) -> tuple[Law, ...]:
        """What an answer must keep."""
        return (laws.values, laws.unchanged, *self.laws)


def law_on(name: str, says: str, cases: Sequence[Case] | Callable[[], Sequence[Case]], tolerance: float = 1e-9) -> Law:
    """A law: on these cases, too, the result is the right one (extreme values, empty rows, a mask).

    Parameters
    ----------
    name : str
        A Python name.
    says : str
        The law in a sentence.
    cases : sequence of dicts, or a callable that makes it
    tolerance : float
        In units of the largest number expected.
    """

    def law(answer: Answer) -> None:
        for case in cases() if callable(cases) else cases:
            hold(answer, case, tolerance=tolerance)

    law.__name__, law.__doc__ = name, says
    return law


@functools.cache
def exercises() -> dict[str, Exercise]:
    """All exercises by name, in the order of the chapters."""
    package = importlib.import_module("tinyllm.course.questions")
    found: dict[str, Exercise] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
        for exercise in importlib.import_module(f"{package.__name__}.{module}").EXERCISES:
            if exercise.name in found:
                raise ValueError(f"two exercises are called {exercise.name}")
            found[exercise.name] = exercise
    return found


def get(name: str) -> Exercise:
    """One exercise.

    Raises
    ------
    ExerciseError
        If there is none of this name; the nearest is named.
    """
    known = exercises()
    if name not in known:
        raise ExerciseError(f"there is no exercise {name!r}{nearest(name, known)}")
    return known[name]
