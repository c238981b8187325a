"""Which function of a user's file is meant to be which of the library's: by its name, or by `@implements`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from tinyllm.autograd import fused, ops
from tinyllm.errors import nearest

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__tinyllm_implements__"
_BACKWARD = "_backward"


class Implementation(NamedTuple):
    """A forward function and, if there is one, the backward pass that belongs to it."""

    forward: Callable[..., Any] | None
    backward: Callable[..., Any] | None


# Functions that `tinyllm check` knows beside the operations.
_MORE = ("adam_step", "attention", "positional_encoding", "sgd_step", "sinusoidal_positions")


def known() -> frozenset[str]:
    """The names of the library's differentiable functions, and of the others that `tinyllm check` has laws for."""
    return frozenset(ops.__all__) | frozenset(fused.__all__) | frozenset(_MORE)


def implements(name: str) -> Callable[[F], F]:
    """Mark a function as an answer to one of the library's functions, whatever it is called.

    Parameters
    ----------
    name : str
        Of the library's function, such as ``"layer_norm"``; or ``"layer_norm_backward"`` for the function
        ``(g, *inputs)`` that gives its gradients.

    Raises
    ------
    ValueError
        If the library has no function of that name.

    Examples
    --------
    >>> @implements("softmax")
    ... def my_normaliser(x):
    ...     ...
    """
    if name.removesuffix(_BACKWARD) not in known():
        raise ValueError(f"the library has no function {name!r}{nearest(name.removesuffix(_BACKWARD), known())}")

    def mark(f: F) -> F:
        setattr(f, _MARK, name)
        return f

    return mark


def implementations(namespace: Mapping[str, Any]) -> dict[str, Implementation]:
    """The answers found among the names of a module: marked ones first, else by name.

    Parameters
    ----------
    namespace : mapping
        Such as ``vars(module)``.
    """
    found: dict[str, Callable[..., Any]] = {}
    for name, value in namespace.items():
        if callable(value) and getattr(value, _MARK, None) is None and name.removesuffix(_BACKWARD) in known():
            found[name] = value
    found.update({getattr(v, _MARK): v for v in namespace.values() if callable(v) and hasattr(v, _MARK)})
    return {
        name: Implementation(found.get(name), found.get(name + _BACKWARD))
        for name in sorted({name.removesuffix(_BACKWARD) for name in found})
    }
