"""Moving elements about: no arithmetic, so every rule is the movement back."""

from __future__ import annotations

import builtins
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinyllm import buffers
from tinyllm.autograd import ops
from tinyllm.autograd.operands import as_tensor, axis_number, broadcast_shape
from tinyllm.autograd.ops.primitive import primitive
from tinyllm.autograd.tape import Op, apply
from tinyllm.autograd.tensor import Array, Operand, Tensor

Shape = int | Sequence[int]


def _pad_values(xp: Any, x: Array, pad_width: tuple[tuple[int, int], ...], value: float) -> Array:
    return xp.pad(x, pad_width, mode="constant", constant_values=value)


def _part(i: int, g: Tensor, y: Tensor, *xs: Tensor, axis: int) -> Tensor:
    """The slice of a concatenation that came from its i-th part."""
    start = builtins.sum(x.shape[axis] for x in xs[:i])
    return g[(slice(None),) * axis + (slice(start, start + xs[i].shape[axis]),)]


def _concatenate_values(xp: Any, *arrays: Array, axis: int) -> Array:
    if xp is not np:
        return xp.concatenate(arrays, axis=axis)
    shape = list(arrays[0].shape)
    shape[axis] = builtins.sum(a.shape[axis] for a in arrays)
    return np.concatenate(arrays, axis=axis, out=buffers.empty(tuple(shape), arrays[0].dtype))


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that undoes another."""
    return tuple([order.index(i) for i in range(len(order))])


_reshape = primitive("reshape", lambda g, y, x, shape: reshape(g, x.shape), view=True)
_transpose = primitive("transpose", lambda g, y, x, axes: transpose(g, _inverse(axes)), view=True)
_broadcast_to = primitive("broadcast_to", lambda g, y, x, shape: ops.sum_to(g, x.shape), view=True)
_pad = primitive(
    "pad",
    lambda g, y, x, pad_width, value: g[tuple(slice(b, b + n) for (b, _), n in zip(pad_width, x.shape, strict=True))],
    forward=_pad_values,
)
_concatenate = Op("concatenate", _concatenate_values, _part)
_zeros_like = primitive("zeros_like")
_ones_like = primitive("ones_like")


def reshape(x: Operand, shape: Shape) -> Tensor:
    """The same elements in another shape; one length may be -1.

    Raises
    ------
    ValueError
        If the number of elements differs.
    """
    x = as_tensor(x)
    new = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    known = math.prod(n for n in new if n != -1)
    if new.count(-1) == 1 and known and x.size % known == 0:
        new = tuple(x.size // known if n == -1 else n for n in new)
    if -1 in new or math.prod(new) != x.size:
        raise ValueError(f"reshape: {x.shape} has {x.size} elements, which do not fit the shape {shape}")
    return apply(_reshape, x, shape=new)


def transpose(x: Operand, axes: Sequence[int] | None = None) -> Tensor:
    """The axes in another order, reversed by default."""
    x = as_tensor(x)
    order = tuple(range(x.ndim))[::-1] if axes is None else tuple(axis_number(a, x.ndim) for a in axes)
    if sorted(order) != list(range(x.ndim)):
        raise ValueError(f"transpose: axes {axes} are not a permutation of the {x.ndim} axes of shape {x.shape}")
    return apply(_transpose, x, axes=order)


def swapaxes(x: Operand, axis1: int, axis2: int) -> Tensor:
    """Two axes exchanged."""
    x = as_tensor(x)
    order = list(range(x.ndim))
    a, b = axis_number(axis1, x.ndim), axis_number(axis2, x.ndim)
    order[a], order[b] = b, a
    return apply(_transpose, x, axes=tuple(order))


def squeeze(x: Operand, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Without axes of length 1 (all of them, or those named, which must have length 1)."""
    x = as_tensor(x)
    if axis is None:
        drop = {i for i, n in enumerate(x.shape) if n == 1}
    else:
        drop = {axis_number(a, x.ndim) for a in (axis if isinstance(axis, tuple) else (axis,))}
        if any(x.shape[a] != 1 for a in drop):
            raise ValueError(f"squeeze: axis {axis} of shape {x.shape} is not of length 1")
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in drop))


