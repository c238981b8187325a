"""An array class that is not NumPy's, as on a GPU: its functions are in a namespace of its own.

A function of the namespace takes foreign arrays, Python numbers and NumPy scalars; an ndarray among the operands is an
error, as it is where arrays live on another device. Only shapes, indices and `asarray` come from the host.
"""

from __future__ import annotations

import operator
from types import ModuleType
from typing import Any

import numpy as np


class Foreign:
    """An array of another library."""

    __array_ufunc__ = None  # NumPy's functions must not take it

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def __array_namespace__(self, api_version: str | None = None) -> ModuleType:
        return namespace

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError("implicit conversion of a foreign array to a NumPy array")

    def get(self) -> np.ndarray:
        """A copy on the host: the one way out."""
        return self._values.copy()

    def __repr__(self) -> str:
        return f"Foreign({self._values})"

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Foreign:
        return wrap(self._values[_index(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self._values[_index(index)] = _operand(value)


def _index(index: Any) -> Any:
    """Indices may come from the host."""
    parts = index if isinstance(index, tuple) else (index,)
    plain = tuple(i._values if isinstance(i, Foreign) else i for i in parts)
    return plain if isinstance(index, tuple) else plain[0]


def _operand(x: Any) -> Any:
    if isinstance(x, Foreign):
        return x._values
    if isinstance(x, np.ndarray):
        raise TypeError("a NumPy array among foreign arrays")
    if isinstance(x, (list, tuple)):
        return type(x)(_operand(y) for y in x)
    return x


def wrap(result: Any) -> Any:
    """NumPy's result as foreign arrays; here, too, 0-d stays an array."""
    if isinstance(result, (np.ndarray, np.generic)):
        return Foreign(np.asarray(result))
    if isinstance(result, (tuple, list)):
        return type(result)(wrap(r) for r in result)
    return result


def to_foreign(x: Any) -> Foreign:
    """A host array moved there."""
    return Foreign(np.array(x))


FROM_HOST = {"array", "asarray", "full", "zeros", "ones", "empty"}


class _Namespace(ModuleType):
    """NumPy's functions, on foreign arrays."""

    class add:
        """The ufunc, with its scatter."""

        def __new__(cls, a: Any, b: Any, **kwargs: Any) -> Any:
            return wrap(np.add(_operand(a), _operand(b), **kwargs))

        @staticmethod
        def at(out: Foreign, index: Any, values: Any) -> None:
            np.add.at(out._values, _index(index), _operand(values))

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)  # AttributeError where NumPy has no such function
        if isinstance(found, type):  # a dtype
            return found
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            if name in FROM_HOST:
                args = tuple(a._values if isinstance(a, Foreign) else a for a in args)
            else:
                args = tuple(_operand(a) for a in args)
            return wrap(found(*args, **{k: _operand(v) for k, v in kwargs.items()}))

        return call


namespace = _Namespace("foreign")


def _operator(f: Any) -> Any:
    return lambda self, other: wrap(f(self._values, _operand(other)))


def _reflected(f: Any) -> Any:
    return lambda self, other: wrap(f(_operand(other), self._values))


def _in_place(f: Any) -> Any:
    def change(self: Foreign, other: Any) -> Foreign:
        self._values = f(self._values, _operand(other))
        return self

    return change


def _method(name: str) -> Any:
    def method(self: Foreign, *args: Any, **kwargs: Any) -> Any:
        return wrap(getattr(self._values, name)(*(_operand(a) for a in args), **kwargs))

    return method


def _host(name: str) -> Any:
    return property(lambda self: getattr(self._values, name))


for _name in ("add", "sub", "mul", "truediv", "pow", "matmul", "and", "or", "xor", "lshift", "rshift"):
    setattr(Foreign, f"__{_name}__", _operator(getattr(operator, f"__{_name}__")))
    setattr(Foreign, f"__r{_name}__", _reflected(getattr(operator, f"__{_name}__")))
for _name in ("iadd", "isub", "imul", "itruediv"):
    setattr(Foreign, f"__{_name}__", _in_place(getattr(operator, f"__{_name}__")))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Foreign, f"__{_name}__", _operator(getattr(operator, _name)))
for _name in (
    "__neg__",
    "__invert__",
    "__abs__",
    "reshape",
    "astype",
    "sum",
    "max",
    "min",
    "mean",
    "copy",
    "all",
    "any",
    "transpose",
):
    setattr(Foreign, _name, _method(_name))
for _name in ("__bool__", "__float__", "__int__", "__index__", "item"):
    setattr(Foreign, _name, lambda self, name=_name: getattr(self._values, name)())
for _name in ("shape", "dtype", "ndim", "size", "strides"):
    setattr(Foreign, _name, _host(_name))
Foreign.T = property(lambda self: wrap(self._values.T))  # type: ignore[attr-defined]
Foreign.mT = property(lambda self: wrap(self._values.mT))  # type: ignore[attr-defined]
Foreign.__hash__ = None  # type: ignore[assignment]
