"""Softmax and its logarithm over the last axis, with their derivatives.

    softmax: y = e^(x - max x) / sum e^(x - max x)        dx = y (g - sum g y)
    log_softmax: y = x - max x - log sum e^(x - max x)    dx = g - e^y sum g

Row by row: each pass over a row finds it in cache, so that memory is read once and written once. The maximum comes
first, in a pass of its own, because a maximum and a sum kept up together would rescale the sum again and again.
"""

from __future__ import annotations

import numpy as np

from tinyllm.kernels.cpu.compile import Array, jit
from tinyllm.kernels.cpu.mathfn import exp
from tinyllm.kernels.cpu.rows import exponentials, maximum, surprisal


@jit
def softmax(x: Array, out: Array) -> None:
    """Softmax of each row of `x` (rows, cols) into `out`. A row of -inf alone gives NaN."""
    one = x.dtype.type(1)
    for i in range(x.shape[0]):
        row, y = x[i], out[i]
        for j in range(row.size):
            y[j] = row[j]
        inverse = one / exponentials(y, maximum(row))
        for j in range(y.size):
            y[j] *= inverse


@jit
def softmax_vjp(g: Array, y: Array, out: Array) -> None:
    """Cotangent of softmax's input from that of its output and the output `y`, all (rows, cols)."""
    for i in range(g.shape[0]):
        g_row, y_row, out_row = g[i], y[i], out[i]
        total = g.dtype.type(0)
        for j in range(y_row.size):
            total += g_row[j] * y_row[j]
        for j in range(y_row.size):
            out_row[j] = y_row[j] * (g_row[j] - total)


@jit
def log_softmax(x: Array, out: Array) -> None:
    """Log-softmax of each row of `x` (rows, cols) into `out`."""
    for i in range(x.shape[0]):
        row, y = x[i], out[i]
        largest = maximum(row)
        for j in range(row.size):
            y[j] = row[j]
        log_total = np.log(exponentials(y, largest))
        for j in range(row.size):
            y[j] = -surprisal(row[j], largest, log_total)


@jit
def log_softmax_vjp(g: Array, y: Array, out: Array) -> None:
    """Cotangent of log-softmax's input from that of its output and the output `y`, all (rows, cols)."""
    for i in range(g.shape[0]):
        g_row, y_row, out_row = g[i], y[i], out[i]
        total = g.dtype.type(0)
        for j in range(g_row.size):
            total += g_row[j]
        for j in range(g_row.size):
            out_row[j] = g_row[j] - exp(y_row[j]) * total