def expand_dims(x: Operand, axis: int | tuple[int, ...]) -> Tensor:
    """With new axes of length 1, which stand at `axis` in the result."""
    x = as_tensor(x)
    given = axis if isinstance(axis, tuple) else (axis,)
    new = {axis_number(a, x.ndim + len(given)) for a in given}
    if len(new) != len(given):
        raise ValueError(f"expand_dims: axis {axis} names an axis twice")
    lengths = iter(x.shape)
    return reshape(x, tuple(1 if i in new else next(lengths) for i in range(x.ndim + len(new))))


def broadcast_to(x: Operand, shape: Shape) -> Tensor:
    """`x` repeated along axes of length 1 and new leading axes, without copying."""
    x = as_tensor(x)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if broadcast_shape("broadcast_to", x.shape, shape) != shape:
        raise ValueError(f"broadcast_to: {x.shape} does not broadcast to {shape}")
    return apply(_broadcast_to, x, shape=shape)


def concatenate(tensors: Sequence[Operand], axis: int = 0) -> Tensor:
    """Tensors joined along an axis that they have; their other lengths are equal.

    Raises
    ------
    ValueError
        If there are none, or their shapes differ elsewhere.
    """
    parts = [as_tensor(t) for t in tensors]
    if not parts:
        raise ValueError("concatenate needs at least one tensor")
    dtype = np.result_type(*(t.dtype for t in parts))
    axis = axis_number(axis, parts[0].ndim)
    shapes = [t.shape for t in parts]
    if len({s[:axis] + s[axis + 1 :] for s in shapes}) != 1 or len({len(s) for s in shapes}) != 1:
        raise ValueError(f"concatenate: shapes {shapes} differ elsewhere than along axis {axis}")
    return apply(_concatenate, *(ops.astype(t, dtype) for t in parts), axis=axis)


