"""Softmax and its logarithm over the last axis, with their derivatives.

    softmax: y = e^(x - max x) / sum e^(x - max x)        dx = y (g - sum g y)
    log_softmax: y = x - max x - log sum e^(x - max x)    dx = g - e^y sum g

A block of threads for each row. A row is read twice, for the maximum and the sum in one sweep and for the result, and
written once; up to some 10,000 numbers the second reading finds it in the processor's own cache, so that memory is read
once and written once.
"""

from __future__ import annotations

from tinyllm.kernels.cuda.compile import Array, cuda, float32, kernel
from tinyllm.kernels.cuda.intrinsics import exp, log
from tinyllm.kernels.cuda.rows import ONE, THREADS, WARPS, ZERO, block_sum, exponentials


@kernel
def softmax_kernel(x: Array, out: Array) -> None:
    """One row."""
    partial = cuda.shared.array(WARPS, float32)
    i = cuda.blockIdx.x
    top, total = exponentials(x, i, partial)
    inverse = ONE / total
    for j in range(cuda.threadIdx.x, x.shape[1], THREADS):
        out[i, j] = exp(x[i, j] - top) * inverse


@kernel
def softmax_vjp_kernel(g: Array, y: Array, out: Array) -> None:
    """One row."""
    partial = cuda.shared.array(WARPS, float32)
    i = cuda.blockIdx.x
    along = ZERO
    for j in range(cuda.threadIdx.x, y.shape[1], THREADS):
        along += g[i, j] * y[i, j]
    along = block_sum(along, partial)
    for j in range(cuda.threadIdx.x, y.shape[1], THREADS):
        out[i, j] = y[i, j] * (g[i, j] - along)


@kernel
def log_softmax_kernel(x: Array, out: Array) -> None:
    """One row."""
    partial = cuda.shared.array(WARPS, float32)
    i = cuda.blockIdx.x
    top, total = exponentials(x, i, partial)
    log_total = log(total)
    for j in range(cuda.threadIdx.x, x.shape[1], THREADS):
        out[i, j] = (x[i, j] - top) - log_total  # in this order, large logits lose no digits


@kernel
def log_softmax_vjp_kernel(g: Array, y: Array, out: Array) -> None:
    """One row."""
    partial = cuda.shared.array(WARPS, float32)
    i = cuda.blockIdx.x
    total = ZERO
    for j in range(cuda.threadIdx.x, y.shape[1], THREADS):
        total += g[i, j]
    total = block_sum(total, partial)
    for j in range(cuda.threadIdx.x, y.shape[1], THREADS):
        out[i, j] = g[i, j] - exp(y[i, j]) * total


def softmax(x: Array, out: Array) -> None:
    """Softmax of each row of `x` (rows, cols) into `out`. A row of -inf alone gives NaN."""
    softmax_kernel[len(x), THREADS](x, out)


def softmax_vjp(g: Array, y: Array, out: Array) -> None:
    """Cotangent of softmax's input from that of its output and the output `y`, all (rows, cols)."""
    softmax_vjp_kernel[len(y), THREADS](g, y, out)


def log_softmax(x: Array, out: Array) -> None:
    """Log-softmax of each row of `x` (rows, cols) into `out`."""
    log_softmax_kernel[len(x), THREADS](x, out)


def log_softmax_vjp(g: Array, y: Array, out: Array) -> None:
    """Cotangent of log-softmax's input from that of its output and the output `y`, all (rows, cols)."""
    log_softmax_vjp_kernel[len(y), THREADS](g, y, out)
