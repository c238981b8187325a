"""Attention (F-ATTN) and its derivative, tile by tile: the weights of all queries for all keys are never stored.

    s = scale q k^T + mask;  p = e^(s - max s) / sum e^(s - max s);  y = p v
    dv = p^T g;  ds = p (g v^T - sum g y);  dq = scale ds k;  dk = scale ds^T q

Forward takes some queries and goes through the keys, a strip of them at a time. A maximum and a sum of exponentials are
kept for each query; where a maximum grows, what was summed before shrinks by e^(old - new) (the online softmax of
Milakov, Gimelshein 2018; FlashAttention, Dao et al. 2022, algorithm 1, in the order of its successor, 2023). Backward
computes each strip of weights again from the maximum and the sum, two numbers for a query, and uses it up at once.

Memory is read in tiles that stay in the second level of cache, and four fifths of the time go to the products, which
BLAS does. The tiles are held as (keys, queries): what belongs to a query is then a vector along a row, sums and maxima
are taken from row to row without a step across lanes, and each product has the form that BLAS is best at, with q and g
transposed once for all keys. Strips that lie above the diagonal of a causal mask are skipped, and those that it cuts
begin at the first query that sees them.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tinyllm.kernels.cpu.compile import Array, inline, jit
from tinyllm.kernels.cpu.gemm import gemm
from tinyllm.kernels.cpu.mathfn import exp
from tinyllm.kernels.cpu.philox import uniforms

# Blocks of queries, the keys between two rescalings, and the keys multiplied at once: the best of 64 to 192, 128 to 256
# and 32 to 128, for heads of 32 to 128 channels and 64 to 4096 positions, on one core with 1 MB of second-level cache.
# Strips of 32 keys keep the products small enough for the BLAS's kernels that do not pack their operands.
QUERIES, KEYS, STRIP = 128, 256, 32
# float32 numbers in the widest vector register; strips begin at a multiple of it.
LANES = 16


@jit
def positions(flat: Array, steps: Array, b: int, h: int, begin: int, end: int, columns: int) -> Array:
    """Positions `begin` to `end` of head h of batch b, as a matrix; `steps` between batches, heads, positions."""
    start = b * steps[0] + h * steps[1] + begin * steps[2]
    return as_strided(flat[start:], (end - begin, columns), (steps[2] * flat.itemsize, flat.itemsize))


@jit
def part(a: Array, rows: int, first: int, end: int) -> Array:
    """``a[:rows, first:end]``: a function of its own, so that it is compiled once and not wherever it is used."""
    return a[:rows, first:end]


@inline
def first_query(j, i, offset, count):
    """From which of the `count` queries after query i key j is worked on: the first that sees it, or a few before."""
    return min(max(j - offset - i, 0), count) // LANES * LANES


@jit
def transpose(a: Array, out: Array) -> None:
    """Copy a matrix (n, m) into the first n columns of `out` (m, N)."""
    for r in range(a.shape[0]):
        for c in range(a.shape[1]):
            out[c, r] = a[r, c]


@jit
def clear(a: Array) -> None:
    """Fill a matrix with zeros."""
    for r in range(a.shape[0]):
        for c in range(a.shape[1]):
            a[r, c] = 0


# -- on the first n keys of a tile (keys, queries), and there on the queries `first` to `end` --------------------------


@jit
def hide(tile: Array, n: int, first: int, end: int, begin: int) -> None:
    """-inf for the queries before the first that sees a key: number `begin` for the first key, then one more each."""
    for c in range(n):
        row = tile[c, first : min(max(begin + c, first), end)]
        for r in range(row.size):
            row[r] = -np.inf


@jit
def add_mask(tile: Array, n: int, first: int, end: int, mask: Array, i: int, j: int) -> None:
    """Add a mask (T or 1, S) to the scores, from its query i and key j on."""
    step = mask.strides[0] if mask.shape[0] > 1 else 0
    for c in range(n):
        row = tile[c, first:end]
        column = as_strided(mask[i + first if mask.shape[0] > 1 else 0, j + c :], (row.size,), (step,))
        for r in range(row.size):
            row[r] += column[r]


@jit
def raise_to(top: Array, tile: Array, n: int, first: int, end: int) -> None:
    """Raise the maximum of each query to the largest of its scores."""
    largest = top[first:end]
    for c in range(n):
        row = tile[c, first:end]
        for r in range(row.size):
            largest[r] = row[r] if row[r] > largest[r] else largest[r]


@jit
def exponentials(tile: Array, n: int, first: int, end: int, base: Array, total: Array) -> None:
    """Turn scores into e^(score - base of the query), and add these to the total of the query."""
    base, total = base[first:end], total[first:end]
    for c in range(n):
        row = tile[c, first:end]
        for r in range(row.size):
            e = exp(row[r] - base[r])
            row[r] = e
            total[r] += e


@jit
def weights(tile: Array, n: int, first: int, end: int, base: Array, inverse: Array) -> None:
    """Turn scores into weights."""
    base, inverse = base[first:end], inverse[first:end]
    for c in range(n):
        row = tile[c, first:end]
        for r in range(row.size):
            row[r] = exp(row[r] - base[r]) * inverse[r]


@jit
def weights_vjp(g: Array, n: int, first: int, end: int, weight: Array, along: Array) -> None:
    """Turn cotangents of weights into those of scores; `along` is the sum of weight times cotangent of the query."""
    along = along[first:end]
    for c in range(n):
        g_row, row = g[c, first:end], weight[c, first:end]
        for r in range(row.size):
            g_row[r] = row[r] * (g_row[r] - along[r])


@jit
def drop(
    tile: Array, n: int, first: int, end: int, row: int, S: int, j: int, dropout_p: float, key: Array, width: int
) -> None:
    """Multiply the weights of the keys from j on by dropout's factors.

    In the array of all weights (..., S), of which `width` make up a sample, the tile's first query is row `row`. `key`
    holds the halves of the seed, the step, the layer and the first sample.
    """
    keep, p = tile.dtype.type(1 / (1 - dropout_p)), np.float32(dropout_p)
    room = np.empty(n + 6, np.float32)
    for r in range(first, end):
        number = (row + r) * S + j
        begin = number % width
        at = uniforms(key, key[4] + np.uint64(number // width), begin, begin + n, room)
        for c in range(n):
            tile[c, r] *= keep if room[at + c] >= p else tile.dtype.type(0)


# -- on what is kept for each query ------------------------------------------------------------------------------------


@jit
def rescale(rows: int, top: Array, before: Array, total: Array, sums: Array, base: Array) -> None:
    """Shrink what was summed under the old maxima, `before`, to the new ones; the finite ones are the new `base`."""
    for r in range(rows):
        base[r] = top[r] if top[r] > -np.inf else 0
        shrunk = exp(before[r] - base[r])  # 0 where there was nothing before
        before[r] = top[r]
        if shrunk != 1:
            total[r] *= shrunk
            for d in range(sums.shape[1]):
                sums[r, d] *= shrunk


@jit
def finish(total: Array, sums: Array, inverse: Array, results: Array) -> None:
    """Divide the sums by the totals; zeros for a query that sees nothing."""
    for r in range(results.shape[0]):
        inverse[r] = 1 / total[r] if total[r] != 0 else 0
        for d in range(results.shape[1]):
            results[r, d] = inverse[r] * sums[r, d]


@jit
def along_weights(g: Array, y: Array, along: Array) -> None:
    """The sum over the keys of weight times cotangent, which is that of result times cotangent over the channels."""
    for r in range(g.shape[0]):
        total = g.dtype.type(0)
        for d in range(g.shape[1]):
            total += g[r, d] * y[r, d]
        along[r] = total


# -- the two kernels ---------------------------------------------------------------------------------------------------


@jit
def attention(
    q: Array,
    k: Array,
    v: Array,
    steps: Array,
    sizes: tuple[int, int, int, int, int, int],
    scale: float,
    offset: int,
    mask: Array,
    which: Array,
    dropout_p: float,
    key: Array,
    width: int,
    begin: int,
    end: int,
    y: Array,
    shift: Array,
    inverse: Array,
) -> None:
    """Attention of the blocks of queries ``begin <= n < end``, counted through batch and heads.

    `q`, `k`, `v` and `y` are flat arrays in which queries (B, H, T, D), keys (B, H / G, S, D), values (B, H / G, S, E)
    and results (B, H, T, E) lie, one row of contiguous numbers for each position; `steps` (4, 3) says how far apart
    batches, heads and positions are in each, `sizes` is (H, G, T, S, D, E). Query i sees the keys ``j <= i + offset``.
    `mask` (M, T or 1, S), M = 0 where there is none, is added to the scores; `which` (B * H,) says which of the M each
    head takes. `key` and `width` are as in `drop`. What backward needs goes to `shift` and `inverse`
    (B * H * T,): the maximum of each query's scores, 0 where it sees nothing, and the inverse of its sum.
    """
    H, G, T, S, D, E = sizes
    zero, one, scale = q.dtype.type(0), q.dtype.type(1), q.dtype.type(scale)
    q_t, sums = np.empty((D, QUERIES), q.dtype), np.empty((QUERIES, E), q.dtype)
    tiles = np.empty((KEYS // STRIP, STRIP, QUERIES), q.dtype)
    top, before, total = np.empty(QUERIES, q.dtype), np.empty(QUERIES, q.dtype), np.empty(QUERIES, q.dtype)
    blocks = (T + QUERIES - 1) // QUERIES
    for block in range(begin, end):
        head, i = block // blocks, block % blocks * QUERIES
        b, h, i_end = head // H, head % H, min(i + QUERIES, T)
        rows = i_end - i
        base = shift[head * T + i : head * T + i_end]
        transpose(positions(q, steps[0], b, h, i, i_end, D), q_t)
        clear(sums)
        top[:], before[:], total[:] = -np.inf, -np.inf, 0
        seen = min(S, i_end + offset)
        for j in range(0, seen, KEYS):
            j_end = min(j + KEYS, seen)
            for c in range(j, j_end, STRIP):
                tile, first, n = tiles[(c - j) // STRIP], first_query(c, i, offset, rows), min(STRIP, j_end - c)
                keys = positions(k, steps[1], b, h // G, c, c + n, D)
                gemm(scale, keys, part(q_t, D, first, rows), zero, part(tile, n, first, rows))
                if mask.size > 0:
                    add_mask(tile, n, first, rows, mask[which[head]], i, c)
                hide(tile, n, first, rows, c - offset - i)
                raise_to(top, tile, n, first, rows)
            rescale(rows, top, before, total, sums, base)
            for c in range(j, j_end, STRIP):
                tile, first, n = tiles[(c - j) // STRIP], first_query(c, i, offset, rows), min(STRIP, j_end - c)
                exponentials(tile, n, first, rows, base, total)
                if dropout_p > 0:
                    drop(tile, n, first, rows, head * T + i, S, c, dropout_p, key, width)
                values = positions(v, steps[2], b, h // G, c, c + n, E)
                gemm(one, part(tile, n, first, rows).T, values, one, part(sums[first:], rows - first, 0, E))
        if seen <= 0:
            base[:] = 0
        finish(total, sums, inverse[head * T + i :], positions(y, steps[3], b, h, i, i_end, E))


@jit
def attention_vjp(
    g: Array,
    y: Array,
    q: Array,
    k: Array,
    v: Array,
    steps: Array,
    sizes: tuple[int, int, int, int, int, int],
    scale: float,
    offset: int,
    mask: Array,
    which: Array,
    dropout_p: float,
    key: Array,
    width: int,
    shift: Array,
    inverse: Array,
    begin: int,
    end: int,
    dq: Array,
    dk: Array,
    dv: Array,
) -> None:
    """Cotangents of attention's queries, keys and values from that of its result, `g`.

    For the heads of keys and values ``begin <= n < end``, counted through the batch, and all heads of queries that
    share them. `steps` (8, 3) is that of g, y, q, k, v, dq, dk, dv, in this order; the rest is as in `attention`.
    """
    H, G, T, S, D, E = sizes
    zero, one, scale = q.dtype.type(0), q.dtype.type(1), q.dtype.type(scale)
    q_t, g_t, along = np.empty((D, QUERIES), q.dtype), np.empty((E, QUERIES), q.dtype), np.empty(QUERIES, q.dtype)
    tile, g_tile = np.empty((STRIP, QUERIES), q.dtype), np.empty((STRIP, QUERIES), q.dtype)
    used = np.empty((STRIP, QUERIES), q.dtype) if dropout_p > 0 else tile
    for pair in range(begin, end):
        b, shared = pair // (H // G), pair % (H // G)
        clear(positions(dk, steps[6], b, shared, 0, S, D))
        clear(positions(dv, steps[7], b, shared, 0, S, E))
        for h in range(shared * G, shared * G + G):
            head = b * H + h
            for i in range(0, T, QUERIES):
                i_end = min(i + QUERIES, T)
                rows, base, scaling = i_end - i, shift[head * T + i :], inverse[head * T + i :]
                gs = positions(g, steps[0], b, h, i, i_end, E)
                transpose(gs, g_t)
                transpose(positions(q, steps[2], b, h, i, i_end, D), q_t)
                along_weights(gs, positions(y, steps[1], b, h, i, i_end, E), along)
                clear(positions(dq, steps[5], b, h, i, i_end, D))
                seen = min(S, i_end + offset)
                for c in range(0, seen, STRIP):
                    first, n = first_query(c, i, offset, rows), min(STRIP, seen - c)
                    keys = positions(k, steps[3], b, shared, c, c + n, D)
                    gemm(scale, keys, part(q_t, D, first, rows), zero, part(tile, n, first, rows))
                    if mask.size > 0:
                        add_mask(tile, n, first, rows, mask[which[head]], i, c)
                    hide(tile, n, first, rows, c - offset - i)
                    weights(tile, n, first, rows, base, scaling)
                    values = positions(v, steps[4], b, shared, c, c + n, E)
                    gemm(one, values, part(g_t, E, first, rows), zero, part(g_tile, n, first, rows))
                    if dropout_p > 0:
                        used[:n] = tile[:n]
                        drop(used, n, first, rows, head * T + i, S, c, dropout_p, key, width)
                        drop(g_tile, n, first, rows, head * T + i, S, c, dropout_p, key, width)
                    gs = positions(g, steps[0], b, h, i + first, i_end, E)
                    gemm(one, part(used, n, first, rows), gs, one, positions(dv, steps[7], b, shared, c, c + n, E))
                    weights_vjp(g_tile, n, first, rows, tile, along)
                    d_scores, queries = part(g_tile, n, first, rows), positions(q, steps[2], b, h, i + first, i_end, D)
                    gemm(scale, d_scores, queries, one, positions(dk, steps[6], b, shared, c, c + n, D))
                    gemm(scale, d_scores.T, keys, one, positions(dq, steps[5], b, h, i + first, i_end, D))
