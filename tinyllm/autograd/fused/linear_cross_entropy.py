"""The last layer of a language model and its loss (F-CE), as one operation that never holds all logits.

The logits (N, V) are the largest array of a training step, and the loss needs each of them once. So they are made for a
few rows at a time: a chunk's logits become the chunk's losses and, since the loss is a plain sum, at once the gradient
of the logits, from which come the chunk's rows of the input's gradient and its part of the weight's. What is stored is
one chunk and the two gradients, which backward only has to scale.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinyllm import buffers
from tinyllm.autograd import ops
from tinyllm.autograd.arrays import matmul
from tinyllm.autograd.fused.cross_entropy import check_classes, cross_entropy
from tinyllm.autograd.fused.linear import linear
from tinyllm.autograd.fused.rows import divided
from tinyllm.autograd.operands import as_tensor, beside
from tinyllm.autograd.settings import is_recording
from tinyllm.autograd.tape import Kernel, Op, apply
from tinyllm.autograd.tensor import Array, Operand, Tensor, namespace

# The operation: x (N, C), weight (V, C), target (N,) -> 0-d, `scale` times the sum of the losses.

# Logits of a chunk: 16 MB of float32, but products of fewer rows than 128 are slow (by a tenth, of 64 by a third).
_CHUNK, _ROWS = 1 << 22, 128
# Rows of the weight's gradient that are added to at a time, while they are in cache.
_BLOCK = 1024


def _ref(
    x: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    scale: float,
    ignore_index: int,
    label_smoothing: float,
    gradients: tuple[bool, bool],
) -> Tensor:
    losses = cross_entropy(x @ weight.mT, target, None, ignore_index, "sum", label_smoothing)
    return losses * scale


def _numpy_slopes(
    logits: Array, target: Array, scale: float, ignore_index: int, label_smoothing: float
) -> tuple[Array, Array]:
    """The losses of some rows, and `scale` times their derivatives."""
    xp = namespace(logits)
    kept = target != ignore_index
    safe = xp.where(kept, target, 0)
    places = xp.arange(len(safe))
    shifted = logits - logits.max(axis=1, keepdims=True)
    logp = shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))
    losses = -(1 - label_smoothing) * logp[places, safe]
    slopes = xp.exp(logp)
    slopes[places, safe] -= 1 - label_smoothing
    if label_smoothing:
        losses = losses - label_smoothing * logp.mean(axis=1)
        slopes -= label_smoothing / logits.shape[1]
    slopes = xp.where(kept[:, None], slopes * scale, 0)
    return xp.where(kept, losses, 0).astype(logits.dtype), slopes.astype(logits.dtype)


def _numba_slopes(
    logits: Array, target: Array, scale: float, ignore_index: int, label_smoothing: float
) -> tuple[Array, Array]:
    from tinyllm.kernels.cpu.cross_entropy import cross_entropy_in_place

    losses = np.empty(len(logits), logits.dtype)

    def of_range(i: int, j: int) -> None:
        cross_entropy_in_place(logits[i:j], target[i:j], label_smoothing, ignore_index, scale, losses[i:j])

    divided(of_range, logits)
    return losses, logits


def _kernel(slopes_of: Callable[..., tuple[Array, Array]]) -> Kernel:
    def forward(
        x: Array,
        weight: Array,
        target: Array,
        *,
        scale: float,
        ignore_index: int,
        label_smoothing: float,
        gradients: tuple[bool, bool],
    ) -> tuple[Array, list[Array | None]]:
        xp = namespace(x)
        total = xp.zeros((), dtype=x.dtype)
        dx, dweight = (_like(a) if need else None for a, need in zip((x, weight), gradients, strict=True))
        for i, j in _chunks(len(x), len(weight)):
            logits = _product(x[i:j], weight.T)
            losses, slopes = slopes_of(logits, target[i:j], scale, ignore_index, label_smoothing)
            total = total + losses.sum()
            if dx is not None:
                _product(slopes, weight, dx[i:j])
            if dweight is not None:
                _product(slopes.T, x[i:j], dweight, more=i > 0)
        with np.errstate(invalid="ignore"):  # 0 times infinity, where no target counts
            return total * scale, [dx, dweight]

    def vjp(
        needs: tuple[bool, ...],
        g: Array,
        y: Array,
        saved: list[Array | None],
        x: Array,
        weight: Array,
        target: Array,
        **params: Any,
    ) -> tuple[Array | None, ...]:
        if not saved:  # given away by an earlier walk over a tape that was kept
            saved = forward(x, weight, target, **params)[1]
        factor = g.item() if type(g) is np.ndarray else g  # a GPU would have to be waited for
        if factor is g:
            return *(d if d is None else d * g for d in saved), None
        grads = [d if d is None or factor == 1 else operator.imul(d, factor) for d in saved]
        saved.clear()
        return *grads, None

    return Kernel(forward, vjp)


def _like(a: Array) -> Array:
    return buffers.empty(a.shape, a.dtype) if type(a) is np.ndarray else namespace(a).empty(a.shape, dtype=a.dtype)


def _chunks(rows: int, classes: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows, of about one length."""
    count = math.ceil(rows / max(_ROWS, _CHUNK // classes))
    ends = [rows * k // count for k in range(count + 1)]
    return itertools.pairwise(ends)


def _product(a: Array, b: Array, out: Array | None = None, more: bool = False) -> Array:
    """``a @ b`` into `out`, or added to what is there."""
    if type(a) is not np.ndarray:
        if out is None:
            return a @ b
        out[...] = out + a @ b if more else a @ b
        return out
    if out is None:
        out = buffers.empty((a.shape[0], b.shape[1]), a.dtype)
    if not more:
        return matmul(a, b, out)

    def add(i: int, j: int) -> None:
        part = buffers.empty((_BLOCK, b.shape[1]), a.dtype)
        for k in range(i, j, _BLOCK):
            block = out[k : min(k + _BLOCK, j)]
            block += np.matmul(a[k : k + len(block)], b, out=part[: len(block)])

    divided(add, out)
    return out


_linear_cross_entropy = Op(
    "linear_cross_entropy",
    ref=_ref,
    impls={"numpy": lambda: _kernel(_numpy_slopes), "numba": functools.cache(lambda: _kernel(_numba_slopes))},
)


def linear_cross_entropy(
    x: Operand,
    weight: Operand,
    target: Operand,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """``cross_entropy(linear(x, weight), target)`` (F-CE) without ever storing all logits.

    Parameters
    ----------
    x : (..., C), floating
    weight : (V, C), floating
        Each row scores a class.
    target : (...), integers
        Class ids.
    ignore_index : int
        Places with this target count for nothing.
    reduction : {"mean", "sum", "none"}
        "mean" divides by the number of targets that count; if none counts it is NaN. "none" gives up the saving: a
        factor for each loss, known in backward only, would come too late.
    label_smoothing : float in [0, 1]
        How much of the target is spread evenly over all classes.

    Returns
    -------
    Tensor
        0-d, or of the shape of the places for ``reduction="none"``.

    Raises
    ------
    ValueError, IndexError, TypeError
        If shapes do not fit, or a class id is outside ``0 .. V - 1``.

    Notes
    -----
    Source of the chunks: Hsu et al. 2024, "Liger Kernel", section 3.2.
    """
    x, weight, target = (as_tensor(t) for t in (x, weight, target))
    dtype = np.result_type(x.dtype, weight.dtype)
    if (
        reduction not in ("mean", "sum")
        or dtype.kind != "f"
        or weight.ndim != 2
        or 0 in (x.size, weight.size)
        or x.shape[-1:] != weight.shape[1:]
        or target.dtype.kind not in "iu"
        or target.shape != x.shape[:-1]
        or not 0 <= label_smoothing <= 1
    ):  # what the two operations know, or refuse
        return cross_entropy(linear(x, weight), target, None, ignore_index, reduction, label_smoothing)
    flat = ops.reshape(ops.astype(target, np.int64), (target.size,))
    counted = check_classes(flat, ignore_index, weight.shape[0])
    scale = 1.0 if reduction == "sum" else 1 / counted if counted else math.inf
    recording = is_recording()
    return apply(
        _linear_cross_entropy,
        ops.astype(ops.reshape(x, (target.size, x.shape[-1])), dtype),
        ops.astype(weight, dtype),
        beside(flat, x),
        scale=scale,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        gradients=(recording and x.requires_grad, recording and weight.requires_grad),
    )
