"""The derivative of an embedding, rows picked from a table by id: the cotangents of equal ids are added up.

The table is written once to clear it; then each cotangent is read once, in order, and added to its row. Going by
position and not by id needs no sorting, and gives every run the same order of addition.
"""

from __future__ import annotations

from tinyllm.kernels.cpu.compile import Array, jit


@jit
def embedding_vjp(g: Array, ids: Array, out: Array) -> None:
    """Cotangent of the table into `out` (V, C), from `g` (N, C) and the ids (N,), which are all in 0..V-1."""
    for v in range(out.shape[0]):
        row = out[v]
        for j in range(row.size):
            row[j] = 0
    for i in range(ids.size):
        g_row, row = g[i], out[ids[i]]
        for j in range(row.size):
            row[j] += g_row[j]
