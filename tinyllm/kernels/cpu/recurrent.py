"""Recurrent layers through time, forward and backward: RNN (Elman 1990), LSTM and GRU (F-LSTM), in torch's layout.

    a = W_ih x + b_ih,  u = W_hh h + b_hh
    rnn:   h' = f(a + u)                                       f is tanh or relu
    lstm:  c' = s(f) c + s(i) tanh(g);  h' = s(o) tanh(c')     i, f, g, o the quarters of a + u
    gru:   h' = (1 - z) n + z h;  n = tanh(a_n + r u_n)        r, z = s(a + u)

At each step the products with the inputs and with the state are added up where the gates will be, and then one pass
over the gates of each sequence, which are in the first level of cache then, opens them in place. Where the products
with the inputs were made before, for all times at once, they lie there at first, and `x` has no steps. Backward goes
the other way: gates' cotangents, one product with W to the state before, and at the end, by the caller, one product
over all times for W itself.

The passes are split into loops over two to four arrays, which is what the compiler can prove to be apart, and so turns
into vector instructions.

A sequence that has ended (`lengths`) keeps its state; its gates are 0, and cotangents pass to the step before.

Arrays are in the order of time, (T, B, channels). A call does the B sequences that are given with their first states.
The states of all, `out`, and their cotangents `g` are whole arrays, in which these sequences begin at `begin`.
"""

from __future__ import annotations

import numpy as np

from tinyllm.kernels.cpu.compile import Array, inline, jit
from tinyllm.kernels.cpu.mathfn import sigmoid, tanh
from tinyllm.kernels.cpu.strips import times_strips


@inline
def moment(step, T, reverse):
    """The time of a step."""
    return T - 1 - step if reverse else step


@inline
def sigmoids(bias, y):
    """``y = sigmoid(y + bias)``, in place."""
    for j in range(y.size):
        y[j] = sigmoid(y[j] + bias[j])


@inline
def tanhs(bias, y):
    """``y = tanh(y + bias)``, in place."""
    for j in range(y.size):
        y[j] = tanh(y[j] + bias[j])


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
    strips_ih: Array,
    strips: Array,
    bias: Array,
    h0: Array,
    lengths: Array,
    relu: bool,
    reverse: bool,
    begin: int,
    a: Array,
    out: Array,
) -> None:
    """States `out` (T, whole batch, H) from x (T, B, I); `a` (T, B, H) is overwritten.

    `strips_ih` and `strips` are those of W_ih^T and W_hh^T, the bias is (H,), and h0 (B, H) is the first state.
    """
    zero, one, T, B = h0.dtype.type(0), h0.dtype.type(1), a.shape[0], len(h0)
    h = h0
    for step in range(T):
        t = moment(step, T, reverse)
        if len(x):
            times_strips(x[t], strips_ih, zero, a[t])
        times_strips(h, strips, one, a[t])
        for b in range(B):
            row, new_h = a[t, b], out[t, begin + b]
            if t >= lengths[b]:
                new_h[:] = h[b]
            elif relu:
                for j in range(row.size):
                    value = row[j] + bias[j]
                    new_h[j] = zero if value < 0 else value
            else:
                for j in range(row.size):
                    new_h[j] = tanh(row[j] + bias[j])
        h = out[t, begin : begin + B]


@jit
def rnn_vjp(
    g: Array,
    begin: int,
    out: Array,
    strips: Array,
    lengths: Array,
    relu: bool,
    reverse: bool,
    dx: Array,
    dh: Array,
) -> None:
    """Cotangents dx (T, B, H) from those of the states, g; `dh` (B, H), at first 0, becomes that of the first state.

    `strips` are those of W.
    """
    zero, one, T = g.dtype.type(0), g.dtype.type(1), dx.shape[0]
    for step in range(T):
        t = moment(step, T, not reverse)
        for b in range(dx.shape[1]):
            d, y, carry, arrived = dx[t, b], out[t, begin + b], dh[b], g[t, begin + b]
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
        times_strips(dx[t], strips, one, dh)


# -- LSTM --------------------------------------------------------------------------------------------------------------


