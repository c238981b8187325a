"""How a primitive operation is declared: its name, its forward function and one rule per argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyllm.autograd.arrays import LARGE, into_buffer
from tinyllm.autograd.tape import Op
from tinyllm.autograd.tensor import Array, Tensor

Rule = Callable[..., Tensor]


def primitive(
    name: str,
    *vjps: Rule | None,
    forward: Callable[..., Array] | None = None,
    elementwise: bool = False,
    view: bool = False,
    arithmetic: bool = False,
) -> Op:
    """An operation with one rule ``rule(g, y, *inputs, **params)`` per argument.

    Parameters
    ----------
    name : str
        NumPy's name where NumPy has the operation.
    *vjps
        The rules: `g` is the gradient of the output `y`; None for an argument that no gradient passes to. An
        operation without any rule gives results that are cut off from the tape.
    forward : callable, optional
        ``forward(xp, *arrays, **params)`` with `xp` the arrays' namespace; by default the function `name` there.
    elementwise : bool
        Whether the operands are broadcast against each other and brought to one dtype first.
    view : bool
        Whether the result may share memory with the first operand.
    arithmetic : bool
        Whether the rules use operators alone, and never give `g` itself.
    """
    ufunc: Any = getattr(np, name, None)

    def by_name(xp: Any, *arrays: Array, **params: Any) -> Array:
        return getattr(xp, name)(*arrays, **params)

    def by_ufunc(xp: Any, *arrays: Array) -> Array:
        if xp is not np:
            return by_name(xp, *arrays)
        for a in arrays:
            if a.size >= LARGE:
                return into_buffer(ufunc, arrays)
        return ufunc(*arrays)

    named = by_ufunc if isinstance(ufunc, np.ufunc) else by_name
    return Op(name, forward or named, vjps, elementwise=elementwise, view=view, arithmetic=arithmetic)
