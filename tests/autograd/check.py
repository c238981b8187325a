"""A gradient checker for the engine's own tests, which shares no code with the engine's.

Along a direction v the function is a function of one number, and its slope there must be <gradient, v>. The slope is
measured by central differences with steps h, h/2, h/4, ... whose errors Richardson's extrapolation removes one power
after the other (Ridders 1982, "Accurate computation of F'(x) and F'(x) F''(x)"); the disagreement inside the
table is the error estimate, and the tolerance is made from that and from the rounding of the function, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

import tinyllm as tl

EPS = np.finfo(np.float64).eps
LEVELS = 5
FIRST_STEP = 2.0**-6
LAST_STEP = FIRST_STEP / 2 ** (LEVELS - 1)


class GradientMismatch(AssertionError):
    """A gradient differs from the slope that was measured."""


def slope(phi: Callable[[float], float]) -> tuple[float, float]:
    """The derivative of `phi` at 0 and an estimate of its error."""
    table: list[list[float]] = []
    best, error, h = np.nan, np.inf, FIRST_STEP
    for i in range(LEVELS):
        row = [(phi(h) - phi(-h)) / (2 * h)]
        for k in range(1, i + 1):
            row.append(row[k - 1] + (row[k - 1] - table[-1][k - 1]) / (4**k - 1))
            disagreement = max(abs(row[k] - row[k - 1]), abs(row[k] - table[-1][k - 1]))
            if disagreement < error:
                best, error = row[k], disagreement
        table.append(row)
        h /= 2
    return best, error


def directions(arrays: Sequence[np.ndarray], rng: np.random.Generator, entries: int) -> list[list[np.ndarray]]:
    """Two directions without a component near zero, and single entries of every array."""
    found = []
    for _ in range(2):
        found.append([rng.choice([-1.0, 1.0], a.shape) * rng.uniform(0.5, 1.0, a.shape) for a in arrays])
    for n, a in enumerate(arrays):
        for place in rng.permutation(a.size)[:entries]:
            one = [np.zeros(b.shape) for b in arrays]
            one[n].reshape(-1)[place] = 1.0
            found.append(one)
    return found


def compare(
    name: str,
    value: Callable[..., tuple[float, float]],
    arrays: Sequence[np.ndarray],
    grads: Sequence[np.ndarray],
    rng: np.random.Generator,
    entries: int,
) -> None:
    """Hold `grads` against the slopes of ``value(*arrays)``, which gives a number and the size of what was summed."""
    size = value(*arrays)[1]
    for a, g in zip(arrays, grads, strict=True):
        if a.shape != g.shape:
            raise GradientMismatch(f"{name}: a gradient of shape {g.shape} for an argument of shape {a.shape}")
    for v in directions(arrays, rng, entries):

        def phi(h: float, v: list[np.ndarray] = v) -> float:
            return value(*(a + h * d for a, d in zip(arrays, v, strict=True)))[0]

        measured, error = slope(phi)
        claimed = sum(float(np.sum(g * d)) for g, d in zip(grads, v, strict=True))
        tolerance = 10 * error + 100 * EPS * (size + abs(measured)) / LAST_STEP
        if not tolerance <= 1e-6 * (size + abs(measured) + 1):
            raise GradientMismatch(f"{name}: nothing can be told here: slope {measured}, its error {error}")
        if not abs(claimed - measured) <= tolerance:
            raise GradientMismatch(f"{name}: claimed {claimed!r}, measured {measured!r}, tolerance {tolerance:.2e}")


def check(f: Callable[..., tl.Tensor], *arrays: np.ndarray, order: int = 1, seed: int = 0, entries: int = 2) -> None:
    """Raise `GradientMismatch` unless the derivatives of `f` with respect to all `arrays` are right.

    Order 1 looks at ``<c, f(x)>`` for a random c. Order 2 looks at ``<r, J(x)^T c>``, as a function of x and of c, for
    random r: its slopes are measured on gradients, which order 1 must have approved before.
    """
    rng = np.random.default_rng(seed)
    arrays = tuple(np.asarray(a, dtype=np.float64) for a in arrays)
    leaves = [tl.tensor(a, requires_grad=True) for a in arrays]
    y = f(*leaves)
    c = rng.choice([-1.0, 1.0], y.shape) * rng.uniform(0.5, 1.5, y.shape)
    r = [rng.choice([-1.0, 1.0], a.shape) * rng.uniform(0.5, 1.5, a.shape) for a in arrays]

    def first(*at: np.ndarray) -> tuple[float, float]:
        products = c * f(*(tl.tensor(a) for a in at)).numpy()
        return float(np.sum(products)), float(np.sum(np.abs(products)))

    def pulled(cotangent: tl.Tensor, *at: tl.Tensor) -> tl.Tensor:
        grads = tl.vjp(f, *at)[1](cotangent)
        return tl.sum(tl.concatenate([tl.reshape(g * w, (-1,)) for g, w in zip(grads, r, strict=True)]))

    def second(*at: np.ndarray) -> tuple[float, float]:
        grads = tl.vjp(f, *(tl.tensor(a) for a in at[1:]))[1](at[0])
        products = [w * g.numpy() for g, w in zip(grads, r, strict=True)]
        return sum(float(np.sum(p)) for p in products), sum(float(np.sum(np.abs(p))) for p in products)

    if order == 1:
        y.backward(c)
        grads = [np.zeros(a.shape) if t.grad is None else t.grad.numpy() for a, t in zip(arrays, leaves, strict=True)]
        compare("first derivative", first, arrays, grads, rng, entries)
    else:
        at = (c, *arrays)
        grads = tl.grad(pulled, argnums=tuple(range(len(at))))(*(tl.tensor(a) for a in at))
        compare("second derivative", second, at, [g.numpy() for g in grads], rng, entries)