def stack(tensors: Sequence[Operand], axis: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis."""
    parts = [as_tensor(t) for t in tensors]
    if len({t.shape for t in parts}) > 1:
        raise ValueError(f"stack: shapes {[t.shape for t in parts]} are not all equal")
    return concatenate([expand_dims(t, axis) for t in parts], axis_number(axis, parts[0].ndim + 1) if parts else 0)


def split(x: Operand, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Cut along an axis into so many equal sections, or before each of the indices.

    Raises
    ------
    ValueError
        If the length is not a multiple of the number of sections.
    """
    x = as_tensor(x)
    axis = axis_number(axis, x.ndim)
    length = x.shape[axis]
    if isinstance(indices_or_sections, (int, np.integer)):
        if indices_or_sections < 1 or length % indices_or_sections:
            raise ValueError(f"split: axis {axis} of length {length} does not divide into {indices_or_sections} parts")
        size = length // indices_or_sections
        cuts = [i * size for i in range(1, indices_or_sections)]
    else:
        cuts = list(indices_or_sections)
    edges = [0, *cuts, length]
    return [x[(slice(None),) * axis + (slice(a, b),)] for a, b in itertools.pairwise(edges)]


def repeat(x: Operand, repeats: int | Sequence[int], axis: int | None = None) -> Tensor:
    """Each element repeated, by one number or by one for each place along `axis` (flattened when None)."""
    x = as_tensor(x)
    if axis is None:
        x, axis = reshape(x, (-1,)), 0
    axis = axis_number(axis, x.ndim)
    places = np.repeat(np.arange(x.shape[axis]), repeats)
    if np.ndim(repeats) == 0 and x.size:
        new = (*x.shape[: axis + 1], int(np.max(repeats)), *x.shape[axis + 1 :])
        copies = broadcast_to(expand_dims(x, axis + 1), new)
        return reshape(copies, (*x.shape[:axis], len(places), *x.shape[axis + 1 :]))
    return x[(slice(None),) * axis + (places,)]


def tile(x: Operand, reps: Shape) -> Tensor:
    """The whole tensor repeated along each axis, as often as `reps` says (right-aligned)."""
    x = as_tensor(x)
    counts = (reps,) if isinstance(reps, int) else tuple(reps)
    ndim = builtins.max(x.ndim, len(counts))
    counts = (1,) * (ndim - len(counts)) + counts
    shape = (1,) * (ndim - x.ndim) + x.shape
    paired = reshape(x, tuple(n for length in shape for n in (1, length)))
    wide = broadcast_to(paired, tuple(n for c, length in zip(counts, shape, strict=True) for n in (c, length)))
    return reshape(wide, tuple(c * length for c, length in zip(counts, shape, strict=True)))


def pad(x: Operand, pad_width: int | Sequence[Any], mode: str = "constant", constant_values: float = 0.0) -> Tensor:
    """Elements added before and after each axis.

    Parameters
    ----------
    x : array_like or Tensor
    pad_width : int, (before, after), or one such pair for each axis
    mode : {"constant", "edge", "reflect", "symmetric", "wrap"}
        What is added: a constant, or existing elements as `numpy.pad` chooses them.
    constant_values : float
    """
    x = as_tensor(x)
    widths = tuple((int(b), int(a)) for b, a in np.broadcast_to(np.asarray(pad_width), (x.ndim, 2)))
    if any(w < 0 for pair in widths for w in pair):
        raise ValueError(f"pad: widths must not be negative, got {pad_width}")
    if mode == "constant":
        return apply(_pad, x, pad_width=widths, value=constant_values)
    if mode not in ("edge", "reflect", "symmetric", "wrap"):
        raise ValueError(f"pad: unknown mode {mode!r}; known: constant, edge, reflect, symmetric, wrap")
    for i, pair in enumerate(widths):
        places = np.pad(np.arange(x.shape[i]), pair, mode=mode)  # type: ignore[call-overload]
        x = x[(slice(None),) * i + (places,)]
    return x


def flip(x: Operand, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """The order of the elements reversed along `axis` (along all when None)."""
    x = as_tensor(x)
    axes = (
        range(x.ndim)
        if axis is None
        else [axis_number(a, x.ndim) for a in (axis if isinstance(axis, tuple) else (axis,))]
    )
    return x[tuple(slice(None, None, -1) if i in axes else slice(None) for i in range(x.ndim))]


def roll(x: Operand, shift: int, axis: int | None = None) -> Tensor:
    """Elements moved on by `shift` places; those that leave at the end come in at the beginning."""
    x = as_tensor(x)
    if axis is None:
        return reshape(roll(reshape(x, (-1,)), shift, 0), x.shape)
    axis = axis_number(axis, x.ndim)
    places = np.roll(np.arange(x.shape[axis]), shift)
    return x[(slice(None),) * axis + (places,)]


def tril(x: Operand, k: int = 0) -> Tensor:
    """Zero above the k-th diagonal of the last two axes."""
    x = as_tensor(x)
    return ops.where(_lower(x, k), x, x.dtype.type(0))


def triu(x: Operand, k: int = 0) -> Tensor:
    """Zero below the k-th diagonal of the last two axes."""
    x = as_tensor(x)
    return ops.where(_lower(x, k - 1), x.dtype.type(0), x)


def _lower(x: Tensor, k: int) -> ArrayLike:
    if x.ndim < 2:
        raise ValueError(f"tril and triu need at least two axes, got shape {x.shape}")
    return np.tri(x.shape[-2], x.shape[-1], k, dtype=bool)


def zeros_like(x: Operand) -> Tensor:
    """Zeros of the shape and dtype of `x`."""
    return apply(_zeros_like, x)


def ones_like(x: Operand) -> Tensor:
    """Ones of the shape and dtype of `x`."""
    return apply(_ones_like, x)
