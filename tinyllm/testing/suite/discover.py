"""The answers in a file: functions marked with `@implements`, or of a known name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tinyllm.testing.implements import implementations

SUFFIXES = ("_backward", "_vjp")


@dataclass
class Found:
    """What a file has for one function.

    Attributes
    ----------
    forward, backward : callable or None
    """

    forward: Callable[..., Any] | None = None
    backward: Callable[..., Any] | None = None


def find(namespace: Mapping[str, Any], module: str, known: Iterable[str]) -> dict[str, Found]:
    """The answers among the names of a module, in the order of the file.

    Parameters
    ----------
    namespace : mapping
        ``vars(module)``.
    module : str
        Its name: functions that were imported from elsewhere are nobody's answers.
    known : iterable of str
        The functions that there are laws for.
    """
    names = frozenset(known)
    by_name: dict[str, Found] = {}
    marked: dict[str, Found] = {}
    for name, value in namespace.items():
        if not callable(value):
            continue
        for base, mark in implementations({"_": value}).items():
            _add(marked, base, mark.forward, mark.backward)
            break
        else:
            _by_name(by_name, name, value, names, module)
    for base, claim in marked.items():
        _add(by_name, base, claim.forward, claim.backward)
    return {base: claim for base, claim in by_name.items() if base in names}


def _by_name(found: dict[str, Found], name: str, value: Any, known: frozenset[str], module: str) -> None:
    suffix = "" if name in known else next((s for s in SUFFIXES if name.endswith(s)), "")
    base = name.removesuffix(suffix)
    if base in known and _is_own(value, module):
        _add(found, base, None if suffix else value, value if suffix else None)


def _add(found: dict[str, Found], name: str, forward: Any, backward: Any) -> None:
    entry = found.setdefault(name, Found())
    entry.forward = forward or entry.forward
    entry.backward = backward or entry.backward


def _is_own(value: Any, module: str) -> bool:
    """Whether the file made it: functions and classes know their module, other callables are its own."""
    if inspect.isclass(value):
        return False
    if inspect.isroutine(value) or type(value).__name__ == "ufunc":
        return getattr(value, "__module__", None) == module
    return True
