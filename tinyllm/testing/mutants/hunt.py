"""The hunt: plant each mistake in each rule, and see whether `gradcheck` finds it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinyllm.autograd import backend
from tinyllm.testing.gradcheck import gradcheck
from tinyllm.testing.mutants.cases import Case, operation
from tinyllm.testing.mutants.planted import Array, Wrong, plant
from tinyllm.testing.mutants.survey import Rule, harmless, make, reason, survey
from tinyllm.testing.mutants.wrong import Mistake, mistakes
from tinyllm.testing.report import GradCheckError

_POINTS = 8  # random points of a case that are looked at for one where a mistake shows

KILLED, SURVIVED, EQUIVALENT, ABSENT = "killed", "survived", "equivalent", "absent"


class Verdict(NamedTuple):
    """What became of one mutant.

    Attributes
    ----------
    mistake : str
    column : str
    outcome : str
        "killed", "survived", "equivalent", or "absent" where the mistake cannot be made.
    why : str
        The diagnosis, the reason, or what went wrong.
    """

    mistake: str
    column: str
    outcome: str
    why: str


class Hunted(NamedTuple):
    """What became of all mutants of one rule.

    Attributes
    ----------
    rule : Rule
    verdicts : tuple of Verdict
    smallest : float or None
        The smallest e for which a gradient multiplied by 1 + e was rejected, to a factor of 2; None where the gradient
        is 0 everywhere.
    alarms : tuple of str
        Complaints about the right rule.
    """

    rule: Rule
    verdicts: tuple[Verdict, ...]
    smallest: float | None
    alarms: tuple[str, ...]


def hunt(rule: Rule, seed: int = 0) -> Hunted:
    """Check one rule as it is, with every mistake, and with ever smaller ones."""
    said = [_complaint(rule, case, _point(case, seed), None, seed) for case in rule.cases]
    alarms = tuple(f"{rule}: {text}" for text in said if text)
    verdicts = tuple(_try(rule, mistake, seed) for mistake in mistakes(rule.row, rule.argument))
    return Hunted(rule, verdicts, smallest_detected(rule, seed), alarms)


def _point(case: Case, seed: int, attempt: int = 0) -> list[Array]:
    return case.inputs(np.random.default_rng([seed, attempt]))


def _try(rule: Rule, mistake: Mistake, seed: int) -> Verdict:
    known, declared = survey(rule, mistake, seed), reason(rule, mistake.name)

    def verdict(outcome: str, why: str) -> Verdict:
        return Verdict(mistake.name, mistake.column, outcome, why)

    if known.absent:
        return verdict(ABSENT, known.absent)
    if known.equal:
        return verdict(EQUIVALENT, declared) if declared else verdict(SURVIVED, "equals the right rule, undeclared")
    if declared:
        return verdict(SURVIVED, f"differs from the right rule, although declared equivalent: {declared}")
    for case in known.fitting:
        for attempt in range(_POINTS):
            inputs = _point(case, seed, attempt)
            at = rule.passage(case, inputs, np.random.default_rng(seed))
            wrong = make(mistake, at)
            if isinstance(wrong, str) or harmless(wrong, at):
                continue  # at this point the mistake shows nowhere
            if said := _complaint(rule, case, inputs, wrong, seed):
                return verdict(KILLED, said)
            break
    return verdict(SURVIVED, "gradcheck did not fail in any case")


def _complaint(
    rule: Rule,
    case: Case,
    inputs: list[Array],
    wrong: Wrong | None,
    seed: int,
    rtol: float | None = None,
    atol: float | None = None,
) -> str:
    """What gradcheck says against a rule; nothing if it is content."""
    f = case.f if wrong is None else plant(case.f, operation(rule.row), rule.argument, wrong)
    try:
        with backend(rule.backend):
            gradcheck(f, *inputs, rtol=rtol, atol=atol, seed=seed)
    except GradCheckError as error:
        return next((text for m in error.mismatches for text in m.diagnosis), str(error).splitlines()[0])
    except AssertionError as error:  # the engine's own check of shape and dtype on the edge
        return str(error)
    return ""


def smallest_detected(rule: Rule, seed: int = 0, rtol: float | None = None, atol: float | None = None) -> float | None:
    """The smallest power of two e for which the gradient times 1 + e is rejected, in the first case of a rule.

    Parameters
    ----------
    rule : Rule
    seed : int
    rtol, atol : float, optional
        Tolerances granted to gradcheck.

    Returns
    -------
    float or None
        None where no factor can be seen, because the gradient is 0; inf if not even 1 + 1/4 is rejected.
    """
    case = rule.cases[0]
    inputs = _point(case, seed)
    if not np.any(rule.passage(case, inputs, np.random.default_rng(seed)).d):
        return None

    def rejected(exponent: int) -> bool:
        e = 2.0**-exponent
        return bool(_complaint(rule, case, inputs, lambda p: p.d * p.d.dtype.type(1 + e), seed, rtol, atol))

    seen, unseen = 2, 53
    if not rejected(seen):
        return float("inf")
    while unseen - seen > 1:
        middle = (seen + unseen) // 2
        if rejected(middle):
            seen = middle
        else:
            unseen = middle
    return 2.0**-seen
