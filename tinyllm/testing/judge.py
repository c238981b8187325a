"""Whether the numbers of a probe are right: first at the usual step, then, where that leaves a doubt, at many.

Nothing is called wrong on the strength of one ladder of steps. A claim that differs is looked at again with steps of
other sizes; then from either side of the point, since at a kink there is no derivative to compare with, only a range of
subgradients that the claim must lie in; in float32, by the order at which the remainder vanishes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from tinyllm.testing.bench import Bench
from tinyllm.testing.probes import Probe
from tinyllm.testing.problem import Array, quiet
from tinyllm.testing.stencil import LEVELS, Estimates, extrapolate, settle
from tinyllm.testing.taylor import remainder_order

# Units in the last place that a rule may lose when large terms cancel.
CANCELLED = 4
# A difference of this many estimated errors is one.
SAFETY = 4.0
# One-sided slopes are taken at these fractions of the usual step, first; and then.
LOOKS = ((2.0**-10, 2.0**-16), (2.0**-26, 2.0**-32))
# And last: a staircase far out, such as floor at 1e8, is a line to all steps but these.
LAST_LOOK = (2.0**-34, 2.0**-38)
# Points beside a kink at which slopes are taken.
BESIDE = 48


@dataclass
class Verdict:
    """The numbers of one probe: (N,) each.

    Attributes
    ----------
    value, error, tolerance : arrays
        The numerical derivatives, their estimated errors, and the difference that is allowed.
    wrong : boolean array
    kinked : boolean array
        Where there is no derivative, and the claim lies among the subgradients.
    left, right : arrays
        Their bounds where `kinked`; NaN where the slopes grow without bound.
    judged : boolean array
        False where an element cannot be moved, or no step gave a usable value.
    vague : boolean array
        Where half of a derivative of the usual size could hide in the tolerance: the claim was judged by name only.
    """

    value: Array
    error: Array
    tolerance: Array
    wrong: Array
    kinked: Array
    left: Array
    right: Array
    judged: Array
    vague: Array


class Ladder(NamedTuple):
    """Central differences, their rounding errors, and the steps, (L, N) each.

    `bent` is where the slope bends at the point, `lost` where even the largest step shows noise alone; `parts` the
    sizes of what the outputs contribute, summed, and `reach` by how much they change at the largest step, over the
    step: (N,) each.
    """

    slopes: Array
    floors: Array
    steps: Array
    bent: Array
    lost: Array
    parts: Array
    reach: Array

    def of(self, labels: Array) -> Ladder:
        """Some of the columns."""
        return Ladder(
            self.slopes[:, labels],
            self.floors[:, labels],
            self.steps[:, labels],
            self.bent[labels],
            self.lost[labels],
            self.parts[labels],
            self.reach[labels],
        )


def judge(bench: Bench, probe: Probe, typical: float, patient: bool = True) -> Verdict:
    """Compare a probe's claims with derivatives that come from values alone.

    Parameters
    ----------
    bench : Bench
    probe : Probe
    typical : float
        The usual size of the claims: smaller errors than a fraction of it need no further effort.
    patient : bool
        Whether doubts are followed up; if not, the verdict is provisional.
    """
    steps = probe.steps()
    step, unit = next(steps)
    ladder = climb(bench, probe, step, unit)
    probe = replace(probe, blur=probe.blur + CANCELLED * bench.eps * ladder.parts)
    unsure = 2 * probe.blur + bench.eps * typical
    value, error, size = settle([extrapolate(*ladder[:3])], probe.claimed, unsure, typical)
    error[ladder.lost] = np.inf
    value, error = _complex(bench, probe, step, unit, value, error)
    movable = unit > 0
    tolerance, differs, poor = _compare(
        bench, probe, np.arange(len(value)), unit, Estimates(value, error, size), typical
    )
    doubtful = np.flatnonzero((differs | poor) & movable & ~ladder.lost)
    doubted, history = doubtful, [ladder.of(doubtful)]
    if patient and doubtful.size:
        doubtful = doubted = doubtful[~_is_plain(bench, probe, step, unit, value, differs)[doubtful]]
        history = [ladder.of(doubted)]
        found: list[Estimates] = [extrapolate(*history[0][:3])]
        for other, other_unit in steps:
            if not doubtful.size:
                break
            history.append(climb(bench, probe, other, other_unit).of(doubted))
            found.append(extrapolate(*history[-1][:3]))
            settled = settle(found, probe.claimed[doubted], unsure[doubted], typical)
            value[doubted], error[doubted], size[doubted] = settled
            tolerance[doubted], differs[doubted], again = _compare(
                bench, probe, doubted, unit[doubted], settled, typical
            )
            doubtful = doubted[(differs[doubted] | again)]
    wrong = differs & movable
    unresolved = movable & ~np.isfinite(error)
    nothing = np.zeros(wrong.shape, dtype=bool)
    unknown = np.full(wrong.shape, np.nan)
    usable = movable & np.isfinite(error)
    verdict = Verdict(value, error, tolerance, wrong, nothing, unknown, unknown.copy(), usable, nothing)
    if patient and probe.sources is not None:
        looks = (*LOOKS, LAST_LOOK)
        for look in range(len(looks) + 1):
            asked = (verdict.wrong | unresolved | (ladder.bent & movable)) & ~verdict.kinked
            if look < len(looks):
                near, nearer = looks[look]
                # a derivative found at much smaller steps than a kink is seen at is a derivative, and needs no excuse
                asked &= unresolved | (size >= (nearer if look == 0 else nearer / 16) * unit)
            elif asked.any():  # at the steps that the doubtful value came from
                own = float(np.median((size / unit)[asked]))
                near, nearer = 4 * own, own / 2
            if asked.any():
                _look_from_both_sides(bench, probe, step, unit, verdict, asked, unresolved, near, nearer)
        if bench.coarse:
            _judge_by_order(history, doubted, probe, verdict)
    seen = verdict.wrong | verdict.kinked
    verdict.judged |= seen
    with quiet():
        usual = np.maximum(np.maximum(np.abs(value), np.abs(probe.claimed)), typical)
        # or it vanishes beside the values that it is the derivative of, and beside how far a step takes them
        size = probe.gross(np.maximum(np.abs(bench.known), bench.problem.scale))
        natural = bench.eps**0.5 * np.maximum(size / unit, ladder.reach)
        spread = np.where(value == probe.claimed, SAFETY * error + 2 * SAFETY * probe.blur, tolerance)
        verdict.vague = verdict.judged & ~seen & ~(spread <= np.maximum(usual / 2, natural))
    return verdict


def _is_plain(bench: Bench, probe: Probe, step: Array, unit: Array, value: Array, differs: Array) -> Array:
    """Where slopes from either side, at far smaller steps, stand by a value that differs from the claim."""
    plain = differs.copy()
    with quiet():
        off = np.minimum(np.abs(value - probe.claimed), np.abs(value))
        for _, t in LOOKS:
            if plain.any():
                sides = _one_sided(bench, probe, step, unit, t)
                noise = probe.gross(bench.eps * np.abs(bench.known) + bench.jitter) / (t * unit)
                near = np.abs(sides.right - value) + np.abs(sides.left - value) + 4 * noise
                plain &= (near < 0.1 * off) & np.isfinite(off)
    return plain


def _compare(
    bench: Bench, probe: Probe, labels: Array, unit: Array, settled: Estimates, typical: float
) -> tuple[Array, Array, Array]:
    """The tolerance, whether the claims differ by more, and whether the numerical value is too poor to tell."""
    claimed = probe.claimed[labels]
    value, error, step = settled
    with quiet():
        # inputs a unit in the last place away are as good as these, on either side of the comparison
        tolerance = SAFETY * error + 2 * SAFETY * probe.blur[labels]
        # a result that underflowed, or lost a small term to a large one, does not move at all: nothing shows its noise
        largest = np.max(np.abs(bench.known), initial=bench.problem.scale)
        stuck = 32 * bench.eps * np.maximum(largest / np.minimum(step, unit), 1.0)
        tolerance += np.where(value == 0, stuck, 0.0)
        tolerance += bench.rtol * np.abs(value) + bench.atol + bench.underflow
        differs = (~(np.abs(value - claimed) <= tolerance) & np.isfinite(error)) | ~np.isfinite(claimed)
        least = typical if bench.coarse else 1e-3 * typical
        size = np.maximum(np.maximum(np.abs(value), np.abs(claimed)), least)
        return tolerance, differs, ~(error <= bench.eps**0.5 * size)


def climb(bench: Bench, probe: Probe, step: Array, unit: Array) -> Ladder:
    """Difference quotients at steps that halve."""
    x = bench.problem.values[probe.argument]
    known, jitter = bench.known, probe.gross(bench.jitter)
    slopes, floors, sizes, bends = [], [], [], []
    for t in LEVELS:
        offset = (t * step).astype(x.dtype)
        plus, minus = bench.at(probe.argument, offset), bench.at(probe.argument, -offset)
        with quiet():
            if probe.sources is None:
                width = 2 * t * unit
            else:  # the distance that was really moved
                width = np.abs((x + offset) - (x - offset)).ravel()[probe.sources].astype(float)
            rounding = probe.gross(bench.eps * np.maximum(np.abs(plus), np.abs(minus)))
            noise = rounding + probe.shake
            # inputs a unit in the last place away are as good as these: what that does to the result is noise as well,
            # and where it does as much as the step (at a jump, say) nothing is resolved
            moved = probe.gross(np.abs(plus - minus))
            blind = (moved > 0) & (jitter > 0.1 * moved) & (jitter > 1e3 * rounding)
            slopes.append(np.where(blind, np.nan, probe.total(plus - minus) / width))
            floors.append((2 * noise + jitter) / width)
            if t == LEVELS[0]:
                lost = blind
                change = probe.gross(np.maximum(np.abs(plus - known), np.abs(minus - known)))
                reach = np.nan_to_num(change / (t * unit), posinf=0.0)
            if t in (LEVELS[0], LEVELS[-1]):
                bends.append(probe.gross(np.abs(plus - 2 * known + minus)))
        sizes.append(width / 2)
    with quiet():
        parts = np.nan_to_num(moved / width, posinf=0.0)
        # f(x + h) - 2 f(x) + f(x - h) is of order h at a kink, of order h^2 elsewhere
        straight = bends[0] * (LEVELS[-1] / LEVELS[0])
        size = np.maximum(np.abs(slopes[-1]) * sizes[-1], 1e-3 * bends[-1])
        bent = (bends[-1] > 0.7 * straight) & (bends[-1] > 128 * noise + 8 * jitter) & (bends[-1] > 1e-3 * size)
    return Ladder(np.array(slopes), np.array(floors), np.array(sizes), bent, lost, parts, reach)


def _complex(bench: Bench, probe: Probe, step: Array, unit: Array, value: Array, error: Array) -> tuple[Array, Array]:
    """Replace the stencil's value by that of a complex step, which has no cancellation, where the two agree.

    Squire and Trapp 1998, "Using complex variables to estimate derivatives of real functions". Only functions of plain
    arrays take complex numbers, and only analytic ones give derivatives.
    """
    if bench.problem.record is not None or bench.coarse or bench.refuses_complex:
        return value, error
    tiny = 1e-30
    try:
        y = bench.at(probe.argument, 1j * tiny * step)
    except Exception:  # whatever a function, or what it calls, says to complex numbers
        bench.refuses_complex = True
        return value, error
    if y.dtype.kind != "c":
        return value, error
    with quiet():
        better = probe.total(y.imag / tiny) / unit
        least = 64 * bench.eps * (np.abs(better) + probe.gross(np.abs(bench.known)) / unit)
        new = np.maximum(error / 64, least)
        use = (np.abs(better - value) <= SAFETY * error) & (new < error)
    return np.where(use, better, value), np.where(use, new, error)


def _look_from_both_sides(
    bench: Bench,
    probe: Probe,
    step: Array,
    unit: Array,
    verdict: Verdict,
    asked: Array,
    unresolved: Array,
    farther: float,
    closer: float,
) -> None:
    """Where the slopes from the left and from the right differ, the claim need only lie among the slopes around."""
    with quiet():
        far = _one_sided(bench, probe, step, unit, farther)
        close = _one_sided(bench, probe, step, unit, closer)
        rounding = 32 * probe.gross(bench.eps * np.abs(bench.known) + bench.jitter) / (closer * unit)
        slope = close.largest
        kink = (close.gap > 0.5 * far.gap) & (close.gap > rounding) & (close.gap > 1e-3 * slope)
        kink &= np.isfinite(close.gap)
        if probe.sources is not None:  # a kink for one output: at a tie of three others may belong to it too
            kink |= np.isin(probe.sources, probe.sources[kink])
        low, high = close.low, close.high
        slack = 1e-2 * close.gap + rounding
        between = (low - slack <= probe.claimed) & (probe.claimed <= high + slack)
        if (kink & asked & ~between).any():
            low, high = _widened(bench, probe, step, unit, low, high, closer)
            between = (low - slack <= probe.claimed) & (probe.claimed <= high + slack)
        # or the claim is what both sides say, and the value came from steps beyond a kink
        off = 0.05 * np.abs(verdict.value - probe.claimed) - rounding
        borne = (np.abs(close.right - probe.claimed) < off) & (np.abs(close.left - probe.claimed) < off)
        verdict.wrong &= ~(asked & borne)
        # slopes that grow as the step shrinks: a jump, or a root at its edge. A smooth slope stays as it is.
        size = np.where(np.isfinite(probe.claimed), np.abs(probe.claimed), 0.0)
        unbounded = (slope > 4 * far.largest) & (slope > rounding) & (slope > size) & ~np.isnan(probe.claimed)
        unbounded |= _jumps(bench, probe, unit, (far, farther), (close, closer))
        # an edge of the domain: only one side has values, and the claim must be its slope
        edge = np.isnan(close.gap) & np.isfinite(slope) & unresolved & asked
        fits = edge & (np.abs(probe.claimed - close.single) <= 1e-2 * slope + rounding)
    bounded = (kink & between) | fits
    fresh = asked & (bounded | (unbounded & (verdict.wrong | unresolved)))
    verdict.kinked |= fresh
    verdict.wrong |= edge & ~fits
    verdict.wrong &= ~verdict.kinked
    shown = fresh & bounded & ~unbounded
    verdict.left[shown] = np.where(edge, close.single, low)[shown]
    verdict.right[shown] = np.where(edge, close.single, high)[shown]
    verdict.value[edge], verdict.error[edge] = close.single[edge], (1e-2 * slope + rounding)[edge]


def _jumps(bench: Bench, probe: Probe, unit: Array, *sides: tuple[_Sides, float]) -> Array:
    """Where the value a little to one side is another, however little: the same change at two steps, of any sign."""
    (far_right, far_left), (right, left) = ((s.right * t, s.left * t) for s, t in sides)
    change = np.maximum(np.abs(right), np.abs(left))
    same = np.maximum(np.abs(right - far_right), np.abs(left - far_left)) <= 1e-2 * change
    return same & (change > 32 * probe.gross(bench.eps * np.abs(bench.known)) / unit)


def _widened(
    bench: Bench, probe: Probe, step: Array, unit: Array, low: Array, high: Array, t: float
) -> tuple[Array, Array]:
    """The bounds widened by the slopes at random points around: at a tie of three, moving one shows only two orders."""
    x = bench.problem.values[probe.argument]
    scale = float(np.max(np.abs(step)))
    offset = (t / 64 * step).astype(x.dtype)
    for _ in range(BESIDE):
        aside = (t * scale * bench.random(x.shape)).astype(x.dtype)
        slope = (bench.at(probe.argument, aside + offset) - bench.at(probe.argument, aside - offset)) / (t / 32)
        sums = probe.total(slope) / unit
        low, high = np.fmin(low, sums), np.fmax(high, sums)
    return low, high


class _Sides(NamedTuple):
    """Slopes from the right and from the left: (N,) each.

    `gap` is by how much they differ, outputs apart; `low` and `high` bound the weighted sums of subgradients; `largest`
    is the larger size; `single` the slope of the only side that has values; `right` and `left` are the sums themselves.
    """

    gap: Array
    low: Array
    high: Array
    largest: Array
    single: Array
    right: Array
    left: Array


def _one_sided(bench: Bench, probe: Probe, step: Array, unit: Array, t: float) -> _Sides:
    x, y = bench.problem.values[probe.argument], bench.known
    offset = (t * step).astype(x.dtype)
    right = (bench.at(probe.argument, offset) - y) / t
    left = (y - bench.at(probe.argument, -offset)) / t
    low, high = (
        np.concatenate([probe.group(pick(w * right, w * left)) for w in probe.weights]) / unit
        for pick in (np.minimum, np.maximum)
    )
    sums = [probe.total(side) / unit for side in (right, left)]
    return _Sides(
        gap=probe.gross(np.abs(right - left)) / unit,
        low=low,
        high=high,
        largest=np.nan_to_num(np.fmax(np.abs(sums[0]), np.abs(sums[1])), nan=0.0, posinf=np.inf),
        single=np.where(np.isnan(sums[0]), sums[1], sums[0]),
        right=sums[0],
        left=sums[1],
    )


def _judge_by_order(history: list[Ladder], labels: Array, probe: Probe, verdict: Verdict) -> None:
    """In float32 a claim stands if what remains of the function, its linear part taken away, vanishes fast enough.

    f(x + h) - f(x - h) - 2 h f'(x) is of order h^3 with the right f', and of order h with a wrong one.
    """
    for column, n in enumerate(labels):
        if not (verdict.wrong[n] and np.isfinite(probe.claimed[n])):
            continue
        slope, floor, step = (np.concatenate([ladder[k][:, column] for ladder in history]) for k in range(3))
        with quiet():
            remainder = np.abs(slope - probe.claimed[n]) * step
            unsure = (floor + 2 * SAFETY * probe.blur[n]) * step
        verdict.wrong[n] = remainder_order(step, remainder, unsure) < 2.0
