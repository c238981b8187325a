"""What a single new token needs: products of a few rows with a large matrix, and attention of a few queries.

    y = x w^T;    p = softmax(scale q k^T + mask),  y = p v

Each number of the large operand (w; k and v) is used once or a few times, so that reading memory takes the time, and a
core reads fastest in one stream: row after row, each row whole. BLAS reads several rows at once for the sake of its
registers, and reaches half of that. The few rows of the other side stay in the first level of cache.
"""

from __future__ import annotations

import numpy as np

from tinyllm.kernels.cpu.compile import Array, inline, jit
from tinyllm.kernels.cpu.mathfn import exp


@inline
def dot(a, b):
    """The sum of products of two vectors."""
    total = a.dtype.type(0)
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@jit
def product(x: Array, w: Array, out: Array) -> None:
    """``out = x w^T`` for x (m, k) and w (n, k), both contiguous, and out (m, n)."""
    for j in range(w.shape[0]):
        row = w[j]
        for i in range(x.shape[0]):
            out[i, j] = dot(x[i], row)


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
    begin: int,
    end: int,
    p: Array,
    y: Array,
) -> None:
    """Weights p (units, S) and results y (units, E) of the queries `begin` to `end`.

    `q`, `k` and `v` are flat memory, in which `steps` (3, 3) lie between batches, heads and positions; `sizes` are
    heads H, queries' heads per head of keys, T, S, D, E; a unit is a query of a head of a batch, in this order. Query t
    sees the keys up to t + `offset`, and adds ``mask[which[head]]`` (T or 1, S) unless that is empty.
    """
    H, G, T, S, D, E = sizes
    scaling = q.dtype.type(scale)
    for unit in range(begin, end):
        head, t = unit // T, unit % T
        b, h = head // H, head % H
        row, values = p[unit], y[unit]
        seen = min(S, max(0, t + offset + 1))
        start = b * steps[0, 0] + h * steps[0, 1] + t * steps[0, 2]
        query = q[start : start + D]
        start = b * steps[1, 0] + h // G * steps[1, 1]
        for j in range(seen):
            place = start + j * steps[1, 2]
            row[j] = scaling * dot(query, k[place : place + D])
        if mask.size:
            added = mask[which[head], t if mask.shape[1] > 1 else 0]
            for j in range(seen):
                row[j] += added[j]
        top = row.dtype.type(-np.inf)
        for j in range(seen):
            top = max(top, row[j])
        row[seen:] = 0
        values[:] = 0
        if top == -np.inf:  # a query that may see nothing
            row[:] = 0
            continue
        total = row.dtype.type(0)
        for j in range(seen):
            row[j] = exp(row[j] - top)
            total += row[j]
        start = b * steps[2, 0] + h // G * steps[2, 1]
        for j in range(seen):
            row[j] /= total
            weight, place = row[j], start + j * steps[2, 2]
            added = v[place : place + E]
            for c in range(E):
                values[c] += weight * added[c]
