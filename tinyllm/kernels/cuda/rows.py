"""What the kernels do along a row with a block of threads: sums, maxima, log-sum-exp; and down columns.

Thread t of a block has the elements t, t + THREADS, ... of the row, so that a warp always reads 32 neighbours. What the
threads found is put together in the warps, by shuffles, and then once across the warps, through shared memory.
"""

from __future__ import annotations

import numpy as np

from tinyllm.kernels.cuda.compile import Array, cuda, float32, inline, kernel
from tinyllm.kernels.cuda.intrinsics import WARP, exp, warp_max, warp_sum

THREADS = 128
WARPS = THREADS // WARP
ZERO, ONE, HIDDEN = np.float32(0), np.float32(1), np.float32(-np.inf)

# Blocks that walk down many rows, each with column sums of its own: some four for each processor.
WALKERS = 512


@inline
def block_sum(value, partial):
    """Sum over the block, the same in each thread and every run; `partial` is shared memory for a number per warp."""
    value = warp_sum(value)
    if cuda.threadIdx.x % WARP == 0:
        partial[cuda.threadIdx.x // WARP] = value
    cuda.syncthreads()
    total = partial[0]
    for i in range(1, WARPS):
        total += partial[i]
    cuda.syncthreads()  # `partial` may be used again
    return total


@inline
def block_max(value, partial):
    """Largest of the block; NaN may be overlooked."""
    value = warp_max(value)
    if cuda.threadIdx.x % WARP == 0:
        partial[cuda.threadIdx.x // WARP] = value
    cuda.syncthreads()
    largest = partial[0]
    for i in range(1, WARPS):
        largest = max(largest, partial[i])
    cuda.syncthreads()
    return largest


@inline
def exponentials(x, i, partial):
    """(max, sum of e^(x - max)) of row `i`, which is read once.

    A thread keeps the sum relative to the largest number it has seen, and rescales it when that grows (Milakov,
    Gimelshein 2018, algorithm 3): once for four numbers, which are asked for together so that waiting is shared.
    """
    top, total = HIDDEN, ZERO
    size = x.shape[1]
    for start in range(cuda.threadIdx.x, size, 4 * THREADS):
        a = x[i, start]
        b = x[i, start + THREADS] if start + THREADS < size else HIDDEN
        c = x[i, start + 2 * THREADS] if start + 2 * THREADS < size else HIDDEN
        d = x[i, start + 3 * THREADS] if start + 3 * THREADS < size else HIDDEN
        larger = max(top, max(max(a, b), max(c, d)))
        shift = larger if larger > HIDDEN else ZERO  # while all is -inf, e^(-inf - 0) is the right zero
        total = total * exp(top - shift)
        total += exp(a - shift) + exp(b - shift) + exp(c - shift) + exp(d - shift)
        top = larger
    largest = block_max(top, partial)
    shift = largest if largest > HIDDEN else ZERO
    return largest, block_sum(total * exp(top - shift), partial)


@kernel
def column_sums_kernel(x: Array, out: Array) -> None:
    """Sums down the columns of `x` (R, C) into `out` (C,): 32 columns for a block, down which 32 warps walk."""
    sums = cuda.shared.array((WARP, WARP), float32)
    column, walker = cuda.threadIdx.x, cuda.threadIdx.y
    j = cuda.blockIdx.x * WARP + column
    total = ZERO
    if j < x.shape[1]:
        for i in range(walker, x.shape[0], WARP):
            total += x[i, j]
    sums[walker, column] = total
    cuda.syncthreads()
    if walker == 0 and j < x.shape[1]:
        for k in range(1, WARP):
            total += sums[k, column]
        out[j] = total


def column_sums(x: Array, out: Array) -> None:
    """Sums down the columns of `x` (R, C) into `out` (C,)."""
    column_sums_kernel[-(-x.shape[1] // WARP), (WARP, WARP)](x, out)