@jit
def lstm(
    x: Array,
    strips_ih: Array,
    strips: Array,
    bias: Array,
    h0: Array,
    c0: Array,
    lengths: Array,
    reverse: bool,
    begin: int,
    out: Array,
    memory: Array,
    gates: Array,
) -> None:
    """States `out`, and `memory` (T, B, H) and open gates `gates` (T, B, 4 H), from x (T, B, I).

    `strips_ih` and `strips` are those of W_ih^T and W_hh^T, the bias is (4 H,), and h0, c0 (B, H) are the state and the
    memory at first.
    """
    zero, one, T, (B, H) = h0.dtype.type(0), h0.dtype.type(1), gates.shape[0], h0.shape
    h, c = h0, c0
    for step in range(T):
        t = moment(step, T, reverse)
        if len(x):
            times_strips(x[t], strips_ih, zero, gates[t])
        times_strips(h, strips, one, gates[t])
        for b in range(B):
            row, new_h, new_c, old_c = gates[t, b], out[t, begin + b], memory[t, b], c[b]
            if t >= lengths[b]:
                row[:] = zero
                new_h[:], new_c[:] = h[b], old_c
                continue
            sigmoids(bias[: 2 * H], row[: 2 * H])
            tanhs(bias[2 * H : 3 * H], row[2 * H : 3 * H])
            sigmoids(bias[3 * H :], row[3 * H :])
            i, f, n, o = row[:H], row[H : 2 * H], row[2 * H : 3 * H], row[3 * H :]
            for j in range(H):
                new_c[j] = f[j] * old_c[j] + i[j] * n[j]
            for j in range(H):
                new_h[j] = o[j] * tanh(new_c[j])
        h, c = out[t, begin : begin + B], memory[t]


@jit
def lstm_vjp(
    g: Array,
    begin: int,
    memory: Array,
    gates: Array,
    c0: Array,
    strips: Array,
    lengths: Array,
    reverse: bool,
    dx: Array,
    dh: Array,
    dc: Array,
) -> None:
    """Cotangents dx (T, B, 4 H) from those of the states, g, which may be longer.

    `dh` (B, H) is 0 at first and `dc` the cotangent of the last memory; they become those of h0 and c0. `strips` are
    those of W.
    """
    zero, one, T, (B, H) = g.dtype.type(0), g.dtype.type(1), dx.shape[0], c0.shape
    shown = np.empty(H, g.dtype)
    for step in range(T):
        t = moment(step, T, not reverse)
        for b in range(B):
            d, carry, arrived = dx[t, b], dh[b], g[t, begin + b]
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
        times_strips(dx[t], strips, one, dh)


# -- GRU ---------------------------------------------------------------------------------------------------------------


@jit
def gru(
    x: Array,
    strips_ih: Array,
    strips: Array,
    strips_n: Array,
    bias_x: Array,
    bias: Array,
    h0: Array,
    lengths: Array,
    reverse: bool,
    begin: int,
    out: Array,
    gates: Array,
    news: Array,
) -> None:
    """States `out`, with r, z, n in `gates` (T, B, 3 H) and u_n in `news` (T, B, H), from x (T, B, I).

    `strips_ih` are those of W_ih^T, `strips` of W_hh^T for r and z, `strips_n` for n; `bias_x` belongs to x, `bias` to
    the product with h.
    """
    zero, one, T, (B, H) = h0.dtype.type(0), h0.dtype.type(1), gates.shape[0], h0.shape
    h, both = h0, bias_x + bias
    for step in range(T):
        t = moment(step, T, reverse)
        if len(x):
            times_strips(x[t], strips_ih, zero, gates[t])
        times_strips(h, strips, one, gates[t, :, : 2 * H])
        times_strips(h, strips_n, zero, news[t])
        for b in range(B):
            row, new_h, old_h, u_n = gates[t, b], out[t, begin + b], h[b], news[t, b]
            if t >= lengths[b]:
                row[:], u_n[:] = zero, zero
                new_h[:] = old_h
                continue
            sigmoids(both[: 2 * H], row[: 2 * H])
            r, z, n, b_x, b_n = row[:H], row[H : 2 * H], row[2 * H :], bias_x[2 * H :], bias[2 * H :]
            for j in range(H):
                u_n[j] += b_n[j]
            for j in range(H):
                n[j] = tanh(n[j] + b_x[j] + r[j] * u_n[j])
            for j in range(H):
                new_h[j] = (one - z[j]) * n[j] + z[j] * old_h[j]
        h = out[t, begin : begin + B]


@jit
def gru_vjp(
    g: Array,
    begin: int,
    out: Array,
    gates: Array,
    news: Array,
    h0: Array,
    strips: Array,
    lengths: Array,
    reverse: bool,
    dx: Array,
    du: Array,
    dh: Array,
) -> None:
    """Cotangents of x and of u, (T, B, 3 H) each, from those of the states, g.

    `dh` (B, H), at first 0, becomes that of the first state. `strips` are those of W.
    """
    zero, one, T, (B, H) = g.dtype.type(0), g.dtype.type(1), dx.shape[0], h0.shape
    for step in range(T):
        t = moment(step, T, not reverse)
        for b in range(B):
            d, d_u, carry, arrived = dx[t, b], du[t, b], dh[b], g[t, begin + b]
            for j in range(H):
                carry[j] += arrived[j]
            if t >= lengths[b]:
                d[:], d_u[:] = zero, zero
                continue
            row, u_n = gates[t, b], news[t, b]
            first = t == (T - 1 if reverse else 0)
            old_h = h0[b] if first else out[t + 1 if reverse else t - 1, begin + b]
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
        times_strips(du[t], strips, one, dh)
