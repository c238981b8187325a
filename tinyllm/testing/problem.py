"""What is checked, made uniform: arrays in, an array out, and the gradient that is claimed for each floating input."""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from tinyllm.autograd import Tensor, no_grad
from tinyllm.autograd import vjp as tensor_vjp
from tinyllm.testing.report import GradCheckError

Array: TypeAlias = np.ndarray


@dataclass
class Problem:
    """A function at one point, with a claim about its derivative.

    Attributes
    ----------
    name : str
        Of the function.
    names : tuple of str
        Of its arguments.
    values : list
        The arguments; those that are differentiated are arrays, the rest is handed on as it came.
    active : tuple of int
        Which arguments are differentiated.
    call : callable
        ``call(values) -> array``.
    pull : callable
        ``pull(g, values) ->`` the claimed gradient, or None, for each active argument.
    record : callable, optional
        ``record() -> Tensor``, the result with its tape, for functions of Tensors.
    scale : float
        The size that the result has by the sizes of what it is made of; its terms may cancel to less.
    """

    name: str
    names: tuple[str, ...]
    values: list[Any]
    active: tuple[int, ...]
    call: Callable[[list[Any]], Array]
    pull: Callable[[Array, list[Any]], Sequence[Array | None]]
    record: Callable[[], Tensor] | None = None
    scale: float = 0.0
    evaluations: int = 0

    def value(self) -> Array:
        """The result at the point itself; errors of the function are the caller's."""
        self.evaluations += 1
        with quiet():
            return self.call(self.copies())

    def moved(self, argument: int, offset: Array, like: Array) -> Array:
        """The result with one argument moved; NaN where the step leaves the domain of the function."""
        self.evaluations += 1
        x = self.values[argument]
        values = self.copies(but=argument)
        values[argument] = x + (offset if offset.dtype.kind == "c" else offset.astype(x.dtype, copy=False))
        try:
            with quiet():
                y = np.asarray(self.call(values))
        except (ArithmeticError, ValueError):
            return np.full(like.shape, np.nan)
        return y if y.shape == like.shape else np.full(like.shape, np.nan)

    def copies(self, but: int = -1) -> list[Any]:
        """Arguments that the function may spoil without harm to the next call; one that is replaced needs no copy."""
        return [v.copy(order="K") if isinstance(v, np.ndarray) and i != but else v for i, v in enumerate(self.values)]

    def label(self, argument: int) -> str:
        """How an argument is called in a message."""
        return describe(argument, self.names)


def describe(argument: int, names: Sequence[str]) -> str:
    """``argument 1 (weight)``."""
    name = names[argument] if argument < len(names) else ""
    return f"argument {argument} ({name})" if name else f"argument {argument}"


def short_name(argument: int, names: Sequence[str]) -> str:
    """``weight``, or ``input 1`` where the name is not known."""
    return names[argument] if argument < len(names) else f"input {argument}"


@contextmanager
def quiet() -> Iterator[None]:
    """Steps may leave the domain of a function: NaN is answer enough."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def as_value(x: Any) -> tuple[Any, bool]:
    """An argument as an array of its own if it holds floating numbers; and whether it does."""
    if isinstance(x, Tensor):
        return (x.numpy(), True) if x.dtype.kind == "f" else (x, False)
    if isinstance(x, (float, np.floating)) or (isinstance(x, np.ndarray) and x.dtype.kind == "f"):
        return np.array(x), True
    if isinstance(x, (list, tuple)):
        try:
            array = np.asarray(x)
        except ValueError:
            return x, False
        return (array, True) if array.dtype.kind == "f" else (x, False)
    return x, False


def of_tensors(f: Callable[..., Tensor], inputs: Sequence[Any]) -> Problem:
    """A function of Tensors, whose gradient is the tape's."""
    values, active = _split(inputs)

    def fill(tensors: Sequence[Tensor], given: list[Any]) -> list[Any]:
        found = iter(tensors)
        return [next(found) if i in active else v for i, v in enumerate(given)]

    def call(given: list[Any]) -> Array:
        with no_grad():
            y = f(*fill([Tensor(given[i]) for i in active], given))
        if not isinstance(y, Tensor):
            raise TypeError(
                f"{name_of(f)} must return a Tensor, and returned {type(y).__name__}; pick one of several results, "
                "or pass vjp= if this is a function of NumPy arrays"
            )
        return y.numpy()

    def pull(g: Array, given: list[Any]) -> Sequence[Array]:
        _, back = tensor_vjp(lambda *tensors: f(*fill(tensors, given)), *(Tensor(given[i]) for i in active))
        return [d.numpy() for d in back(g)]

    def record() -> Tensor:
        return f(*fill([Tensor(values[i], requires_grad=True) for i in active], values))

    return Problem(name_of(f), names_of(f), values, active, call, pull, record)


