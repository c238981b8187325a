"""Gradients that are zero nearly everywhere: of a slice, of the rows of a table.

Each of T slices of a tensor hands it a gradient of the tensor's size. Were they written out, a loop over time would
cost T^2; here each is only added, where it is not zero, to the sum.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinyllm import buffers
from tinyllm.autograd import arrays
from tinyllm.autograd.tensor import Array, Storage, Tensor


class Sparse(Tensor):
    """A tensor of zeros to which ``add_to(array)`` adds the rest. It is written out when somebody looks at it.

    Where that can be done faster than by adding to zeros, `write` does it, in an array that holds anything.
    """

    __slots__ = ("_dtype", "_shape", "_written", "add_to", "write")

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype,
        add_to: Callable[[Array], None],
        write: Callable[[Array], None] | None = None,
    ) -> None:
        self._shape, self._dtype, self.add_to, self.write = shape, dtype, add_to, write
        self._written: Storage | None = None
        self.node = self.grad = None
        self._requires_grad = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self._shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the elements."""
        return self._dtype

    @property
    def _storage(self) -> Storage:  # type: ignore[override]
        if self._written is None:
            self._written = Storage(self.dense())
        return self._written

    def dense(self) -> Array:
        """All of it, in memory of its own."""
        if self.write is not None:
            array = buffers.empty(self._shape, self._dtype)
            self.write(array)
            return array
        array = arrays.zeros(self._shape, self._dtype)
        self.add_to(array)
        return array


def plus(a: Tensor, b: Tensor) -> Tensor:
    """``a + b`` in memory of its own."""
    if type(a) is Sparse:
        a, b = b, a
    if type(b) is not Sparse:
        return ops.add(a, b)
    array = a.dense() if type(a) is Sparse else arrays.copied(a._storage.array, a.dtype)
    b.add_to(array)
    return Tensor._wrap(Storage(array))


def add_in_place(total: Tensor, x: Tensor) -> None:
    """``total += x``, for a `total` that nobody else has seen."""
    if type(x) is Sparse:
        x.add_to(total._storage.array)
    else:
        arrays.add_to(total._storage.array, x._storage.array)


from tinyllm.autograd import ops  # noqa: E402
