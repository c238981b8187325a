"""The GRU as one operation."""

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


def _step(a: Tensor, u: Tensor, h: Tensor) -> State:
    a_r, a_z, a_n = ops.split(a, 3, axis=-1)
    u_r, u_z, u_n = ops.split(u, 3, axis=-1)
    z = ops.sigmoid(a_z + u_z)
    n = ops.tanh(a_n + ops.sigmoid(a_r + u_r) * u_n)
    return ((1 - z) * n + z * h,)


def _forward(a: Array, u: Array, h: Array) -> tuple[State, Any]:
    xp, H = namespace(a), h.shape[-1]
    rz = sigmoid_values(xp, a[:, : 2 * H] + u[:, : 2 * H])
    r, z, u_n = rz[:, :H], rz[:, H:], u[:, 2 * H :]
    n = xp.tanh(a[:, 2 * H :] + r * u_n)
    return ((1 - z) * n + z * h,), (r, z, n, u_n)


def _back(kept: Any, before: State, h: Array, dh: Array) -> tuple[Array, Array, State]:
    r, z, n, u_n = kept
    dn = dh * (1 - z) * (1 - n * n)
    drz = [dn * u_n * r * (1 - r), dh * (before[0] - n) * z * (1 - z)]
    concatenate = namespace(dh).concatenate
    return concatenate([*drz, dn], axis=-1), concatenate([*drz, dn * r], axis=-1), (dh * z,)


@functools.cache
def _numba() -> Kernel:
    from tinyllm.kernels.cpu import recurrent as kernels

    def forward(layer: Layer) -> Any:
        weight, n = layer.weight_hh.T, 2 * layer.weight_hh.shape[1]  # where the block of n begins
        strips = layer.strips(weight[:, :n]), layer.strips(weight[:, n:])

        def run(x: Array, strips_ih: Array, a: Array, out: Array, share: Share) -> tuple[Array, Array]:
            h0, biases = share.state[0], (layer.bias_ih, layer.bias_hh)
            news = empty((len(a), *h0.shape), a.dtype)
            kernels.gru(x, strips_ih, *strips, *biases, h0, share.lengths, layer.reverse, share.begin, out, a, news)
            return a, news

        return run

    def backward(layer: Layer) -> Any:
        strips = layer.strips(layer.weight_hh)

        def run(g: Array, out: Array, kept: tuple[Array, Array], share: Share) -> tuple[Array, Array, State]:
            (gates, news), h0 = kept, share.state[0]
            da, du, dh = empty(gates.shape, g.dtype), empty(gates.shape, g.dtype), np.zeros_like(h0)
            kernels.gru_vjp(g, share.begin, out, gates, news, h0, strips, share.lengths, layer.reverse, da, du, dh)
            return da, du, (dh,)

        return run

    return compiled(forward, backward)


_gru = Op("gru", ref=through_time(_step), impls={"numpy": lambda: kernel(_forward, _back), "numba": _numba})


def gru(
    x: Operand,
    weight_ih: Operand,
    weight_hh: Operand,
    bias_ih: Operand,
    bias_hh: Operand,
    h0: Operand,
    lengths: ArrayLike | None = None,
    reverse: bool = False,
) -> Tensor:
    """``h_t = (1 - z) n + z h_(t-1)``, ``n = tanh(a_n + r u_n)``, r and z the sigmoids of ``a + u``, for all times.

    Parameters
    ----------
    x : (T, B, I)
    weight_ih, weight_hh : (3 H, I), (3 H, H)
        ``a = W_ih x_t + b_ih`` and ``u = W_hh h_(t-1) + b_hh``, each with the blocks r, z, n.
    bias_ih, bias_hh : (3 H,)
    h0 : (B, H)
        The state before the first step.
    lengths, reverse
        As for `rnn`.

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
    Source: Cho et al. 2014, section 2.3, with the reset gate after the product, as in torch and cuDNN.
    """
    given, ends = checked("gru", 3, (x, weight_ih, weight_hh, bias_ih, bias_hh, h0), lengths)
    return apply(_gru, *given, lengths=ends, reverse=bool(reverse))
