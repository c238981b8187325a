"""Matrix products with few rows on the left, at the rate of large ones: the right one is kept in strips of columns.

BLAS copies what it multiplies into blocks that suit its innermost loop, before every product. For a recurrent layer,
which multiplies a few rows by the same matrix at every step, the copying of the matrix takes as long as the arithmetic.
Products of at most some 10^6 multiply-adds are done where the operands lie; so the matrix is cut, once, into strips
narrow enough for that, each contiguous, and a product becomes one small product per strip.
"""

from __future__ import annotations

from tinyllm.kernels.cpu.blocks import DEPTH
from tinyllm.kernels.cpu.compile import Array, jit
from tinyllm.kernels.cpu.gemm import gemm


@jit
def times_strips(a: Array, strips: Array, beta: float, out: Array) -> None:
    """``out = a @ w + beta * out``: (B, K), (K, N) and (B, N); `strips` (N / S, K, S) hold w, the last one padded."""
    one, K, N, S = a.dtype.type(1), a.shape[1], out.shape[1], strips.shape[2]
    for p in range(strips.shape[0]):
        end = min(p * S + S, N)
        for k in range(0, K, DEPTH):
            part = strips[p, k : k + DEPTH, : end - p * S]
            gemm(one, a[:, k : k + DEPTH], part, one if k else beta, out[:, p * S : end])


@jit
def times_steps(a: Array, strips: Array, begin: int, out: Array) -> None:
    """``out[t, begin : begin + n] = a[t] @ w`` for all t: (T, n, K), (K, N) in strips and (T, B, N)."""
    zero, n = a.dtype.type(0), a.shape[1]
    for t in range(a.shape[0]):
        times_strips(a[t], strips, zero, out[t, begin : begin + n])
