"""How numbers are stored in few bits: blocks of 32 that share a scale, and the plain kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Kind(NamedTuple):
    """How the numbers of a tensor are stored: blocks of `size` numbers in `width` bytes each."""

    name: str
    size: int
    width: int
    decode: Callable[[np.ndarray, np.ndarray], None]  # bytes (blocks, width) -> float32 (blocks, size), written


def _f32(blocks: np.ndarray, out: np.ndarray) -> None:
    out[:] = blocks.view("<f4")


def _f16(blocks: np.ndarray, out: np.ndarray) -> None:
    out[:] = blocks.view("<f2")


def _bf16(blocks: np.ndarray, out: np.ndarray) -> None:
    out.view(np.uint32)[:] = blocks.view("<u2")
    out.view(np.uint32)[:] <<= 16


def _q8_0(blocks: np.ndarray, out: np.ndarray) -> None:
    """A scale d (float16) and 32 signed bytes q: d q."""
    np.multiply(blocks[:, 2:].view(np.int8), _scale(blocks, 0), out=out, dtype=np.float32)


def _q4_0(blocks: np.ndarray, out: np.ndarray) -> None:
    """A scale d and 32 half bytes q, the low halves first: d (q - 8)."""
    _halves(blocks[:, 2:], out)
    out -= 8
    out *= _scale(blocks, 0)


def _q4_1(blocks: np.ndarray, out: np.ndarray) -> None:
    """A scale d, a least value m and 32 half bytes q, the low halves first: d q + m."""
    _halves(blocks[:, 4:], out)
    out *= _scale(blocks, 0)
    out += _scale(blocks, 2)


def _halves(data: np.ndarray, out: np.ndarray) -> None:
    np.bitwise_and(data, 15, out=out[:, :16], casting="unsafe")
    np.right_shift(data, 4, out=out[:, 16:], casting="unsafe")


def _scale(blocks: np.ndarray, at: int) -> np.ndarray:
    """The float16 at this byte of each block, (blocks, 1) in float32."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


#: The types that are read, by their number in the file.
KINDS: dict[int, Kind] = {
    0: Kind("F32", 1, 4, _f32),
    1: Kind("F16", 1, 2, _f16),
    2: Kind("Q4_0", 32, 18, _q4_0),
    3: Kind("Q4_1", 32, 20, _q4_1),
    8: Kind("Q8_0", 32, 34, _q8_0),
    30: Kind("BF16", 1, 2, _bf16),
}
#: Types that are known by name alone.
OTHERS = {6: "Q5_0", 7: "Q5_1", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 28: "F64"}
