"""The two limits of a machine, as it is now: how fast it multiplies matrices, and how fast it copies memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyllm import threads


@dataclass(frozen=True)
class Limits:
    """Measured on as many threads as tinyllm may use.

    Parameters
    ----------
    flops : float
        Float32 operations per second of a matrix product of 1,536 rows and columns.
    bytes : float
        Bytes per second read and written by a copy that no cache can hold.
    threads : int
    """

    flops: float
    bytes: float
    threads: int

    @classmethod
    def measure(cls, seconds: float = 0.6, size: int = 1536, megabytes: int = 128) -> Limits:
        """Measure both, each for about half of the time.

        The best of several repetitions is taken: whatever else the machine does only slows them down.
        """
        a, b = np.ones((size, size), np.float32), np.ones((size, size), np.float32)
        out = np.empty_like(a)
        product = best_time(lambda: threads.matmul(a, b, out=out), seconds / 2)
        source = np.ones(megabytes * 2**18, np.float32)
        target = np.ones_like(source)

        def copy(begin: int, end: int) -> None:
            target[begin:end] = source[begin:end]

        copied = best_time(lambda: threads.parallel(copy, len(source)), seconds / 2)
        return cls(2 * size**3 / product, 2 * source.nbytes / copied, threads.get_num_threads())

    @classmethod
    def best(cls, *found: Limits) -> Limits:
        """The higher of several measurements of the same."""
        return cls(max(a.flops for a in found), max(a.bytes for a in found), found[0].threads)

    def shortest(self, flops: float, nbytes: float) -> float:
        """The least time in which so many operations can be done and so many bytes be moved, in seconds."""
        return max(flops / self.flops, nbytes / self.bytes)

    def bound(self, flops: float, nbytes: float) -> str:
        """Which of the two limits work of this kind meets first: ``"sgemm"`` or ``"copy"``."""
        return "sgemm" if flops / self.flops > nbytes / self.bytes else "copy"


def durations(work: Callable[[], Any], seconds: float, warm: int = 1, least: int = 3) -> list[float]:
    """How long each of as many calls of `work` took as fit into the time, at least `least` of them."""
    for _ in range(warm):
        work()
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < least or time.perf_counter() < end:
        begin = time.perf_counter()
        work()
        found.append(time.perf_counter() - begin)
    return found


def best_time(work: Callable[[], Any], seconds: float, warm: int = 1) -> float:
    """The shortest duration of `work`."""
    return min(durations(work, seconds, warm))


def median_time(work: Callable[[], Any], seconds: float, warm: int = 3) -> float:
    """The median duration of `work`."""
    return statistics.median(durations(work, seconds, warm))
