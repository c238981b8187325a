"""Memory that is used again: uninitialised arrays for large results, which come back at every step.

The system hands out large memory as pages that do not exist before they are first written, and takes it back as soon as
it is freed: a training step that allocates all its results anew spends a good part of its time on page faults. Here the
memory of an array that nobody refers to any more is kept for the next one of about its size.

An array is given away as a view of a *lease*, an object of which every view, slice, memoryview or foreign tensor that
shares the memory holds a reference, directly or through another array. When the last of them is gone Python deletes the
lease, and only then is its block free. So what somebody still holds is never touched, without anyone saying when he is
done with it.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import threading
import time
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

Array = np.ndarray[Any, Any]

_SMALL = 1 << 16  # bytes; the system's allocator keeps such memory itself
_HUGE = 1 << 22  # bytes from which the system is asked for pages of 2 MB, as NumPy does
_SECONDS = 10.0  # how long a free block waits for use
_ROOMY = 4  # a block so many times too large is used before any is given up
# All blocks together exceed what was in use by one part in so many, and by so many bytes: with none to spare, lengths
# that do not fit each other are given up and made again at every step, 7 MB of them in a step of a small model.
_SPARE_SHARE, _SPARE = 32, 1 << 22


class _Block(np.ndarray):
    """Raw bytes. A class of its own, so that NumPy does not look through a lease for the owner of the memory."""

    shelf: list[_Block]  # where it is while it is free: blocks of one length, the one freed last at the end
    free_since: float


class _Lease(np.ndarray):
    """The right to use a block; it ends when nobody refers to it."""

    def __del__(self, now: Any = time.monotonic) -> None:  # at any moment, in any thread: so no lock is taken
        block: Any = self.base
        block.free_since = now()
        block.shelf.append(block)


class Pool:
    """Blocks of memory, each used by at most one array at a time. One pool serves all threads.

    Its size is bounded: all blocks together exceed the most that was in use lately by a 32nd and 4 MB at most. Where a
    new one would pass that, a larger free block is used, and if there is none, those that have been free for longest
    make room for it. So a training step finds the memory of the one before: gradients lie where its activations did. A
    block that has been free for ten seconds is given back when the next array is asked for.
    """

    def __init__(self) -> None:
        self.shelves: dict[int, list[_Block]] = {}  # free blocks by length
        self.total = 0  # bytes in use and free
        self.peaks = [0, 0]  # the most bytes in use, in this period and the one before
        self.period = time.monotonic()
        self.lock = threading.RLock()  # whoever counts may run into a deletion that asks for an array in its turn

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """An uninitialised array, see the function."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if size < _SMALL or dtype.hasobject:
            return np.empty(shape, dtype)
        step = 1 << (size.bit_length() - 4)  # eight lengths from one power of two to the next
        length = -(-size // step) * step
        if time.monotonic() - self.period > _SECONDS:
            self._begin_period()
        for fitting in (length, length + step, length + 2 * step):
            try:
                block = self.shelves[fitting].pop()  # atomic: nobody else gets it
                break
            except (KeyError, IndexError):
                continue
        else:
            block = self._new(length)
        return np.ndarray.__new__(_Lease, shape, dtype, block).view(np.ndarray)

    def _new(self, length: int) -> _Block:
        with self.lock:
            used = self.total - self._idle() + length
            self.peaks[0] = max(self.peaks[0], used)
            most = max(self.peaks) * (1 + 1 / _SPARE_SHARE) + _SPARE - length
            larger = [n for n, shelf in self.shelves.items() if shelf and length < n <= _ROOMY * length]
            if self.total > most and larger:
                try:
                    return self.shelves[min(larger)].pop()
                except IndexError:  # another thread has just taken it
                    pass
            self._shrink(most)
            self.total += length
            shelf = self.shelves.setdefault(length, [])
        block = np.ndarray.__new__(_Block, (length,), np.uint8, _pages(length))
        block.shelf = shelf
        return block

    def _begin_period(self) -> None:
        """Give up what nobody has wanted for a whole period, and forget the peak before the last."""
        with self.lock:
            self._shrink(0, before=self.period)
            self.peaks = [self.total - self._idle(), self.peaks[0]]
            self.period = time.monotonic()

    def _shrink(self, total: float, before: float = math.inf) -> None:
        """Give blocks freed before `before` back to the system, the earliest first, until `total` bytes are left."""
        while self.total > total:
            length = min(self.shelves, key=self._earliest, default=0)
            if self._earliest(length) >= before:
                break
            try:
                self.shelves[length].pop(0)
            except IndexError:  # another thread has just taken it
                continue
            self.total -= length

    def _earliest(self, length: int) -> float:
        """Since when the first block of this length is free."""
        try:
            return self.shelves[length][0].free_since
        except (KeyError, IndexError):
            return math.inf

    def _idle(self) -> int:
        return sum(length * len(shelf) for length, shelf in self.shelves.items())

    def clear(self) -> None:
        """Give up all free blocks."""
        with self.lock:
            self._shrink(0)

    def used_and_free(self) -> tuple[int, int]:
        """Bytes in use, bytes free."""
        with self.lock:
            idle = self._idle()
            return self.total - idle, idle


def _pages(length: int) -> mmap.mmap:
    """Memory straight from the system, to which it goes back when the block is given up: `malloc` would keep it."""
    try:
        if os.name == "nt":
            return mmap.mmap(-1, length)
        pages = mmap.mmap(-1, length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        raise MemoryError(f"the system has no {length / 1e6:,.1f} MB of memory left for an array") from None
    if length >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a system without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


_pool = Pool()


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """An uninitialised array, in memory that an earlier one no longer needs where there is such; 64-byte aligned.

    Anything may be done with it that may be done with one from ``numpy.empty``, which is what small arrays come from.
    Its memory is used again once neither it nor anything that shares its memory is referred to.

    Parameters
    ----------
    shape : tuple of ints
    dtype : dtype
    """
    return _pool.empty(shape, dtype)


def clear() -> None:
    """Give the memory that waits for its next use back to the system."""
    _pool.clear()


def used_and_free() -> tuple[int, int]:
    """Bytes in arrays from here that somebody holds, and bytes that wait for their next use."""
    return _pool.used_and_free()


def _after_fork() -> None:
    _pool.lock = threading.RLock()  # another thread may have held it, and is not here to let go


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
