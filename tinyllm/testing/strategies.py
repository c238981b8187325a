"""A hypothesis strategy for Tensors. hypothesis is imported when the strategy is asked for, not before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tinyllm.autograd import Tensor

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def tensors(
    shape: tuple[int, ...] | SearchStrategy[tuple[int, ...]] | None = None,
    *,
    dtype: Any = np.float64,
    min_value: float = -3.0,
    max_value: float = 3.0,
    max_dims: int = 3,
    max_side: int = 5,
    requires_grad: bool = False,
) -> SearchStrategy[Tensor]:
    """Tensors of hypothesis-drawn shape and values.

    Among the shapes are 0-d, empty, and axes of length 1; among the values 0, repeated ones, and tiny ones, where
    functions have kinks and naive checkers see errors; some tensors are not contiguous in memory.

    Parameters
    ----------
    shape : tuple of ints or strategy for one, optional
        Any shape of at most `max_dims` axes of at most `max_side` by default.
    dtype : dtype
    min_value, max_value : float
    max_dims, max_side : int
    requires_grad : bool

    Raises
    ------
    ImportError
        If hypothesis is not installed.
    """
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as from_numpy

    shapes = from_numpy.array_shapes(min_dims=0, max_dims=max_dims, min_side=0, max_side=max_side)
    width = 8 * np.dtype(dtype).itemsize
    numbers = st.floats(min_value, max_value, width=width if width < 64 else 64)

    @st.composite
    def draw(draw: Any) -> Tensor:
        chosen = draw(shapes if shape is None else shape if not isinstance(shape, tuple) else st.just(shape))
        values = draw(from_numpy.arrays(dtype, chosen[::-1], elements=numbers))
        values = values.T if draw(st.booleans()) else np.ascontiguousarray(values.T)
        return Tensor(values.reshape(chosen) if values.shape != chosen else values, requires_grad=requires_grad)

    return draw()
