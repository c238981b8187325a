"""A problem at its point: the result there, the claims for a cotangent, and how much rounding may blur both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from tinyllm.testing.problem import Array, Problem, quiet
from tinyllm.testing.report import GradCheckError
from tinyllm.testing.stencil import scales, typical_size

# Of a right claim, a nudge of the inputs by rounding leaves at least this power of eps: a quarter of the digits.
LEFT = 0.25


@dataclass
class Bench:
    """What every check of one problem shares.

    Attributes
    ----------
    problem : Problem
    y : array
        The result in float64.
    dtype : dtype
        Of the result, and so of cotangents.
    finite : boolean array
        Where the result is finite; where it is not, no cotangent is given.
    eps : float
        Distance of 1 to the next number, in the coarsest dtype that takes part.
    rtol, atol : float
        Tolerances that the caller grants on top of the estimated errors.
    rng : numpy.random.Generator
    jitter : array
        By how much the result moves when the inputs move by units in the last place: the noise of its values.
    refuses_complex : bool
        Whether the function was seen not to take complex numbers.
    """

    problem: Problem
    y: Array
    dtype: np.dtype
    finite: Array
    eps: float
    rtol: float
    atol: float
    rng: np.random.Generator
    jitter: Array
    refuses_complex: bool = False
    _typical: dict[int, float] = field(default_factory=dict)

    def scales(self, argument: int, index: int | None = None) -> Iterator[Array]:
        """Sizes of step for every element of an argument, or for one alone (`stencil.scales`)."""
        x = self.problem.values[argument]
        return scales(x if index is None else x.reshape(-1)[index : index + 1], self.typical(argument))

    def typical(self, argument: int) -> float:
        """The usual size of the elements of an argument."""
        if argument not in self._typical:
            self._typical[argument] = typical_size(self.problem.values[argument])
        return self._typical[argument]

    @property
    def coarse(self) -> bool:
        """Whether something is computed in less than float64."""
        return self.eps > 1e-10

    @cached_property
    def finer(self) -> Bench | None:
        """The same function at the same point in float64, where it is computed in less and takes that."""
        if not self.coarse:
            return None
        values = [v.astype(float) if i in self.problem.active else v for i, v in enumerate(self.problem.values)]
        try:
            bench = bench_of(replace(self.problem, values=values), self.rtol, self.atol, self.rng)
        except Exception:  # whatever a function says to another dtype than it was written for
            return None
        with quiet():
            near = np.abs(bench.y - self.y) <= 64 * self.eps * np.abs(self.y) + 8 * self.jitter
        if bench.coarse or bench.y.shape != self.y.shape or not near[self.finite].all():
            return None
        bench.finite &= self.finite
        return bench

    @property
    def known(self) -> Array:
        """The result, with 0 where it is infinite."""
        return np.where(self.finite, self.y, 0.0)

    def at(self, argument: int, offset: Array) -> Array:
        """The result with one argument moved by `offset`, with 0 where the result is infinite at the point itself."""
        y = self.problem.moved(argument, offset, self.y)
        return np.where(self.finite, y if y.dtype.kind == "c" else y.astype(float), 0.0)

    def random(self, shape: tuple[int, ...]) -> Array:
        """Random numbers of either sign, none of them near zero, with few bits so that steps by them are exact."""
        size = self.rng.integers(32, 96, size=shape) / 64  # 0.5 <= size < 1.5
        return size * self.rng.choice([-1.0, 1.0], size=shape)

    def cotangent(self) -> Array:
        """A random cotangent of the dtype of the result."""
        return np.where(self.finite, self.random(self.y.shape), 0.0)

    def pull(self, g: Array, values: list[Any] | None = None) -> list[Array | None]:
        """The claimed gradients, in float64, of the active arguments."""
        with quiet():
            found = self.problem.pull(g.astype(self.dtype), self.problem.copies() if values is None else values)
        claims = [None if d is None else np.array(d, dtype=float) for d in found]
        if self.singular:
            claims = [None if d is None else np.where(np.isnan(d), 0.0, d) for d in claims]
        return claims

    @property
    def underflow(self) -> float:
        """Numbers so small that what they are made of may have lost its digits."""
        return float(np.finfo(self.dtype).tiny) / self.eps

    @property
    def singular(self) -> bool:
        """Whether finite inputs give infinite results, as log(0) does: then 0 * inf in the gradient is no fault."""
        masked = any(np.isinf(self.problem.values[i]).any() for i in self.problem.active)
        return not masked and not self.finite.all()

    def nudged(self, most: int = 1) -> list[Any]:
        """The inputs, each moved by some units in the last place."""
        values = self.problem.copies()
        for i in self.problem.active:
            x = values[i]
            signs = self.rng.choice([-1, 1], size=x.shape)
            if signs.size > 1:  # moving all the same way may change nothing
                signs.flat[0], signs.flat[-1] = 1, -1
            ulps = signs * self.rng.integers(1, most, x.shape, endpoint=True) * np.finfo(x.dtype).eps
            values[i] = (x * (1 + ulps)).astype(x.dtype)
        return values

    def measure_jitter(self, draws: int = 2, most: int = 1) -> None:
        """Raise `jitter` to what is seen at so many points."""
        for _ in range(draws):
            with quiet():
                y = self.problem.call(self.nudged(most))
                change = np.abs(y.astype(float) - self.y) if y.shape == self.y.shape else np.zeros(self.y.shape)
            self.problem.evaluations += 1
            self.jitter = np.maximum(self.jitter, np.where(np.isfinite(change), change, 0.0))

    def blur(self, g: Array, claimed: Sequence[Array | None], draws: int = 2, most: int = 1) -> list[Array | None]:
        """How far the claims move when the inputs move by at `most` so many units in the last place.

        No computation can be asked to be better than that. The blur is capped, so that a backward pass that is wildly
        unstable is not excused; but where large terms cancel, as in a gradient that vanishes, their rounding remains.
        """
        widest = [None if d is None else np.zeros(d.shape) for d in claimed]
        for _ in range(draws):
            values = self.nudged(most)
            for wide, before, after in zip(widest, claimed, self.pull(g, values), strict=True):
                if wide is not None and before is not None and after is not None and after.shape == wide.shape:
                    with np.errstate(invalid="ignore"):
                        change = np.abs(after - before)
                    np.maximum(wide, np.where(np.isfinite(change), change, 0.0), out=wide)
        size = max(float(np.max(np.abs(self.known), initial=0.0)), self.problem.scale)
        for argument, wide, before in zip(self.problem.active, widest, claimed, strict=True):
            if wide is not None and before is not None:
                largest = np.max(np.abs(before[np.isfinite(before)]), initial=size / self.typical(argument))
                np.minimum(wide, self.eps**LEFT * largest, out=wide)
        return widest


def bench_of(problem: Problem, rtol: float, atol: float, rng: np.random.Generator) -> Bench:
    """A problem with what is known of it at its point.

    Raises
    ------
    TypeError
        If the result is not floating.
    """
    y = problem.value()
    if y.dtype.kind != "f":
        raise TypeError(f"{problem.name} must return floating numbers to have a gradient, and returned dtype {y.dtype}")
    eps = max(float(np.finfo(d).eps) for d in [y.dtype, *(problem.values[i].dtype for i in problem.active)])
    bench = Bench(problem, y.astype(float), y.dtype, np.isfinite(y), eps, rtol, atol, rng, np.zeros(y.shape))
    bench.measure_jitter()
    return bench


def prepare(problem: Problem, rtol: float | None, atol: float | None, rng: np.random.Generator) -> tuple[Bench, Array]:
    """Check everything but the numbers, and return what is needed to check those: the bench and a random cotangent.

    Raises
    ------
    GradCheckError
        If results differ between two runs, inputs are changed, or shapes, dtypes or NaN are wrong.
    """
    name = problem.name
    y, again = _watched(problem), problem.value()
    if y.dtype.kind != "f":
        raise TypeError(f"{name} must return floating numbers to have a gradient, and returned dtype {y.dtype}")
    if np.isnan(y).any():
        where = tuple(int(i) for i in np.argwhere(np.isnan(y))[0])
        raise GradCheckError(f"gradcheck: {name} itself gives NaN, at output {where}: no gradient can be checked there")
    if not _same(y, again):
        raise GradCheckError(
            f"gradcheck: {name} is not deterministic: two runs on the same inputs gave shapes {y.shape} and "
            f"{again.shape}"
            + ("" if y.shape != again.shape else f", up to {_distance(y, again):.3g} apart")
            + "; fix its seed, or make a random mask an argument"
        )
    bench = bench_of(problem, rtol or 0.0, atol or 0.0, rng)
    g = bench.cotangent()
    with quiet():
        raw = problem.pull(g.astype(y.dtype), problem.copies())
        repeated = problem.pull(g.astype(y.dtype), problem.copies())
    for i, d, d2 in zip(problem.active, raw, repeated, strict=True):
        if d is None or d2 is None:
            continue
        x = problem.values[i]
        if d.shape != x.shape:
            raise GradCheckError(f"gradcheck: {_shape_message(problem, i, d, y)}")
        if d.dtype != x.dtype:
            raise GradCheckError(
                f"gradcheck: the gradient of {name} with respect to {problem.label(i)} has dtype {d.dtype}, "
                f"and the input {x.dtype}: a gradient has the dtype of its input"
            )
        if np.isnan(d).any() and not bench.singular:
            raise GradCheckError(f"gradcheck: {_nan_message(problem, i, d)}")
        if not _same(d, d2):
            raise GradCheckError(
                f"gradcheck: the gradient of {name} with respect to {problem.label(i)} differs between two runs, "
                f"by up to {_distance(d, d2):.3g}: the backward pass is not deterministic, or keeps state between calls"
            )
    return bench, g


def _watched(problem: Problem) -> Array:
    values = problem.copies()
    before = problem.copies()
    problem.evaluations += 1
    with quiet():
        y = problem.call(values)
    for i, (old, new) in enumerate(zip(before, values, strict=True)):
        if isinstance(old, np.ndarray) and not np.array_equal(old, new, equal_nan=old.dtype.kind == "f"):
            raise GradCheckError(f"gradcheck: {problem.name} changed its {problem.label(i)}; it must work on a copy")
    return y


def _same(a: Array, b: Array) -> bool:
    """Equal but for the rounding of sums whose order may vary between runs on several threads."""
    if a.shape != b.shape:
        return False
    scale = np.max(np.abs(a[np.isfinite(a)]), initial=0.0)
    bound = float(16 * np.finfo(a.dtype).eps * scale)
    return bool(np.array_equal(a, b, equal_nan=True)) or np.allclose(a, b, rtol=0, atol=bound, equal_nan=True)


def _distance(a: Array, b: Array) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.nanmax(np.abs(a.astype(float) - b), initial=0.0))


def _shape_message(problem: Problem, i: int, d: Array, y: Array) -> str:
    x = problem.values[i]
    text = (
        f"the gradient of {problem.name} with respect to {problem.label(i)} has shape {d.shape}, "
        f"and the input {x.shape}"
    )
    if d.shape == x.shape[::-1] or (x.ndim > 1 and d.shape == (*x.shape[:-2], x.shape[-1], x.shape[-2])):
        return f"{text}\n    diagnosis  transposed: the gradient is the transpose of what it should be"
    try:
        undone = np.broadcast_shapes(x.shape, d.shape) == d.shape
    except ValueError:
        undone = False
    if undone:
        lead = d.ndim - x.ndim
        axes = [*range(lead), *(k + lead for k, n in enumerate(x.shape) if n != d.shape[k + lead])]
        said = f"broadcasting not undone: sum the gradient over axis {', '.join(map(str, axes))}"
        if d.shape == y.shape:
            said += " (the input was broadcast to the shape of the output)"
        return f"{text}\n    diagnosis  {said}"
    return f"{text}: a gradient has the shape of its input"


def _nan_message(problem: Problem, i: int, d: Array) -> str:
    bad = np.isnan(d)
    where = tuple(int(k) for k in np.argwhere(bad)[0])
    text = (
        f"the gradient of {problem.name} with respect to {problem.label(i)} is NaN in {int(bad.sum())} of {d.size} "
        f"elements, first at {where}, although the function is not"
    )
    infinite = [v for v in problem.values if isinstance(v, np.ndarray) and v.dtype.kind == "f" and np.isinf(v).any()]
    if infinite:
        text += "\n    diagnosis  an input is infinite (a mask of -inf?): inf - inf and 0 * inf are NaN in your rule"
    elif problem.values[i][where] == 0:
        text += "\n    diagnosis  the input is 0 there: a division by the value or 0 * inf in your rule"
    return text
