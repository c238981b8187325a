"""Recurrent layers through all times, each as one operation: RNN, LSTM (F-LSTM), GRU.

What the inputs contribute, ``x W_ih^T``, is one product for all times; then one step waits for another. Arrays are in
the order of time: x is (T, B, I), the weights are (G H, I) and (G H, H) with G = 1, 4 or 3 blocks of H channels, and
the result is (T, B, H), the state after each step. The LSTM's has one more entry, (T + 1, B, H): behind the states lies
the memory after the last step.

With `lengths`, sequence b ends after ``lengths[b]`` steps and keeps its state from then on; with `reverse` the steps go
from the last time to the first, so that a sequence keeps its first state until it begins.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinyllm import threads
from tinyllm.autograd import ops
from tinyllm.autograd.arrays import matmul
from tinyllm.autograd.operands import as_tensor
from tinyllm.autograd.ops.activations import sigmoid_values
from tinyllm.autograd.tape import Kernel, Op, apply
from tinyllm.autograd.tensor import Array, Operand, Tensor, namespace
from tinyllm.buffers import empty

State = tuple[Any, ...]  # h, or h and c: arrays or Tensors (B, H)


def _times(T: int, reverse: bool) -> list[int]:
    return list(range(T))[:: -1 if reverse else 1]


def _running(lengths: Array | None, t: int) -> Array | None:
    """Which sequences have not ended, (B, 1); None for all."""
    return None if lengths is None else (t < lengths)[:, None]


# -- in small operations -----------------------------------------------------------------------------------------------


def _through_time(step: Callable[..., State]) -> Callable[..., Tensor]:
    """The reference of an operation from one step of it: ``step(a, u, h, ..., **settings)``.

    ``a = W_ih x + b_ih`` is what the inputs contribute, ``u = W_hh h + b_hh`` what the state does.
    """

    def ref(
        x: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor,
        bias_hh: Tensor,
        h: Tensor,
        *memory: Tensor,
        lengths: Array | None,
        reverse: bool,
        **settings: Any,
    ) -> Tensor:
        state: State = (h, *memory)
        states: dict[int, Tensor] = {}
        a = x @ weight_ih.mT + bias_ih  # (T, B, G H)
        for t in _times(x.shape[0], reverse):
            new = step(a[t], state[0] @ weight_hh.mT + bias_hh, *state, **settings)
            running = _running(lengths, t)
            if running is not None:
                new = tuple(ops.where(running, n, s) for n, s in zip(new, state, strict=True))
            state, states[t] = new, new[0]
        return ops.stack([*(states[t] for t in range(x.shape[0])), *state[1:]])

    return ref


def _rnn_step(a: Tensor, u: Tensor, h: Tensor, *, nonlinearity: str) -> State:
    return ((ops.relu if nonlinearity == "relu" else ops.tanh)(a + u),)


def _lstm_step(a: Tensor, u: Tensor, h: Tensor, c: Tensor) -> State:
    i, f, g, o = ops.split(a + u, 4, axis=-1)
    c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
    return ops.sigmoid(o) * ops.tanh(c), c


def _gru_step(a: Tensor, u: Tensor, h: Tensor) -> State:
    a_r, a_z, a_n = ops.split(a, 3, axis=-1)
    u_r, u_z, u_n = ops.split(u, 3, axis=-1)
    z = ops.sigmoid(a_z + u_z)
    n = ops.tanh(a_n + ops.sigmoid(a_r + u_r) * u_n)
    return ((1 - z) * n + z * h,)


# -- NumPy: a step forward gives the new state and what is kept for the step back, which sees the states on both sides
#    and gives the cotangents of a, u and the state before, without what goes through u


def _rnn_arrays(a: Array, u: Array, h: Array, *, nonlinearity: str) -> tuple[State, Any]:
    xp = namespace(a)
    y = xp.maximum(a + u, 0) if nonlinearity == "relu" else xp.tanh(a + u)
    return (y,), None


def _rnn_back(kept: None, before: State, y: Array, dh: Array, *, nonlinearity: str) -> tuple[Array, Array, State]:
    d = dh * (y > 0) if nonlinearity == "relu" else dh * (1 - y * y)
    return d, d, (0,)


def _lstm_arrays(a: Array, u: Array, h: Array, c: Array) -> tuple[State, Any]:
    xp = namespace(a)
    i, f, g, o = xp.split(a + u, 4, axis=-1)
    i, f, g, o = sigmoid_values(xp, i), sigmoid_values(xp, f), xp.tanh(g), sigmoid_values(xp, o)
    c = f * c + i * g
    shown = xp.tanh(c)
    return (o * shown, c), (i, f, g, o, shown)


def _lstm_back(kept: Any, before: State, h: Array, dh: Array, dc: Array) -> tuple[Array, Array, State]:
    i, f, g, o, shown = kept
    dc = dc + dh * o * (1 - shown * shown)
    d = namespace(dh).concatenate(
        [dc * g * i * (1 - i), dc * before[1] * f * (1 - f), dc * i * (1 - g * g), dh * shown * o * (1 - o)], axis=-1
    )
    return d, d, (0, dc * f)


def _gru_arrays(a: Array, u: Array, h: Array) -> tuple[State, Any]:
    xp, H = namespace(a), h.shape[-1]
    rz = sigmoid_values(xp, a[:, : 2 * H] + u[:, : 2 * H])
    r, z, u_n = rz[:, :H], rz[:, H:], u[:, 2 * H :]
    n = xp.tanh(a[:, 2 * H :] + r * u_n)
    return ((1 - z) * n + z * h,), (r, z, n, u_n)


def _gru_back(kept: Any, before: State, h: Array, dh: Array) -> tuple[Array, Array, State]:
    r, z, n, u_n = kept
    dn = dh * (1 - z) * (1 - n * n)
    drz = [dn * u_n * r * (1 - r), dh * (before[0] - n) * z * (1 - z)]
    concatenate = namespace(dh).concatenate
    return concatenate([*drz, dn], axis=-1), concatenate([*drz, dn * r], axis=-1), (dh * z,)


def _kernel(step: Callable[..., tuple[State, Any]], back: Callable[..., tuple[Array, Array, State]]) -> Kernel:
    """Both ways through time, from one step of each."""

    def forward(
        x: Array,
        weight_ih: Array,
        weight_hh: Array,
        bias_ih: Array,
        bias_hh: Array,
        *state: Array,
        lengths: Array | None,
        reverse: bool,
        **settings: Any,
    ) -> tuple[Array, Any]:
        xp = namespace(x)
        T, B, H = x.shape[0], x.shape[1], weight_hh.shape[1]
        a = (matmul(x.reshape(T * B, -1), weight_ih.T) + bias_ih).reshape(T, B, -1)
        out = xp.empty((T + len(state) - 1, B, H), dtype=x.dtype)
        kept = {}
        for t in _times(T, reverse):
            new, saved = step(a[t], state[0] @ weight_hh.T + bias_hh, *state, **settings)
            running = _running(lengths, t)
            if running is not None:
                new = tuple(xp.where(xp.asarray(running), n, s) for n, s in zip(new, state, strict=True))
            kept[t] = saved, state
            state, out[t] = new, new[0]
        out[T:] = state[-1]  # the memory, where there is one
        return out, kept

    def vjp(
        needs: tuple[bool, ...],
        g: Array,
        out: Array,
        kept: dict[int, Any],
        x: Array,
        weight_ih: Array,
        weight_hh: Array,
        bias_ih: Array,
        bias_hh: Array,
        *state: Array,
        lengths: Array | None,
        reverse: bool,
        **settings: Any,
    ) -> tuple[Array | None, ...]:
        xp = namespace(x)
        T = x.shape[0]
        da, du = (xp.empty((*x.shape[:2], len(bias_hh)), dtype=x.dtype) for _ in range(2))
        dstate: State = (xp.zeros_like(state[0]), *g[T:])
        first = T - 1 if reverse else 0
        for t in _times(T, not reverse):
            saved, before = kept[t] if t != first else (kept[t][0], state)
            arrived = (dstate[0] + g[t], *dstate[1:])
            da[t], du[t], passed = back(saved, before, out[t], *arrived, **settings)
            running = _running(lengths, t)
            if running is not None:
                alive = xp.asarray(running)
                da[t], du[t] = xp.where(alive, da[t], 0), xp.where(alive, du[t], 0)
                passed = tuple(xp.where(alive, p, a) for p, a in zip(passed, arrived, strict=True))
            dstate = (passed[0] + du[t] @ weight_hh, *passed[1:])
        return _gathered(needs, matmul, x, weight_ih, _before(out[:T], state[0], reverse), da, du, dstate)

    return Kernel(forward, vjp)


def _before(states: Array, first: Array, reverse: bool) -> Array:
    """The state before each step (T, B, H)."""
    parts = [states[1:], first[None]] if reverse else [first[None], states[:-1]]
    return namespace(states).concatenate(parts)


def _gathered(
    needs: tuple[bool, ...],
    product: Callable[[Array, Array], Array],
    x: Array,
    weight_ih: Array,
    before: Array,
    da: Array,
    du: Array,
    dstate: State,
) -> tuple[Array | None, ...]:
    """All cotangents in the order of the arguments; the weights' are products over all times and sequences."""
    a_rows, u_rows, x_rows = (d.reshape(-1, d.shape[-1]) for d in (da, du, x))
    dx = product(a_rows, weight_ih).reshape(x.shape) if needs[0] else None
    dweight_ih = matmul(a_rows.T, x_rows) if needs[1] else None
    dweight_hh = matmul(u_rows.T, before.reshape(-1, before.shape[-1])) if needs[2] else None
    dbias_ih = a_rows.sum(axis=0)
    return dx, dweight_ih, dweight_hh, dbias_ih, dbias_ih if du is da else u_rows.sum(axis=0), *dstate


