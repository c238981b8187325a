"""Matrix products within a kernel: NumPy's own BLAS, called from compiled code.

A kernel that works tile by tile needs products of tiles, and returning to Python for each would cost as much as the
product. BLAS is called by its address, which LLVM learns under a name that does not change; so kernels can be kept on
disk and find the function again in another process. BLAS takes the distance between rows, so that tiles of larger
arrays are multiplied where they lie.

Where NumPy has no BLAS that can be found, plain loops do the same.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numpy as np
from numba import types
from numba.extending import overload

from tinyllm.kernels.cpu import blas
from tinyllm.kernels.cpu.compile import FAST, Array, inline, jit

ROW_MAJOR, PLAIN, TRANSPOSED = np.int32(101), np.int32(111), np.int32(112)
Integer = types.int32 if blas.FOUND.bits == 32 else types.int64
integer = np.int32 if blas.FOUND.bits == 32 else np.int64


def _declare(symbol: str, address: int, number: Any) -> Any:
    """cblas_sgemm or cblas_dgemm: C = alpha A B + beta C, with sizes, and the distance between the rows of each."""
    if address:
        llvmlite.binding.add_symbol(symbol, address)
    order, size, matrix = types.int32, Integer, types.CPointer(number)
    return types.ExternalFunction(
        symbol,
        types.void(
            *(order, order, order, size, size, size),
            *(number, matrix, size, matrix, size, number, matrix, size),
        ),
    )


sgemm = _declare("tinyllm_sgemm", blas.FOUND.sgemm, types.float32)
dgemm = _declare("tinyllm_dgemm", blas.FOUND.dgemm, types.float64)


@inline
def orientation(a):
    """How BLAS is told of a matrix whose rows, or whose columns, are contiguous: (transposed or not, distance)."""
    if a.strides[1] == a.itemsize:
        return PLAIN, integer(max(a.strides[0] // a.itemsize, a.shape[1]))
    return TRANSPOSED, integer(max(a.strides[1] // a.itemsize, a.shape[0]))


def multiply(alpha: Any, a: Any, b: Any, beta: Any, out: Any) -> None:
    """What `gemm` does."""
    product = alpha * (a @ b)
    out[...] = product if beta == 0 else product + beta * out


@overload(multiply, jit_options=FAST)
def multiply_for_dtype(alpha, a, b, beta, out):
    """The product that a kernel of this dtype calls."""
    if not blas.FOUND.bits:
        return loops
    function = sgemm if a.dtype == types.float32 else dgemm

    def call(alpha, a, b, beta, out):
        a_order, a_step = orientation(a)
        b_order, b_step = orientation(b)
        out_step = integer(max(out.strides[0] // out.itemsize, out.shape[1]))
        m, n, k = integer(out.shape[0]), integer(out.shape[1]), integer(a.shape[1])
        function(
            *(ROW_MAJOR, a_order, b_order, m, n, k),
            *(alpha, a.ctypes, a_step, b.ctypes, b_step, beta, out.ctypes, out_step),
        )

    return call


def loops(alpha, a, b, beta, out):
    """The product in plain loops, along the rows of `b` and `out`."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = out.dtype.type(0) if beta == 0 else beta * out[i, j]
        for p in range(a.shape[1]):
            factor = alpha * a[i, p]
            for j in range(out.shape[1]):
                out[i, j] += factor * b[p, j]


@jit
def gemm(alpha: float, a: Array, b: Array, beta: float, out: Array) -> None:
    """``out = alpha * a @ b + beta * out``, for the matrices (m, k), (k, n) and (m, n).

    The rows of each are contiguous, or, of `a` and `b`, the columns; with beta = 0 nothing of `out` is read.
    """
    multiply(alpha, a, b, beta, out)
