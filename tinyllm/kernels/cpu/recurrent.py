"""Recurrent layers through time, forward and backward: RNN (Elman 1990), LSTM and GRU (F-LSTM), in torch's layout.

    a = W_ih x + b_ih,  u = W_hh h + b_hh
    rnn:   h' = f(a + u)                                       f is tanh or relu
    lstm:  c' = s(f) c + s(i) tanh(g);  h' = s(o) tanh(c')     i, f, g, o the quarters of a + u
    gru:   h' = (1 - z) n + z h;  n = tanh(a_n + r u_n)        r, z = s(a + u)

What the inputs contribute is made before, for all times at once; it comes without its bias. At each step there is one
product with the state, and then one pass over the gates of each sequence, which are in the first level of cache then.
Backward goes the other way: gates' cotangents, one product with W to the state before, and at the end, by the caller,
one product over all times for W itself.

The weights come in strips of columns, each contiguous: products so small are not packed by BLAS, which would otherwise
copy all of W at every step (1.7 times the time for 256 units and 32 sequences). The passes are split into loops over
two to four arrays, which is what the compiler can prove to be apart, and so turns into vector instructions.

A sequence that has ended (`lengths`) keeps its state; its gates are 0, and cotangents pass to the step before.

All kernels work on the sequences ``begin <= b < end`` and with arrays in the order of time, (T, B, channels).
"""

from __future__ import annotations

import numpy as np

from tinyllm.kernels.cpu.compile import Array, inline, jit
from tinyllm.kernels.cpu.gemm import gemm
from tinyllm.kernels.cpu.mathfn import sigmoid, tanh

# So many terms of a sum are added up in one product: with more, products of the same size are slower by a sixth.
DEPTH = 256


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
def times_rows(a: Array, strips: Array, rows: int, begin: int, end: int, out: Array) -> None:
    """Rows `begin` to `end` of ``out = a @ w``, so many at once: (R, K), (K, N) in strips, (R, N)."""
    zero = a.dtype.type(0)
    for i in range(begin, end, rows):
        last = min(i + rows, end)
        times_strips(a[i:last], strips, zero, out[i:last])


@inline
def moment(step, T, reverse):
    """The time of a step."""
    return T - 1 - step if reverse else step


@inline
def sigmoids(x, bias, y):
    """``y = sigmoid(x + bias + y)``, in place."""
    for j in range(y.size):
        y[j] = sigmoid(x[j] + bias[j] + y[j])


@inline
def tanhs(x, bias, y):
    """``y = tanh(x + bias + y)``, in place."""
    for j in range(y.size):
        y[j] = tanh(x[j] + bias[j] + y[j])


@inline
def sigmoid_slope(y, d):
    """``d = d y (1 - y)``, in place: from the cotangent of a sigmoid `y` to that of what it was taken of."""
    one = y.dtype.type(1)
    for j in range(y.size):
        d[j] *= y[j] * (one - y[j])


@inline
def tanh_slope(y, d):
    """``d = d (1 - y^2)``, in place."""
    one = y.dtype.type(1)
    for j in range(y.size):
        d[j] *= one - y[j] * y[j]


@inline
def product(a, b, out):
    """``out = a b``."""
    for j in range(out.size):
        out[j] = a[j] * b[j]


# -- RNN ---------------------------------------------------------------------------------------------------------------


@jit
def rnn(
    x: Array,
    strips: Array,
    bias: Array,
    h0: Array,
    lengths: Array,
    relu: bool,
    reverse: bool,
    begin: int,
    end: int,
    out: Array,
) -> None:
    """States `out` (T, B, H) from x (T, B, H), the strips of W^T, the bias (H,), and the first state h0 (B, H)."""
    zero, T = x.dtype.type(0), x.shape[0]
    h = h0[begin:end]
    for step in range(T):
        t = moment(step, T, reverse)
        y = out[t, begin:end]
        times_strips(h, strips, zero, y)
        for b in range(begin, end):
            row, given = out[t, b], x[t, b]
            if t >= lengths[b]:
                row[:] = h[b - begin]
            elif relu:
                for j in range(row.size):
                    value = given[j] + bias[j] + row[j]
                    row[j] = zero if value < 0 else value
            else:
                tanhs(given, bias, row)
        h = y


