"""Where a token stands, added to what it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from tinyllm.autograd.tensor import Tensor
from tinyllm.nn import init
from tinyllm.nn.module import Module


def sinusoids(
    T: int, C: int, base: float = 10000.0, interleaved: bool = True, *, dtype: DTypeLike = np.float32
) -> np.ndarray:
    """F-PE: ``PE(t, 2i) = sin(t / base^(2i/C))``, ``PE(t, 2i+1) = cos(t / base^(2i/C))``.

    Parameters
    ----------
    T : int
        Positions 0 .. T - 1.
    C : int
        Channels; sines and cosines alternate.
    base : float
    interleaved : bool
        False puts all sines before all cosines, as Marian does.
    dtype : dtype
        Of the result; the angles are computed in float64.

    Returns
    -------
    array (T, C)

    Notes
    -----
    Source: Vaswani et al. 2017, section 3.5.
    """
    even = np.arange(0, C, 2)
    angles = np.arange(T)[:, None] / base ** (even / C)  # (T, ceil(C / 2))
    table = np.empty((T, C), dtype)
    sines, cosines = (slice(0, C, 2), slice(1, C, 2)) if interleaved else (slice(0, even.size), slice(even.size, C))
    table[:, sines] = np.sin(angles)
    table[:, cosines] = np.cos(angles[:, : C // 2])
    return table


class SinusoidalPositions(Module):
    """Adds F-PE to its input: fixed, nothing to learn.

    Parameters
    ----------
    num_positions : int
        How many positions there are.
    embed_dim : int
        C.
    base : float
    dtype : dtype

    Attributes
    ----------
    table : Tensor (num_positions, C)
    """

    def __init__(
        self, num_positions: int, embed_dim: int, base: float = 10000.0, *, dtype: DTypeLike = np.float32
    ) -> None:
        self.num_positions, self.embed_dim = num_positions, embed_dim
        self.table = Tensor(sinusoids(num_positions, embed_dim, base, dtype=dtype))

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        """(B, T, C) -> (B, T, C); the first token stands at position `offset`."""
        return x + _rows(self.table, offset, x.shape[-2])


class Sinusoids(Module):
    """The vectors F-PE of any positions; the table is as long as the farthest one that was asked for.

    Parameters
    ----------
    embed_dim : int
        C.
    interleaved : bool
        As in :func:`sinusoids`.
    dtype : dtype
    """

    def __init__(self, embed_dim: int, interleaved: bool = True, *, dtype: DTypeLike = np.float32) -> None:
        self.embed_dim, self.interleaved, self.dtype = embed_dim, interleaved, np.dtype(dtype)
        self.table = self._rows(64)

    def _rows(self, count: int) -> Tensor:
        return Tensor(sinusoids(count, self.embed_dim, interleaved=self.interleaved, dtype=self.dtype))

    def forward(self, positions: np.ndarray) -> Tensor:
        """Integers (...) -> (..., C)."""
        needed = int(positions.max()) + 1
        if needed > len(self.table):
            device = self.table.device
            self.table = self._rows(2 * needed)
            self.to(device)
        return self.table[positions]


class LearnedPositions(Module):
    """Adds a learned vector for each position to its input.

    Parameters
    ----------
    num_positions : int
        How many positions there are.
    embed_dim : int
        C.
    rng : numpy Generator
        For the table: normal with deviation 0.02, small beside the embeddings it is added to.
    dtype : dtype

    Attributes
    ----------
    weight : Tensor (num_positions, C)
    """

    def __init__(
        self, num_positions: int, embed_dim: int, *, rng: np.random.Generator, dtype: DTypeLike = np.float32
    ) -> None:
        self.num_positions, self.embed_dim = num_positions, embed_dim
        weight = init.normal((num_positions, embed_dim), rng, std=0.02, dtype=dtype)
        self.weight = Tensor(weight, requires_grad=True)

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        """(B, T, C) -> (B, T, C); the first token stands at position `offset`."""
        return x + _rows(self.weight, offset, x.shape[-2])


def _rows(table: Tensor, offset: int, T: int) -> Tensor:
    if not 0 <= offset <= table.shape[0] - T:
        raise ValueError(f"positions {offset}..{offset + T - 1} do not exist: the table has {table.shape[0]}")
    return table[offset : offset + T]
