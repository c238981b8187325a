"""A block of a Llama for many new tokens, held as (channels, tokens): what gives BLAS the products that it is best at.

    x += attention(rms_norm(x));    x += w_down (silu(w_gate n) * w_up n) with n = rms_norm(x)

A prompt of a hundred tokens is a hundred columns that every weight matrix is multiplied by. With both operands as they
lie in memory, ``w @ x`` for w (out, in) and x (in, tokens), BLAS rearranges least, and is faster by a tenth to a sixth
than at ``x @ w.T``; and what belongs to a token is a column, so that norms, gates and turns are vectors along the rows.
The threads share the rows of each product. The order of the steps is that of the model's page.
"""

from __future__ import annotations

import numpy as np

from tinyllm.kernels.cpu.blocks import matmul, transpose
from tinyllm.kernels.cpu.compile import Array, jit
from tinyllm.kernels.cpu.mathfn import exp


@jit
def norm(x: Array, weight: Array, eps: float, out: Array, begin: int, end: int) -> None:
    """``x / sqrt(mean(x^2) + eps) * weight`` of the columns `begin` to `end`, the tokens."""
    one, factor = x.dtype.type(1), np.zeros(end - begin, x.dtype)
    for c in range(x.shape[0]):
        row = x[c, begin:end]
        for t in range(row.size):
            factor[t] += row[t] * row[t]
    for t in range(factor.size):
        factor[t] = one / np.sqrt(factor[t] / x.shape[0] + x.dtype.type(eps))
    for c in range(x.shape[0]):
        row, normed, scale = x[c, begin:end], out[c, begin:end], weight[c]
        for t in range(row.size):
            normed[t] = row[t] * factor[t] * scale


@jit
def project(x: Array, weights: tuple[Array, ...], out: Array, begin: int, end: int) -> None:
    """Rows `begin` to `end` of the products of all `weights`, one below the other, with x (C, tokens)."""
    zero, first = x.dtype.type(0), 0
    for weight in weights:
        i, j = max(begin - first, 0), min(end - first, weight.shape[0])
        if i < j:
            matmul(weight[i:j], x, zero, out[first + i : first + j])
        first += weight.shape[0]


@jit
def place(
    heads: Array, turns: tuple[Array, Array], q: Array, keys: Array, values: Array, at: int, begin: int, end: int
) -> None:
    """The heads `begin` to `end` of queries, keys and values, turned by their positions, to where attention reads them.

    `heads` ((H + 2 H') D, B T) are the projections. Queries go to q (B, H, T, D); keys and values to the positions from
    `at` on of `keys` and `values` (B, H', room, D). `turns` are cosines and sines (D/2, B T) of the angles.
    """
    H, T, D = q.shape[1], q.shape[2], q.shape[3]
    shared, half = keys.shape[1], q.shape[3] // 2
    cos, sin = turns
    for head in range(begin, end):
        rows = heads[head * D : (head + 1) * D]
        if head < H + shared:
            for i in range(half):
                a, b, c, s = rows[i], rows[half + i], cos[i], sin[i]
                for t in range(a.size):
                    first, second = a[t], b[t]
                    a[t] = first * c[t] - second * s[t]
                    b[t] = second * c[t] + first * s[t]
        for b in range(q.shape[0]):
            if head < H:
                out = q[b, head]
            elif head < H + shared:
                out = keys[b, head - H, at:]
            else:
                out = values[b, head - H - shared, at:]
            transpose(rows[:, b * T : (b + 1) * T], out[:T])


@jit
def add_product(x: Array, weight: Array, y: Array, out: Array, begin: int, end: int) -> None:
    """Rows `begin` to `end` of ``out = x + weight y``."""
    one = x.dtype.type(1)
    out[begin:end] = x[begin:end]
    matmul(weight[begin:end], y, one, out[begin:end])


@jit
def gate(x: Array, weights: tuple[Array, Array], out: Array, begin: int, end: int) -> None:
    """Rows `begin` to `end` of ``silu(w_gate x) * (w_up x)``, the inner channels of the gated network."""
    one, zero = x.dtype.type(1), x.dtype.type(0)
    up = np.empty((end - begin, x.shape[1]), x.dtype)
    matmul(weights[0][begin:end], x, zero, out[begin:end])
    matmul(weights[1][begin:end], x, zero, up)
    for c in range(end - begin):
        row, other = out[begin + c], up[c]
        for t in range(row.size):
            row[t] = row[t] / (one + exp(-row[t])) * other[t]
