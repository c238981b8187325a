"""Rows picked from a table by id, and the derivative: the cotangents of equal ids are added up.

Backward reads the ids in order and adds each cotangent to its row, where that is in the range of the table at hand.
Going by position and not by id needs no sorting, and gives every row the same order of addition, however the table is
cut into ranges. What the rows hold is added to: a table is large, and most of it is not touched.
"""

from __future__ import annotations

from tinyllm.kernels.cpu.compile import Array, jit


@jit
def embedding(weight: Array, ids: Array, out: Array) -> None:
    """Rows of `weight` (V, C) into `out` (N, C), by the ids (N,), which are all in 0..V-1."""
    for i in range(ids.size):
        row, y = weight[ids[i]], out[i]
        for j in range(row.size):
            y[j] = row[j]


@jit
def embedding_vjp(g: Array, ids: Array, first: int, table: Array) -> None:
    """Add cotangents `g` (N, C), in place, to the rows of `table` (R, C), of the ids `first`, `first` + 1, ..."""
    for i in range(ids.size):
        v = ids[i] - first
        if 0 <= v < table.shape[0]:
            g_row, row = g[i], table[v]
            for j in range(row.size):
                row[j] += g_row[j]
