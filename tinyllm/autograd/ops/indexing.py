"""Taking elements out and putting them back: `getitem` and `add_at`, `take_along_axis` and `add_along_axis`.

Each pair is one operation and its adjoint. An element that is taken twice gets both gradients.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tinyllm.autograd import ops
from tinyllm.autograd.operands import as_tensor, axis_number
from tinyllm.autograd.ops.primitive import primitive
from tinyllm.autograd.settings import settings
from tinyllm.autograd.sparse import Sparse
from tinyllm.autograd.tape import Op, apply
from tinyllm.autograd.tensor import Array, Operand, Tensor


def _add_at_values(xp: Any, g: Array, index: Any, shape: tuple[int, ...]) -> Array:
    out = xp.zeros(shape, dtype=g.dtype)
    _add_values(out, index, g, xp)
    return out


def _add_values(out: Array, index: Any, g: Array, xp: Any = np) -> None:
    if any(_is_array(i) and i.dtype.kind != "b" for i in index):
        xp.add.at(out, index, g)  # an index may come twice
    else:
        out[index] += g


def _add_along_axis_values(xp: Any, g: Array, indices: Array, shape: tuple[int, ...], axis: int) -> Array:
    out = xp.zeros(shape, dtype=g.dtype)
    places = [xp.arange(n).reshape([-1 if i == j else 1 for j in range(len(shape))]) for i, n in enumerate(g.shape)]
    places[axis] = indices
    xp.add.at(out, tuple(places), g)
    return out


def _add_where_taken(g: Tensor, y: Tensor, x: Tensor, index: Any) -> Tensor:
    """The gradient of ``x[index]``: `g` where the elements were taken, else 0."""
    array = g._storage.array
    if settings.recording or type(array) is not np.ndarray:
        return apply(_add_at, g, index=index, shape=x.shape)
    rows = index[0] if len(index) == 1 and isinstance(index[0], slice) and index[0].step in (None, 1) else None
    return Sparse(
        x.shape,
        x.dtype,
        functools.partial(_add_values, index=index, g=array),
        functools.partial(_write_rows, rows=rows, g=array) if rows is not None else None,
    )


def _write_rows(out: Array, rows: slice, g: Array) -> None:
    """`g` in some consecutive rows, and zeros in those before and after."""
    begin, _, _ = rows.indices(len(out))
    end = begin + len(g)
    out[:begin], out[begin:end], out[end:] = 0, g, 0


_getitem = primitive(
    "getitem",
    _add_where_taken,
    forward=lambda xp, x, index: x[index],
    view=True,
)
_add_at: Op = primitive("add_at", lambda g, y, x, index, shape: getitem(g, index), forward=_add_at_values)
_take_along_axis = primitive(
    "take_along_axis",
    lambda g, y, x, indices, axis: add_along_axis(g, indices, x.shape, axis),
    None,
    forward=lambda xp, x, indices, axis: xp.take_along_axis(x, indices, axis=axis),
)
_add_along_axis = primitive(
    "add_along_axis",
    lambda g, y, x, indices, shape, axis: take_along_axis(g, indices, axis),
    None,
    forward=_add_along_axis_values,
)
_argsort = primitive("argsort")


def _is_array(i: Any) -> bool:
    return hasattr(i, "dtype") and hasattr(i, "shape") and not isinstance(i, np.generic)


def _plain(index: Any) -> tuple[Any, ...]:
    """An index as a tuple of slices, numbers and private arrays."""
    parts = index if isinstance(index, tuple) else (index,)

    def plain(i: Any) -> Any:
        if isinstance(i, Tensor):
            i = i.data
        elif isinstance(i, list):
            i = np.array(i, dtype=None if i else np.intp)
        if not _is_array(i):
            return i
        if i.dtype.kind not in "biu":
            raise TypeError(f"an index holds integers or booleans, not {i.dtype}")
        return i.copy()

    return tuple(plain(i) for i in parts)


def getitem(x: Operand, index: Any) -> Tensor:
    """``x[index]`` with NumPy's basic, integer-array and boolean indexing.

    Raises
    ------
    IndexError
        If an index is out of range, with the shape.
    TypeError
        If an index is not made of integers, booleans, slices, None or an ellipsis.
    """
    x = as_tensor(x)
    try:
        return apply(_getitem, x, index=_plain(index))
    except IndexError as error:
        raise IndexError(f"{error} (the tensor has shape {x.shape})") from None


def add_at(x: Operand, index: Any, shape: tuple[int, ...]) -> Tensor:
    """Zeros of `shape` to which `x` is added at ``[index]``, repeated places adding up: the adjoint of `getitem`."""
    x = as_tensor(x)
    index = _plain(index)
    places = np.broadcast_to(np.empty(()), shape)[index].shape
    if places != x.shape:
        raise ValueError(f"add_at: x has shape {x.shape}, but the index names places of shape {places} in {shape}")
    return apply(_add_at, x, index=index, shape=tuple(shape))


def take_along_axis(x: Operand, indices: Operand, axis: int = -1) -> Tensor:
    """``y[.., i, ..] = x[.., indices[.., i, ..], ..]`` along `axis`; the other axes of `indices` match those of `x`."""
    x, indices = (as_tensor(t) for t in (x, indices))
    axis = axis_number(axis, x.ndim)
    if indices.ndim != x.ndim:
        raise ValueError(f"take_along_axis: indices {indices.shape} need as many axes as x {x.shape}")
    for i, n in enumerate(indices.shape):
        if i != axis and n != x.shape[i]:
            raise ValueError(
                f"take_along_axis: indices {indices.shape} and x {x.shape} differ elsewhere than axis {axis}"
            )
    return apply(_take_along_axis, x, indices, axis=axis)


def add_along_axis(x: Operand, indices: Operand, shape: tuple[int, ...], axis: int = -1) -> Tensor:
    """Zeros of `shape` to which `x` is added at `indices` along `axis`: the adjoint of `take_along_axis`."""
    indices = as_tensor(indices)
    return apply(_add_along_axis, x, indices, shape=shape, axis=axis_number(axis, len(shape)))


def argsort(x: Operand, axis: int = -1) -> Tensor:
    """The indices that sort `x` along `axis`, equal elements in their order."""
    return apply(_argsort, x, axis=axis, kind="stable")


def sort(x: Operand, axis: int = -1) -> Tensor:
    """The values of `x` in ascending order along `axis`; each value's gradient goes where it came from."""
    x = as_tensor(x)
    return take_along_axis(x, argsort(x, axis), axis)


