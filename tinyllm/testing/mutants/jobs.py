"""Many checks, on every core, with progress."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, NamedTuple, TypeAlias

Progress: TypeAlias = Callable[[int, int, str], None]


class Job(NamedTuple):
    """A call, and its name in the line of progress."""

    name: str
    work: Callable[..., Any]
    arguments: tuple[Any, ...]


def done(jobs: Sequence[Job], processes: int = 1, progress: Progress | None = None) -> list[Any]:
    """The results of all jobs, in their order.

    Parameters
    ----------
    jobs : sequence of Job
    processes : int
        How many to work in; with more than one, the script that calls this needs ``if __name__ == "__main__":``.
    progress : callable, optional
        ``progress(done, total, what)``.
    """
    found: list[Any] = [None] * len(jobs)
    tell = progress or _silent
    if processes == 1:
        for k, job in enumerate(jobs):
            found[k] = job.work(*job.arguments)
            tell(k + 1, len(jobs), job.name)
        return found
    # fresh interpreters: a fork of a process whose threads hold locks may hang
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        places = {pool.submit(job.work, *job.arguments): k for k, job in enumerate(jobs)}
        try:
            for count, future in enumerate(as_completed(places), 1):
                found[places[future]] = future.result()
                tell(count, len(jobs), jobs[places[future]].name)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


class Line:
    """Progress: a line rewritten in place on a terminal, a line every few seconds elsewhere.

    Parameters
    ----------
    command : str
    things : str
        What is counted.
    """

    def __init__(self, command: str, things: str) -> None:
        self.command, self.things = command, things
        self.terminal = sys.stderr.isatty()
        self.shown = time.monotonic()

    def __call__(self, count: int, total: int, what: str) -> None:
        """Say how far the work is."""
        text = f"{self.command}: {count}/{total} {self.things}"
        if self.terminal:
            line = f"\r{text}, {what}".ljust(90)
            print(line if count < total else "\r".ljust(91) + "\r", end="", file=sys.stderr, flush=True)
        elif count == total or time.monotonic() - self.shown > 5:
            self.shown = time.monotonic()
            print(text, file=sys.stderr, flush=True)


def _silent(count: int, total: int, what: str) -> None:
    pass
