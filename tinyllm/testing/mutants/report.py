"""What the hunt found, as text and as data."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tinyllm.testing.mutants.hunt import ABSENT, EQUIVALENT, KILLED, SURVIVED, Hunted, Verdict
from tinyllm.testing.mutants.wrong import MISTAKES

_MARKS = {KILLED: "x", SURVIVED: "ALIVE", EQUIVALENT: "=", ABSENT: "."}
_LEGEND = "x killed   = equivalent: no mistake there   . cannot be made there   ALIVE not found"


@dataclass(frozen=True)
class MutantReport:
    """What became of every mutant, and of the right rules.

    Attributes
    ----------
    rules : tuple of Hunted
    alarms : tuple of str
        Complaints about right rules.
    draws : int
        How many right rules were tried.
    unjudged : int
        In how many of them some number was not judged.
    seed : int
    seconds : float
    """

    rules: tuple[Hunted, ...]
    alarms: tuple[str, ...]
    draws: int
    unjudged: int
    seed: int
    seconds: float

    def count(self, outcome: str) -> int:
        """How many mutants ended so."""
        return sum(v.outcome == outcome for hunted in self.rules for v in hunted.verdicts)

    @property
    def survivors(self) -> list[tuple[str, Verdict]]:
        """The mutants that were not found, with the rule they are in."""
        return [(str(h.rule), v) for h in self.rules for v in h.verdicts if v.outcome == SURVIVED]

    @property
    def kill_rate(self) -> float:
        """Killed mutants over those that are real."""
        killed = self.count(KILLED)
        real = killed + self.count(SURVIVED)
        return killed / real if real else 1.0

    @property
    def passed(self) -> bool:
        """Whether every mutant was found and no right rule was called wrong."""
        return not self.survivors and not self.alarms

    def as_dict(self) -> dict[str, Any]:
        """The report as one JSON object."""
        return {
            "kill_rate": self.kill_rate,
            "killed": self.count(KILLED),
            "survived": self.count(SURVIVED),
            "equivalent": self.count(EQUIVALENT),
            "absent": self.count(ABSENT),
            "false_alarms": list(self.alarms),
            "right_rules_tried": self.draws,
            "not_judged": self.unjudged,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "rules": [
                {
                    "rule": hunted.rule.label,
                    "backend": hunted.rule.backend,
                    "smallest_detected": hunted.smallest,
                    "mutants": [{"mutant": v.mistake, "outcome": v.outcome, "why": v.why} for v in hunted.verdicts],
                }
                for hunted in self.rules
            ],
        }

    def __str__(self) -> str:
        return "\n".join([*_table(self.rules), "", *_equivalents(self.rules), "", *self._summary()])

    def _summary(self) -> Iterable[str]:
        killed, alive = self.count(KILLED), self.count(SURVIVED)
        for rule, verdict in self.survivors:
            yield f"ALIVE: {rule}: {verdict.mistake}: {verdict.why}"
        for text in self.alarms:
            yield f"FALSE ALARM: {text}"
        yield f"kill rate      {self.kill_rate:.2%}: {killed} of {killed + alive} mutants in {len(self.rules)} rules"
        yield (
            f"not counted    {self.count(EQUIVALENT)} equivalent, listed above; "
            f"{self.count(ABSENT)} that cannot be made (no axis to transpose, no broadcasting to undo, ...)"
        )
        yield f"false alarms   {len(self.alarms)} on {self.draws} right rules"
        yield f"not judged     some number in {self.unjudged} of them, which rounding errors hide"
        seen = [(h.smallest, str(h.rule)) for h in self.rules if h.smallest is not None]
        if seen:
            (best, where_best), (worst, where_worst) = min(seen), max(seen)
            yield f"smallest seen  a gradient times 1 + {best:.1g} ({where_best}); 1 + {worst:.1g} in {where_worst}"
        yield f"seed {self.seed}, {self.seconds:.0f} s"


def _table(rules: Iterable[Hunted]) -> Iterable[str]:
    rules = list(rules)
    columns = [m.column for m in MISTAKES] + ["term"]
    width = max((len(str(h.rule)) for h in rules), default=4)
    wide = [max(len(c), 2) for c in columns]
    yield "Mistakes planted in the derivative of an operation with respect to the argument in brackets; the columns:"
    yield from _wrapped("; ".join(f"{m.column} = {m.name}" for m in MISTAKES), "  ")
    yield "  term = one term or factor of the rule dropped, each in turn"
    yield _LEGEND
    yield "The last column is the smallest e for which a gradient times 1 + e was rejected."
    yield ""
    yield " ".join(["rule".ljust(width), *(c.rjust(w) for c, w in zip(columns, wide, strict=True)), "smallest"])
    for hunted in rules:
        marks = [_mark([v for v in hunted.verdicts if v.column == c]) for c in columns]
        smallest = "-" if hunted.smallest is None else f"{hunted.smallest:.1e}"
        cells = (m.rjust(w) for m, w in zip(marks, wide, strict=True))
        yield " ".join([str(hunted.rule).ljust(width), *cells, smallest.rjust(8)])


def _mark(verdicts: list[Verdict]) -> str:
    """One mark for the mutants of a cell: how many were killed if several were, and whether any lives."""
    outcomes = Counter(v.outcome for v in verdicts)
    if outcomes[SURVIVED] or len(verdicts) == 1:
        return _MARKS[SURVIVED if outcomes[SURVIVED] else verdicts[0].outcome]
    return f"{outcomes[KILLED]}x" if outcomes[KILLED] else "."


def _equivalents(rules: Iterable[Hunted]) -> Iterable[str]:
    """The equivalent mutants by name and reason."""
    labels: dict[tuple[str, str], list[str]] = {}  # by rule and reason, the mistakes
    for hunted in rules:
        for v in hunted.verdicts:
            if v.outcome == EQUIVALENT and v.mistake not in labels.setdefault((hunted.rule.label, v.why), []):
                labels[hunted.rule.label, v.why].append(v.mistake)
    merged: dict[tuple[str, str], list[str]] = {}  # by mistakes and reason, the rules
    for (label, why), names in labels.items():
        merged.setdefault((", ".join(names), why), []).append(label)
    if merged:
        yield "Equivalent mutants: equal to the right rule on random inputs, and for a reason."
    for (mistakes, why), where in merged.items():
        yield from _wrapped(f"{mistakes}: {why}", "  ")
        yield from _wrapped(", ".join(where), "      ")


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent=indent, subsequent_indent=indent)
