"""The product of matrices of middling size in blocks that BLAS multiplies where they lie, a tenth faster than whole.

BLAS copies what it multiplies into an order that suits its innermost loop. That pays for large matrices; for a hundred
to a thousand rows and columns the copying takes a good part of the time, and what BLAS has copied pushes the operands
out of the nearer caches. Products of at most `UNPACKED` multiply-adds are done without copying. So `out` is cut into
blocks, and the sums into pieces of `DEPTH` terms, each a small product.

float32, one thread, GFLOP/s (m x k times k x n; a stored by columns where it says "a^T"):

    m, k, n             BLAS  blocks        m, k, n               BLAS  blocks
    768, 128, 512         94     111        1024, 1024, 256 a^T     98     107
    768, 512, 128         98     112        1536, 2048, 384 a^T    100     106
    768, 128, 512 a^T     95     107        2048, 384, 1536         99      88
    768, 512, 128 b^T     96     108        1024, 1024, 1024        99      95
"""

from __future__ import annotations

import numpy as np

from tinyllm.kernels.cpu import blas
from tinyllm.kernels.cpu.compile import Array, inline, jit
from tinyllm.kernels.cpu.gemm import gemm

# Multiply-adds of a product up to which OpenBLAS does not copy its operands first; 0 where it always does.
UNPACKED = 10**6 if blas.FOUND.unpacked else 0
# So many terms of a sum are added up in one product: with more, products of the same size are slower by a sixth.
DEPTH = 256
ROWS, COLUMNS = 48, 64  # of a block; with DEPTH fewer multiply-adds than UNPACKED
TILE = 16  # rows and columns of a matrix that are transposed at once: a number known when the loops are compiled
_HELD = 1 << 17  # elements of b that are needed at a time: with more, they do not stay in the second level of cache


def suits(a: Array, b: Array) -> bool:
    """Whether ``a @ b`` is faster in blocks: a rule of the shapes and of how the matrices lie."""
    if UNPACKED == 0 or a.ndim != 2 or b.ndim != 2 or a.dtype != b.dtype:
        return False
    return _stays(len(b), b.shape[1]) and a.itemsize in a.strides and b.itemsize in b.strides


@inline
def _stays(k, n):
    """Whether what is needed of a (k, n) matrix at a time stays in the caches."""
    return n * min(k, DEPTH) <= _HELD


@jit
def transpose(a: Array, out: Array) -> None:
    """Fill `out` (m, n) from `a` (n, m)."""
    n, m = a.shape
    whole_n, whole_m = n - n % TILE, m - m % TILE
    for i in range(0, whole_n, TILE):
        for j in range(0, whole_m, TILE):
            for c in range(TILE):
                for r in range(TILE):
                    out[j + c, i + r] = a[i + r, j + c]
    for i in range(n):
        for j in range(whole_m if i < whole_n else 0, m):
            out[j, i] = a[i, j]


@jit
def product(a: Array, b: Array, beta: float, out: Array) -> None:
    """``out = a @ b + beta * out``, (m, k), (k, n), (m, n), in blocks.

    The rows of each are contiguous, or, of `a` and `b`, the columns; with beta = 0 nothing of `out` is read.
    """
    one = a.dtype.type(1)
    strip = np.empty((DEPTH, COLUMNS), a.dtype)
    for k in range(0, a.shape[1], DEPTH):
        kept = one if k else beta
        if b.strides[1] == b.itemsize:
            for i in range(0, a.shape[0], ROWS):
                for j in range(0, b.shape[1], COLUMNS):
                    block = out[i : i + ROWS, j : j + COLUMNS]
                    gemm(one, a[i : i + ROWS, k : k + DEPTH], b[k : k + DEPTH, j : j + COLUMNS], kept, block)
        else:  # multiplied by columns, small products are slow
            for j in range(0, b.shape[1], COLUMNS):
                part = b[k : k + DEPTH, j : j + COLUMNS]
                turned = strip[: part.shape[0], : part.shape[1]]
                transpose(part.T, turned)
                for i in range(0, a.shape[0], ROWS):
                    block = out[i : i + ROWS, j : j + COLUMNS]
                    gemm(one, a[i : i + ROWS, k : k + DEPTH], turned, kept, block)


@jit
def matmul(a: Array, b: Array, beta: float, out: Array) -> None:
    """``out = a @ b + beta * out``, in whichever way is the faster one."""
    if UNPACKED > 0 and _stays(b.shape[0], b.shape[1]):
        product(a, b, beta, out)
    else:
        gemm(a.dtype.type(1), a, b, beta, out)
