"""`tinyllm mutants`: the whole hunt, on every core, with progress."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from json import dumps
from typing import Any, NamedTuple

from tinyllm.errors import ConfigError, nearest
from tinyllm.testing.mutants.alarms import random_alarms, trap_alarms, traps
from tinyllm.testing.mutants.cases import CASES
from tinyllm.testing.mutants.hunt import Hunted, hunt
from tinyllm.testing.mutants.report import MutantReport
from tinyllm.testing.mutants.survey import rules

DRAWS = 600  # right rules at random points that the command tries; the slow tests try more
_BATCH = 50

Progress = Callable[[int, int, str], None]


class _Job(NamedTuple):
    name: str
    work: Callable[..., Any]
    arguments: tuple[Any, ...]


def run(
    ops: Sequence[str] | None = None,
    seed: int = 0,
    *,
    draws: int = DRAWS,
    processes: int = 1,
    progress: Progress | None = None,
) -> MutantReport:
    """Plant every mistake in every rule, and check the right rules as well.

    Parameters
    ----------
    ops : sequence of str, optional
        Rows of the table, such as "softmax" or "edge: broadcast_to"; all by default. When some are chosen, right rules
        are checked at the points of these rows only.
    seed : int
        Of all inputs, gradients and directions.
    draws : int
        Right rules to check at random points, beside those that are known to trip naive checkers.
    processes : int
        How many to work in; with more than one, the script that calls this needs ``if __name__ == "__main__":``.
    progress : callable, optional
        ``progress(done, total, what)``.

    Returns
    -------
    MutantReport

    Raises
    ------
    ConfigError
        If there is no such row.
    """
    for name in ops or ():
        if name not in CASES:
            raise ConfigError(f"there is no operation {name!r} to plant mistakes in{nearest(name, CASES)}")
    begin = time.monotonic()
    jobs = [_Job(str(rule), hunt, (rule, seed)) for rule in rules(list(ops) if ops else None)]
    tried = 0
    if not ops:
        batches = [(min(_BATCH, draws - k), (seed, k)) for k in range(0, draws, _BATCH)]
        jobs = [_Job("false alarms", trap_alarms, (seed,)), *jobs]
        jobs += [_Job("false alarms", random_alarms, batch) for batch in batches]
        tried = draws + len(list(traps()))
    found = _done(jobs, processes, progress or _silent)
    hunted = tuple(result for result in found if isinstance(result, Hunted))
    alarms = [text for h in hunted for text in h.alarms]
    alarms += [text for result in found if isinstance(result, list) for text in result]
    tried += sum(len(h.rule.numbers) for h in hunted)
    return MutantReport(hunted, tuple(alarms), tried, seed, time.monotonic() - begin)


def _silent(done: int, total: int, what: str) -> None:
    pass


def _done(jobs: list[_Job], processes: int, progress: Progress) -> list[Any]:
    """The results of all jobs, in their order."""
    found: list[Any] = [None] * len(jobs)
    if processes == 1:
        for k, job in enumerate(jobs):
            found[k] = job.work(*job.arguments)
            progress(k + 1, len(jobs), job.name)
        return found
    # fresh interpreters: a fork of a process whose threads hold locks may hang
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        places = {pool.submit(job.work, *job.arguments): k for k, job in enumerate(jobs)}
        try:
            for done, future in enumerate(as_completed(places), 1):
                found[places[future]] = future.result()
                progress(done, len(jobs), jobs[places[future]].name)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


def main(json: bool = False, ops: Sequence[str] | None = None, seed: int = 0) -> int:
    """Run the hunt as the command does: the table on standard output, progress on standard error.

    Parameters
    ----------
    json : bool
        Print one JSON object instead of the table.
    ops, seed
        As in :func:`run`.

    Returns
    -------
    int
        0 if every mutant was found and no right rule called wrong, else 1.

    Raises
    ------
    ConfigError
        If there is no such row.
    """
    report = run(ops, seed, processes=_cores(), progress=_Line())
    print(dumps(report.as_dict()) if json else report)
    return 0 if report.passed else 1


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Line:
    """Progress: a line rewritten in place on a terminal, a line every few seconds elsewhere."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.shown = time.monotonic()

    def __call__(self, done: int, total: int, what: str) -> None:
        if self.terminal:
            text = f"\rmutants: {done}/{total} rules and batches, {what}".ljust(90)
            print(text if done < total else "\r".ljust(91) + "\r", end="", file=sys.stderr, flush=True)
        elif done == total or time.monotonic() - self.shown > 5:
            self.shown = time.monotonic()
            print(f"mutants: {done}/{total} rules and batches", file=sys.stderr, flush=True)
