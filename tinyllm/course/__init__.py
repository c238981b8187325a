"""The course: chapters that are stepped through, exercises that answer back, and what a teacher needs.

In a chapter, ``check(answer)`` examines a function that the reader wrote, and ``hint("name")`` helps on. A teacher
makes the student edition with `tinyllm course student` and grades a class with `tinyllm course grade`.
"""

from tinyllm.course.check import Report, check, examine, hint
from tinyllm.course.exercise import Exercise, exercises
from tinyllm.course.formula import formula
from tinyllm.course.pace import budget, is_fast
from tinyllm.course.show import show

__all__ = ["Exercise", "Report", "budget", "check", "examine", "exercises", "formula", "hint", "is_fast", "show"]
