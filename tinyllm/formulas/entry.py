"""What one entry of the registry holds, and the small tools that every concept's file uses."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

Vector = Sequence[float]
Matrix = Sequence[Sequence[float]]

DOCUMENTS = {
    "000": "000_4ac81f9a075b5a99.txt",
    "001": "001_f79bc47e8cb6acac.txt",
    "002": "002_53c33e9b6693ac78.txt",
    "003": "003_15c5d46512f3831f.txt",
    "004": "004_860f05fdad413a68.txt",
}


def where(*places: str) -> tuple[tuple[str, str], ...]:
    """(document file name, section) for each place written as ``"000 4.2"``."""
    pairs = (place.split(" ", 1) for place in places)
    return tuple((DOCUMENTS[document], section) for document, section in pairs)


def plain(value: Any) -> Any:
    """`value` with every NumPy array or scalar in it turned into (nested lists of) Python numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return value


def literal(f: Callable[P, R]) -> Callable[P, R]:
    """Let loops written for nested lists take NumPy arrays too.

    A Python float is a float64, so a float32 array is computed in float64 from here on.
    """

    @functools.wraps(f)
    def loops(*args: P.args, **kwargs: P.kwargs) -> R:
        return f(*(plain(a) for a in args), **{name: plain(a) for name, a in kwargs.items()})  # type: ignore[arg-type]

    return loops


@dataclass(frozen=True)
class Erratum:
    """One fault of a document.

    Attributes
    ----------
    fault : str
        What is printed, and why it cannot stand.
    remedy : str
        What is meant, or what the counterpart in the library does instead.
    test : str
        The pytest node that shows the fault, by numbers where numbers can show it.
    show : callable, optional
        Computes the fault anew and says it in one sentence.
    """

    fault: str
    remedy: str
    test: str
    show: Callable[[], str] | None = None


@dataclass(frozen=True)
class Formula:
    """A formula, procedure, code sample or claim of the documents, tied to code, tests and chapter.

    Attributes
    ----------
    id : str
        ``F-`` formula, ``P-`` procedure, ``C-`` code sample, ``E-`` claim of the text that does not hold.
    kind : str
        ``"formula"``, ``"procedure"``, ``"sample"`` or ``"claim"``.
    title, meaning : str
        A few words; a few sentences in plain language.
    where : tuple of (str, str)
        File name and section of every document that has it.
    latex, printed : str
        The formula as meant; and as printed, where that differs.
    axes : str
        What the letters of the shapes count.
    loops, as_printed : tuple of callables
        Literal float64 loops of what is meant, the main one first; and of the erroneous version.
    library : tuple of str
        Dotted names of the library's functions and classes that do the same.
    kernels : tuple of str
        Dotted names of the compiled kernels that it computes with, below ``tinyllm.kernels.cpu``; those for CUDA stand
        in files of the same names.
    tests : tuple of str
        Pytest nodes that hold loops, closed forms and library together.
    chapter : str
        Number of the chapter that steps through it; empty where there is none.
    errata : tuple of Erratum
        The faults.
    source : str
        Paper and section, where the documents only name the formula or where a correction comes from.
    status, reason : str
        ``"complete"``, or ``"open"`` with what is missing.
    """

    id: str
    kind: str
    title: str
    meaning: str
    where: tuple[tuple[str, str], ...]
    latex: str = ""
    printed: str = ""
    axes: str = ""
    loops: tuple[Callable[..., Any], ...] = ()
    as_printed: tuple[Callable[..., Any], ...] = ()
    library: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    chapter: str = ""
    errata: tuple[Erratum, ...] = ()
    source: str = ""
    status: str = "complete"
    reason: str = ""
