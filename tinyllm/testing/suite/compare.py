"""Whether an answer's numbers are right, and, when they are not, by which known mistake they come about."""

from __future__ import annotations

import numpy as np

from tinyllm.testing.problem import Array, quiet
from tinyllm.testing.suite.answer import Answer, Case, Wrong
from tinyllm.testing.suite.outcome import Broken

# Differences in units of the largest number expected. Every input is exact in float32, so that an answer which
# computes in single precision is not charged for the rounding of its inputs.
DOUBLE, SINGLE = 1e-9, 1e-5
REMARK = "agrees to single precision only: it computes in float32"


def deviation(y: Array, expected: Array) -> Array:
    """The difference in units of the largest finite number expected; inf where only one of them is finite or NaN."""
    size = np.max(np.abs(expected[np.isfinite(expected)]), initial=0.0) or 1.0
    with quiet():
        off = np.abs(y.astype(float) - expected) / size
        same = (y == expected) | (np.isnan(y) & np.isnan(expected))
    return np.where(same, 0.0, np.where(np.isnan(off), np.inf, off))


def check(answer: Answer, case: Case, about: str = "", tolerance: float = SINGLE, relative: bool = False) -> None:
    """Hold the answer against the formula.

    Parameters
    ----------
    answer : Answer
    case : dict
        The arguments.
    about : str
        What is special about the case, for the message.
    tolerance : float
        In units of the largest number expected.
    relative : bool
        In units of each number instead.
    """
    y, expected = answer(**case), answer.expected(case)
    said = f"for {about or label(case)}"
    if y.shape != expected.shape:
        found = mistakes(answer, case, y, expected)
        raise Broken(f"{said}: its result has shape {y.shape}, expected {expected.shape}", found)
    off = deviation(y, expected)
    if relative:
        with quiet():
            each = off * (np.max(np.abs(expected), initial=0.0) or 1.0) / np.abs(expected)
        off = np.where(off == 0, 0.0, each)
    if not (off > tolerance).any():
        if not relative and off.max(initial=0.0) > DOUBLE and REMARK not in answer.remarks:
            answer.remarks.append(REMARK)
        return
    index = np.unravel_index(int(np.argmax(off)), off.shape)
    place = f"at index ({', '.join(map(str, index))}) " if index else ""
    count = f"; {int((off > tolerance).sum())} of {off.size} numbers are wrong" if off.size > 1 else ""
    raise Broken(
        f"{said}: {place}it gives {y[index]:.9g}, expected {expected[index]:.9g}{count}",
        mistakes(answer, case, y, expected),
    )


def mistakes(answer: Answer, case: Case, y: Array, expected: Array) -> list[str]:
    """The mistake that leads to these numbers, or to all but a hundredth of the difference."""
    whole = _worst(deviation(y, expected)) if y.shape == expected.shape else 1.0
    best, found = 0.01 * min(whole, 1.0), []
    for said, wrong in answer.topic.mistakes:
        z = _made(wrong, answer.complete(case))
        if z is None or z.shape != y.shape or (z.shape == expected.shape and _worst(deviation(z, expected)) < 1e-7):
            continue
        rest = _worst(deviation(y, z))
        if rest < 2e-6:
            return [said]
        if rest < best:
            best, found = rest, [said]
    return found or (_general(y, expected) if y.shape == expected.shape else _shape_mistakes(y, expected))


def _worst(off: Array) -> float:
    return float(off.max(initial=0.0))


def _made(wrong: Wrong, case: Case) -> Array | None:
    """What a mistake gives, if it can be made in this case."""
    try:
        with quiet():
            return np.asarray(wrong(**case), dtype=float)
    except (ValueError, TypeError, IndexError, ArithmeticError):
        return None


def _shape_mistakes(y: Array, expected: Array) -> list[str]:
    if y.ndim >= 2 and y.T.shape == expected.shape:
        return ["transposed"]
    if y.size == expected.size:
        return ["the numbers may be right: axes of length 1 are missing or too many (keepdims, reshape)"]
    if y.ndim == 0:
        return ["everything is summed or averaged into one number: give the axis"]
    if expected.ndim == 0:
        return ["the mean over all elements is missing: a loss is one number"]
    return []


def _general(y: Array, expected: Array) -> list[str]:
    if np.isnan(y).any() and not np.isnan(expected).any():
        return ["NaN comes from inf - inf, 0 * inf, 0 / 0 or the root or logarithm of a negative number"]
    solid = np.isfinite(y) & np.isfinite(expected) & (np.abs(expected) > 0)
    if not np.any(y):
        return ["all zeros: the result is never written"]
    if solid.sum() >= min(2, y.size) and y.size:
        ratio = y[solid] / expected[solid]
        c = float(np.median(ratio))
        if np.allclose(ratio, c, rtol=1e-6, atol=0) and np.array_equal(y == 0, expected == 0):
            return ["the sign is wrong" if abs(c + 1) < 1e-6 else f"every number is {c:.6g} times what it should be"]
    if y.ndim >= 2 and y.shape[-1] == y.shape[-2] and deviation(np.swapaxes(y, -1, -2), expected).max() < SINGLE:
        return ["transposed: exchange the last two axes"]
    return []


def label(case: Case) -> str:
    """A case in words: the shapes of arrays, the values of everything else."""
    parts = []
    for name, value in case.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            parts.append(f"{name} of shape {value.shape}")
        elif isinstance(value, np.ndarray) and value.size > 12:
            parts.append(f"{name} of shape {value.shape} and dtype {value.dtype}")
        else:
            parts.append(f"{name}={value.tolist() if isinstance(value, np.ndarray) else value!r}")
    return ", ".join(parts)
