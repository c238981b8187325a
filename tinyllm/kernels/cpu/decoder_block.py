"""A block of a Llama for a few new tokens: what reads the weights once and gives the interpreter little work.

    x += attention(rms_norm(x));    x += w_down (silu(w_gate n) * w_up n) with n = rms_norm(x)

For one new token a block of SmolLM2-135M takes half a millisecond, the time of reading its weights. In operations of
their own, its two dozen steps would cost as much again in Python. The order of the steps is that of the model's page,
and so is their arithmetic; `few_rows` says how the weights are read.

The second half has three quarters of the weights. Each inner channel takes part in the sum on its own, so that threads
share the channels, and what they return is added up.
"""

from __future__ import annotations

import numpy as np

from tinyllm.kernels.cpu.compile import Array, jit
from tinyllm.kernels.cpu.few_rows import attention, dot, product
from tinyllm.kernels.cpu.mathfn import exp


@jit
def norm(x: Array, weight: Array, eps: float, out: Array) -> None:
    """``x / sqrt(mean(x^2) + eps) * weight``, row by row."""
    one = x.dtype.type(1)
    for r in range(x.shape[0]):
        row, normed = x[r], out[r]
        total = x.dtype.type(0)
        for c in range(row.size):
            total += row[c] * row[c]
        factor = one / np.sqrt(total / row.size + x.dtype.type(eps))
        for c in range(row.size):
            normed[c] = row[c] * factor * weight[c]


@jit
def turn(x: Array, cos: Array, sin: Array) -> None:
    """Rotary positions, in place: the vectors (R, H, D) by the angles (R, D/2) of their rows."""
    half = cos.shape[1]
    for r in range(x.shape[0]):
        for h in range(x.shape[1]):
            for i in range(half):
                a, b = x[r, h, i], x[r, h, half + i]
                x[r, h, i] = a * cos[r, i] - b * sin[r, i]
                x[r, h, half + i] = b * cos[r, i] + a * sin[r, i]


@jit
def add(x: Array, y: Array) -> None:
    """``x += y``."""
    for r in range(x.shape[0]):
        row, more = x[r], y[r]
        for c in range(row.size):
            row[c] += more[c]


@jit
def attend(
    x: Array,
    weight: Array,
    eps: float,
    projections: tuple[Array, ...],
    turns: tuple[Array, Array],
    scale: float,
    keys: Array,
    values: Array,
    begin: int,
    end: int,
    mask: Array,
    which: Array,
) -> Array:
    """The stream x (R, C) and what attention adds to it, R = B T: the tokens of B texts, one text after the other.

    `weight` is the norm's; `projections` are the weights (out, in) of queries, keys, values and output; `turns` cosines
    and sines (R, D/2). `keys` and `values` (B, H', room, D) hold the positions from `begin` to `end`, which the new
    tokens may see and follow; they are written behind them. `mask` and `which` are as in `few_rows.attention`, over the
    positions from `begin` on.
    """
    R = x.shape[0]
    B, shared, room, D = keys.shape
    T, H = R // B, projections[0].shape[0] // D
    normed = np.empty_like(x)
    norm(x, weight, eps, normed)
    q = np.empty((R, H, D), x.dtype)
    k, v = np.empty((R, shared, D), x.dtype), np.empty((R, shared, D), x.dtype)
    product(normed, projections[0], q.reshape(R, H * D))
    product(normed, projections[1], k.reshape(R, shared * D))
    product(normed, projections[2], v.reshape(R, shared * D))
    turn(q, turns[0], turns[1])
    turn(k, turns[0], turns[1])
    for r in range(R):
        for h in range(shared):
            keys[r // T, h, end + r % T] = k[r, h]
            values[r // T, h, end + r % T] = v[r, h]

    S = end - begin + T
    steps = np.empty((3, 3), np.int64)
    steps[0] = np.array([T * H * D, D, H * D])
    steps[1] = np.array([shared * room * D, room * D, D])
    steps[2] = steps[1]
    weights, heads = np.empty((B * H * T, S), x.dtype), np.empty((B * H * T, D), x.dtype)
    sizes = (H, H // shared, T, S, D, D)
    held, seen = keys.reshape(keys.size)[begin * D :], values.reshape(values.size)[begin * D :]
    attention(q.reshape(q.size), held, seen, steps, sizes, scale, S - T, mask, which, 0, B * H * T, weights, heads)
    merged = np.empty((R, H * D), x.dtype)
    for r in range(R):
        for h in range(H):
            merged[r, h * D : (h + 1) * D] = heads[(r // T * H + h) * T + r % T]
    out = np.empty_like(x)
    product(merged, projections[3], out)
    add(out, x)
    return out


@jit
def feed(x: Array, weight: Array, eps: float, gates: tuple[Array, ...], begin: int, end: int) -> Array:
    """What the inner channels from `begin` to `end` of the gated network add to the stream x (R, C).

    `weight` is the norm's, `gates` are the weights of gate and up (inner, C) and down (C, inner).
    """
    R, one = x.shape[0], x.dtype.type(1)
    normed, out = np.empty_like(x), np.empty_like(x)
    norm(x, weight, eps, normed)
    gate, up = np.empty((R, end - begin), x.dtype), np.empty((R, end - begin), x.dtype)
    product(normed, gates[0][begin:end], gate)
    product(normed, gates[1][begin:end], up)
    for r in range(R):
        row, other = gate[r], up[r]
        for c in range(row.size):
            row[c] = row[c] / (one + exp(-row[c])) * other[c]
    for c in range(x.shape[1]):
        row = gates[2][c, begin:end]
        for r in range(R):
            out[r, c] = dot(gate[r], row)
    return out
