"""How one argument is checked: all single elements where that is affordable, else projections and bisection.

* **Full Jacobian**, for small functions: every output against every element, so that an error in a tiny entry is not
  drowned by a large one.
* **Every element**, where few probes move them all (see `probes`): the gradient for random cotangents, element by
  element.
* **Projections**: the whole gradient times a random direction is one number, known to some twelve digits, so a wrong
  element among a million shows as a difference; halving the block of elements that moves finds which one it is. The
  entries likeliest to be wrong are then tried one at a time.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

from tinyllm.testing.bench import Bench
from tinyllm.testing.judge import CANCELLED, Verdict, judge
from tinyllm.testing.probes import (
    Pairing,
    Probe,
    find_pairing,
    jacobian_probes,
    paired_probes,
    projection,
    single_probe,
)
from tinyllm.testing.problem import Array
from tinyllm.testing.report import ArgumentReport, GradCheckError, Kink

# A Jacobian is compared entry by entry up to this many outputs, inputs, entries.
JACOBIAN = (128, 256, 8192)
# Single elements are compared up to this many probes, and this many array elements computed by the function.
PROBES, WORK = 512, 4e8
# Up to this many elements they are compared for two cotangents.
TWICE = 100_000
# Doubts about this many wrong probes are followed up; the others are then judged at the usual step.
FOLLOWED = 12
# What seems wrong is looked at again, up to so many numbers, worst first, with the noise measured at so many points
# within so many units in the last place: at the nearest ones all may be rounded alike.
CONFIRMED, NUDGES, NEARBY = 24, 16, 8
# So many units in the last place of the terms of a derivative are what rounding may leave of one that is 0.
VANISHED = 64
# Kinks that a bisection steps over before it gives up.
STEPPED_OVER = 12
SHOWN_KINKS = 4


@dataclass
class Wrong:
    """One number that is not what was claimed, for the cotangent `g`, and how much rounding may blur the claim."""

    index: int
    output: int | None
    claimed: float
    value: float
    error: float
    tolerance: float
    g: Array
    blur: float

    @property
    def severity(self) -> float:
        """The difference in tolerances."""
        difference = abs(self.claimed - self.value)
        return difference / self.tolerance if difference < np.inf and self.tolerance > 0 else np.inf


@dataclass
class Outcome:
    """What came out for one argument.

    Attributes
    ----------
    claimed : array
        The claimed gradient for the random cotangent.
    numerical, error : arrays
        The numerical one; NaN where it was not computed.
    wrong : list of Wrong
    """

    argument: int
    claimed: Array
    numerical: Array
    error: Array
    method: str = ""
    compared: int = 0
    worst: float = 0.0
    resolutions: list[Array] = field(default_factory=list)
    kinks: list[Kink] = field(default_factory=list)
    kink_count: int = 0
    unjudged: int = 0
    wrong: list[Wrong] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def worst_first(self) -> list[Wrong]:
        """What is wrong, furthest off first."""
        return sorted(self.wrong, key=lambda w: w.severity, reverse=True)

    def report(self, bench: Bench, order: int) -> ArgumentReport:
        """The outcome as the caller sees it."""
        size = np.max(np.abs(self.claimed[np.isfinite(self.claimed)]), initial=0.0)
        tolerances = np.concatenate(self.resolutions) if self.resolutions else np.zeros(1)
        tolerances = tolerances[np.isfinite(tolerances)]
        resolution = float(np.median(tolerances) / size) if size and tolerances.size else 0.0
        label = bench.problem.label(self.argument)
        kinks = tuple(self.kinks[:SHOWN_KINKS])
        shape = self.claimed.shape
        return ArgumentReport(
            order,
            label,
            shape,
            self.method,
            self.compared,
            self.worst,
            resolution,
            kinks,
            self.kink_count,
            self.unjudged,
        )


def check_arguments(bench: Bench, g: Array) -> list[Outcome]:
    """Check every argument that has a claimed gradient, for the cotangent `g` (and others)."""
    claims = bench.pull(g)
    blurs = bench.blur(g, claims)
    jacobian: list[tuple[Array, Array]] | None = None
    outcomes = []
    for place, argument in enumerate(bench.problem.active):
        claimed, blur = claims[place], blurs[place]
        if claimed is None or blur is None:
            continue
        n, m = claimed.size, bench.y.size
        unknown = np.full(claimed.shape, np.nan)
        outcome = Outcome(argument, claimed, unknown, np.full(claimed.shape, np.inf))
        outcomes.append(outcome)
        if not (n and m):
            outcome.method = "empty"
        elif m <= JACOBIAN[0] and n <= JACOBIAN[1] and m * n <= JACOBIAN[2]:
            jacobian = jacobian or claimed_jacobian(bench, claims)
            _check_jacobian(bench, outcome, g, blur, *jacobian[place])
        else:
            pairing = find_pairing(bench, argument)
            if pairing.count <= PROBES and pairing.count * 20 * (n + m) <= WORK:
                _check_every_element(bench, outcome, place, pairing, g, blur)
            else:
                _check_projections(bench, outcome, place, g, blur)
        if outcome.wrong and not any(_stands(bench, outcome, wrong) for wrong in outcome.worst_first()[:CONFIRMED]):
            outcome.wrong.clear()
        if outcome.unjudged:
            outcome.notes.append(
                f"{bench.problem.label(argument)}: {outcome.unjudged} numbers were not judged: rounding errors, or "
                "changes within the smallest steps, hide the slope"
            )
    return outcomes


def _stands(bench: Bench, outcome: Outcome, wrong: Wrong) -> bool:
    """Whether what seems wrong is so when it is moved alone, with its noise measured better, and in float64."""
    place, argument = bench.problem.active.index(outcome.argument), outcome.argument
    blur = bench.blur(wrong.g, bench.pull(wrong.g), NUDGES, NEARBY)[place]
    assert blur is not None
    bench.measure_jitter(NUDGES, NEARBY)
    slack = max(wrong.blur, float(blur.flat[wrong.index]))
    typical = _typical(outcome.claimed)
    alone = single_probe(bench, argument, wrong.index, wrong.g, wrong.claimed, slack)
    if not judge(bench, alone, typical).wrong[0]:
        return False
    if bench.finer is None:
        x = abs(float(bench.problem.values[argument].flat[wrong.index]))
        size = np.sum(np.abs(wrong.g) * np.maximum(np.abs(bench.known), bench.problem.scale))
        terms = size / max(x, bench.typical(argument) / 16)  # a derivative is made of terms of this size
        return max(abs(wrong.claimed), abs(wrong.value)) > VANISHED * bench.eps * terms
    slack += CANCELLED * bench.eps * abs(wrong.claimed)
    finer = single_probe(bench.finer, argument, wrong.index, wrong.g, wrong.claimed, slack)
    return bool(judge(bench.finer, finer, typical).wrong[0])


# -- the full Jacobian -------------------------------------------------------------------------------------------------


def claimed_jacobian(bench: Bench, claims: list[Array | None]) -> list[tuple[Array, Array]]:
    """The claimed Jacobian (outputs, inputs) for each active argument, and how far rounding moves it."""
    rows: list[list[Array | None]] = []
    blurs: list[list[Array | None]] = []
    for j in range(bench.y.size):
        if not bench.finite.flat[j]:
            rows.append(bench.pull(np.zeros(bench.y.shape)))
            blurs.append(rows[-1])
            continue
        g = _one_hot(bench, j)
        rows.append(bench.pull(g))
        blurs.append(bench.blur(g, rows[-1]))
    return [
        (_stacked([row[k] for row in rows], claim), _stacked([row[k] for row in blurs], claim))
        for k, claim in enumerate(claims)
    ]


def _stacked(parts: list[Array | None], claim: Array | None) -> Array:
    if claim is None:
        return np.zeros((len(parts), 0))
    table = np.array([np.zeros(claim.shape) if d is None else d for d in parts]).reshape(len(parts), claim.size)
    # where the gradient is infinite (a root at 0), a cotangent of 0 gives 0 * inf: nobody's fault
    return np.where(np.isnan(table) & np.isinf(claim.ravel()), 0.0, table)


def _check_jacobian(bench: Bench, outcome: Outcome, g: Array, blur: Array, jacobian: Array, blurs: Array) -> None:
    outcome.method = "full Jacobian"
    typical = _typical(jacobian)
    # an entry may be what is left of two that cancel, as large as those in its row and in its column
    size = np.where(np.isfinite(jacobian), np.abs(jacobian), 0.0)
    around = np.minimum(size.max(axis=0, keepdims=True), size.max(axis=1, keepdims=True))
    blurs = blurs + CANCELLED * bench.eps * around
    weights = g.ravel()
    value, errors = np.zeros(jacobian.shape), np.zeros(jacobian.shape)  # 0 where the output stays as it is
    known, still = np.ones(jacobian.shape, dtype=bool), np.ones(jacobian.shape, dtype=bool)
    pairing = find_pairing(bench, outcome.argument)
    for entries, probe in jacobian_probes(bench, outcome.argument, pairing, jacobian, blurs):
        verdict = _judge(bench, outcome, probe, typical)
        value[entries], errors[entries] = verdict.value, verdict.error
        known[entries], still[entries] = verdict.judged, False
        for j in np.flatnonzero(verdict.wrong):
            _note_wrong(outcome, int(entries[1][j]), int(j), _one_hot(bench, int(j)), probe, verdict, int(j))
    numerical = weights @ np.where(known, value, 0.0)
    error = np.where(known.any(axis=0), np.abs(weights) @ np.where(known, errors, 0.0), np.nan)
    sizes = next(bench.scales(outcome.argument)).ravel()
    _check_still(bench, outcome, jacobian, blurs, still, sizes)
    outcome.numerical = numerical.reshape(outcome.claimed.shape)
    outcome.error = error.reshape(outcome.claimed.shape)
    if outcome.wrong:
        return
    # every row is right; what is left to show is that the rule is linear in its cotangent
    with np.errstate(invalid="ignore"):
        combined = weights @ np.where(np.isfinite(jacobian), jacobian, 0.0)
        gross = np.abs(weights) @ np.where(np.isfinite(jacobian), np.abs(jacobian), 0.0)
        spread = np.abs(weights) @ np.where(np.isfinite(blurs), blurs, 0.0)
        noise = np.abs(weights) @ (bench.eps * np.abs(bench.known) + bench.jitter).ravel()
        noise = noise / np.where(sizes > 0, sizes, 1.0) + 4 * bench.eps
        bound = 64 * bench.eps * (gross + typical) + 8 * (blur.ravel() + spread + noise) + error
        off = np.abs(outcome.claimed.ravel() - combined) > bound + bench.atol + bench.rtol * np.abs(combined)
    off &= np.isfinite(outcome.claimed.ravel())
    if off.any():
        i = int(np.flatnonzero(off)[0])
        raise GradCheckError(
            f"gradcheck: the gradient of {bench.problem.name} with respect to {bench.problem.label(outcome.argument)} "
            f"is not linear in the cotangent g: at index {_index(i, outcome.claimed.shape)} it is "
            f"{outcome.claimed.flat[i]:.9g} for a random g, and the sum of the gradients for its elements one by one "
            f"is {combined[i]:.9g}\n    diagnosis  g is used more than once, squared, or through abs or a condition"
        )


def _check_still(bench: Bench, outcome: Outcome, jacobian: Array, blurs: Array, still: Array, sizes: Array) -> None:
    """Outputs that no step of an element changed do not depend on it, unless a large number swallowed the step."""
    largest = np.max(np.abs(bench.known), initial=bench.problem.scale)
    swallowed = 32 * bench.eps * np.maximum(largest / np.where(sizes > 0, sizes, np.inf), 1.0)
    tolerance = swallowed + 8 * blurs + bench.atol + bench.underflow
    outcome.compared += int(still.sum())
    for j, i in np.argwhere(still & ~(np.abs(jacobian) <= tolerance) & (sizes > 0)):
        claimed, allowed, blur = (float(a[j, i]) for a in (jacobian, tolerance, blurs))
        outcome.wrong.append(Wrong(int(i), int(j), claimed, 0.0, 0.0, allowed, _one_hot(bench, int(j)), blur))


def _one_hot(bench: Bench, output: int) -> Array:
    g = np.zeros(bench.y.shape)
    g.flat[output] = 1.0
    return g


# -- every element -----------------------------------------------------------------------------------------------------


def _check_every_element(bench: Bench, outcome: Outcome, place: int, pairing: Pairing, g: Array, blur: Array) -> None:
    outcome.method = f"every element ({pairing.count} probe{'s' if pairing.count > 1 else ''})"
    if outcome.claimed.size <= TWICE:
        cotangents, claims, blurs = _with_another(bench, outcome, place, g, blur, bench.cotangent())
    else:
        cotangents, claims, blurs = [g], outcome.claimed[None], blur[None]
    n, typical = outcome.claimed.size, _typical(claims)
    outcome.numerical, outcome.error = np.zeros(outcome.claimed.shape), np.zeros(outcome.claimed.shape)
    for probe in paired_probes(bench, outcome.argument, pairing, cotangents, claims, blurs):
        assert probe.sources is not None
        verdict = _judge(bench, outcome, probe, typical)
        mine = slice(0, probe.sources.size // len(cotangents))
        sources = probe.sources[mine]
        outcome.numerical.flat[sources] = np.where(verdict.judged, verdict.value, np.nan)[mine]
        outcome.error.flat[sources] = verdict.error[mine]
        for k in np.flatnonzero(verdict.wrong):
            _note_wrong(outcome, int(probe.sources[k]), None, cotangents[k // mine.stop], probe, verdict, int(k))
    outcome.compared = min(outcome.compared, n)


def _with_another(
    bench: Bench, outcome: Outcome, place: int, g: Array, blur: Array, second: Array
) -> tuple[list[Array], Array, Array]:
    """The cotangent `g` and a second one, with their claims and blurs, one row each."""
    claims = bench.pull(second)
    other, moved = claims[place], bench.blur(second, claims)[place]
    if other is None or moved is None:
        return [g], outcome.claimed[None], blur[None]
    return [g, second], np.stack([outcome.claimed, other]), np.stack([blur, moved])


# -- projections -------------------------------------------------------------------------------------------------------


def _check_projections(bench: Bench, outcome: Outcome, place: int, g: Array, blur: Array) -> None:
    outcome.method = "projections and worst entries"
    x = bench.problem.values[outcome.argument]
    # a second cotangent weighs small outputs as much as large ones
    size = np.abs(bench.known)
    level = np.median(size[size > 0]) if np.any(size > 0) else 1.0
    balanced = bench.cotangent() / np.exp2(np.round(np.log2(np.clip(size / level, 1e-6, 1e6))))
    rows = zip(*_with_another(bench, outcome, place, g, blur, balanced), strict=True)
    sizes = list(itertools.islice(bench.scales(outcome.argument), 2))
    for cotangent, claimed, blurred in rows:
        for scale in sizes:
            _bisect(bench, outcome, scale * bench.random(x.shape), cotangent, claimed, blurred)
            if outcome.wrong:
                return
    for index in _suspects(bench, x, outcome.claimed):
        probe = single_probe(bench, outcome.argument, index, g, outcome.claimed.flat[index], blur.flat[index])
        verdict = _judge(bench, outcome, probe, _typical(outcome.claimed))
        if verdict.wrong[0]:
            _note_wrong(outcome, index, None, g, probe, verdict, 0)


def _bisect(bench: Bench, outcome: Outcome, direction: Array, g: Array, claimed: Array, blur: Array) -> None:
    """Find elements whose gradient is wrong by halving the block that moves, stepping over kinks."""
    label = bench.problem.label(outcome.argument)
    typical = _typical(claimed * direction)
    within = np.ones(claimed.shape, dtype=bool)

    def differs(block: Array) -> bool:
        chosen = np.zeros(claimed.size, dtype=bool)
        chosen[block] = True
        part = projection(bench, outcome.argument, direction, g, claimed, blur, chosen.reshape(claimed.shape))
        return bool(judge(bench, part, typical, patient=False).wrong[0])

    for _ in range(STEPPED_OVER):
        whole = projection(bench, outcome.argument, direction, g, claimed, blur, within)
        if not _judge(bench, outcome, whole, typical).wrong[0]:
            return
        block = np.flatnonzero(within)
        while block.size > 1:
            left, right = np.array_split(block, 2)
            block = left if differs(left) else right
        index = int(block[0])
        alone = single_probe(bench, outcome.argument, index, g, claimed.flat[index], blur.flat[index])
        single = _judge(bench, outcome, alone, _typical(claimed))
        if single.wrong[0]:
            _note_wrong(outcome, index, None, g, alone, single, 0)
            return
        within.flat[index] = False
    outcome.notes.append(f"{label}: after {STEPPED_OVER} kinks, its gradient as a whole was not judged")


def _suspects(bench: Bench, x: Array, claimed: Array) -> list[int]:
    """The entries likeliest to be wrong: ends, extremes of the input and of the claim, zeros, and a few at random."""
    flat, size = np.where(np.isfinite(x), x, 0.0).ravel(), np.abs(np.nan_to_num(claimed)).ravel()
    by_size, by_value = np.argsort(size, kind="stable"), np.argsort(flat, kind="stable")
    nonzero = by_size[size[by_size] > 0]
    chosen = [0, x.size - 1, *by_size[-3:], *nonzero[:3], *by_size[:2], *by_value[:1], *by_value[-1:]]
    chosen += [int(np.argmin(np.abs(flat))), *bench.rng.integers(x.size, size=6)]
    return sorted({int(i) for i in chosen})


# -- bookkeeping -------------------------------------------------------------------------------------------------------


def _judge(bench: Bench, outcome: Outcome, probe: Probe, typical: float) -> Verdict:
    verdict = judge(bench, probe, typical, patient=len(outcome.wrong) < FOLLOWED)
    sound = verdict.judged & ~verdict.wrong & ~verdict.kinked
    outcome.compared += int((verdict.judged & ~verdict.vague).sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        used = np.abs(verdict.value - probe.claimed) / verdict.tolerance
    outcome.worst = max(outcome.worst, float(np.max(used[sound & (verdict.tolerance > 0)], initial=0.0)))
    if probe.sources is not None:
        movable = np.isfinite(bench.problem.values[outcome.argument].ravel()[probe.sources])
        outcome.unjudged += int((movable & (~verdict.judged | verdict.vague)).sum())
        outcome.resolutions.append(verdict.tolerance[sound])
        for n in np.flatnonzero(verdict.kinked):
            outcome.kink_count += 1
            if len(outcome.kinks) < SHOWN_KINKS:
                shape = outcome.claimed.shape
                index = _index(int(probe.sources[n]), shape)
                label = bench.problem.label(outcome.argument)
                numbers = (float(a[n]) for a in (probe.claimed, verdict.left, verdict.right))
                outcome.kinks.append(Kink(label, index, *numbers))
    return verdict


def _note_wrong(
    outcome: Outcome, index: int, output: int | None, g: Array, probe: Probe, verdict: Verdict, n: int
) -> None:
    claimed, value, error, tolerance, blur = (
        float(a[n]) for a in (probe.claimed, verdict.value, verdict.error, verdict.tolerance, probe.blur)
    )
    outcome.wrong.append(Wrong(index, output, claimed, value, error, tolerance, g, blur))


def _index(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, shape))


def _typical(claimed: Array) -> float:
    size = np.abs(claimed[np.isfinite(claimed)])
    largest = float(size.max(initial=0.0))
    return largest * float(np.sqrt(np.mean((size / largest) ** 2))) if largest else 0.0
