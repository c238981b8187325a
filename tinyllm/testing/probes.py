"""Which steps to take: a probe moves some elements of one argument and compares the answer with what is claimed.

The cheapest probe that sees single elements moves many of them at once. That is possible where outputs fall into groups
each of which depends on one moved element only, and the structure is found by trying, not assumed: axis a of the input
*pairs* with axis b of the output if moving index i along a changes the output nowhere but at index i along b. All axes
of an element-wise function pair, so one step moves everything; of softmax all but its own axis; of a weight matrix its
column axis. Pairing is decided by moving, for every bit of the index, the half of the positions in which it is set and
then the other half: two positions differ in some bit, so an influence of one on another shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tinyllm.testing.bench import Bench
from tinyllm.testing.problem import Array

Steps = Callable[[], Iterator[tuple[Array, Array]]]


@dataclass
class Probe:
    """One direction of steps and the N numbers that it compares.

    Attributes
    ----------
    argument : int
    steps : callable
        Yields pairs of a step (of the argument's shape) and of the unit (N,) in which the claims are meant.
    weights : tuple of arrays
        Cotangents, of the output's shape.
    group : callable
        Sums an array of the output's shape into N / len(weights) numbers.
    claimed, blur : (N,) arrays
        What is claimed, and what rounding may do to it.
    sources : (N,) ints or None
        The element of the argument (flat) to which each number belongs; None for a sum over elements.
    shake : float
        What rounding of the moved inputs may do to the difference quotient, times the step.
    """

    argument: int
    steps: Steps
    weights: tuple[Array, ...]
    group: Callable[[Array], Array]
    claimed: Array
    blur: Array
    sources: Array | None
    shake: float = 0.0

    def total(self, v: Array) -> Array:
        """The outputs' numbers `v` summed with every cotangent: (N,)."""
        return np.concatenate([self.group(w * v) for w in self.weights])

    def gross(self, v: Array) -> Array:
        """The same with the size of every cotangent, for bounds."""
        return np.concatenate([self.group(np.abs(w) * v) for w in self.weights])


def single_steps(bench: Bench, argument: int, index: int, count: int) -> Steps:
    """Steps of every scale for one element, which `count` numbers belong to."""
    x = bench.problem.values[argument]

    def steps() -> Iterator[tuple[Array, Array]]:
        for (size,) in bench.scales(argument, index):
            step = np.zeros(x.shape)
            step.flat[index] = size
            yield step, np.full(count, size)

    return steps


def many_steps(bench: Bench, argument: int, moved: Array, sources: Array) -> Steps:
    """Steps of every scale for the elements `moved` at once, to which the numbers belong as `sources` says."""
    x = bench.problem.values[argument]

    def steps() -> Iterator[tuple[Array, Array]]:
        for scale in bench.scales(argument):
            step = np.zeros(x.shape)
            step.flat[moved] = scale.ravel()[moved]
            yield step, scale.ravel()[sources]

    return steps


def single_probe(bench: Bench, argument: int, index: int, g: Array, claimed: float, blur: float) -> Probe:
    """One element alone, against all outputs weighted by `g`."""
    sources = np.array([index])
    return Probe(
        argument,
        single_steps(bench, argument, index, 1),
        (g,),
        lambda v: np.sum(v, keepdims=True).reshape(1),
        np.array([claimed]),
        np.array([blur]),
        sources,
    )


@dataclass(frozen=True)
class Pairing:
    """Axes of an argument and of the output that go together, and the number of probes that see every element."""

    pairs: tuple[tuple[int, int], ...]
    count: int


def find_pairing(bench: Bench, argument: int) -> Pairing:
    """Pair the argument's axes with the output's, where moving the one touches the same index of the other only."""
    x, y = bench.problem.values[argument], bench.y
    pairs: list[tuple[int, int]] = []
    for a, n in enumerate(x.shape):
        if n == 1:
            continue
        taken = {b for _, b in pairs}
        partners = [b for b in range(y.ndim) if y.shape[b] == n and b not in taken]
        partners.sort(key=lambda b: abs((y.ndim - b) - (x.ndim - a)))
        pairs += [(a, b) for b in partners if _pairs(bench, argument, a, b)][:1]
    return Pairing(tuple(pairs), math.prod(n for a, n in enumerate(x.shape) if a not in {a for a, _ in pairs}))


def _pairs(bench: Bench, argument: int, a: int, b: int) -> bool:
    x = bench.problem.values[argument]
    n = x.shape[a]
    step = next(bench.scales(argument)) * bench.random(x.shape) / 8
    column = [-1 if k == a else 1 for k in range(x.ndim)]
    for bit in range((n - 1).bit_length()):
        for side in (0, 1):
            moving = (np.arange(n) >> bit & 1) == side
            y = bench.at(argument, step * moving.reshape(column))
            still = np.take(y, np.flatnonzero(~moving), axis=b)
            if not np.array_equal(still, np.take(bench.known, np.flatnonzero(~moving), axis=b), equal_nan=True):
                return False
    return True


def jacobian_probes(
    bench: Bench, argument: int, pairing: Pairing, claimed: Array, blur: Array
) -> Iterator[tuple[tuple[Array, Array], Probe]]:
    """Probes that see every entry of the Jacobian that the pairing leaves open, each with the (output, input) it sees.

    `claimed` and `blur` are (outputs, inputs). A probe moves one element for every output: the one whose index on the
    paired axes is that of the output.
    """
    x, y = bench.problem.values[argument], bench.y
    outputs, partner = np.indices(y.shape).reshape(y.ndim, y.size), dict(pairing.pairs)
    inner = [a for a in range(x.ndim) if a not in partner]
    rows = np.arange(y.size)
    for place in np.ndindex(*(x.shape[a] for a in inner)):
        index = [
            np.broadcast_to(place[inner.index(a)], rows.shape) if a in inner else outputs[partner[a]]
            for a in range(x.ndim)
        ]
        sources = np.ravel_multi_index(index, x.shape) if index else np.zeros_like(rows)
        entries = (rows, sources)
        steps = many_steps(bench, argument, np.unique(sources), sources)
        yield (
            entries,
            Probe(argument, steps, (np.ones(y.shape),), lambda v: v.ravel(), claimed[entries], blur[entries], sources),
        )


def paired_probes(
    bench: Bench, argument: int, pairing: Pairing, cotangents: Sequence[Array], claims: Array, blurs: Array
) -> Iterator[Probe]:
    """Probes that together see every element of the gradients `claims` (one row for each cotangent)."""
    x, y = bench.problem.values[argument], bench.y
    matched = [a for a, _ in pairing.pairs]
    partners = [b for _, b in pairing.pairs]
    summed = tuple(b for b in range(y.ndim) if b not in partners)
    order = np.argsort(np.argsort(partners)) if partners else np.array([], dtype=int)
    # the inner axes first, then the matched ones: row k of `table` is what probe k moves, in the order of its numbers
    inner = [a for a in range(x.ndim) if a not in matched]
    table = np.arange(x.size).reshape(x.shape).transpose(*inner, *matched).reshape(pairing.count, -1)
    claims, blurs = (a.reshape(len(cotangents), x.size) for a in (claims, blurs))

    def group(v: Array) -> Array:
        return v.sum(axis=summed).transpose(*order).ravel() if partners else v.sum(keepdims=True).reshape(1)

    for moved in table:
        sources = np.tile(moved, len(cotangents))
        yield Probe(
            argument,
            many_steps(bench, argument, moved, sources),
            tuple(cotangents),
            group,
            claims[:, moved].ravel(),
            blurs[:, moved].ravel(),
            sources,
        )


def projection(
    bench: Bench, argument: int, direction: Array, g: Array, claimed: Array, blur: Array, within: Array
) -> Probe:
    """The sum over the elements `within` (a boolean array) of gradient times direction, as one number."""
    x = bench.problem.values[argument]
    step = np.where(within & np.isfinite(claimed) & np.isfinite(x), direction, 0.0)
    parts = np.where(step != 0, np.where(np.isfinite(claimed), claimed, 0.0) * step, 0.0)
    size = np.abs(np.where(np.isfinite(x), x, 0.0))
    rounding = bench.eps * float(np.abs(parts).sum()) * 8
    unsure = float(np.sqrt(np.sum((blur * step) ** 2))) + rounding
    slope = np.divide(parts, step, out=np.zeros(x.shape), where=step != 0)

    def steps() -> Iterator[tuple[Array, Array]]:
        for exponent in (0, -8, -16, -24):
            yield step * 2.0**exponent, np.array([2.0**exponent])

    return Probe(
        argument,
        steps,
        (g,),
        lambda v: v.sum(keepdims=True).reshape(1),
        np.array([parts.sum()]),
        np.array([unsure]),
        None,
        shake=bench.eps * float(np.sqrt(np.sum((slope * size) ** 2))),
    )
