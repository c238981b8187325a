"""How operands become Tensors that fit each other: copies of arrays, bare numbers, broadcasting and mixed dtypes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyllm.autograd.settings import settings
from tinyllm.autograd.tensor import Operand, Storage, Tensor, namespace
from tinyllm.device import upload


def axis_number(axis: int, ndim: int) -> int:
    """An axis counted from 0, as NumPy counts it.

    Raises
    ------
    numpy.exceptions.AxisError
        If there is no such axis.
    """
    if not -ndim <= axis < ndim:
        raise np.exceptions.AxisError(axis, ndim)
    return axis % ndim


_Number = (bool, int, float, np.generic)


def as_tensors(operands: Sequence[Operand]) -> tuple[Tensor, ...]:
    """Operands as Tensors. Arrays are copied, as they may be needed later; bare numbers take the others' dtype."""
    for x in operands:
        if type(x) is not Tensor:
            break
    else:
        return operands  # type: ignore[return-value]
    strong = [x if type(x) is Tensor else as_tensor(x, operands) for x in operands if not isinstance(x, _Number)]
    rest = iter(strong)
    return tuple([_number(x, strong) if isinstance(x, _Number) else next(rest) for x in operands])


def as_tensor(x: Operand, like: Sequence[Operand] = ()) -> Tensor:
    """`x` as a Tensor; an array, a list or a number comes to where the Tensors in `like` live."""
    if isinstance(x, Tensor):
        return x
    for t in like:
        if isinstance(t, Tensor) and type(t._storage.array) is not np.ndarray:
            return Tensor(upload(x, t._storage.array))
    return Tensor(x)


def beside(t: Tensor, like: Tensor) -> Tensor:
    """Ids or a mask where `like` is: being inputs, they may come from the host."""
    array = like._storage.array
    if type(array) is np.ndarray or type(t._storage.array) is not np.ndarray or t.dtype.kind == "f":
        return t
    return Tensor(upload(t._storage.array, array))


def _number(x: Any, strong: list[Tensor]) -> Tensor:
    """A bare number as a 0-d Tensor of the dtype that NumPy would compute in, Python's and NumPy's numbers alike."""
    if not strong:
        return Tensor(x)
    value = x.item() if isinstance(x, np.generic) else x
    like = strong[0]._storage.array
    dtype = like.dtype
    if len(strong) > 1 or dtype.kind != "f":  # else the number simply takes that dtype
        dtype = np.result_type(*(t.dtype for t in strong), value)
    if type(like) is not np.ndarray:  # the number goes with the call, where a 0-d array would be a copy
        return Tensor._wrap(Storage(namespace(like).full((), value, dtype=dtype)))
    return Tensor._wrap(Storage(np.asarray(value, dtype=dtype)))


def meet(name: str, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Bring the operands that need a gradient to one dtype and one shape, by steps that are on the tape themselves.

    Their adjoints (`astype` back, `sum_to`) undo it on the way back, so that no rule has to know of either. Operands
    that need none are left to NumPy's own broadcasting.
    """
    for t in inputs:
        if t._requires_grad:
            break
    else:
        t = inputs[0]
    like = t._storage.array
    shape, dtype = like.shape, like.dtype
    for t in inputs:
        a = t._storage.array
        if a.dtype != dtype or (a.shape != shape and (a.ndim or t._requires_grad)):
            break
    else:
        return inputs
    shape = broadcast_shape(name, *(t.shape for t in inputs))
    dtypes = [t.dtype for t in inputs if t.dtype.kind != "b"]
    dtype = np.result_type(*dtypes) if dtypes else np.dtype(bool)
    met = []
    for t in inputs:
        if t.dtype != dtype and t.dtype.kind != "b":
            t = ops.astype(t, dtype)
        if t._requires_grad and t.shape != shape and settings.recording:
            t = ops.broadcast_to(t, shape)
        met.append(t)
    return tuple(met)


def broadcast_shape(name: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that `shapes` broadcast to; the error prints them right-aligned with the clashing axes marked."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        pass
    ndim = max(len(s) for s in shapes)
    columns = [[""] * (ndim - len(s)) + [str(n) for n in s] for s in shapes]
    clash = [len({c[i] for c in columns} - {"", "1"}) > 1 for i in range(ndim)]
    width = [max(len(c[i]) for c in columns) for i in range(ndim)]
    rows = ["  ".join(c[i].rjust(width[i]) for i in range(ndim)) for c in columns]
    marks = "  ".join(("^" * width[i] if clash[i] else " " * width[i]) for i in range(ndim))
    axes = ", ".join(str(i - ndim) for i in range(ndim) if clash[i])
    lines = "\n".join(f"    {r}" for r in [*rows, marks.rstrip()])
    raise ValueError(f"{name}: shapes do not broadcast (axis {axes}):\n{lines}") from None


# Broadcasting and conversions are operations on the tape like any other.
from tinyllm.autograd import ops  # noqa: E402