def topk(x: Operand, k: int, axis: int = -1, largest: bool = True) -> tuple[Tensor, Tensor]:
    """The `k` largest (or smallest) values along `axis`, best first, and their indices.

    Raises
    ------
    ValueError
        If there are fewer than `k` values.
    """
    x = as_tensor(x)
    axis = axis_number(axis, x.ndim)
    if not 0 <= k <= x.shape[axis]:
        raise ValueError(f"topk: k={k}, but axis {axis} of shape {x.shape} has {x.shape[axis]} values")
    values = x.detach()
    if largest:  # the reverse of the ascending order of the reversed values: equal values keep their order
        order = (x.shape[axis] - 1) - ops.flip(argsort(ops.flip(values, axis), axis), axis)
    else:
        order = argsort(values, axis)
    best = order[(slice(None),) * axis + (slice(0, k),)]
    return take_along_axis(x, best, axis), best


def one_hot(ids: Operand, num_classes: int, dtype: Any = np.float64) -> Tensor:
    """1 in the place named by each id, 0 elsewhere.

    Parameters
    ----------
    ids : integers, (...)
    num_classes : int
        V, the length of the new last axis.

    Raises
    ------
    IndexError
        If an id is not in ``0 .. num_classes - 1``.
    """
    ids = as_tensor(ids)
    check_ids("one_hot", ids, num_classes)
    return ops.astype(ops.expand_dims(ids, -1) == np.arange(num_classes), dtype)


def check_ids(name: str, ids: Tensor, count: int) -> None:
    """Raise unless `ids` are integers in ``0 .. count - 1``."""
    if ids.dtype.kind not in "iu":
        raise TypeError(f"{name}: ids must be integers, got {ids.dtype}")
    array = ids._ask(f"{name}: checking ids")
    if array.size and (array.min() < 0 or array.max() >= count):
        bad = array[(array < 0) | (array >= count)].reshape(-1)[0]
        raise IndexError(f"{name}: id {int(bad)} is outside the vocabulary 0..{count - 1}")