# -- Numba -------------------------------------------------------------------------------------------------------------

# Multiply-adds of a matrix product up to which OpenBLAS does not copy its operands first.
_UNPACKED = 10**6
_ROWS = 32  # of a large matrix, that are multiplied at once
_THREAD_WORTH = 4 * 10**6  # multiply-adds that are worth a thread of their own


def _strips(matrix: Array, rows: int) -> Array:
    """(K, N) as strips of columns (N / S, K, S), the last padded: as wide as products with `rows` rows allow."""
    from tinyllm.kernels.cpu.recurrent import DEPTH

    K, N = matrix.shape
    width = next((s for s in (64, 32, 16) if rows * min(K, DEPTH) * s <= _UNPACKED), N)
    strips = np.zeros((-(-N // width), K, width), matrix.dtype)
    for p, strip in enumerate(strips):
        part = matrix[:, p * width : (p + 1) * width]
        strip[:, : part.shape[1]] = part
    return strips


def _product(a: Array, matrix: Array) -> Array:
    """``a @ matrix`` for (R, K) and (K, N), in strips: a tenth faster than one product of this size."""
    from tinyllm.kernels.cpu.recurrent import times_rows

    a, strips, out = np.ascontiguousarray(a), _strips(matrix, _ROWS), empty((len(a), matrix.shape[1]), a.dtype)
    grain = max(_ROWS, _THREAD_WORTH // matrix.size)
    threads.parallel(lambda i, j: times_rows(a, strips, _ROWS, i, j, out), len(a), grain)
    return out


class _Compiled:
    """What the wrappers of the three kernels share: contiguous arrays, strips, and sequences divided among threads."""

    def __init__(
        self, x: Array, weight_ih: Array, weight_hh: Array, state: State, lengths: Array | None, reverse: bool
    ) -> None:
        T, B, _ = x.shape
        self.x, self.weight_ih, self.weight_hh = np.ascontiguousarray(x), weight_ih, weight_hh
        self.state = [np.ascontiguousarray(s) for s in state]
        self.lengths, self.reverse = np.full(B, T) if lengths is None else lengths, reverse
        grain = max(8, _THREAD_WORTH // max(1, T * weight_hh.size))
        self.run = functools.partial(threads.parallel, size=B, grain=grain)
        self.rows = -(-B // max(1, min(threads.get_num_threads(), B // grain)))
        self.shape = (T, B, weight_hh.shape[1])

    def inputs(self) -> Array:
        """What the inputs contribute, without the bias (T, B, G H)."""
        product = _product(self.x.reshape(-1, self.x.shape[-1]), self.weight_ih.T)
        return product.reshape(*self.shape[:2], -1)

    def forward(self) -> Array:
        """Strips for the products with the state."""
        return _strips(self.weight_hh.T, self.rows)

    def backward(self) -> Array:
        """Strips for the products back to it."""
        return _strips(self.weight_hh, self.rows)

    def new(self, gates: bool = False, more: int = 0) -> Array:
        """An array (T + more, B, H), or (T, B, G H)."""
        T, B, H = self.shape
        return empty((T + more, B, len(self.weight_hh) if gates else H), self.x.dtype)

    def gathered(
        self, needs: tuple[bool, ...], states: Array, da: Array, du: Array, dstate: State
    ) -> tuple[Array | None, ...]:
        """All cotangents."""
        before = _before(states, self.state[0], self.reverse)
        return _gathered(needs, _product, self.x, self.weight_ih, before, da, du, dstate)


@functools.cache
def _numba_rnn() -> Kernel:
    from tinyllm.kernels.cpu import recurrent as kernels

    def forward(
        x: Array,
        weight_ih: Array,
        weight_hh: Array,
        bias_ih: Array,
        bias_hh: Array,
        h0: Array,
        *,
        nonlinearity: str,
        lengths: Array | None,
        reverse: bool,
    ) -> tuple[Array, None]:
        c = _Compiled(x, weight_ih, weight_hh, (h0,), lengths, reverse)
        a, out, strips, bias, relu = c.inputs(), c.new(), c.forward(), bias_ih + bias_hh, nonlinearity == "relu"
        c.run(lambda i, j: kernels.rnn(a, strips, bias, c.state[0], c.lengths, relu, reverse, i, j, out))
        return out, None

    def vjp(
        needs: tuple[bool, ...],
        g: Array,
        out: Array,
        saved: None,
        x: Array,
        weight_ih: Array,
        weight_hh: Array,
        bias_ih: Array,
        bias_hh: Array,
        h0: Array,
        *,
        nonlinearity: str,
        lengths: Array | None,
        reverse: bool,
    ) -> tuple[Array | None, ...]:
        c = _Compiled(x, weight_ih, weight_hh, (h0,), lengths, reverse)
        g, da, dh, strips = np.ascontiguousarray(g), c.new(), np.zeros_like(c.state[0]), c.backward()
        relu = nonlinearity == "relu"
        c.run(lambda i, j: kernels.rnn_vjp(g, out, strips, c.lengths, relu, reverse, i, j, da, dh))
        return c.gathered(needs, out, da, da, (dh,))

    return Kernel(forward, vjp)


@functools.cache
def _numba_lstm() -> Kernel:
    from tinyllm.kernels.cpu import recurrent as kernels

    def forward(
        x: Array,
        weight_ih: Array,
        weight_hh: Array,
        bias_ih: Array,
        bias_hh: Array,
        h0: Array,
        c0: Array,
        *,
        lengths: Array | None,
        reverse: bool,
    ) -> tuple[Array, Any]:
        c = _Compiled(x, weight_ih, weight_hh, (h0, c0), lengths, reverse)
        a, out, memory, gates, strips = c.inputs(), c.new(more=1), c.new(), c.new(gates=True), c.forward()
        bias, (h, m) = bias_ih + bias_hh, c.state
        c.run(lambda i, j: kernels.lstm(a, strips, bias, h, m, c.lengths, reverse, i, j, out, memory, gates))
        out[-1] = memory[0 if reverse else -1]
        return out, (memory, gates)

    def vjp(
        needs: tuple[bool, ...],
        g: Array,
        out: Array,
        saved: tuple[Array, Array],
        x: Array,
        weight_ih: Array,
        weight_hh: Array,
        bias_ih: Array,
        bias_hh: Array,
        h0: Array,
        c0: Array,
        *,
        lengths: Array | None,
        reverse: bool,
    ) -> tuple[Array | None, ...]:
        c = _Compiled(x, weight_ih, weight_hh, (h0, c0), lengths, reverse)
        g, da, strips = np.ascontiguousarray(g), c.new(gates=True), c.backward()
        dh, dc = np.zeros_like(c.state[0]), g[-1].copy()
        c.run(lambda i, j: kernels.lstm_vjp(g, *saved, c.state[1], strips, c.lengths, reverse, i, j, da, dh, dc))
        return c.gathered(needs, out[:-1], da, da, (dh, dc))

    return Kernel(forward, vjp)


@functools.cache
def _numba_gru() -> Kernel:
    from tinyllm.kernels.cpu import recurrent as kernels

    def forward(
        x: Array,
        weight_ih: Array,
        weight_hh: Array,
        bias_ih: Array,
        bias_hh: Array,
        h0: Array,
        *,
        lengths: Array | None,
        reverse: bool,
    ) -> tuple[Array, Any]:
        c = _Compiled(x, weight_ih, weight_hh, (h0,), lengths, reverse)
        a, out, gates, news, strips = c.inputs(), c.new(), c.new(gates=True), c.new(), c.forward()
        b_a, b_u = np.ascontiguousarray(bias_ih), np.ascontiguousarray(bias_hh)
        c.run(lambda i, j: kernels.gru(a, strips, b_a, b_u, c.state[0], c.lengths, reverse, i, j, out, gates, news))
        return out, (gates, news)

    def vjp(
        needs: tuple[bool, ...],
        g: Array,
        out: Array,
        saved: tuple[Array, Array],
        x: Array,
        weight_ih: Array,
        weight_hh: Array,
        bias_ih: Array,
        bias_hh: Array,
        h0: Array,
        *,
        lengths: Array | None,
        reverse: bool,
    ) -> tuple[Array | None, ...]:
        c = _Compiled(x, weight_ih, weight_hh, (h0,), lengths, reverse)
        g, da, du, strips = np.ascontiguousarray(g), c.new(gates=True), c.new(gates=True), c.backward()
        dh = np.zeros_like(c.state[0])
        c.run(lambda i, j: kernels.gru_vjp(g, out, *saved, c.state[0], strips, c.lengths, reverse, i, j, da, du, dh))
        return c.gathered(needs, out, da, du, (dh,))

    return Kernel(forward, vjp)


_rnn = Op(
    "rnn",
    ref=_through_time(_rnn_step),
    impls={"numpy": lambda: _kernel(_rnn_arrays, _rnn_back), "numba": _numba_rnn},
)
_lstm = Op(
    "lstm",
    ref=_through_time(_lstm_step),
    impls={"numpy": lambda: _kernel(_lstm_arrays, _lstm_back), "numba": _numba_lstm},
)
_gru = Op(
    "gru",
    ref=_through_time(_gru_step),
    impls={"numpy": lambda: _kernel(_gru_arrays, _gru_back), "numba": _numba_gru},
)


# -- what users call ---------------------------------------------------------------------------------------------------


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
    given, checked = _checked("rnn", 1, (x, weight_ih, weight_hh, bias_ih, bias_hh, h0), lengths)
    return apply(_rnn, *given, nonlinearity=nonlinearity, lengths=checked, reverse=bool(reverse))


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
    given, checked = _checked("lstm", 4, (x, weight_ih, weight_hh, bias_ih, bias_hh, h0, c0), lengths)
    return apply(_lstm, *given, lengths=checked, reverse=bool(reverse))


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
    given, checked = _checked("gru", 3, (x, weight_ih, weight_hh, bias_ih, bias_hh, h0), lengths)
    return apply(_gru, *given, lengths=checked, reverse=bool(reverse))


def _checked(
    name: str, blocks: int, operands: tuple[Operand, ...], lengths: ArrayLike | None
) -> tuple[list[Tensor], np.ndarray | None]:
    """The operands in one dtype, and the lengths, if all fit."""
    x, *rest = (as_tensor(t) for t in operands)
    weight_hh = rest[1]
    if x.ndim != 3 or 0 in x.shape or weight_hh.ndim != 2 or weight_hh.size == 0:
        raise ValueError(
            f"{name} needs x (T, B, I) and weight_hh ({blocks} H, H), no length 0; got {x.shape} and {weight_hh.shape}"
        )
    (T, B, inputs), H = x.shape, weight_hh.shape[1]
    rows = blocks * H
    expected = [(rows, inputs), (rows, H), (rows,), (rows,), *((B, H) for _ in rest[4:])]
    if [t.shape for t in rest] != expected:
        raise ValueError(
            f"{name}: x {x.shape} with H = {H} needs weights, biases and a first state of the shapes "
            f"{', '.join(map(str, expected))}; got {', '.join(str(t.shape) for t in rest)}"
        )
    dtype = np.result_type(*(t.dtype for t in (x, *rest)))
    return [ops.astype(t, dtype) for t in (x, *rest)], checked_lengths(name, lengths, B, T)


def checked_lengths(name: str, lengths: ArrayLike | None, B: int, T: int) -> np.ndarray | None:
    """(B,) int64, each from 1 to T; None where all are T."""
    if lengths is None:
        return None
    found = np.asarray(lengths)
    if found.shape != (B,) or found.dtype.kind not in "iu" or (B and not (found.min() >= 1 and found.max() <= T)):
        raise ValueError(f"{name}: lengths must be {B} whole numbers from 1 to {T}, got {np.array2string(found)}")
    return None if (found == T).all() else found.astype(np.int64)
