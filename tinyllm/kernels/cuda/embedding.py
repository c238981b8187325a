"""The derivative of an embedding, rows picked from a table by id: the cotangents of equal ids are added up.

The table is written once to clear it; each cotangent is read once and added to its row. Two ways to add:

* `embedding_vjp`: positions are sorted by id, and one block adds up those of one id, in order. Every run gives the same
  numbers, and a row of the table is written once; an id that comes very often keeps its one block busy for long.
* `embedding_vjp_atomic`: a block for each position, whose additions to one row queue up in the memory's cache. Sums
  come out in the order of arrival, so that their last digits differ from run to run.
"""

from __future__ import annotations

from tinyllm.device import namespace
from tinyllm.kernels.cuda.compile import Array, cuda, kernel
from tinyllm.kernels.cuda.rows import THREADS, ZERO


@kernel
def clear_kernel(out: Array) -> None:
    """One row of zeros."""
    for j in range(cuda.threadIdx.x, out.shape[1], THREADS):
        out[cuda.blockIdx.x, j] = ZERO


@kernel
def add_runs_kernel(g: Array, order: Array, ids: Array, out: Array) -> None:
    """The run of equal ids that begins at this block's place of the sorted order; nothing if none begins there."""
    start = cuda.blockIdx.x
    v = ids[order[start]]
    if start > 0 and ids[order[start - 1]] == v:
        return
    for j in range(cuda.threadIdx.x, g.shape[1], THREADS):
        total = ZERO
        k = start
        while k < ids.size and ids[order[k]] == v:
            total += g[order[k], j]
            k += 1
        out[v, j] = total


@kernel
def add_atomic_kernel(g: Array, ids: Array, out: Array) -> None:
    """One position."""
    i = cuda.blockIdx.x
    for j in range(cuda.threadIdx.x, g.shape[1], THREADS):
        cuda.atomic.add(out, (ids[i], j), g[i, j])


def embedding_vjp(g: Array, ids: Array, out: Array) -> None:
    """Cotangent of the table into `out` (V, C), from `g` (N, C) and the ids (N,), which are all in 0..V-1."""
    clear_kernel[len(out), THREADS](out)
    order = namespace(ids).argsort(ids, kind="stable")
    add_runs_kernel[ids.size, THREADS](g, order, ids, out)


def embedding_vjp_atomic(g: Array, ids: Array, out: Array) -> None:
    """The same, added in the order of arrival."""
    clear_kernel[len(out), THREADS](out)
    add_atomic_kernel[ids.size, THREADS](g, ids, out)
