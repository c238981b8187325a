"""From the kernels of a cell to an operation: the sequences are divided among threads, from inputs to gradients.

Each thread copies its sequences, multiplies the inputs, carries the state through time, and on the way back makes its
own share of the weights' gradients; the shares are added at the end. So there is one meeting of the threads in each
direction, and nothing is done by one while the others wait.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tinyllm import threads
from tinyllm.autograd.arrays import add_to, matmul
from tinyllm.autograd.fused.recurrent.through_time import State, of_weights, states_before
from tinyllm.autograd.tape import Kernel
from tinyllm.autograd.tensor import Array
from tinyllm.buffers import empty

T = TypeVar("T")

_THREAD_WORTH = 4 * 10**6  # multiply-adds that are worth a thread of their own
_FEWEST = 8  # sequences for a thread: products with fewer rows are much slower


def contiguous(x: Array) -> Array:
    """`x`, copied if its elements do not follow each other."""
    if x.flags.c_contiguous:
        return x
    out = empty(x.shape, x.dtype)
    out[...] = x
    return out


def strips_of(matrix: Array, rows: int) -> Array:
    """A matrix (K, N) in strips of columns (N / S, K, S), as wide as products with so many rows allow.

    What is beyond column N is not written.
    """
    from tinyllm.kernels.cpu.blocks import DEPTH, UNPACKED

    K, N = matrix.shape
    width = next((s for s in (64, 32, 16) if rows * min(K, DEPTH) * s <= UNPACKED), N)
    strips = empty((-(-N // width), K, width), matrix.dtype)
    for p, strip in enumerate(strips):
        part = matrix[:, p * width : (p + 1) * width]
        strip[:, : part.shape[1]] = part
    return strips


class Layer(NamedTuple):
    """What all threads share."""

    weight_hh: Array  # (G H, H)
    bias_ih: Array  # (G H,)
    bias_hh: Array  # (G H,)
    reverse: bool
    rows: int  # the most sequences that a thread has

    def strips(self, matrix: Array) -> Array:
        """A matrix in strips that suit products with the states of a thread's sequences."""
        return strips_of(matrix, self.rows)

    def prepared(self, make: Callable[[], T], matrix: Array, shares: int) -> tuple[T, Array | None]:
        """What `make` gives, and meanwhile the matrix of the inputs in strips.

        Not where all sequences are one share: the product with it is then made for all times, by all threads.
        """
        if shares == 1:
            return make(), None
        steps: tuple[Callable[[], Any], ...] = (make, lambda: self.strips(matrix))
        made, strips = threads.each(lambda step: step(), steps)
        return made, strips


class Share(NamedTuple):
    """The sequences of one thread."""

    begin: int  # the first of them
    lengths: Array  # (n,)
    state: list[Array]  # the first one, (n, H) each

    @classmethod
    def of(cls, begin: int, end: int, T: int, lengths: Array | None, state: tuple[Array, ...]) -> Share:
        """The sequences ``begin <= b < end``."""
        ends = np.full(end - begin, T) if lengths is None else lengths[begin:end]
        return cls(begin, ends, [contiguous(s[begin:end]) for s in state])


def compiled(
    forward: Callable[..., Callable[[Array, Array, Array, Array, Share], Any]],
    backward: Callable[..., Callable[[Array, Array, Any, Share], tuple[Array, Array, State]]],
) -> Kernel:
    """The implementation of an operation from the calls of its kernels.

    Parameters
    ----------
    forward : callable
        ``forward(layer, **settings)(x, strips_ih, a, out, share)`` writes the states of a share of the sequences into
        the whole result and gives what is kept; it may keep a, (T, n, G H). Where x has no steps, a holds at first what
        the inputs contribute without the bias.
    backward : callable
        ``backward(layer, **settings)(g, out, kept, share)`` gives the cotangents of a, of u and of the first state for
        a share of the sequences, from the whole result and its cotangent.
    """
    from tinyllm.kernels.cpu.strips import times_steps

    def whole_forward(
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
        (T, B, _), H = x.shape, weight_hh.shape[1]
        grain = max(_FEWEST, _THREAD_WORTH // (T * weight_hh.size))
        shares = max(1, min(threads.get_num_threads(), B // grain))
        layer = Layer(weight_hh, contiguous(bias_ih), contiguous(bias_hh), reverse, -(-B // shares))
        run, strips = layer.prepared(lambda: forward(layer, **settings), weight_ih.T, shares)
        out = empty((T + len(state) - 1, B, H), x.dtype)

        def work(begin: int, end: int) -> tuple[int, int, Array | None, Any]:
            mine, a = x[:, begin:end], empty((T, end - begin, len(weight_ih)), x.dtype)
            inputs, share = contiguous(mine), Share.of(begin, end, T, lengths, state)
            if strips is not None:
                kept = run(inputs, strips, a, out, share)
            else:
                matmul(_by_rows(inputs), weight_ih.T, out=_by_rows(a))
                kept = run(inputs[:0], inputs[:0], a, out, share)
            return begin, end, None if inputs is mine else inputs, kept  # copied once for both ways

        return out, threads.parallel(work, B, grain)

    def whole_vjp(
        needs: tuple[bool, ...],
        g: Array,
        out: Array,
        saved: list[tuple[int, int, Array | None, Any]],
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
        rows = max(end - begin for begin, end, *_ in saved)
        layer = Layer(weight_hh, bias_ih, bias_hh, reverse, rows)
        run, strips = layer.prepared(lambda: backward(layer, **settings), weight_ih, len(saved))
        arrived = g if g.flags.c_contiguous else empty(g.shape, g.dtype)
        dx = empty(x.shape, x.dtype) if needs[0] else None

        def work(piece: tuple[int, int, Array | None, Any]) -> tuple[Array | None, ...]:
            begin, end, copied, kept = piece
            share = Share.of(begin, end, len(x), lengths, state)
            if arrived is not g:
                arrived[:, begin:end] = g[:, begin:end]
            da, du, dstate = run(arrived, out, kept, share)
            if dx is not None and strips is not None:
                times_steps(da, strips, begin, dx)
            elif dx is not None:
                matmul(_by_rows(da), weight_ih, out=_by_rows(dx))
            before = states_before(out[: len(x), begin:end], share.state[0], reverse)
            inputs = x[:, begin:end] if copied is None else copied
            return of_weights(needs[1:], inputs, before, da, du) + dstate

        dweight_ih, dweight_hh, dbias_ih, dbias_hh, *dstate = zip(*threads.each(work, saved), strict=True)
        return (
            dx,
            functools.reduce(add_to, dweight_ih) if needs[1] else None,
            functools.reduce(add_to, dweight_hh) if needs[2] else None,
            *(functools.reduce(np.add, d) for d in (dbias_ih, dbias_hh)),  # may be one and the same array
            *(np.concatenate(d) for d in dstate),
        )

    return Kernel(whole_forward, whole_vjp)


def _by_rows(x: Array) -> Array:
    """(T, B, C) as rows (T B, C)."""
    return x.reshape(-1, x.shape[-1])
