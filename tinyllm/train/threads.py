"""One owner of the cores: each worker takes a piece of the batch, and BLAS keeps to the thread that calls it.

BLAS's own threads would split every single product, wait for each other actively, and starve whatever runs beside them;
pieces of a batch meet once per step.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

_NAMES = ("scipy_openblas_{}_num_threads64_", "scipy_openblas_{}_num_threads", "openblas_{}_num_threads")

T = TypeVar("T")
R = TypeVar("R")


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Workers:
    """A fixed number of threads that apply a function to items; results come in the order of the items."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """``function(item)`` for each item."""
        return self._pool.map(function, items) if self._pool else map(function, items)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within it, a matrix product runs on the thread that asks for it (where NumPy's BLAS is its own OpenBLAS)."""
    blas = _openblas()
    if blas is None:
        yield
        return
    get, set_ = blas
    before = get()
    set_(1)
    try:
        yield
    finally:
        set_(before)


@functools.cache
def _openblas() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """The functions that get and set the number of threads of the OpenBLAS in NumPy's wheel."""
    package = Path(np.__file__).parent
    for folder in (package.with_name("numpy.libs"), package / ".dylibs"):
        for library in sorted(folder.glob("*openblas*")):
            try:
                loaded = ctypes.CDLL(str(library))  # it is in the process already: this only finds it
            except OSError:
                continue
            for name in _NAMES:
                if hasattr(loaded, name.format("set")):
                    return getattr(loaded, name.format("get")), getattr(loaded, name.format("set"))
    return None
