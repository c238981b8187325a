"""Whose parameter is which: the arguments of the library's function found among those of an answer.

An answer may call its parameters what it likes (`gamma` for `weight`) and leave optional ones out. A parameter is
recognised by its name; those that are not are taken in the library's order.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyllm.testing.suite.outcome import Broken

REQUIRED: Any = object()


@dataclass(frozen=True)
class Argument:
    """One argument of a function that is checked.

    Attributes
    ----------
    name : str
        In the library.
    others : tuple of str
        What answers call it, in lower case.
    default : object
        Left out when it has this value; `REQUIRED` if there is none.
    optional : bool
        An answer need not take it, whatever its value (`eps` may be written into the code).
    named : bool
        Recognised by its name only, never by its place.
    """

    name: str
    others: tuple[str, ...] = ()
    default: Any = REQUIRED
    optional: bool = False
    named: bool = False

    def may_lack(self, value: Any) -> bool:
        """Whether `value` need not be handed on."""
        if self.optional:
            return True
        return not isinstance(value, np.ndarray) and self.default is not REQUIRED and bool(value == self.default)


class Parameters:
    """An answer's parameters, each with the argument that it stands for.

    Parameters
    ----------
    function : callable
    arguments : sequence of Argument
        Of the library's function.
    leading : int
        Parameters of the answer that come before them: 1 for a backward pass, whose first is the cotangent.
    """

    def __init__(self, function: Callable[..., Any], arguments: Sequence[Argument], leading: int = 0) -> None:
        self.arguments = {a.name: a for a in arguments}
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):  # not written in Python
            parameters = []
        self.open = not parameters or any(p.kind is p.VAR_POSITIONAL for p in parameters)
        fixed = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        if not self.open and len(fixed) < leading + 1:
            raise Broken(f"it takes {len(fixed)} argument(s), and {leading + 1} or more are handed to it")
        self.found = self._match(fixed[leading:])

    def _match(self, parameters: list[inspect.Parameter]) -> dict[str, inspect.Parameter]:
        """The parameter for each argument that has one."""
        found: dict[str, inspect.Parameter] = {}
        unnamed = []
        for p in parameters:
            name = next((a.name for a in self.arguments.values() if p.name.lower() in (a.name, *a.others)), None)
            if name is not None and name not in found:
                found[name] = p
            elif p.default is p.empty:
                unnamed.append(p)
        free = [a for a in self.arguments.values() if a.name not in found and not a.named]
        if len(unnamed) > len(free):
            extra = ", ".join(p.name for p in unnamed[len(free) :])
            raise Broken(
                f"it demands more than it can be given: {extra}",
                [f"the arguments are ({', '.join(self.arguments)}), optional ones may be left out"],
            )
        found.update({a.name: p for a, p in zip(free, unnamed, strict=False)})
        return found

    def takes(self, name: str) -> bool:
        """Whether an argument can be handed on."""
        return name in self.found or (self.open and not self.arguments[name].named)

    def accepts(self, case: Mapping[str, Any]) -> bool:
        """Whether a call with these arguments is one that the answer provides for."""
        left_out = all(self.takes(n) or self.arguments[n].may_lack(v) for n, v in case.items())
        return left_out and all(n in case or p.default is not p.empty for n, p in self.found.items())

    def fill(self, case: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments for a case that is accepted."""
        if self.open and not self.found:
            return [v for n, v in case.items() if not self.arguments[n].may_lack(v)], {}
        given = {n: v for n, v in case.items() if n in self.found}
        positional, keywords = [], {}
        for name, p in self.found.items():
            if name in given and p.kind is p.POSITIONAL_ONLY:
                positional.append(given[name])
            elif name in given:
                keywords[p.name] = given[name]
        return positional, keywords