@jit
def rnn_vjp(
    g: Array,
    out: Array,
    strips: Array,
    lengths: Array,
    relu: bool,
    reverse: bool,
    begin: int,
    end: int,
    dx: Array,
    dh: Array,
) -> None:
    """Cotangents dx (T, B, H) from those of the states, g; `dh` (B, H), at first 0, becomes that of the first state.

    `strips` are those of W.
    """
    zero, one, T = g.dtype.type(0), g.dtype.type(1), g.shape[0]
    for step in range(T):
        t = moment(step, T, not reverse)
        for b in range(begin, end):
            d, y, carry, arrived = dx[t, b], out[t, b], dh[b], g[t, b]
            for j in range(carry.size):
                carry[j] += arrived[j]
            if t >= lengths[b]:
                d[:] = zero
                continue
            if relu:
                for j in range(d.size):
                    d[j] = carry[j] if y[j] > 0 else zero
            else:
                for j in range(d.size):
                    d[j] = carry[j] * (one - y[j] * y[j])
            carry[:] = zero
        times_strips(dx[t, begin:end], strips, one, dh[begin:end])


# -- LSTM --------------------------------------------------------------------------------------------------------------


@jit
def lstm(
    x: Array,
    strips: Array,
    bias: Array,
    h0: Array,
    c0: Array,
    lengths: Array,
    reverse: bool,
    begin: int,
    end: int,
    out: Array,
    memory: Array,
    gates: Array,
) -> None:
    """States `out` and `memory` (T, B, H) and open gates `gates` (T, B, 4 H) from x (T, B, 4 H).

    `strips` are those of W^T, the bias is (4 H,), and h0, c0 (B, H) are the state and the memory at first.
    """
    zero, T, H = x.dtype.type(0), x.shape[0], h0.shape[1]
    h, c = h0[begin:end], c0[begin:end]
    for step in range(T):
        t = moment(step, T, reverse)
        times_strips(h, strips, zero, gates[t, begin:end])
        for b in range(begin, end):
            row, given, new_h, new_c, old_c = gates[t, b], x[t, b], out[t, b], memory[t, b], c[b - begin]
            if t >= lengths[b]:
                row[:] = zero
                new_h[:], new_c[:] = h[b - begin], old_c
                continue
            sigmoids(given[: 2 * H], bias[: 2 * H], row[: 2 * H])
            tanhs(given[2 * H : 3 * H], bias[2 * H : 3 * H], row[2 * H : 3 * H])
            sigmoids(given[3 * H :], bias[3 * H :], row[3 * H :])
            i, f, n, o = row[:H], row[H : 2 * H], row[2 * H : 3 * H], row[3 * H :]
            for j in range(H):
                new_c[j] = f[j] * old_c[j] + i[j] * n[j]
            for j in range(H):
                new_h[j] = o[j] * tanh(new_c[j])
        h, c = out[t, begin:end], memory[t, begin:end]


@jit
def lstm_vjp(
    g: Array,
    memory: Array,
    gates: Array,
    c0: Array,
    strips: Array,
    lengths: Array,
    reverse: bool,
    begin: int,
    end: int,
    dx: Array,
    dh: Array,
    dc: Array,
) -> None:
    """Cotangents dx (T, B, 4 H) from those of the states, g (T, B, H) or longer.

    `dh` (B, H) is 0 at first and `dc` the cotangent of the last memory; they become those of h0 and c0. `strips` are
    those of W.
    """
    zero, one, T, H = g.dtype.type(0), g.dtype.type(1), dx.shape[0], c0.shape[1]
    shown = np.empty(H, g.dtype)
    for step in range(T):
        t = moment(step, T, not reverse)
        for b in range(begin, end):
            d, carry, arrived = dx[t, b], dh[b], g[t, b]
            for j in range(H):
                carry[j] += arrived[j]
            if t >= lengths[b]:
                d[:] = zero
                continue
            row, kept = gates[t, b], dc[b]
            first = t == (T - 1 if reverse else 0)
            old_c = c0[b] if first else memory[t + 1 if reverse else t - 1, b]
            i, f, n, o = row[:H], row[H : 2 * H], row[2 * H : 3 * H], row[3 * H :]
            di, df, dn, do = d[:H], d[H : 2 * H], d[2 * H : 3 * H], d[3 * H :]
            new_c = memory[t, b]
            for j in range(H):
                shown[j] = tanh(new_c[j])
            product(carry, shown, do)
            for j in range(H):
                carry[j] *= o[j]
            tanh_slope(shown, carry)
            for j in range(H):
                kept[j] += carry[j]
            product(kept, n, di)
            product(kept, old_c, df)
            product(kept, i, dn)
            for j in range(H):
                kept[j] *= f[j]
            sigmoid_slope(row[: 2 * H], d[: 2 * H])
            tanh_slope(n, dn)
            sigmoid_slope(o, do)
            carry[:] = zero
        times_strips(dx[t, begin:end], strips, one, dh[begin:end])


