"""The sum of the gradients of a batch's pieces, and its norm, in one pass over them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tinyllm import buffers
from tinyllm.autograd.settings import choose_kernel
from tinyllm.autograd.tensor import Array
from tinyllm.optim.clip import sum_of_squares
from tinyllm.optim.ranges import over_ranges


class GradientSum:
    """Gradients of some parameters, added up in the order in which the pieces are given.

    What is given is only read: one array may be the gradient of two parameters. None stands for zeros.

    Attributes
    ----------
    total : list of arrays or None
        One for each parameter.
    """

    def __init__(self) -> None:
        self.total: list[Array | None] = []
        self._squares: float | None = None  # of the total, where the last addition went over all of it

    def add(self, found: list[Array | None]) -> None:
        """Add the gradients of a piece."""
        pairs = zip(self.total or [None] * len(found), found, strict=True)
        both = {i: (a, b) for i, (a, b) in enumerate(pairs) if a is not None and b is not None}
        sums, squares = _added(list(both.values()))
        self.total = [b if a is None else a for a, b in zip(self.total or found, found, strict=True)]
        for i, array in zip(both, sums, strict=True):
            self.total[i] = array
        self._squares = squares if len(both) == sum(a is not None for a in self.total) else None

    def norm(self) -> float:
        """The Euclidean norm of all gradients together."""
        if self._squares is None:
            self._squares = sum_of_squares([a for a in self.total if a is not None])
        return math.sqrt(self._squares)


def _added(pairs: list[tuple[Array, Array]]) -> tuple[list[Array], float]:
    """The sum of each pair, and the sum of the squares of all sums; the threads share the numbers."""
    if not pairs or not all(type(a) is np.ndarray for a, _ in pairs):
        sums = [a + b for a, b in pairs]
        return sums, sum_of_squares(sums)
    outs = [buffers.empty(a.shape, a.dtype) for a, _ in pairs]
    add = _add(max(outs, key=lambda a: a.size))
    flat = [
        (np.ascontiguousarray(a).reshape(-1), np.ascontiguousarray(b).reshape(-1), out.reshape(-1))
        for (a, b), out in zip(pairs, outs, strict=True)
    ]

    def piece(i: int, begin: int, end: int) -> float:
        a, b, out = flat[i]
        return add(a[begin:end], b[begin:end], out[begin:end])

    return outs, sum(over_ranges(piece, [out.size for out in outs]))


def _add(largest: Array) -> Callable[[Array, Array, Array], float]:
    """``add(a, b, out)``: out = a + b; returns the sum of the squares of the sums."""
    if choose_kernel(("numpy", "numba"), largest) == "numba":
        from tinyllm.kernels.cpu.adamw import add

        return add
    return _add_numpy


def _add_numpy(a: Array, b: Array, out: Array) -> float:
    np.add(a, b, out=out)
    return float(np.square(out, dtype=np.float64).sum())
