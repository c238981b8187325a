"""The LSTM as one operation (F-LSTM)."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinyllm.autograd import ops
from tinyllm.autograd.fused.recurrent.compiled import Layer, Share, compiled
from tinyllm.autograd.fused.recurrent.operands import checked
from tinyllm.autograd.fused.recurrent.through_time import State, kernel, through_time
from tinyllm.autograd.ops.activations import sigmoid_values
from tinyllm.autograd.tape import Kernel, Op, apply
from tinyllm.autograd.tensor import Array, Operand, Tensor, namespace
from tinyllm.buffers import empty


def _step(a: Tensor, u: Tensor, h: Tensor, c: Tensor) -> State:
    i, f, g, o = ops.split(a + u, 4, axis=-1)
    c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
    return ops.sigmoid(o) * ops.tanh(c), c


def _forward(a: Array, u: Array, h: Array, c: Array) -> tuple[State, Any]:
    xp = namespace(a)
    i, f, g, o = xp.split(a + u, 4, axis=-1)
    i, f, g, o = sigmoid_values(xp, i), sigmoid_values(xp, f), xp.tanh(g), sigmoid_values(xp, o)
    c = f * c + i * g
    shown = xp.tanh(c)
    return (o * shown, c), (i, f, g, o, shown)


def _back(kept: Any, before: State, h: Array, dh: Array, dc: Array) -> tuple[Array, Array, State]:
    i, f, g, o, shown = kept
    dc = dc + dh * o * (1 - shown * shown)
    d = namespace(dh).concatenate(
        [dc * g * i * (1 - i), dc * before[1] * f * (1 - f), dc * i * (1 - g * g), dh * shown * o * (1 - o)], axis=-1
    )
    return d, d, (0, dc * f)


@functools.cache
def _numba() -> Kernel:
    from tinyllm.kernels.cpu import recurrent as kernels

    def forward(layer: Layer) -> Any:
        strips, bias = layer.strips(layer.weight_hh.T), layer.bias_ih + layer.bias_hh

        def run(x: Array, strips_ih: Array, a: Array, out: Array, share: Share) -> tuple[Array, Array]:
            (h0, c0), begin = share.state, share.begin
            memory = empty((len(a), *h0.shape), a.dtype)
            both = (strips_ih, strips)
            kernels.lstm(x, *both, bias, h0, c0, share.lengths, layer.reverse, begin, out, memory, a)
            out[-1, begin : begin + len(h0)] = memory[0 if layer.reverse else -1]
            return memory, a

        return run

    def backward(layer: Layer) -> Any:
        strips = layer.strips(layer.weight_hh)

        def run(g: Array, out: Array, kept: tuple[Array, Array], share: Share) -> tuple[Array, Array, State]:
            (memory, gates), (h0, c0), begin = kept, share.state, share.begin
            da, dh, dc = empty(gates.shape, g.dtype), np.zeros_like(h0), g[-1, begin : begin + len(h0)].copy()
            kernels.lstm_vjp(g, begin, memory, gates, c0, strips, share.lengths, layer.reverse, da, dh, dc)
            return da, da, (dh, dc)

        return run

    return compiled(forward, backward)


_lstm = Op("lstm", ref=through_time(_step), impls={"numpy": lambda: kernel(_forward, _back), "numba": _numba})


def lstm(
    x: Operand,
    weight_ih: Operand,
    weight_hh: Operand,
    bias_ih: Operand,
    bias_hh: Operand,
    h0: Operand,
    c0: Operand,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
) -> Tensor:
    """``c_t = s(f) c_(t-1) + s(i) tanh(g)``, ``h_t = s(o) tanh(c_t)``, s the sigmoid, for all times (F-LSTM).

    Parameters
    ----------
    x : (T, B, I)
    weight_ih, weight_hh : (4 H, I), (4 H, H)
        ``W_ih x_t + b_ih + W_hh h_(t-1) + b_hh`` is i, f, g, o, one below the other.
    bias_ih, bias_hh : (4 H,)
    h0, c0 : (B, H)
        State and memory before the first step.
    lengths, reverse
        As for `rnn`.

    Returns
    -------
    Tensor (T + 1, B, H)
        The state after the step at each time, and at the end the memory after the last step.

    Raises
    ------
    ValueError
        If shapes or lengths do not fit.

    Notes
    -----
    Source: Hochreiter and Schmidhuber 1997, section 4; Gers, Schmidhuber and Cummins 2000, section 3.
    """
    given, ends = checked("lstm", 4, (x, weight_ih, weight_hh, bias_ih, bias_hh, h0, c0), lengths)
    return apply(_lstm, *given, lengths=ends, reverse=bool(reverse))