# -- GRU ---------------------------------------------------------------------------------------------------------------


@jit
def gru(
    x: Array,
    strips: Array,
    bias_x: Array,
    bias: Array,
    h0: Array,
    lengths: Array,
    reverse: bool,
    begin: int,
    end: int,
    out: Array,
    gates: Array,
    news: Array,
) -> None:
    """States `out` (T, B, H) from x (T, B, 3 H), with r, z, n in `gates` (T, B, 3 H) and u_n in `news` (T, B, H).

    `bias_x` belongs to x, `bias` to the product with the state.
    """
    zero, one, T, H = x.dtype.type(0), x.dtype.type(1), x.shape[0], h0.shape[1]
    h, both = h0[begin:end], bias_x + bias
    for step in range(T):
        t = moment(step, T, reverse)
        times_strips(h, strips, zero, gates[t, begin:end])
        for b in range(begin, end):
            row, given, new_h, old_h, u_n = gates[t, b], x[t, b], out[t, b], h[b - begin], news[t, b]
            if t >= lengths[b]:
                row[:], u_n[:] = zero, zero
                new_h[:] = old_h
                continue
            sigmoids(given[: 2 * H], both[: 2 * H], row[: 2 * H])
            r, z, n = row[:H], row[H : 2 * H], row[2 * H :]
            x_n, b_x, b_n = given[2 * H :], bias_x[2 * H :], bias[2 * H :]
            for j in range(H):
                u_n[j] = n[j] + b_n[j]
            for j in range(H):
                n[j] = tanh(x_n[j] + b_x[j] + r[j] * u_n[j])
            for j in range(H):
                new_h[j] = (one - z[j]) * n[j] + z[j] * old_h[j]
        h = out[t, begin:end]


@jit
def gru_vjp(
    g: Array,
    out: Array,
    gates: Array,
    news: Array,
    h0: Array,
    strips: Array,
    lengths: Array,
    reverse: bool,
    begin: int,
    end: int,
    dx: Array,
    du: Array,
    dh: Array,
) -> None:
    """Cotangents of x and of u, (T, B, 3 H) each, from those of the states, g (T, B, H).

    `dh` (B, H), at first 0, becomes that of the first state. `strips` are those of W.
    """
    zero, one, T, H = g.dtype.type(0), g.dtype.type(1), g.shape[0], h0.shape[1]
    for step in range(T):
        t = moment(step, T, not reverse)
        for b in range(begin, end):
            d, d_u, carry, arrived = dx[t, b], du[t, b], dh[b], g[t, b]
            for j in range(H):
                carry[j] += arrived[j]
            if t >= lengths[b]:
                d[:], d_u[:] = zero, zero
                continue
            row, u_n = gates[t, b], news[t, b]
            first = t == (T - 1 if reverse else 0)
            old_h = h0[b] if first else out[t + 1 if reverse else t - 1, b]
            r, z, n = row[:H], row[H : 2 * H], row[2 * H :]
            dr, dz, dn = d[:H], d[H : 2 * H], d[2 * H :]
            for j in range(H):
                dz[j] = carry[j] * (old_h[j] - n[j])
            for j in range(H):
                dn[j] = carry[j] * (one - z[j])
            tanh_slope(n, dn)
            product(dn, u_n, dr)
            sigmoid_slope(row[: 2 * H], d[: 2 * H])
            d_u[: 2 * H] = d[: 2 * H]
            product(dn, r, d_u[2 * H :])
            for j in range(H):
                carry[j] *= z[j]
        times_strips(du[t, begin:end], strips, one, dh[begin:end])
