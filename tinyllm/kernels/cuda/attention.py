"""Flash attention (Dao 2023, algorithms 1 and 2): softmax(scale q k^T + mask) v without the scores ever in memory.

    forward:   s = scale q k^T + mask;  p = e^(s - lse);  o = p v;  lse = log sum e^s
    backward:  dv = p^T g;  dp = g v^T;  ds = p (dp - delta), delta = sum g o;  dq = scale ds k;  dk = scale ds^T q

A block of threads keeps a tile of queries in shared memory and goes through the keys tile by tile, with a running
maximum and sum for each query, by which what it has added up so far is rescaled. So q and o go through memory once, k
and v once per tile of queries (mostly from the second-level cache), and besides o only lse is kept: O(T) memory, not
O(T^2). Tiles that the causal mask hides are not visited.

Backward makes p again from lse. One kernel has a tile of keys and goes through the queries, for dk and dv; dq is a sum
over keys, and is either added atomically there (5 products of matrices, last digits differ from run to run), or
computed by a kernel that goes through the keys once more (7 products, the same bits in every run).

Key and value heads may be shared by groups of query heads (Ainslie et al. 2023): query head n reads head n // groups.

All products work on tiles of rows in shared memory. A thread has the elements of rows ty, ty + TY, .. and reads vectors
of four along the sum; rows are 4 numbers longer than their content, so that vectors of 8 successive rows lie in 32
different banks.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from tinyllm.kernels.cuda.compile import Array, Kernel, cuda, empty, float32, inline, kernel
from tinyllm.kernels.cuda.intrinsics import WARP, exp2, load4, log, shuffle_xor, store4, warp_sum
from tinyllm.kernels.cuda.tiles import ZERO, add_scaled, clear

ONE, HIDDEN = np.float32(1), np.float32(-np.inf)
LOG2_E, LN_2 = np.float32(math.log2(math.e)), np.float32(math.log(2))  # e^x is 2^(x log2 e): one instruction

NO_MASK, BOOLEAN, ADDED = 0, 1, 2
WARPS = 4  # of a block that computes delta


class Tile(NamedTuple):
    """How a block is made up: TX x TY threads; a thread has the scores of R rows and C columns, TY and TX apart."""

    TX: int
    TY: int
    R: int
    C: int


# For head sizes up to the key: what fits into 48 KB of shared memory and 255 registers.
FORWARD = {32: Tile(8, 16, 4, 4), 64: Tile(8, 16, 4, 4), 128: Tile(8, 8, 4, 4)}
BACKWARD = {32: Tile(8, 8, 4, 4), 64: Tile(8, 8, 4, 4), 128: Tile(8, 8, 2, 2)}
MAX_HEAD_SIZE = max(FORWARD)


# -- tiles -------------------------------------------------------------------------------------------------------------


@inline
def load_tile(tile, x, n, first, TX, TY):
    """Rows `first`.. of head `n` of x (N, T, D), zeros where there are none."""
    for i in range(cuda.threadIdx.y, tile.shape[0], TY):
        row = first + i
        for d in range(4 * cuda.threadIdx.x, tile.shape[1] - 4, 4 * TX):
            if row < x.shape[1] and d + 4 <= x.shape[2] and x.shape[2] % 4 == 0:
                a, b, c, e = load4(x, (n, row, d))
            else:
                a = x[n, row, d] if row < x.shape[1] and d < x.shape[2] else ZERO
                b = x[n, row, d + 1] if row < x.shape[1] and d + 1 < x.shape[2] else ZERO
                c = x[n, row, d + 2] if row < x.shape[1] and d + 2 < x.shape[2] else ZERO
                e = x[n, row, d + 3] if row < x.shape[1] and d + 3 < x.shape[2] else ZERO
            store4(tile, (i, d), a, b, c, e)


@inline
def row_products(total, left, right, D, TX, TY):
    """total[r, c] = <row ty + r TY of left, row tx + c TX of right>."""
    clear(total)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    for d in range(0, D, 4):
        for r in range(total.shape[0]):
            a0, a1, a2, a3 = load4(left, (ty + r * TY, d))
            for c in range(total.shape[1]):
                b0, b1, b2, b3 = load4(right, (tx + c * TX, d))
                total[r, c] += a0 * b0 + a1 * b1 + a2 * b2 + a3 * b3


@inline
def add_product(total, left, right, size, TX, TY):
    """total[r, 4 c + x] += <row ty + r TY of left, column 4 (tx + c TX) + x of right>, the sum over `size`."""
    for j in range(0, size, 4):
        for r in range(total.shape[0]):
            a0, a1, a2, a3 = load4(left, (cuda.threadIdx.y + r * TY, j))
            add_scaled(total, r, a0, right, j, 4 * cuda.threadIdx.x, 4 * TX)
            add_scaled(total, r, a1, right, j + 1, 4 * cuda.threadIdx.x, 4 * TX)
            add_scaled(total, r, a2, right, j + 2, 4 * cuda.threadIdx.x, 4 * TX)
            add_scaled(total, r, a3, right, j + 3, 4 * cuda.threadIdx.x, 4 * TX)


@inline
def store_rows(out, n, first, total, scale, TX, TY):
    """Write a thread's sums, times `scale`, to head `n` of out (N, T, D)."""
    for r in range(total.shape[0]):
        i = first + cuda.threadIdx.y + r * TY
        for c in range(total.shape[1]):
            d = 4 * (cuda.threadIdx.x + c // 4 * TX) + c % 4
            if i < out.shape[1] and d < out.shape[2]:
                out[n, i, d] = total[r, c] * scale


@inline
def masked(s, mask, mask_index, n, i, j, offset, rows, MASK):
    """The score of query i and key j in units of log 2, -inf where the key is hidden."""
    visible = i < rows and j <= i + offset
    if MASK != NO_MASK and visible:
        value = mask[mask_index[n], i if mask.shape[1] > 1 else 0, j]
        if MASK == ADDED:
            s += value * LOG2_E
        else:
            visible = value != 0
    return s if visible else HIDDEN


# -- forward -----------------------------------------------------------------------------------------------------------


@functools.cache
def forward_kernel(D: int, MASK: int) -> Kernel:
    """The kernel for heads up to size D and one kind of mask; a block for each tile of queries of each head."""
    TX, TY, R, C = FORWARD[D]
    ROWS, KEYS, OWN = R * TY, C * TX, D // TX
    STRIDE, WEIGHTS_STRIDE = D + 4, KEYS + 4

    def body(q, k, v, mask, mask_index, scale, offset, groups, out, lse):
        queries = cuda.shared.array((ROWS, STRIDE), float32, alignment=16)
        keys = cuda.shared.array((KEYS, STRIDE), float32, alignment=16)  # then the values
        weights = cuda.shared.array((ROWS, WEIGHTS_STRIDE), float32, alignment=16)
        scores = cuda.local.array((R, C), float32)
        total = cuda.local.array((R, OWN), float32)
        top = cuda.local.array(R, float32)
        sums = cuda.local.array(R, float32)
        tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
        n, size = cuda.blockIdx.x, k.shape[1]
        first = (
            cuda.gridDim.y - 1 - cuda.blockIdx.y
        ) * ROWS  # under a causal mask the last have most to do: they begin
        clear(total)
        for r in range(R):
            top[r] = HIDDEN
            sums[r] = ZERO
        load_tile(queries, q, n, first, TX, TY)
        for start in range(0, min(size, first + ROWS + offset), KEYS):
            load_tile(keys, k, n // groups, start, TX, TY)
            cuda.syncthreads()
            row_products(scores, queries, keys, D, TX, TY)
            for r in range(R):
                i = first + ty + r * TY
                largest = top[r]
                for c in range(C):
                    j = start + tx + c * TX
                    s = HIDDEN
                    if j < size:
                        s = masked(scores[r, c] * scale * LOG2_E, mask, mask_index, n, i, j, offset, q.shape[1], MASK)
                    scores[r, c] = s
                    largest = max(largest, s)
                step = 1
                while step < TX:  # over the TX threads of the row, which are neighbours in a warp
                    largest = max(largest, shuffle_xor(largest, step))
                    step *= 2
                shift = largest if largest > HIDDEN else ZERO
                factor = exp2(top[r] - shift)
                top[r] = largest
                sums[r] *= factor
                for c in range(OWN):
                    total[r, c] *= factor
                for c in range(C):
                    p = exp2(scores[r, c] - shift)
                    sums[r] += p
                    weights[ty + r * TY, tx + c * TX] = p
            cuda.syncthreads()
            load_tile(keys, v, n // groups, start, TX, TY)
            cuda.syncthreads()
            add_product(total, weights, keys, KEYS, TX, TY)
            cuda.syncthreads()
        for r in range(R):
            step = 1
            while step < TX:
                sums[r] += shuffle_xor(sums[r], step)
                step *= 2
            i = first + ty + r * TY
            if tx == 0 and i < q.shape[1]:
                lse[n, i] = top[r] * LN_2 + log(sums[r])
            inverse = ONE / sums[r] if sums[r] != ZERO else ZERO  # a query that sees nothing gets zeros
            for c in range(OWN):
                total[r, c] *= inverse
        store_rows(out, n, first, total, ONE, TX, TY)

    return kernel(body, f"forward_{D}_{['plain', 'boolean', 'added'][MASK]}")


# -- backward ----------------------------------------------------------------------------------------------------------


@kernel
def delta_kernel(g: Array, out: Array, delta: Array) -> None:
    """Delta (N, T) = sum over D of g * out, by a warp for each query."""
    n, i = cuda.blockIdx.x, cuda.blockIdx.y * WARPS + cuda.threadIdx.y
    if i < g.shape[1]:
        total = ZERO
        for d in range(cuda.threadIdx.x, g.shape[2], WARP):
            total += g[n, i, d] * out[n, i, d]
        total = warp_sum(total)
        if cuda.threadIdx.x == 0:
            delta[n, i] = total


@inline
def weight(s, log_total):
    """2^(s - log_total), 0 for what is hidden, also where everything is."""
    return exp2(s - log_total * LOG2_E) if s > HIDDEN or s != s else ZERO


@functools.cache
def keys_kernel(D: int, MASK: int, ADD_DQ: bool) -> Kernel:
    """Dk and dv, a block for each tile of keys of each key head; adds to dq if ADD_DQ."""
    TX, TY, R, C = BACKWARD[D]
    ROWS, KEYS, OWN = R * TY, C * TX, D // TX  # as many rows as keys
    STRIDE, WEIGHTS_STRIDE = D + 4, KEYS + 4

    def body(g, q, k, v, mask, mask_index, scale, offset, groups, lse, delta, dq, dk, dv):
        keys = cuda.shared.array((KEYS, STRIDE), float32, alignment=16)
        values = cuda.shared.array((KEYS, STRIDE), float32, alignment=16)
        queries = cuda.shared.array((ROWS, STRIDE), float32, alignment=16)
        grads = cuda.shared.array((ROWS, STRIDE), float32, alignment=16)
        weights = cuda.shared.array((KEYS, WEIGHTS_STRIDE), float32, alignment=16)
        p = cuda.local.array((R, C), float32)
        ds = cuda.local.array((R, C), float32)
        key_sums = cuda.local.array((C, OWN), float32)
        value_sums = cuda.local.array((C, OWN), float32)
        query_sums = cuda.local.array((R, OWN), float32)
        tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
        first, size = cuda.blockIdx.y * KEYS, k.shape[1]
        clear(key_sums)
        clear(value_sums)
        load_tile(keys, k, cuda.blockIdx.x, first, TX, TY)
        load_tile(values, v, cuda.blockIdx.x, first, TX, TY)
        for n in range(cuda.blockIdx.x * groups, (cuda.blockIdx.x + 1) * groups):
            for start in range(max(0, first - offset) // ROWS * ROWS, q.shape[1], ROWS):
                load_tile(queries, q, n, start, TX, TY)
                load_tile(grads, g, n, start, TX, TY)
                cuda.syncthreads()
                row_products(p, queries, keys, D, TX, TY)
                row_products(ds, grads, values, D, TX, TY)
                for r in range(R):
                    i = start + ty + r * TY
                    for c in range(C):
                        j = first + tx + c * TX
                        w = ZERO
                        d = ZERO
                        if i < q.shape[1] and j < size:
                            s = masked(p[r, c] * scale * LOG2_E, mask, mask_index, n, i, j, offset, q.shape[1], MASK)
                            w = weight(s, lse[n, i])
                            d = w * (ds[r, c] - delta[n, i])
                        ds[r, c] = d
                        weights[tx + c * TX, ty + r * TY] = w
                cuda.syncthreads()
                add_product(value_sums, weights, grads, ROWS, TX, TY)
                cuda.syncthreads()
                for r in range(R):
                    for c in range(C):
                        weights[tx + c * TX, ty + r * TY] = ds[r, c]
                cuda.syncthreads()
                add_product(key_sums, weights, queries, ROWS, TX, TY)
                cuda.syncthreads()
                if ADD_DQ:
                    for r in range(R):
                        for c in range(C):
                            weights[ty + r * TY, tx + c * TX] = ds[r, c]
                    cuda.syncthreads()
                    clear(query_sums)
                    add_product(query_sums, weights, keys, KEYS, TX, TY)
                    for r in range(R):
                        i = start + ty + r * TY
                        for c in range(OWN):
                            d = 4 * (tx + c // 4 * TX) + c % 4
                            if i < q.shape[1] and d < q.shape[2]:
                                cuda.atomic.add(dq, (n, i, d), query_sums[r, c] * scale)
        store_rows(dk, cuda.blockIdx.x, first, key_sums, scale, TX, TY)
        store_rows(dv, cuda.blockIdx.x, first, value_sums, ONE, TX, TY)

    return kernel(body, f"keys_{D}_{['plain', 'boolean', 'added'][MASK]}{'_add_dq' if ADD_DQ else ''}")


@functools.cache
def queries_kernel(D: int, MASK: int) -> Kernel:
    """dq, a block for each tile of queries of each head."""
    TX, TY, R, C = BACKWARD[D]
    ROWS, KEYS, OWN = R * TY, C * TX, D // TX
    STRIDE, WEIGHTS_STRIDE = D + 4, KEYS + 4

    def body(g, q, k, v, mask, mask_index, scale, offset, groups, lse, delta, dq):
        queries = cuda.shared.array((ROWS, STRIDE), float32, alignment=16)
        grads = cuda.shared.array((ROWS, STRIDE), float32, alignment=16)
        keys = cuda.shared.array((KEYS, STRIDE), float32, alignment=16)
        values = cuda.shared.array((KEYS, STRIDE), float32, alignment=16)
        weights = cuda.shared.array((ROWS, WEIGHTS_STRIDE), float32, alignment=16)
        p = cuda.local.array((R, C), float32)
        ds = cuda.local.array((R, C), float32)
        total = cuda.local.array((R, OWN), float32)
        tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
        n, size = cuda.blockIdx.x, k.shape[1]
        first = (cuda.gridDim.y - 1 - cuda.blockIdx.y) * ROWS
        clear(total)
        load_tile(queries, q, n, first, TX, TY)
        load_tile(grads, g, n, first, TX, TY)
        for start in range(0, min(size, first + ROWS + offset), KEYS):
            load_tile(keys, k, n // groups, start, TX, TY)
            load_tile(values, v, n // groups, start, TX, TY)
            cuda.syncthreads()
            row_products(p, queries, keys, D, TX, TY)
            row_products(ds, grads, values, D, TX, TY)
            for r in range(R):
                i = first + ty + r * TY
                for c in range(C):
                    j = start + tx + c * TX
                    d = ZERO
                    if i < q.shape[1] and j < size:
                        s = masked(p[r, c] * scale * LOG2_E, mask, mask_index, n, i, j, offset, q.shape[1], MASK)
                        d = weight(s, lse[n, i]) * (ds[r, c] - delta[n, i])
                    weights[ty + r * TY, tx + c * TX] = d
            cuda.syncthreads()
            add_product(total, weights, keys, KEYS, TX, TY)
            cuda.syncthreads()
        store_rows(dq, n, first, total, scale, TX, TY)

    return kernel(body, f"queries_{D}_{['plain', 'boolean', 'added'][MASK]}")


# -- the functions -----------------------------------------------------------------------------------------------------


def _variant(q: Array, mask: Array | None) -> tuple[int, int]:
    """The head size that kernels are made for, and the kind of mask."""
    size = next(d for d in sorted(FORWARD) if d >= q.shape[2])
    if mask is None:
        return size, NO_MASK
    return size, BOOLEAN if mask.dtype == bool else ADDED


def _mask(q: Array, mask: Array | None, mask_index: Array | None) -> tuple[Array, Array]:
    """What the kernels get where there is no mask: arrays that they do not look at."""
    if mask is None:
        return empty(q, 1, 1, 1), empty(q, 1, dtype=np.int64)
    return mask, mask_index


def attention(
    q: Array,
    k: Array,
    v: Array,
    scale: float,
    offset: int,
    mask: Array | None,
    mask_index: Array | None,
    out: Array,
    lse: Array,
) -> None:
    """Attention of q (N, T, D) to k, v (M, S, D) into `out` (N, T, D), log sum e^score into `lse` (N, T).

    N is a multiple of M, D at most MAX_HEAD_SIZE. Query i sees the keys j <= i + offset: 0 is the causal mask aligned
    top left, S lifts the limit. `mask` is None or (K, T or 1, S), float32 to be added or boolean, True where attention
    is allowed; mask_index (N,) says which of the K each head takes. A query that sees nothing gets zeros.
    """
    D, MASK = _variant(q, mask)
    TX, TY, R, _ = FORWARD[D]
    heads, rows, _ = q.shape
    forward_kernel(D, MASK)[(heads, -(-rows // (R * TY))), (TX, TY)](
        q, k, v, *_mask(q, mask, mask_index), float(scale), offset, heads // len(k), out, lse
    )


def attention_vjp(
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    scale: float,
    offset: int,
    mask: Array | None,
    mask_index: Array | None,
    out: Array,
    lse: Array,
    dq: Array,
    dk: Array,
    dv: Array,
    deterministic: bool = True,
) -> None:
    """Cotangents of q, k and v from `g` (N, T, D) and what `attention` wrote."""
    D, MASK = _variant(q, mask)
    TX, TY, R, C = BACKWARD[D]
    heads, rows, _ = q.shape
    delta = empty(q, heads, rows)
    delta_kernel[(heads, -(-rows // WARPS)), (WARP, WARPS)](g, out, delta)
    given = (g, q, k, v, *_mask(q, mask, mask_index), float(scale), offset, heads // len(k), lse, delta)
    if not deterministic:
        dq[...] = 0
    keys_kernel(D, MASK, not deterministic)[(len(k), -(-k.shape[1] // (C * TX))), (TX, TY)](*given, dq, dk, dv)
    if deterministic:
        queries_kernel(D, MASK)[(heads, -(-rows // (R * TY))), (TX, TY)](*given, dq)
