"""How the wrappers of compiled kernels hand them their arrays: contiguous, as rows, divided among the threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from tinyllm.autograd.tensor import Array
from tinyllm.threads import parallel

R = TypeVar("R")

# The fewest elements that a thread is woken for: 30 us, in which one thread does about as many.
_GRAIN = 1 << 16


def as_rows(a: Array, size: int) -> Array:
    """Contiguous (R, size)."""
    return np.ascontiguousarray(a).reshape(-1, size)


def flat(a: Array) -> Array:
    """Contiguous (n,)."""
    return np.ascontiguousarray(a).reshape(-1)


def divided(work: Callable[[int, int], R], rows: Array) -> list[R]:
    """``work(begin, end)`` on ranges of rows (R, C), or of elements (n,): what the calls returned, in order."""
    return parallel(work, len(rows), 1 + _GRAIN * len(rows) // max(1, rows.size))


def in_order(parts: list[tuple[Array, ...]]) -> tuple[Array, ...]:
    """Sums, kind by kind, of what the ranges summed up: added in their order, so always with the same rounding."""
    first, *others = parts
    for part in others:
        for total, more in zip(first, part, strict=True):
            total += more
    return first
