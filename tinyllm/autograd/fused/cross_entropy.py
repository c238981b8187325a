"""Cross-entropy from logits (F-CE), as one operation."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tinyllm import buffers
from tinyllm.autograd import ops
from tinyllm.autograd.fused.rows import divided
from tinyllm.autograd.fused.softmax import log_softmax
from tinyllm.autograd.operands import as_tensor, beside
from tinyllm.autograd.ops.losses import reduced
from tinyllm.autograd.tape import Kernel, Op, apply
from tinyllm.autograd.tensor import Array, Operand, Storage, Tensor, namespace

# The operation itself gives the loss of each row: logits (N, V), target (N,), weight (V,) -> (N,).


def _ref(logits: Tensor, target: Tensor, weight: Tensor, ignore_index: int, label_smoothing: float) -> Tensor:
    shifted = logits - ops.logsumexp(logits.detach(), -1, keepdims=True)  # by a constant, as in softmax
    logp = shifted - ops.logsumexp(shifted, -1, keepdims=True)
    kept = target != ignore_index
    safe = ops.where(kept, target, 0)
    picked = ops.squeeze(ops.take_along_axis(logp, ops.expand_dims(safe, -1), -1), -1)
    loss = -(1 - label_smoothing) * weight[safe] * picked
    if label_smoothing:
        loss = loss - label_smoothing / logits.shape[1] * ops.sum(weight * logp, -1)
    return ops.where(kept, loss, 0.0)


def _forward(
    logits: Array, target: Array, weight: Array, ignore_index: int, label_smoothing: float
) -> tuple[Array, Any]:
    xp = namespace(logits)
    shifted = logits - logits.max(axis=1, keepdims=True)
    logp = shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))
    kept = target != ignore_index
    safe = xp.where(kept, target, 0)
    loss = -(1 - label_smoothing) * weight[safe] * logp[xp.arange(len(safe)), safe]
    if label_smoothing:
        loss = loss - label_smoothing / logits.shape[1] * (weight * logp).sum(axis=1)
    return xp.where(kept, loss, 0).astype(logits.dtype), logp


def _vjp(
    needs: tuple[bool, ...],
    g: Array,
    y: Array,
    logp: Any,
    logits: Array,
    target: Array,
    weight: Array,
    ignore_index: int,
    label_smoothing: float,
) -> tuple[Array | None, ...]:
    xp = namespace(logits)
    kept = target != ignore_index
    safe = xp.where(kept, target, 0)
    on_each = xp.where(kept, g, 0) * (label_smoothing / logits.shape[1])
    on_target = xp.where(kept, g, 0) * (1 - label_smoothing) * weight[safe]
    out = xp.exp(logp) * (on_target + on_each * weight.sum())[:, None] - on_each[:, None] * weight
    out[xp.arange(len(safe)), safe] -= on_target
    out = xp.where(kept[:, None], out, 0)  # not even the NaN of an ignored row passes
    return out.astype(logits.dtype), None, None


@functools.cache
def _numba() -> Kernel:
    from tinyllm.kernels.cpu import cross_entropy as kernels

    def forward(
        logits: Array, target: Array, weight: Array, ignore_index: int, label_smoothing: float
    ) -> tuple[Array, Any]:
        logits = np.ascontiguousarray(logits)
        losses, lse = np.empty(len(logits), logits.dtype), np.empty(len(logits), logits.dtype)

        def of_range(i: int, j: int) -> None:
            out = losses[i:j], lse[i:j]
            kernels.cross_entropy(logits[i:j], target[i:j], weight, label_smoothing, ignore_index, *out)

        divided(of_range, logits)
        return losses, lse

    def vjp(
        needs: tuple[bool, ...],
        g: Array,
        y: Array,
        lse: Any,
        logits: Array,
        target: Array,
        weight: Array,
        ignore_index: int,
        label_smoothing: float,
    ) -> tuple[Array | None, ...]:
        logits, g = np.ascontiguousarray(logits), np.ascontiguousarray(g)
        out = buffers.empty(logits.shape, logits.dtype)

        def of_range(i: int, j: int) -> None:
            settings = target[i:j], weight, label_smoothing, ignore_index
            kernels.cross_entropy_vjp(g[i:j], logits[i:j], *settings, lse[i:j], out[i:j])

        divided(of_range, logits)
        return out, None, None

    return Kernel(forward, vjp)


_cross_entropy = Op("cross_entropy", ref=_ref, impls={"numpy": lambda: Kernel(_forward, _vjp), "numba": _numba})


def cross_entropy(
    logits: Operand,
    target: Operand,
    weight: Operand | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of logits whose classes are on the LAST axis, (..., V), against a target (F-CE).

    Parameters
    ----------
    logits : (..., V), floating
        Unnormalised log-probabilities.
    target : (...) integers, or (..., V) probabilities
        Class ids, or a distribution over the classes, which then has a gradient of its own.
    weight : (V,), optional
        A factor for each class; a constant.
    ignore_index : int
        Places with this target count for nothing (class ids only).
    reduction : {"mean", "sum", "none"}
        "mean" divides by the sum of the weights of the targets that count (by the number of places when the target is
        a distribution). If none counts the mean is NaN.
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
    """
    logits, target = (as_tensor(t) for t in (logits, target))
    if logits.ndim < 1 or logits.dtype.kind != "f":
        raise TypeError(f"cross_entropy needs floating logits (..., V), got {logits.dtype} of shape {logits.shape}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must be between 0 and 1, got {label_smoothing}")
    classes = logits.shape[-1]
    xp = namespace(logits._storage.array)
    if weight is None:
        weight = Tensor._wrap(Storage(xp.ones(classes, dtype=logits.dtype)))
    else:
        weight = ops.astype(as_tensor(weight, like=(logits,)), logits.dtype)
        if weight.shape != (classes,) or weight.requires_grad:
            raise ValueError(f"cross_entropy: weight must be a constant of shape ({classes},), got {weight!r}")
    if target.dtype.kind == "f":
        return _against_distribution(logits, target, weight, reduction, label_smoothing)
    if target.shape != logits.shape[:-1] or target.dtype.kind not in "iu":
        raise ValueError(
            f"cross_entropy: logits {logits.shape} need integer targets of shape {logits.shape[:-1]} or probabilities "
            f"of shape {logits.shape}, got {target.dtype} of shape {target.shape}"
        )
    flat = ops.reshape(ops.astype(target, np.int64), (target.size,))
    check_classes(flat, ignore_index, classes)
    flat = beside(flat, logits)
    losses = apply(
        _cross_entropy,
        ops.reshape(logits, (target.size, classes)),
        flat,
        weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
    )
    if reduction == "mean":
        kept = flat != ignore_index
        counted = ops.where(kept, weight[ops.where(kept, flat, 0)], 0.0)
        return ops.sum(losses) / ops.sum(counted)
    return reduced(ops.reshape(losses, target.shape), reduction)


def check_classes(target: Tensor, ignore_index: int, classes: int) -> int:
    """The number of targets that count; raise unless each of them is one of ``0 .. classes - 1``."""
    ids = target._ask("checking the target's classes")
    kept = ids != ignore_index
    if (bad := ids[kept & ((ids < 0) | (ids >= classes))]).size:
        raise IndexError(f"cross_entropy: target {int(bad[0])} is outside the classes 0..{classes - 1}")
    return int(kept.sum())


def _against_distribution(
    logits: Tensor, target: Tensor, weight: Tensor, reduction: str, label_smoothing: float
) -> Tensor:
    if target.shape != logits.shape:
        raise ValueError(f"cross_entropy: probabilities must have the logits' shape {logits.shape}, got {target.shape}")
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / logits.shape[-1]
    losses = -ops.sum(weight * target * log_softmax(logits), -1)
    if reduction == "mean":
        return ops.sum(losses) / losses.size
    return reduced(losses, reduction)