def of_arrays(f: Callable[..., Any], vjp: Callable[..., Any], inputs: Sequence[Any]) -> Problem:
    """A function of NumPy arrays with the backward pass that its author wrote."""
    values, active = _split(inputs)

    def call(given: list[Any]) -> Array:
        return np.asarray(f(*given))

    def pull(g: Array, given: list[Any]) -> Sequence[Array | None]:
        before, cotangent = [np.array(given[i]) for i in active], np.array(g)
        result = vjp(cotangent, *given)
        found = _as_tuple(result, len(given))
        for i, old in zip(active, before, strict=True):
            if not np.array_equal(old, given[i], equal_nan=True):
                raise GradCheckError(
                    f"gradcheck: the vjp of {name_of(f)} changed its {describe(i, names)}; it must work on copies"
                )
        if not np.array_equal(cotangent, g, equal_nan=True):
            raise GradCheckError(f"gradcheck: the vjp of {name_of(f)} changed the cotangent g; it must work on a copy")
        chosen = [None if found[i] is None else np.asarray(found[i]) for i in active]
        others = [("the cotangent g", cotangent)]
        others += [(describe(i, names), given[i]) for i in active if isinstance(given[i], np.ndarray)]
        _refuse_aliases(name_of(f), [(describe(i, names), d) for i, d in zip(active, chosen, strict=True)], others)
        return chosen

    names = names_of(f)
    return Problem(name_of(f), names, values, active, call, pull)


def _split(inputs: Sequence[Any]) -> tuple[list[Any], tuple[int, ...]]:
    pairs = [as_value(x) for x in inputs]
    active = tuple(i for i, (_, floating) in enumerate(pairs) if floating)
    if not active:
        kinds = ", ".join(type(x).__name__ for x in inputs) or "none"
        raise ValueError(f"nothing to check: none of the inputs holds floating numbers (given: {kinds})")
    return [v for v, _ in pairs], active


def _as_tuple(result: Any, count: int) -> tuple[Any, ...]:
    if count == 1 and not isinstance(result, (tuple, list)):
        return (result,)
    if not isinstance(result, (tuple, list)) or len(result) != count:
        got = f"{len(result)} results" if isinstance(result, (tuple, list)) else type(result).__name__
        raise GradCheckError(
            "gradcheck: vjp(g, *inputs) must return a tuple with one gradient (or None) for each of the "
            f"{count} inputs, got {got}"
        )
    return tuple(result)


def _refuse_aliases(name: str, found: list[tuple[str, Array | None]], others: list[tuple[str, Array]]) -> None:
    """A gradient that shares writeable memory is changed when somebody adds to its neighbour in place."""
    grads = [(f"the gradient of {label}", d) for label, d in found if d is not None]
    pairs = [(a, b) for a in grads for b in others] + list(itertools.combinations(grads, 2))
    for (label, d), (other, array) in pairs:
        if d.flags.writeable and array.flags.writeable and d.size and array.size and _share(d, array):
            raise GradCheckError(
                f"gradcheck: {label} that the vjp of {name} returns shares its memory with {other}: "
                "whoever adds to one in place changes the other; return a copy"
            )


def _share(a: Array, b: Array) -> bool:
    try:
        return np.shares_memory(a, b, max_work=100_000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return False


def name_of(f: Callable[..., Any]) -> str:
    """The name a function is shown by."""
    inner = getattr(f, "func", f)  # functools.partial
    return getattr(inner, "__name__", type(inner).__name__)


def names_of(f: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the positional arguments, as far as they are known."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return ()
    return tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD))
