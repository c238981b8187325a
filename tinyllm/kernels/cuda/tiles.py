"""What products of matrices are made of: rows of four numbers, to and from memory, and added up in registers.

A thread's own sums are a local array, which the compiler keeps in registers, provided that every index into it is a
constant once the loops are unrolled.
"""

from __future__ import annotations

import numpy as np

from tinyllm.kernels.cuda.compile import inline
from tinyllm.kernels.cuda.intrinsics import load4, store4

ZERO = np.float32(0)


@inline
def fetch(x, i, j):
    """An element, or 0 outside."""
    return x[i, j] if i < x.shape[0] and j < x.shape[1] else ZERO


@inline
def fetch4(x, i, j):
    """Four neighbours in a row, zeros outside; in one access where rows begin at multiples of 16 bytes."""
    if i < x.shape[0] and j + 4 <= x.shape[1] and x.shape[1] % 4 == 0:
        four = load4(x, (i, j))
    else:
        four = fetch(x, i, j), fetch(x, i, j + 1), fetch(x, i, j + 2), fetch(x, i, j + 3)
    return four


@inline
def put4(out, i, j, a, b, c, d):
    """Store four neighbours in a row, as far as they are inside."""
    if i < out.shape[0]:
        if j + 4 <= out.shape[1] and out.shape[1] % 4 == 0:
            store4(out, (i, j), a, b, c, d)
        else:
            if j < out.shape[1]:
                out[i, j] = a
            if j + 1 < out.shape[1]:
                out[i, j + 1] = b
            if j + 2 < out.shape[1]:
                out[i, j + 2] = c
            if j + 3 < out.shape[1]:
                out[i, j + 3] = d


@inline
def clear(total):
    """Zeros everywhere in a thread's sums."""
    for r in range(total.shape[0]):
        for c in range(total.shape[1]):
            total[r, c] = ZERO


@inline
def add_scaled(total, r, a, right, row, first, step):
    """total[r, 4 c + x] += a * right[row, first + c step + x]; a row that is read for several r is read once."""
    for c in range(total.shape[1] // 4):
        b0, b1, b2, b3 = load4(right, (row, first + c * step))
        total[r, 4 * c] += a * b0
        total[r, 4 * c + 1] += a * b1
        total[r, 4 * c + 2] += a * b2
        total[r, 4 * c + 3] += a * b3
