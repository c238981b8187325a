"""One owner of the cores: a pool of threads that kernels, matrix products and training share.

Three pools would fight over two cores: BLAS's, Numba's, and whoever calls both (`benchmarks/threads.py` measures it).
So Numba's kernels are serial and let go of the interpreter's lock, BLAS keeps to the thread that calls it, and work is
divided here, in one of two ways: `parallel` cuts one operation into ranges of rows, `each` hands out whole pieces of a
batch. Within a piece everything is serial: what is divided already is not divided again. Waiting threads sleep; they
take nothing from the other users of the process.

How work is cut depends on its size and the number of threads alone, so results are the same from run to run for the
same number of threads.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np

from tinyllm import buffers

Array = np.ndarray[Any, Any]
T = TypeVar("T")
R = TypeVar("R")


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_num_threads(n: int) -> None:
    """Let operations and training use `n` threads, the calling one included; at first as many as there are cores.

    Raises
    ------
    ValueError
        If `n` is not a whole number of at least 1.
    """
    global _threads
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise ValueError(f"the number of threads must be a whole number of at least 1, got {n!r}")
    _threads = int(n)


def get_num_threads() -> int:
    """How many threads an operation that begins here may use: 1 within a piece of divided work."""
    return 1 if _here.inside else _threads


_threads = usable_cores()


class _Here(threading.local):
    """Of a thread: whether it is at work on a piece."""

    inside = False


_here = _Here()


class _Job:
    """A function for some pieces, and what became of them."""

    def __init__(self, function: Callable[[Any], Any], pieces: list[Any]) -> None:
        self.function, self.pieces = function, pieces
        self.results: list[Any] = [None] * len(pieces)
        self.error: BaseException | None = None
        self.left = iter(range(len(pieces)))  # taking the next number is atomic
        self.helped = 0  # how many helpers are through
        self.lock = threading.Lock()
        self.news: SimpleQueue[None] = SimpleQueue()  # something when one is

    def work(self) -> None:
        """Do pieces until none is left."""
        _here.inside = True
        try:
            for i in self.left:
                self.results[i] = self.function(self.pieces[i])
        except BaseException as error:
            self.stop(error)
        finally:
            _here.inside = False

    def stop(self, error: BaseException) -> None:
        """Let nobody begin another piece."""
        self.error = self.error or error
        for _ in self.left:
            pass

    def help(self) -> None:
        """Do pieces on another thread than the caller's."""
        self.work()
        with self.lock:
            self.helped += 1
        self.news.put(None)

    def wait(self, helpers: int) -> None:
        """Until all helpers are through: an interrupt, too, is raised only when nobody writes any more."""
        while self.helped < helpers:
            try:
                self.news.get()
            except BaseException as error:
                self.stop(error)


class _Pool:
    """Sleeping threads, made when they are first needed."""

    def __init__(self) -> None:
        self.size = 0
        self.jobs: SimpleQueue[_Job] = SimpleQueue()
        self.lock = threading.Lock()

    def ask(self, job: _Job, helpers: int) -> None:
        """Have so many threads work on the job, beside the caller."""
        if self.size < helpers:
            with self.lock:
                while self.size < helpers:
                    threading.Thread(target=self.serve, name=f"tinyllm-{self.size}", daemon=True).start()
                    self.size += 1
        for _ in range(helpers):
            self.jobs.put(job)

    def serve(self) -> None:
        """The life of a thread."""
        while True:
            job = self.jobs.get()
            job.help()
            del job  # nothing of it is kept alive while waiting for the next


_pool = _Pool()


