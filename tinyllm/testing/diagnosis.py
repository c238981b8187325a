"""From wrong numbers to the mistake that makes such numbers.

Every mistake is a hypothesis about how the claimed gradient A follows from the true one N (which is known from values
alone): A = 0, A = -N, A = N transposed, A - N constant along an axis, ... Those that hold to the precision of N are
reported, the most specific first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from tinyllm.testing.problem import Array, quiet


@dataclass
class Evidence:
    """What is known about a wrong gradient.

    Attributes
    ----------
    x, label : array, str
        The argument whose gradient is wrong, and its name.
    y, g : arrays
        The result and the cotangent.
    claimed, numerical, error : arrays of the shape of `x`
        Both gradients; the numerical one is NaN where it was not computed.
    doubled : array
        The claim for the cotangent 2 g.
    terms : array of the shape of `y`
        What each output contributes to the true gradient at `index`.
    index : tuple of int
        An element that is wrong.
    inputs : list of (str, array)
        All inputs that are arrays, with their names.
    """

    x: Array
    label: str
    y: Array
    g: Array
    claimed: Array
    numerical: Array
    error: Array
    doubled: Array
    terms: Array
    index: tuple[int, ...]
    inputs: list[tuple[str, Array]]

    def __post_init__(self) -> None:
        self.known = np.isfinite(self.numerical) & np.isfinite(self.claimed) & np.isfinite(self.error)
        size = float(np.sqrt(np.mean(self.numerical[self.known] ** 2))) if self.known.any() else 0.0
        self.size = size
        self.close = np.where(self.known, 40 * self.error, 0.0) + 1e-6 * np.abs(np.nan_to_num(self.numerical))
        self.close += 1e-9 * size
        with quiet():
            self.off = self.known & (np.abs(self.claimed - self.numerical) > self.close)

    def is_true(self, hypothesis: Array) -> bool:
        """Whether an array is the true gradient, wherever that is known."""
        if hypothesis.shape != self.numerical.shape or not self.known.any():
            return False
        with quiet():
            return bool(np.all(np.abs(hypothesis - self.numerical)[self.known] <= self.close[self.known]))


def diagnose(e: Evidence) -> list[str]:
    """The likely mistakes, the likeliest first."""
    mistakes = (_nothing, _cotangent, _factor, _passed_on, _transposed, _gelu, _missing_term, _missing_sum, _shifted)
    said = next((text for look in mistakes if (text := look(e))), None)
    place, count = _common_place(e), _count(e)
    found = [text for text in (said, place) if text] or [text for text in (count,) if text]
    return found or ["no known mistake fits: compare your rule with the derivative term by term"]


def _nothing(e: Evidence) -> str | None:
    if not e.off.any() or np.any(e.claimed[e.known]):
        return None
    return "zero: the argument is detached from the result (its gradient never reaches it, or is not returned)"


def _cotangent(e: Evidence) -> str | None:
    with quiet():
        if np.array_equal(e.doubled, e.claimed):
            return "the incoming gradient g is not used: the gradient does not change when g is doubled"
        if not np.allclose(e.doubled, 2 * e.claimed, rtol=1e-5, atol=1e-12 * e.size):
            return "not linear in g: doubling the incoming gradient does not double the result"
    return None


def _factor(e: Evidence) -> str | None:
    c = _constant_ratio(e, e.claimed, e.numerical)
    if c is None:
        return None
    if abs(c + 1) < 1e-5:
        return "the sign is wrong: every element is minus what it should be"
    named = _name_factor(e, c)
    times = f"every element is {c:.6g} times what it should be"
    return f"constant factor: {times}" + (f"; {named}" if named else "")


def _constant_ratio(e: Evidence, a: Array, b: Array) -> float | None:
    """The c for which ``a = c b`` on the known elements, if there is one and it is not 1."""
    with quiet():
        solid = e.known & (np.abs(b) > 1e3 * e.close) & (np.abs(b) > 1e-3 * e.size)
        if solid.sum() < min(2, e.x.size):
            return None
        c = float(np.median(a[solid] / b[solid]))
        if c == 0 or abs(c - 1) < 1e-9:
            return None
        slack = max(abs(c), 1.0) * (e.close + 1e-6 * np.abs(b))
        return c if np.all(np.abs(a - c * b)[e.known] <= slack[e.known]) else None


def _name_factor(e: Evidence, c: float) -> str:
    """Which lengths of the problem a factor equals."""
    names: list[tuple[str, float]] = []
    arrays = [(e.label, e.x), ("the output", e.y)] + [(n, a) for n, a in e.inputs if n != e.label]
    for name, array in arrays:
        names += [(f"{n}, the length of axis {axis} of {name}", float(n)) for axis, n in enumerate(array.shape)]
    names += [(f"{a.size}, the number of elements of {name}", float(a.size)) for name, a in arrays if a.ndim > 1]
    if abs(abs(c) - 2) < 1e-4 or abs(abs(c) - 0.5) < 1e-4:
        names.insert(0, ("2: the derivative of a square, or a term counted twice", 2.0))
    for sign, word in ((1.0, ""), (-1.0, "minus ")):
        for name, n in names:
            if n <= 1:
                continue
            forms = [("", n), ("one over ", 1 / n), ("the root of ", math.sqrt(n)), ("one over the root of ", n**-0.5)]
            forms += [("(n - 1) / n with n = ", (n - 1) / n), ("n / (n - 1) with n = ", n / (n - 1))]
            for form, value in forms:
                if abs(sign * c - value) <= 1e-5 * value:
                    return f"that is {word}{form}{name}"
    return ""


def _passed_on(e: Evidence) -> str | None:
    if e.g.shape == e.claimed.shape and np.array_equal(e.claimed, e.g):
        return "g is passed on unchanged: the factor of the derivative itself is missing"
    return None


def _transposed(e: Evidence) -> str | None:
    if e.claimed.ndim < 2:
        return None
    for a, b in itertools.combinations(range(e.claimed.ndim), 2):
        turned = np.swapaxes(e.claimed, a, b)
        if turned.shape == e.claimed.shape and not np.array_equal(turned, e.claimed) and e.is_true(turned):
            return f"transposed: exchanging axes {a} and {b} of your gradient makes it right"
    return None


def _gelu(e: Evidence) -> str | None:
    if e.y.shape != e.x.shape:
        return None
    from tinyllm.autograd import ops

    x = e.x.astype(float)
    with quiet():
        phi = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        exact = 0.5 * (1 + ops.erf(x / math.sqrt(2)).numpy()) + x * phi
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        t = np.tanh(inner)
        by_tanh = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
        for true, other, said in (
            (exact, by_tanh, "the forward is the exact GELU (erf), the backward that of the tanh approximation"),
            (by_tanh, exact, "the forward is the tanh approximation of GELU, the backward that of the exact one (erf)"),
        ):
            given = e.g * other
            if e.is_true(e.g * true) and np.allclose(given, e.claimed, rtol=1e-5, atol=1e-7):
                return said
    return None


def _missing_term(e: Evidence) -> str | None:
    """What is missing, or too much, is along some axis a multiple of 1, of the normalised input, of the output, ..."""
    if e.claimed.ndim == 0:
        return None
    rest = e.claimed - e.numerical
    for axis in reversed(range(e.claimed.ndim)):
        if e.claimed.shape[axis] < 3:
            continue
        for name, pattern, said in _patterns(e, axis):
            if _is_multiple(e, rest, pattern, axis):
                return f"a term is missing: yours minus the true gradient is {name} along axis {axis}; {said}"
    return None


def _patterns(e: Evidence, axis: int) -> Iterator[tuple[str, list[Array], str]]:
    x = e.x.astype(float)
    ones = np.ones(x.shape)
    with quiet():
        centred = x - x.mean(axis=axis, keepdims=True)
        sum_to_one = e.y.shape == x.shape and np.allclose(e.y.sum(axis=axis), 1, atol=1e-4)
        log_sum = e.y.shape == x.shape and np.allclose(np.exp(e.y).sum(axis=axis), 1, atol=1e-4)
    if sum_to_one:
        yield (
            "a multiple of the output y",
            [e.y],
            f"softmax is y * (g - sum(g * y)): the sum over axis {axis} is missing",
        )
    if log_sum:
        said = f"log-softmax is g - exp(y) * sum(g): the sum over axis {axis} is missing"
        yield "a multiple of exp(y)", [np.exp(e.y)], said
    yield "constant", [ones], f"a mean (or sum) over axis {axis} is not subtracted: the input's own mean depends on it"
    yield (
        "a multiple of the centred input",
        [centred],
        f"the mean over axis {axis} of gradient times normalised input is not subtracted: the variance depends on x",
    )
    yield (
        "a multiple of the input",
        [x],
        f"the mean over axis {axis} of gradient times input is missing: the norm depends on x",
    )
    if x.shape[axis] >= 4:
        yield (
            "a constant plus a multiple of the centred input",
            [ones, centred],
            f"both means over axis {axis} are missing: mean and variance depend on x",
        )


def _is_multiple(e: Evidence, rest: Array, patterns: list[Array], axis: int) -> bool:
    """Whether every line of `rest` along the axis is a combination of those lines of the patterns."""
    lines = np.moveaxis(rest, axis, -1).reshape(-1, rest.shape[axis])
    bases = [np.moveaxis(p, axis, -1).reshape(-1, rest.shape[axis]) for p in patterns]
    known = np.moveaxis(e.known, axis, -1).reshape(lines.shape)
    close = np.moveaxis(e.close, axis, -1).reshape(lines.shape)
    tried = 0
    for row in range(min(len(lines), 64)):
        use = known[row] & np.isfinite(sum(b[row] for b in bases))
        if use.sum() < len(bases) + 2:
            continue
        basis = np.stack([b[row][use] for b in bases], axis=1)
        line = lines[row][use]
        # in float32 the claim itself is rounded: 1e-5 of the size of the line is no structure
        bound = close[row][use] + 1e-6 * float(np.abs(line).max())
        with quiet():
            solution = np.linalg.lstsq(basis, line, rcond=None)[0]
        if np.any(np.abs(line - basis @ solution) > 4 * bound):
            return False
        tried += bool(np.any(np.abs(line) > 10 * bound))
    return tried > 0


def _missing_sum(e: Evidence) -> str | None:
    """The claim is part of the sum over the outputs that the element reaches."""
    value, terms = float(e.claimed[e.index]), e.terms
    reached = np.abs(terms) > 1e-6 * np.max(np.abs(terms), initial=0.0)
    if reached.sum() < 2:
        return None
    near = 1e-5 * max(abs(value), float(np.abs(terms).max()))
    axes = [
        axis
        for axis in range(terms.ndim)
        if reached.any(axis=tuple(k for k in range(terms.ndim) if k != axis)).sum() > 1
    ]
    for count in range(1, len(axes) + 1):
        for missing in itertools.combinations(axes, count):
            rest = tuple(k for k in range(terms.ndim) if k not in missing)
            partial = terms.sum(axis=rest)
            if partial.size == 1:
                continue
            for place, word in ((0, "first"), (-1, "last")):
                if abs(partial.flat[place] - value) <= near:
                    which = ", ".join(map(str, missing))
                    return (
                        f"a sum is missing: {e.label} reaches outputs all along axis {which} of the output, and the "
                        f"gradient is that of the {word} one alone; sum over axis {which}"
                    )
    matches = np.flatnonzero((np.abs(terms - value) <= near) & reached)
    if matches.size != 1 or reached.sum() > terms.size / 2 + 1:
        return None
    at = tuple(int(i) for i in np.unravel_index(matches[0], terms.shape))
    return (
        f"a sum is missing: this element reaches {int(reached.sum())} outputs (a repeated index?), and only the one at "
        f"{at} counts: add the contributions (np.add.at), do not assign them"
    )


def _shifted(e: Evidence) -> str | None:
    for axis in range(e.claimed.ndim):
        for by in (1, -1):
            moved = np.roll(e.claimed, -by, axis)
            inside = [slice(None)] * e.claimed.ndim
            inside[axis] = slice(0, -1) if by == 1 else slice(1, None)
            with quiet():
                fits = np.abs(moved - e.numerical) <= e.close
                solid = e.known[tuple(inside)]
                if solid.sum() >= 3 and np.all(fits[tuple(inside)][solid]) and e.off.any():
                    return f"shifted by one: your gradient is the right one moved by {by:+d} along axis {axis}"
                flipped = np.flip(e.claimed, axis)
        if e.known.sum() >= 3 and e.off.any() and e.is_true(flipped):
            return f"reversed: your gradient is the right one backwards along axis {axis}"
    return None


def _common_place(e: Evidence) -> str | None:
    """What the wrong elements, and no others, have in common."""
    if not e.off.any() or not (e.known & ~e.off).any():
        return None
    x = e.x
    with quiet():
        rules: list[tuple[str, Array | None]] = [
            ("the input is 0", x == 0),
            ("the input is negative", x < 0),
            ("the input is positive", x > 0),
            ("an entry of the same row is infinite (a mask of -inf)", _beside_infinite(e)),
            ("an index names the element more than once (add, do not assign: np.add.at)", _repeated(e)),
        ]
    for axis, n in enumerate(x.shape):
        place = np.arange(n).reshape([-1 if k == axis else 1 for k in range(x.ndim)])
        rules += [
            (f"they are first along axis {axis}", np.broadcast_to(place == 0, x.shape)),
            (f"they are last along axis {axis}", np.broadcast_to(place == n - 1, x.shape)),
        ]
    for said, chosen in rules:
        if chosen is not None and np.array_equal(chosen[e.known], e.off[e.known]):
            return f"wrong exactly where {said}"
    return None


def _count(e: Evidence) -> str | None:
    """How many are wrong, when others are right."""
    wrong, right = int(e.off.sum()), int((e.known & ~e.off).sum())
    if not (wrong and right):
        return None
    said = f"{wrong} element{'s are' if wrong > 1 else ' is'} wrong, the {right} others looked at are right"
    only = replace(e, numerical=np.where(e.off, e.numerical, np.nan))
    if not np.any(e.claimed[e.off]):
        return f"{said}; the gradient is zero at the wrong ones"
    c = _constant_ratio(only, e.claimed, e.numerical)
    return said if c is None else f"{said}; the wrong ones are {c:.6g} times what they should be"


def _beside_infinite(e: Evidence) -> Array | None:
    """Elements in a row, along the last axis, where some input is infinite."""
    for _, array in e.inputs:
        if array.dtype.kind != "f" or not np.isinf(array).any() or not array.ndim:
            continue
        rows = np.isinf(array).any(axis=-1, keepdims=True)
        try:
            return np.broadcast_to(rows, e.x.shape) & np.isfinite(e.x)
        except ValueError:
            continue
    return None


def _repeated(e: Evidence) -> Array | None:
    """Elements along axis 0 of the argument that an integer input names more than once."""
    for _, array in e.inputs:
        if array.dtype.kind in "iu" and array.size and e.x.ndim and array.min() >= 0 and array.max() < len(e.x):
            counts = np.bincount(array.ravel(), minlength=len(e.x))
            return np.broadcast_to((counts > 1).reshape(-1, *[1] * (e.x.ndim - 1)), e.x.shape)
    return None
