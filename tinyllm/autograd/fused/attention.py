"""Scaled dot-product attention (F-ATTN), as one operation."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from tinyllm.autograd import ops
from tinyllm.autograd.operands import as_tensor, broadcast_shape
from tinyllm.autograd.ops.dropout import dropout_factor
from tinyllm.autograd.random import Key, next_key
from tinyllm.autograd.tape import Kernel, Op, apply
from tinyllm.autograd.tensor import Array, Operand, Tensor, namespace

# The operation takes q (..., T, D), k (..., S, D), v (..., S, Dv) with the same leading axes, and perhaps a mask that
# broadcasts to (..., T, S); `limit` is None, or the number of keys before the first query (causal).


def _ref(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float,
    limit: int | None,
    dropout_p: float,
    key: Key | None,
) -> Tensor:
    scores = (q @ k.mT) * scale  # (..., T, S)
    if mask is not None:
        scores = ops.where(mask, scores, -math.inf) if mask.dtype == bool else scores + mask
    if limit is not None:
        scores = ops.where(np.tri(scores.shape[-2], scores.shape[-1], limit, dtype=bool), scores, -math.inf)
    shift = ops.logsumexp(scores.detach(), -1, keepdims=True)  # a constant, as in softmax
    dark = shift == -math.inf  # queries that may see nothing at all
    e = ops.exp(scores - ops.where(dark, 0.0, shift))
    weights = e / ops.where(dark, 1.0, ops.sum(e, -1, keepdims=True))
    if key is not None:
        weights = weights * dropout_factor(namespace(q._storage.array), key, weights.shape, dropout_p, weights.dtype)
    return weights @ v  # (..., T, Dv)


# -- NumPy -------------------------------------------------------------------------------------------------------------


def _weights(scores: Array, scale: float, limit: int | None, mask: Array | None) -> Array:
    """softmax(scale * scores + mask), zeros where nothing is visible."""
    xp = namespace(scores)
    scores = scores * scale
    if mask is not None:
        scores = xp.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    if limit is not None:
        scores = xp.where(xp.tri(*scores.shape[-2:], k=limit, dtype=bool), scores, -np.inf)
    top = xp.max(scores, axis=-1, keepdims=True, initial=-np.inf)
    e = xp.exp(scores - xp.where(top == -np.inf, 0, top))
    total = e.sum(axis=-1, keepdims=True)
    return (e / xp.where(total == 0, 1, total)).astype(scores.dtype)


def _scores_vjp(g: Array, p: Array, limit: int | None) -> Array:
    return p * (g - (g * p).sum(axis=-1, keepdims=True))


# -- Numba: the same two steps over contiguous (N, T, S), in place -----------------------------------------------------


def _weights_numba(scores: Array, scale: float, limit: int | None, mask: Array | None) -> Array:
    from tinyllm.kernels.cpu import attention as kernels

    *lead, t, s = scores.shape
    which = np.zeros(math.prod(lead), dtype=np.int64)
    if mask is not None:
        mask = np.broadcast_to(mask, np.broadcast_shapes(mask.shape, (1,) * (len(lead) + 1) + (s,)))
        own = mask.shape[:-2]
        which = np.ascontiguousarray(np.broadcast_to(np.arange(math.prod(own)).reshape(own), lead)).reshape(-1)
        mask = np.ascontiguousarray(mask).reshape(math.prod(own), mask.shape[-2], s)
        mask = mask if mask.dtype == bool else mask.astype(scores.dtype, copy=False)
    kernels.masked_softmax(scores.reshape(math.prod(lead), t, s), scale, s if limit is None else limit, mask, which)
    return scores


def _scores_vjp_numba(g: Array, p: Array, limit: int | None) -> Array:
    from tinyllm.kernels.cpu import attention as kernels

    rows = g.reshape(math.prod(g.shape[:-2]), *g.shape[-2:])
    kernels.masked_softmax_vjp(rows, p.reshape(rows.shape), 1.0, g.shape[-1] if limit is None else limit, rows)
    return g


# -- the two matrix products around them, common to both ---------------------------------------------------------------


def _kernel(weights_of: Any, scores_vjp: Any) -> Kernel:
    def forward(
        q: Array,
        k: Array,
        v: Array,
        mask: Array | None = None,
        *,
        scale: float,
        limit: int | None,
        dropout_p: float,
        key: Key | None,
    ) -> tuple[Array, Any]:
        xp = namespace(q)
        p = weights_of(q @ xp.swapaxes(k, -1, -2), scale, limit, mask)
        if key is None:
            return p @ v, p
        return (p * dropout_factor(xp, key, p.shape, dropout_p, p.dtype)) @ v, p

    def vjp(
        needs: tuple[bool, ...],
        g: Array,
        y: Array,
        p: Array,
        q: Array,
        k: Array,
        v: Array,
        mask: Array | None = None,
        *,
        scale: float,
        limit: int | None,
        dropout_p: float,
        key: Key | None,
    ) -> tuple[Array | None, ...]:
        xp = namespace(q)
        dp = g @ xp.swapaxes(v, -1, -2)
        used = p
        if key is not None:
            factor = dropout_factor(xp, key, p.shape, dropout_p, p.dtype)
            used, dp = p * factor, dp * factor
        dscores = scores_vjp(dp, p, limit)
        dq = (dscores @ k) * scale if needs[0] else None
        dk = (xp.swapaxes(dscores, -1, -2) @ q) * scale if needs[1] else None
        dv = xp.swapaxes(used, -1, -2) @ g if needs[2] else None
        if mask is None:
            return dq, dk, dv
        return dq, dk, dv, _sum_to(dscores, mask.shape) if needs[3] else None

    return Kernel(forward, vjp)


def _sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    added = x.ndim - len(shape)
    axes = tuple(range(added)) + tuple(i + added for i, n in enumerate(shape) if n == 1)
    return x.sum(axis=axes, keepdims=True).reshape(shape)


@functools.cache
def _numpy() -> Kernel:
    return _kernel(_weights, _scores_vjp)


@functools.cache
def _numba() -> Kernel:
    return _kernel(_weights_numba, _scores_vjp_numba)


_attention = Op("scaled_dot_product_attention", ref=_ref, impls={"numpy": _numpy, "numba": _numba})


def scaled_dot_product_attention(
    q: Operand,
    k: Operand,
    v: Operand,
    attn_mask: Operand | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    offset: int = 0,
    rng: np.random.Generator | None = None,
) -> Tensor:
    """``softmax(q k^T * scale + mask) v`` (F-ATTN).

    Parameters
    ----------
    q : (..., H, T, D)
    k : (..., H, S, D)
    v : (..., H, S, Dv)
    attn_mask : broadcastable to (..., H, T, S), optional
        Boolean, True where attention is allowed, or floating and added to the scores (which has a gradient).
    dropout_p : float
        Share of the attention weights set to zero.
    is_causal : bool
        Query i sees the keys ``j <= i + offset`` only; may be combined with a mask.
    scale : float, optional
        ``1 / sqrt(D)`` by default.
    enable_gqa : bool
        Let groups of query heads share a head of `k` and `v`, whose number divides H.
    offset : int
        How many keys lie before the first query: the length of a cache.
    rng : numpy.random.Generator, optional
        For dropout outside a `random_scope`.

    Returns
    -------
    Tensor, (..., H, T, Dv)
        Zeros for a query that may see no key.

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Notes
    -----
    Source: Vaswani et al. 2017, section 3.2.1.
    """
    q, k, v = (as_tensor(t) for t in (q, k, v))
    if min(q.ndim, k.ndim, v.ndim) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ValueError(
            f"attention needs q (..., T, D), k (..., S, D) and v (..., S, Dv), got {q.shape}, {k.shape} and {v.shape}"
        )
    if not 0 <= dropout_p <= 1:
        raise ValueError(f"attention: dropout_p must be between 0 and 1, got {dropout_p}")
    dtype = np.result_type(q.dtype, k.dtype, v.dtype)
    if enable_gqa:
        k, v = (_shared_heads(t, q) for t in (k, v))
    lead = broadcast_shape("attention", q.shape[:-2], k.shape[:-2], v.shape[:-2])
    q, k, v = (ops.astype(t, dtype) for t in (q, k, v))
    given = [t if t.shape[:-2] == lead else ops.broadcast_to(t, lead + t.shape[-2:]) for t in (q, k, v)]
    if attn_mask is not None:
        mask = as_tensor(attn_mask, like=given)
        if mask.dtype.kind not in "bf":
            raise TypeError(f"attention: the mask is boolean (True: allowed) or floating (added), not {mask.dtype}")
        scores_shape = (*lead, q.shape[-2], k.shape[-2])
        if broadcast_shape("attention mask", mask.shape, scores_shape) != scores_shape:
            raise ValueError(f"attention: a mask of shape {mask.shape} does not broadcast to the scores {scores_shape}")
        given.append(mask if mask.dtype == bool else ops.astype(mask, dtype))
    return apply(
        _attention,
        *given,
        scale=1 / math.sqrt(q.shape[-1]) if scale is None else scale,
        limit=offset if is_causal else None,
        dropout_p=dropout_p,
        key=next_key(rng) if dropout_p else None,
    )


def _shared_heads(t: Tensor, q: Tensor) -> Tensor:
    """The heads of `t` repeated until there are as many as in `q`."""
    if t.ndim < 3 or q.ndim < 3 or q.shape[-3] % t.shape[-3]:
        raise ValueError(f"attention: the {q.shape} query's heads are not a multiple of those of {t.shape}")
    return t if t.shape[-3] == q.shape[-3] else ops.repeat(t, q.shape[-3] // t.shape[-3], axis=-3)