def _renew() -> None:
    global _pool
    _pool = _Pool()  # threads do not survive a fork


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def each(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``function(item)`` for each item, shared among the threads; results in the order of the items.

    If one raises, no further item is begun, and the error is raised here when the running ones are finished.
    """
    pieces = list(items)
    helpers = min(get_num_threads(), len(pieces)) - 1
    with blas_on_caller():
        if helpers < 1:
            return [function(piece) for piece in pieces]
        job = _Job(function, pieces)
        _pool.ask(job, helpers)
        job.work()
        job.wait(helpers)
    if job.error is not None:
        raise job.error
    return job.results


def parallel(function: Callable[[int, int], R], size: int, grain: int = 1) -> list[R]:
    """``function(begin, end)`` over contiguous ranges that make up ``range(size)``, at most one per thread.

    Parameters
    ----------
    function : callable
        Works on the elements ``begin <= i < end``; no two ranges may write to the same memory.
    size : int
        Number of elements.
    grain : int
        The fewest elements that are worth a thread of their own.

    Returns
    -------
    list
        What the calls returned, in the order of the ranges: partial sums are to be added in this order.
    """
    ranges = min(get_num_threads(), size // max(1, grain))
    if ranges <= 1:
        return [function(0, size)]
    ends = [size * i // ranges for i in range(ranges + 1)]
    return each(lambda i: function(ends[i], ends[i + 1]), range(ranges))


# -- BLAS --------------------------------------------------------------------------------------------------------------

# Multiply-adds up to which BLAS never wakes threads of its own, and those from which a product is divided: some 120 us
# of one thread, while waking another costs 30.
_BLAS_ALONE = 200_000
_DIVIDED_FROM = 6_000_000


def matmul(a: Array, b: Array, out: Array | None = None, product: Callable[..., Any] = np.matmul) -> Array:
    """``a @ b``, the rows (or columns, or matrices of a stack) shared among the threads when there is enough work.

    What a thread does is ``product(a, b, out=out)`` with what it has of them.
    """
    work = a.size * b.shape[-1]
    if work < _BLAS_ALONE or a.ndim < 2 or b.ndim < 2:
        return np.matmul(a, b, out=out)
    if out is None:
        lead = () if a.ndim == b.ndim == 2 else np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        out = buffers.empty((*lead, a.shape[-2], b.shape[-1]), np.result_type(a, b))
    whole = out
    with blas_on_caller():
        if work < _DIVIDED_FROM or get_num_threads() == 1:
            return product(a, b, out=out)
        if out.ndim > 2 and len(out) >= get_num_threads():
            a, b = (np.broadcast_to(x, out.shape[:-2] + x.shape[-2:]) for x in (a, b))
            parallel(lambda i, j: product(a[i:j], b[i:j], out=whole[i:j]), len(out))
        elif a.shape[-2] >= b.shape[-1]:
            parallel(lambda i, j: product(a[..., i:j, :], b, out=whole[..., i:j, :]), a.shape[-2])
        else:
            parallel(lambda i, j: product(a, b[..., i:j], out=whole[..., i:j]), b.shape[-1])
        return out


_blas_lock = threading.Lock()
_blas_held = 0
_blas_before = 1


@contextmanager
def blas_on_caller() -> Iterator[None]:
    """Within it, a matrix product runs on the thread that asks for it (where NumPy's BLAS is its own OpenBLAS).

    BLAS's own threads wait for each other, and for the next product, by running in circles on the cores. What the rest
    of the process multiplies with NumPy is left to them: outside, their number is what it was.
    """
    global _blas_held, _blas_before
    blas = _openblas()
    if blas is None or _here.inside:  # whoever handed out the piece holds it
        yield
        return
    get, set_ = blas
    with _blas_lock:
        if _blas_held == 0:
            _blas_before = get()
            if _blas_before != 1:
                set_(1)
        _blas_held += 1
    try:
        yield
    finally:
        with _blas_lock:
            _blas_held -= 1
            if _blas_held == 0 and _blas_before != 1:
                set_(_blas_before)


_NAMES = ("scipy_openblas_{}_num_threads64_", "scipy_openblas_{}_num_threads", "openblas_{}_num_threads")


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
