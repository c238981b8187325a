"""The plain recurrent layer as one operation: the new state is a function of the sum of two products (F-LSTM)."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinyllm.autograd import ops
from tinyllm.autograd.fused.recurrent.compiled import Layer, Share, compiled
from tinyllm.autograd.fused.recurrent.operands import checked
from tinyllm.autograd.fused.recurrent.through_time import State, kernel, through_time
from tinyllm.autograd.tape import Kernel, Op, apply
from tinyllm.autograd.tensor import Array, Operand, Tensor, namespace
from tinyllm.buffers import empty


def _step(a: Tensor, u: Tensor, h: Tensor, *, nonlinearity: str) -> State:
    return ((ops.relu if nonlinearity == "relu" else ops.tanh)(a + u),)


def _forward(a: Array, u: Array, h: Array, *, nonlinearity: str) -> tuple[State, Any]:
    xp = namespace(a)
    y = xp.maximum(a + u, 0) if nonlinearity == "relu" else xp.tanh(a + u)
    return (y,), None


def _back(kept: None, before: State, y: Array, dh: Array, *, nonlinearity: str) -> tuple[Array, Array, State]:
    d = dh * (y > 0) if nonlinearity == "relu" else dh * (1 - y * y)
    return d, d, (0,)


@functools.cache
def _numba() -> Kernel:
    from tinyllm.kernels.cpu import recurrent as kernels

    def forward(layer: Layer, *, nonlinearity: str) -> Any:
        strips, bias = layer.strips(layer.weight_hh.T), layer.bias_ih + layer.bias_hh

        def run(x: Array, strips_ih: Array, a: Array, out: Array, share: Share) -> None:
            h0, relu = share.state[0], nonlinearity == "relu"
            kernels.rnn(x, strips_ih, strips, bias, h0, share.lengths, relu, layer.reverse, share.begin, a, out)

        return run

    def backward(layer: Layer, *, nonlinearity: str) -> Any:
        strips = layer.strips(layer.weight_hh)

        def run(g: Array, out: Array, kept: None, share: Share) -> tuple[Array, Array, State]:
            h0, relu = share.state[0], nonlinearity == "relu"
            da, dh = empty((len(g), *h0.shape), g.dtype), np.zeros_like(h0)
            kernels.rnn_vjp(g, share.begin, out, strips, share.lengths, relu, layer.reverse, da, dh)
            return da, da, (dh,)

        return run

    return compiled(forward, backward)


_rnn = Op("rnn", ref=through_time(_step), impls={"numpy": lambda: kernel(_forward, _back), "numba": _numba})


def rnn(
    x: Operand,
    weight_ih: Operand,
    weight_hh: Operand,
    bias_ih: Operand,
    bias_hh: Operand,
    h0: Operand,
    nonlinearity: str = "tanh",
    lengths: ArrayLike | None = None,
    reverse: bool = False,
) -> Tensor:
    """``h_t = f(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh)`` for all times (F-LSTM, the plain cell).

    Parameters
    ----------
    x : (T, B, I)
    weight_ih, weight_hh : (H, I), (H, H)
    bias_ih, bias_hh : (H,)
    h0 : (B, H)
        The state before the first step.
    nonlinearity : {"tanh", "relu"}
    lengths : (B,) integers, optional
        The steps of each sequence, 1 to T; T by default. Afterwards it keeps its state.
    reverse : bool
        Go from the last time to the first.

    Returns
    -------
    Tensor (T, B, H)
        The state after the step at each time.

    Raises
    ------
    ValueError
        If shapes or lengths do not fit.

    Notes
    -----
    Source: Elman 1990.
    """
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"rnn: nonlinearity is 'tanh' or 'relu', not {nonlinearity!r}")
    given, ends = checked("rnn", 1, (x, weight_ih, weight_hh, bias_ih, bias_hh, h0), lengths)
    return apply(_rnn, *given, nonlinearity=nonlinearity, lengths=ends, reverse=bool(reverse))
