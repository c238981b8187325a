"""`tinyllm mutants`: the whole hunt, on every core, with progress."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from json import dumps

from tinyllm.testing.mutants.alarms import Tried, try_at_random, try_traps
from tinyllm.testing.mutants.cases import rows
from tinyllm.testing.mutants.hunt import Hunted, hunt
from tinyllm.testing.mutants.jobs import Job, Line, Progress, done
from tinyllm.testing.mutants.report import MutantReport
from tinyllm.testing.mutants.survey import rules
from tinyllm.threads import usable_cores

DRAWS = 600  # right rules at random points that the command tries; the slow tests try more
_BATCH = 50


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
    chosen = rows(ops)
    begin = time.monotonic()
    jobs = [Job(str(rule), hunt, (rule, seed)) for rule in rules(chosen)]
    if not ops:
        batches = [(min(_BATCH, draws - k), (seed, k)) for k in range(0, draws, _BATCH)]
        jobs = [Job("false alarms", try_traps, (seed,)), *jobs]
        jobs += [Job("false alarms", try_at_random, batch) for batch in batches]
    found = done(jobs, processes, progress)
    hunted = tuple(result for result in found if isinstance(result, Hunted))
    at_cases = [Tried(h.alarms, len(h.rule.numbers), 0) for h in hunted]
    alarms, tried, unjudged = zip(*at_cases, *(result for result in found if isinstance(result, Tried)), strict=True)
    seconds = time.monotonic() - begin
    return MutantReport(hunted, tuple(itertools.chain(*alarms)), sum(tried), sum(unjudged), seed, seconds)


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
    report = run(ops, seed, processes=usable_cores(), progress=Line("mutants", "rules and batches"))
    print(dumps(report.as_dict()) if json else report)
    return 0 if report.passed else 1
