"""Scaled dot-product attention (F-ATTN), as one operation."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tinyllm import threads
from tinyllm.autograd import ops
from tinyllm.autograd.operands import as_tensor, broadcast_shape
from tinyllm.autograd.ops.dropout import dropout_factor
from tinyllm.autograd.random import Key, next_key
from tinyllm.autograd.tape import Kernel, Op, apply
from tinyllm.autograd.tensor import Array, Operand, Tensor, namespace
from tinyllm.buffers import empty
from tinyllm.device import largest

# The operation takes q (..., H, T, D), k (..., H / G, S, D), v (..., H / G, S, E) with the same leading axes (none of
# them, nor heads, is needed), and perhaps a mask that broadcasts to (..., H, T, S); `limit` is None, or the number of
# keys before the first query (causal).


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
    if q.shape[:-2] != k.shape[:-2]:
        k, v = (ops.repeat(t, q.shape[-3] // k.shape[-3], axis=-3) for t in (k, v))
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
    return weights @ v  # (..., T, E)


# -- NumPy: all weights at once ----------------------------------------------------------------------------------------


def _weights(scores: Array, scale: float, limit: int | None, mask: Array | None) -> Array:
    """softmax(scale * scores + mask), zeros where nothing is visible."""
    xp = namespace(scores)
    scores = scores * scale
    if mask is not None:
        scores = xp.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    if limit is not None and limit < scores.shape[-1] - 1:
        scores = xp.where(xp.tri(*scores.shape[-2:], k=limit, dtype=bool), scores, -np.inf)
    top = largest(scores, -1)
    e = xp.exp(scores - xp.where(top == -np.inf, 0, top))
    total = e.sum(axis=-1, keepdims=True)
    return (e / xp.where(total == 0, 1, total)).astype(scores.dtype)


def _times(a: Array, b: Array) -> Array:
    """``a @ b``, where several heads of `a` may share a head of `b`: (..., H, T, N), (..., H / G, N, M)."""
    xp = namespace(a)
    matmul = threads.matmul if xp is np else xp.matmul
    if a.shape[:-2] == b.shape[:-2]:
        return matmul(a, b)
    groups = a.reshape(*b.shape[:-2], -1, *a.shape[-2:])  # (..., H / G, G, T, N)
    return matmul(groups, b[..., None, :, :]).reshape(*a.shape[:-1], b.shape[-1])


def _times_shared(a: Array, b: Array, heads: tuple[int, ...]) -> Array:
    """``a^T @ b``, the sum over the heads that share one: (..., H, T, N), (..., H, T, M) -> (*heads, N, M)."""
    product = _times(namespace(a).swapaxes(a, -1, -2), b)
    return product if product.shape[:-2] == heads else product.reshape(*heads, -1, *product.shape[-2:]).sum(axis=-3)


def _forward(
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
    p = _weights(_times(q, xp.swapaxes(k, -1, -2)), scale, limit, mask)
    if key is None:
        return _times(p, v), p
    return _times(p * dropout_factor(xp, key, p.shape, dropout_p, p.dtype), v), p


def _vjp(
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
    dp = _times(g, xp.swapaxes(v, -1, -2))
    used = p
    if key is not None:
        factor = dropout_factor(xp, key, p.shape, dropout_p, p.dtype)
        used, dp = p * factor, dp * factor
    dscores = p * (dp - (dp * p).sum(axis=-1, keepdims=True))
    dq = _times(dscores, k) * scale if needs[0] else None
    dk = _times_shared(dscores, q, k.shape[:-2]) * scale if needs[1] else None
    dv = _times_shared(used, g, v.shape[:-2]) if needs[2] else None
    if mask is None:
        return dq, dk, dv
    return dq, dk, dv, _sum_to(dscores, mask.shape) if needs[3] else None


def _sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    added = x.ndim - len(shape)
    axes = tuple(range(added)) + tuple(i + added for i, n in enumerate(shape) if n == 1)
    return x.sum(axis=axes, keepdims=True).reshape(shape)


# -- Numba: tile by tile; of all weights, only two numbers for each query are kept -------------------------------------

# Fewer queries have few weights, and tiles would be mostly empty.
_TILED_FROM = 16
# Multiply-adds from which the blocks of queries, and backward the heads, are shared among threads; and the pieces for
# each thread, of which those that a causal mask leaves less work end sooner.
_DIVIDED_FROM, _PIECES = 2_000_000, 4
# Multiply-adds of a few queries that are worth a thread.
_FEW_GRAIN = 1_000_000


class _Rows(NamedTuple):
    """Where a (B, H, T, D) lies: flat memory, and how many numbers apart in it batches, heads and positions are."""

    flat: Array
    steps: tuple[int, int, int]


def _rows(x: Array) -> _Rows:
    """The memory of an array (B, H, T, D), or of a copy where its rows do not lie in it one after the other."""
    size = x.itemsize
    b, h, t, d = x.strides
    if not x.flags.writeable or d != size or t < size * x.shape[-1] or min(b, h) < 0 or (b | h | t) % size:
        x = x.copy()
        b, h, t, d = x.strides
    steps = b // size, h // size, t // size
    extent = 1 + sum((n - 1) * step for n, step in zip(x.shape, (*steps, 1), strict=True))
    return _Rows(as_strided(x, (extent,), (size,)), steps)


def _new(shape: tuple[int, ...], dtype: np.dtype) -> Array:
    """A (B, H, T, D) in memory laid out as (B, T, H, D), where merging the heads is free."""
    B, H, T, D = shape
    return empty((B, T, H, D), dtype).swapaxes(1, 2)


def _four(x: Array) -> Array:
    """(..., H, T, D) -> (B, H, T, D)."""
    *lead, heads = x.shape[:-2] or (1,)
    return x.reshape(math.prod(lead), heads, *x.shape[-2:])


class _Tiled:
    """The calls of the kernels for one problem: its sizes and settings, its division among threads."""

    def __init__(
        self,
        lead: tuple[int, ...],
        sizes: tuple[int, int, int, int, int],
        dtype: np.dtype,
        mask: Array | None,
        *,
        scale: float,
        limit: int | None,
        dropout_p: float,
        key: Key | None,
    ) -> None:
        G, T, S, D, _ = sizes
        self.heads, self.groups, self.queries = math.prod(lead), G, T
        self.work = self.heads * T * S * D
        self.dtype = dtype
        nothing = np.empty((0, 0, 0), dtype), np.zeros(self.heads, dtype=np.int64)
        masks, which = nothing if mask is None else _masks(mask, lead, S, dtype)
        words = np.zeros(5, dtype=np.uint64)
        if key is not None:
            words[:] = key.seed & 0xFFFFFFFF, key.seed >> 32 & 0xFFFFFFFF, key.step, key.layer, key.sample
        width = math.prod((*lead, T, S)[1:])  # weights in a row of the first axis, which dropout numbers on its own
        offset = S if limit is None else limit
        heads = lead[-1] if lead else 1
        self.settings = ((heads, *sizes), float(scale), offset, masks, which, float(dropout_p), words, width)

    def _ranges(self, units: int) -> list[tuple[int, int]]:
        divided = threads.get_num_threads() > 1 and self.work >= _DIVIDED_FROM
        count = min(units, _PIECES * threads.get_num_threads()) if divided else 1
        return [(units * i // count, units * (i + 1) // count) for i in range(count)]

    def forward(self, q: _Rows, k: _Rows, v: _Rows, y: _Rows) -> tuple[Array, Array]:
        """Fill y; the maximum and the inverse of the sum of each query's row."""
        from tinyllm.kernels.cpu import attention as kernels

        steps = np.array([q.steps, k.steps, v.steps, y.steps])
        shift, inverse = (np.empty(self.heads * self.queries, self.dtype) for _ in range(2))

        def work(blocks: tuple[int, int]) -> None:
            kernels.attention(q.flat, k.flat, v.flat, steps, *self.settings, *blocks, y.flat, shift, inverse)

        threads.each(work, self._ranges(self.heads * -(-self.queries // kernels.QUERIES)))
        return shift, inverse

    def vjp(self, saved: tuple[Array, Array], *rows: _Rows) -> None:
        """Fill the last three of g, y, q, k, v, dq, dk, dv."""
        from tinyllm.kernels.cpu import attention as kernels

        steps = np.array([x.steps for x in rows])
        given, wanted = [x.flat for x in rows[:5]], [x.flat for x in rows[5:]]

        def work(heads: tuple[int, int]) -> None:
            arguments: list[Any] = [*given, steps, *self.settings, *saved, *heads, *wanted]
            kernels.attention_vjp(*arguments)

        threads.each(work, self._ranges(self.heads // self.groups))


def _masks(mask: Array, lead: tuple[int, ...], s: int, dtype: np.dtype) -> tuple[Array, Array]:
    """The mask as (M, T or 1, S), to be added, and for each head which of the M it takes."""
    if mask.dtype == bool:
        mask = np.where(mask, dtype.type(0), dtype.type(-np.inf))
    mask = np.broadcast_to(mask, np.broadcast_shapes(mask.shape, (1,) * (len(lead) + 1) + (s,)))
    own = mask.shape[:-2]
    which = np.ascontiguousarray(np.broadcast_to(np.arange(math.prod(own)).reshape(own), lead)).reshape(-1)
    mask = mask.reshape(math.prod(own), mask.shape[-2], s)
    return np.require(mask, dtype, ["C", "W"]), which


def _tiles_suit(q: Array, k: Array, v: Array) -> bool:
    return q.shape[-2] >= _TILED_FROM and k.size > 0 and v.size > 0


def _tiled(q: Array, k: Array, v: Array, mask: Array | None, settings: dict[str, Any]) -> _Tiled:
    group = q.shape[-3] // k.shape[-3] if q.ndim > 2 else 1
    sizes = (group, q.shape[-2], k.shape[-2], k.shape[-1], v.shape[-1])
    return _Tiled(q.shape[:-2], sizes, q.dtype, mask, **settings)


def _few(q: Array, k: Array, v: Array, mask: Array | None, *, scale: float, limit: int | None) -> tuple[Array, Any]:
    """A few queries: a new token's, for the keys of all before it. The weights are few, too, and are kept."""
    from tinyllm.kernels.cpu import few_rows

    four = [_four(x) for x in (q, k, v)]
    rows = [_rows(x) for x in four]
    (B, H, T, D), S, E = four[0].shape, k.shape[-2], v.shape[-1]
    if mask is None:
        masks, which = np.empty((0, 0, 0), q.dtype), np.empty(0, np.int64)
    else:
        masks, which = _masks(mask, q.shape[:-2], S, q.dtype)
    y = empty((B, T, H, E), q.dtype)  # merging the heads is then free
    p, out = np.empty((B * H * T, S), q.dtype), np.empty((B * H * T, E), q.dtype)
    settings: tuple[Any, ...] = (
        (H, H // four[1].shape[1], T, S, D, E),
        scale,
        S if limit is None else limit,
        masks,
        which,
    )
    steps = np.array([x.steps for x in rows])
    given: list[Any] = [*(x.flat for x in rows), steps, *settings]

    def work(begin: int, end: int) -> None:
        arguments: list[Any] = [*given, begin, end, p, out]
        few_rows.attention(*arguments)

    threads.parallel(work, len(p), 1 + _FEW_GRAIN // (S * D))
    np.copyto(y, out.reshape(B, H, T, E).swapaxes(1, 2))
    return y.swapaxes(1, 2).reshape(*q.shape[:-1], E), p.reshape(*q.shape[:-1], S)


def _tiled_forward(q: Array, k: Array, v: Array, mask: Array | None = None, **settings: Any) -> tuple[Array, Any]:
    if not _tiles_suit(q, k, v):
        if settings["key"] is None and k.size and v.size and q.size:
            return _few(q, k, v, mask, scale=settings["scale"], limit=settings["limit"])
        return _forward(q, k, v, mask, **settings)
    *shape, _ = _four(q).shape
    y = _new((*shape, v.shape[-1]), q.dtype)
    rows = [*(_rows(_four(x)) for x in (q, k, v)), _rows(y)]
    saved = _tiled(q, k, v, mask, settings).forward(*rows)
    return y.reshape(*q.shape[:-1], v.shape[-1]), saved


def _tiled_vjp(
    needs: tuple[bool, ...],
    g: Array,
    y: Array,
    saved: Any,
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None = None,
    **settings: Any,
) -> tuple[Array | None, ...]:
    if not _tiles_suit(q, k, v):
        return _vjp(needs, g, y, saved, q, k, v, mask, **settings)
    if any(needs[3:]):  # the mask's cotangent is as large as all weights
        _, p = _forward(q, k, v, mask, **settings)
        return _vjp(needs, g, y, p, q, k, v, mask, **settings)
    grads = [_new(_four(x).shape, q.dtype) for x in (q, k, v)]
    given = (_rows(_four(x)) for x in (g, y, q, k, v))
    _tiled(q, k, v, mask, settings).vjp(saved, *given, *map(_rows, grads))
    shaped = [d.reshape(x.shape) for d, x in zip(grads, (q, k, v), strict=True)]
    return (*shaped, *(None for _ in needs[3:]))


@functools.cache
def _numpy() -> Kernel:
    return Kernel(_forward, _vjp)


@functools.cache
def _numba() -> Kernel:
    return Kernel(_tiled_forward, _tiled_vjp)


# A new token is a single query, so the keys decide whether there is enough to do for a kernel.
_attention = Op("scaled_dot_product_attention", ref=_ref, impls={"numpy": _numpy, "numba": _numba}, sized_by=1)


# -- the packed form: q, k and v are parts of one array (..., T, 3 C), the result is (..., T, C) -----------------------


def _unpack(qkv: Any, n_head: int) -> list[Any]:
    """Of an array or a Tensor: q, k and v, (..., H, T, D) each, as views."""
    *lead, T, C = qkv.shape
    parts = qkv.reshape((*lead, T, 3, n_head, C // (3 * n_head)))
    return [_swapped(parts[..., i, :, :]) for i in range(3)]


def _swapped(x: Any) -> Any:
    """(..., H, T, D) <-> (..., T, H, D)."""
    return ops.swapaxes(x, -3, -2) if isinstance(x, Tensor) else namespace(x).swapaxes(x, -3, -2)


def _merge(x: Any) -> Any:
    """(..., H, T, D) -> (..., T, H D)."""
    *lead, H, T, D = x.shape
    return _swapped(x).reshape((*lead, T, H * D))


def _packed_ref(qkv: Tensor, *mask: Tensor, n_head: int, **settings: Any) -> Tensor:
    return _merge(_ref(*_unpack(qkv, n_head), *mask, **settings))


def _packed_forward(qkv: Array, *mask: Array, n_head: int, **settings: Any) -> tuple[Array, Any]:
    y, p = _forward(*_unpack(qkv, n_head), *mask, **settings)
    return _merge(y), p


def _packed_vjp(
    needs: tuple[bool, ...], g: Array, y: Array, p: Any, qkv: Array, *mask: Array, n_head: int, **settings: Any
) -> tuple[Array | None, ...]:
    g, y = (_swapped(x.reshape((*x.shape[:-1], n_head, x.shape[-1] // n_head))) for x in (g, y))
    grads = _vjp((True, True, True, *needs[1:]), g, y, p, *_unpack(qkv, n_head), *mask, **settings)
    return namespace(qkv).concatenate([_merge(d) for d in grads[:3]], axis=-1), *grads[3:]


def _packed_rows(x: Array, parts: int, n_head: int) -> list[_Rows]:
    """The rows of the parts of (..., T, parts * C)."""
    T, width = x.shape[-2:]
    flat = x if x.flags.c_contiguous and x.flags.writeable else x.copy()
    flat = flat.reshape(-1)
    C = width // parts
    return [_Rows(flat[i * C :], (T * width, C // n_head, width)) for i in range(parts)]


def _packed_tiled(qkv: Array, mask: tuple[Array, ...], n_head: int, settings: dict[str, Any]) -> _Tiled | None:
    """The problem, None where tiles do not suit it."""
    *lead, T, C = qkv.shape
    D = C // (3 * n_head)
    if T < _TILED_FROM or D == 0:
        return None
    return _Tiled((*lead, n_head), (1, T, T, D, D), qkv.dtype, *(mask or (None,)), **settings)


def _packed_tiled_forward(qkv: Array, *mask: Array, n_head: int, **settings: Any) -> tuple[Array, Any]:
    problem = _packed_tiled(qkv, mask, n_head, settings)
    if problem is None:
        return _packed_forward(qkv, *mask, n_head=n_head, **settings)
    y = empty((*qkv.shape[:-1], qkv.shape[-1] // 3), qkv.dtype)
    return y, problem.forward(*_packed_rows(qkv, 3, n_head), *_packed_rows(y, 1, n_head))


def _packed_tiled_vjp(
    needs: tuple[bool, ...], g: Array, y: Array, saved: Any, qkv: Array, *mask: Array, n_head: int, **settings: Any
) -> tuple[Array | None, ...]:
    problem = _packed_tiled(qkv, mask, n_head, settings)
    if problem is None or any(needs[1:]):
        if problem is not None:
            _, saved = _packed_forward(qkv, *mask, n_head=n_head, **settings)
        return _packed_vjp(needs, g, y, saved, qkv, *mask, n_head=n_head, **settings)
    grad = empty(qkv.shape, qkv.dtype)
    one, three = (lambda x: _packed_rows(x, 1, n_head)), (lambda x: _packed_rows(x, 3, n_head))
    problem.vjp(saved, *one(g), *one(y), *three(qkv), *three(grad))
    return grad, *(None for _ in mask)


@functools.cache
def _packed_numpy() -> Kernel:
    return Kernel(_packed_forward, _packed_vjp)


@functools.cache
def _packed_numba() -> Kernel:
    return Kernel(_packed_tiled_forward, _packed_tiled_vjp)


_self_attention = Op("self_attention", ref=_packed_ref, impls={"numpy": _packed_numpy, "numba": _packed_numba})


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
    dtype = np.result_type(q.dtype, k.dtype, v.dtype)
    heads = _grouped_heads(q, k, v) if enable_gqa else [(), (), ()]
    lead = broadcast_shape("attention", *(t.shape[: -2 - len(h)] for t, h in zip((q, k, v), heads, strict=True)))
    given = []
    for t, h in zip((q, k, v), heads, strict=True):
        t, shape = ops.astype(t, dtype), (*lead, *h, *t.shape[-2:])
        given.append(t if t.shape == shape else ops.broadcast_to(t, shape))
    given += _checked_mask(attn_mask, (*given[0].shape[:-1], k.shape[-2]), given)
    return apply(
        _attention,
        *given,
        **_settings(q.shape[-1], scale, offset if is_causal else None, dropout_p, rng),
    )


def self_attention(
    qkv: Operand,
    n_head: int,
    attn_mask: Operand | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    rng: np.random.Generator | None = None,
) -> Tensor:
    """`scaled_dot_product_attention` in heads (F-ATTN), with queries, keys and values from one projection.

    The packed form of the same kernels: they read q, k and v where the projection has put them, and write the result
    where the next one reads it, so that heads are neither cut out nor put together by copying.

    Parameters
    ----------
    qkv : (..., T, 3 C)
        Along the last axis the queries of all heads, then the keys, then the values.
    n_head : int
        H; divides C.
    attn_mask : broadcastable to (..., H, T, T), optional
    dropout_p, is_causal, scale, rng
        As there.

    Returns
    -------
    Tensor, (..., T, C)

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    qkv = as_tensor(qkv)
    if qkv.ndim < 2 or n_head < 1 or qkv.shape[-1] % (3 * n_head):
        raise ValueError(f"attention needs qkv (..., T, 3 C) with C a multiple of the {n_head} heads, got {qkv.shape}")
    *lead, T, C = qkv.shape
    mask = _checked_mask(attn_mask, (*lead, n_head, T, T), [qkv])
    settings = _settings(C // (3 * n_head), scale, 0 if is_causal else None, dropout_p, rng)
    return apply(_self_attention, qkv, *mask, n_head=n_head, **settings)


def _settings(
    depth: int, scale: float | None, limit: int | None, dropout_p: float, rng: np.random.Generator | None
) -> dict[str, Any]:
    if not 0 <= dropout_p <= 1:
        raise ValueError(f"attention: dropout_p must be between 0 and 1, got {dropout_p}")
    scale = 1 / math.sqrt(depth) if scale is None else scale
    return {"scale": scale, "limit": limit, "dropout_p": dropout_p, "key": next_key(rng) if dropout_p else None}


def _checked_mask(attn_mask: Operand | None, scores: tuple[int, ...], like: list[Tensor]) -> list[Tensor]:
    """The mask, if there is one, in the dtype of the scores, whose shape is given."""
    if attn_mask is None:
        return []
    mask = as_tensor(attn_mask, like=like)
    if mask.dtype.kind not in "bf":
        raise TypeError(f"attention: the mask is boolean (True: allowed) or floating (added), not {mask.dtype}")
    if broadcast_shape("attention mask", mask.shape, scores) != scores:
        raise ValueError(f"attention: a mask of shape {mask.shape} does not broadcast to the scores {scores}")
    return [mask if mask.dtype == bool else ops.astype(mask, like[0].dtype)]


def _grouped_heads(q: Tensor, k: Tensor, v: Tensor) -> list[tuple[int, ...]]:
    """The numbers of heads, of which each of `k` and `v` serves as many of `q`."""
    if min(q.ndim, k.ndim, v.ndim) < 3 or k.shape[-3] != v.shape[-3] or q.shape[-3] % (k.shape[-3] or 1):
        raise ValueError(
            f"attention: the {q.shape} query's heads are not a multiple of those of {k.shape} and {v.shape}"
        )
    return [t.shape[-3:-2] for t in (q, k, v)]
