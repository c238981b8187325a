"""Many arrays worked on as if they were one flat array: each thread takes a range of all their elements."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TypeVar

from tinyllm.threads import parallel

R = TypeVar("R")

_GRAIN = 1 << 16  # elements worth a thread: AdamW takes some 50 us for them


def over_ranges(function: Callable[[int, int, int], R], sizes: Sequence[int]) -> list[R]:
    """``function(i, begin, end)`` for pieces that make up the arrays 0, 1, ... of these sizes.

    The arrays are laid end to end and cut into one range per thread, so that a small array costs a call and no more,
    and a large one is shared.

    Returns
    -------
    list
        What the calls returned, in the order of the elements: partial sums are to be added in this order.
    """
    ends = list(accumulate(sizes))

    def work(begin: int, end: int) -> list[R]:
        found = []
        i = bisect_right(ends, begin)
        while begin < end:
            first, last = ends[i] - sizes[i], min(end, ends[i])
            if last > begin:
                found.append(function(i, begin - first, last - first))
            begin, i = last, i + 1
        return found

    return [r for part in parallel(work, ends[-1] if ends else 0, _GRAIN) for r in part]
