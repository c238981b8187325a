"""From one step of a recurrent layer to all: in small operations, and on arrays, forward and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinyllm.autograd import ops
from tinyllm.autograd.arrays import matmul
from tinyllm.autograd.tape import Kernel
from tinyllm.autograd.tensor import Array, Tensor, namespace

State = tuple[Any, ...]  # h, or h and c: arrays or Tensors (B, H)


def _times(T: int, reverse: bool) -> list[int]:
    return list(range(T))[:: -1 if reverse else 1]


def _running(lengths: Array | None, t: int) -> Array | None:
    """Which sequences have not ended, (B, 1); None for all."""
    return None if lengths is None else (t < lengths)[:, None]


def through_time(step: Callable[..., State]) -> Callable[..., Tensor]:
    """The reference of an operation from one step of it: ``step(a, u, h, ..., **settings)`` is the new state.

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


def kernel(step: Callable[..., tuple[State, Any]], back: Callable[..., tuple[Array, Array, State]]) -> Kernel:
    """Both ways through time on arrays, from one step of each.

    ``step(a, u, h, ..., **settings)`` gives the new state and what is kept for the step back, ``back(kept, before, h,
    dh, ..., **settings)``. It sees the states on both sides and gives the cotangents of a, u and the state before, of
    the last without what goes through u.
    """

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
        dx = matmul(da.reshape(-1, da.shape[-1]), weight_ih).reshape(x.shape) if needs[0] else None
        return dx, *of_weights(needs[1:], x, states_before(out[:T], state[0], reverse), da, du), *dstate

    return Kernel(forward, vjp)


def states_before(states: Array, first: Array, reverse: bool) -> Array:
    """The state before each step (T, B, H)."""
    parts = [states[1:], first[None]] if reverse else [first[None], states[:-1]]
    return namespace(states).concatenate(parts)


def of_weights(needs: tuple[bool, ...], x: Array, before: Array, da: Array, du: Array) -> tuple[Array | None, ...]:
    """The cotangents of both weights and both biases from those of a and u: sums over all times and sequences."""
    a_rows, u_rows, x_rows, h_rows = (d.reshape(-1, d.shape[-1]) for d in (da, du, x, before))
    dweight_ih = matmul(a_rows.T, x_rows) if needs[0] else None
    dweight_hh = matmul(u_rows.T, h_rows) if needs[1] else None
    dbias_ih = a_rows.sum(axis=0)
    return dweight_ih, dweight_hh, dbias_ih, dbias_ih if du is da else u_rows.sum(axis=0)
