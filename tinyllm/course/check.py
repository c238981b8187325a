"""What a learner hears about an answer: what is right, what is wrong, the likely mistake, and hints."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinyllm.course.exercise import Exercise, ExerciseError, get
from tinyllm.testing.suite.answer import Answer
from tinyllm.testing.suite.checks import bound, guarded
from tinyllm.testing.suite.report import failure
from tinyllm.testing.suite.run import FAILURES, Check

STRICT = "TINYLLM_STRICT"  # set where chapters are tested: a wrong answer must not pass unnoticed
WIDTH = 112
SHOWN = 2  # failures that are told in full; the others are named


@dataclass(frozen=True)
class Report:
    """What was found out about an answer.

    Attributes
    ----------
    exercise : Exercise
    checks : list of Check
    """

    exercise: Exercise
    checks: list[Check]

    @property
    def ok(self) -> bool:
        """Whether every law holds."""
        return not any(check.status in FAILURES for check in self.checks)

    @property
    def likely(self) -> list[str]:
        """The likely mistakes, each once."""
        return list(dict.fromkeys(said for check in self.checks for said in check.likely))

    def __str__(self) -> str:
        name, failed = self.exercise.name, [c for c in self.checks if c.status in FAILURES]
        passed = len(self.checks) - len(failed)
        head = "right" if self.ok else "not right yet"
        lines = [f"{name}: {head} ({passed} of {len(self.checks)} checks pass)"]
        marks = {True: "WRONG", False: "ok"}
        width = max(len(check.law) for check in self.checks) + 2
        lines += [f"  {c.law:<{width}}{marks[c.status in FAILURES]:<7}{c.says}" for c in self.checks]
        for check in failed[:SHOWN]:
            lines += ["", *(part for line in failure(check) for part in _wrapped(line))]
        if failed:
            lines += ["", f'hint("{name}") gives a hint, hint("{name}", 2) and hint("{name}", 3) say more.']
        return "\n".join(lines)


def _wrapped(line: str) -> list[str]:
    """A line in pieces that a notebook shows without a scroll bar."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(line, WIDTH, subsequent_indent=indent, drop_whitespace=False) if len(line) > WIDTH else [line]


def examine(answer: Callable[..., Any], name: str | None = None) -> Report:
    """Run the laws of an exercise on a function, in float64.

    Parameters
    ----------
    answer : callable
        Named as the exercise is.
    name : str, optional
        The exercise, where the function bears another name.

    Returns
    -------
    Report

    Raises
    ------
    ExerciseError
        If no exercise has this name.
    """
    if not callable(answer):
        raise ExerciseError(f"check takes the function that you wrote, not {type(answer).__name__}: check(my_function)")
    exercise = get(name or str(getattr(answer, "__name__", "")))
    path = getattr(getattr(answer, "__code__", None), "co_filename", "")
    judged = Answer(exercise.name, exercise.topic, answer, None)
    checks = []
    for law in exercise.every_law:
        runnable = bound(law, judged)
        outcome = guarded(runnable.run, path)
        likely = outcome.get("likely", [])
        checks.append(Check(exercise.name, law.__name__, runnable.says, outcome["status"], outcome["message"], likely))
    return Report(exercise, checks)


def check(answer: Callable[..., Any]) -> None:
    """Examine the function that you wrote and print what is right, what is wrong, and the likely mistake.

    Parameters
    ----------
    answer : callable
        It bears the name of the exercise.

    Raises
    ------
    ExerciseError
        If there is no exercise of this name.
    """
    report = examine(answer)
    print(report)
    if STRICT in os.environ and not report.ok:
        raise AssertionError(f"the chapter's own answer to {report.exercise.name} is wrong")


def hint(name: str, level: int = 1) -> None:
    """Print a hint for an exercise: level 1, 2 or 3, each says more.

    Raises
    ------
    ExerciseError
        If there is no such exercise, or no such level.
    """
    hints = get(name).hints
    if level not in range(1, len(hints) + 1):
        raise ExerciseError(f"there are {len(hints)} hints, asked for hint {level!r}")
    print(f"hint {level} of {len(hints)}: {hints[level - 1]}")
