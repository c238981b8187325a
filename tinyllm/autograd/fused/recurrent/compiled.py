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
from tinyllm.autograd.fused.recurrent.through_time import State, cotangents, states_before
from tinyllm.autograd.tape import Kernel
from tinyllm.autograd.tensor import Array
from tinyllm.buffers import empty

T = TypeVar("T")

_THREAD_WORTH = 4 * 10**6  # multiply-adds that are worth a thread of their own
_ROWS = 32  # of a large matrix, that are multiplied at once
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
    from tinyllm.kernels.cpu.strips import DEPTH, UNPACKED

    K, N = matrix.shape
    width = next((s for s in (64, 32, 16) if rows * min(K, DEPTH) * s <= UNPACKED), N)
    strips = empty((-(-N // width), K, width), matrix.dtype)
    for p, strip in enumerate(strips):
        part = matrix[:, p * width : (p + 1) * width]
        strip[:, : part.shape[1]] = part
    return strips


def with_product(make: Callable[[], T], matrix: Array, shares: int) -> tuple[T, Callable[[Array], Array]]:
    """What `make` gives, and the product ``times(a) = a @ matrix`` for so many threads, each with rows of its own.

    For several the matrix is cut into strips, while `make` works: a twelfth faster than large products. One alone
    leaves the product to the other threads as well.
    """
    if shares == 1:
        return make(), lambda a: matmul(a, matrix)
    from tinyllm.kernels.cpu.strips import times_rows

    steps: tuple[Callable[[], Any], ...] = (make, lambda: strips_of(matrix, _ROWS))
    made, strips = threads.each(lambda step: step(), steps)

    def times(a: Array) -> Array:
        out = empty((len(a), matrix.shape[1]), a.dtype)
        times_rows(a, strips, _ROWS, out)
        return out

    return made, times


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


class Share(NamedTuple):
    """The sequences of one thread, and what is theirs."""

    x: Array  # (T, n, I)
    lengths: Array  # (n,)
    state: list[Array]  # the first one, (n, H) each

    @classmethod
    def of(cls, begin: int, end: int, x: Array, lengths: Array | None, state: tuple[Array, ...]) -> Share:
        """The sequences ``begin <= b < end``."""
        x = contiguous(x[:, begin:end])
        ends = np.full(end - begin, len(x)) if lengths is None else lengths[begin:end]
        return cls(x, ends, [contiguous(s[begin:end]) for s in state])


def compiled(
    forward: Callable[..., Callable[[Array, Share], tuple[Array, Any]]],
    backward: Callable[..., Callable[[Array, Array, Any, Share], tuple[Array, Array, State]]],
) -> Kernel:
    """The implementation of an operation from the calls of its kernels.

    Parameters
    ----------
    forward : callable
        ``forward(layer, **settings)(a, share)`` gives the result for a share of the sequences and what is kept; it may
        overwrite a, what the inputs contribute without the bias, (T, n, G H).
    backward : callable
        ``backward(layer, **settings)(g, out, kept, share)`` gives the cotangents of a, of u and of the first state.
    """

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
        run, times = with_product(lambda: forward(layer, **settings), weight_ih.T, shares)
        out = empty((T + len(state) - 1, B, H), x.dtype)

        def work(begin: int, end: int) -> tuple[int, int, Any]:
            share = Share.of(begin, end, x, lengths, state)
            a = times(_by_rows(share.x)).reshape(T, end - begin, -1)
            out[:, begin:end], kept = run(a, share)
            return begin, end, kept

        return out, threads.parallel(work, B, grain)

    def whole_vjp(
        needs: tuple[bool, ...],
        g: Array,
        out: Array,
        saved: list[tuple[int, int, Any]],
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
        rows = max(end - begin for begin, end, _ in saved)
        layer = Layer(weight_hh, bias_ih, bias_hh, reverse, rows)
        run, times = with_product(lambda: backward(layer, **settings), weight_ih, len(saved))
        dx = empty(x.shape, x.dtype) if needs[0] else None

        def work(piece: tuple[int, int, Any]) -> tuple[Array | None, ...]:
            begin, end, kept = piece
            share, y = Share.of(begin, end, x, lengths, state), contiguous(out[: len(x), begin:end])
            da, du, dstate = run(contiguous(g[:, begin:end]), y, kept, share)
            before = states_before(y, share.state[0], reverse)
            mine, *others = cotangents(needs, times, share.x, before, da, du, dstate)
            if dx is not None:
                dx[:, begin:end] = mine
            return tuple(others)

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
