"""False alarms: right rules, at points that are hard on a checker, none of which may be called wrong."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

import tinyllm as tl
from tinyllm.autograd import Tensor
from tinyllm.testing.gradcheck import gradcheck
from tinyllm.testing.mutants.planted import Array
from tinyllm.testing.report import GradCheckError

Function = Callable[..., Tensor]


class Pick(Protocol):
    """How a choice is made: at random, or by hypothesis."""

    def __call__(self, options: Sequence[Any], /) -> Any:
        """One of the options."""


class Correct(NamedTuple):
    """A function with right rules, and a point.

    An `ordinary` one must be judged whole: first derivatives, in float64, at numbers about 1.
    """

    name: str
    f: Function
    inputs: list[Array]
    order: int = 1
    ordinary: bool = False


class Answer(NamedTuple):
    """What gradcheck says against a right rule, nothing if all is well; and how many numbers it did not judge."""

    alarm: str = ""
    unjudged: int = 0


class Tried(NamedTuple):
    """Many right rules: the complaints, how many were tried, and in how many of them some number was not judged."""

    alarms: tuple[str, ...]
    draws: int
    unjudged: int


def ask(case: Correct, seed: int = 0) -> Answer:
    """Check a right rule."""
    try:
        report = gradcheck(case.f, *case.inputs, order=case.order, seed=seed)
    except GradCheckError as error:
        return Answer(f"{case.name}, order {case.order}, {[x.dtype.name for x in case.inputs]}: {error}")
    if case.ordinary and report.unjudged:
        return Answer(f"{case.name}: not judged, at an ordinary point: {report}", report.unjudged)
    return Answer("", report.unjudged)


def ask_all(cases: Iterable[Correct], seed: int = 0) -> Tried:
    """Check many right rules."""
    answers = [ask(case, seed) for case in cases]
    return Tried(tuple(a.alarm for a in answers if a.alarm), len(answers), sum(a.unjudged > 0 for a in answers))


# -- cases that are known to trip naive checkers -----------------------------------------------------------------------


def _beside_masks(x: Tensor) -> Tensor:
    return tl.softmax(tl.where(np.arange(5) < 3, x, -math.inf))


def _tiny_beside_large(x: Tensor) -> Tensor:
    return x * np.array([1e-12, 1e3, 1e-12])


def traps() -> Iterator[Correct]:
    """Points at which finite differences, or tolerances that do not know their error, go wrong."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 5))
    near = np.array([0.0, 1e-300, -1e-13, 1e-9, -1e-5, 0.3])
    yield Correct("abs near 0", tl.abs, [near])
    yield Correct("relu near 0", tl.relu, [near])
    yield Correct("max with ties", lambda x: tl.max(x, axis=1), [np.array([[1.0, 2.0, 2.0], [3.0, 3.0, 3.0]])])
    yield Correct("maximum with ties", tl.maximum, [np.array([1.0, 2.0]), np.array([1.0, 3.0])])
    yield Correct("sqrt near 0", tl.sqrt, [np.array([1e-12, 1e-6, 1e-3, 1.0])])
    yield Correct("norm of 0", lambda x: tl.norm(x, axis=1), [np.array([[0.0, 0.0], [3.0, 4.0]])])
    yield Correct("logsumexp at 1e4", lambda x: tl.logsumexp(x, axis=-1), [x + 1e4])
    yield Correct("softmax beside -inf", tl.softmax, [np.where(x > 0.5, -np.inf, x)])
    yield Correct("softmax behind a mask of -inf", _beside_masks, [x])
    yield Correct("gradients of 1e-12 beside 1e3", _tiny_beside_large, [rng.normal(size=3)])
    yield Correct("exp from -25 to 7", tl.exp, [np.array([-25.0, 0.0, 7.0])])
    yield Correct("float32 tanh", tl.tanh, [x.astype(np.float32)])
    yield Correct("float32 softmax", tl.softmax, [x.astype(np.float32)])
    yield Correct("float32 layer_norm", lambda x: tl.layer_norm(x, 5), [x.astype(np.float32)])
    yield Correct("cumsum of 10^5 elements", tl.cumsum, [rng.normal(size=100_000)])
    for scale in (1e-8, 1e8):
        yield Correct(f"tanh at scale {scale:g}", tl.tanh, [scale * x])
        yield Correct(f"softmax at scale {scale:g}", tl.softmax, [scale * x])
        yield Correct(f"layer_norm at scale {scale:g}", lambda x: tl.layer_norm(x, 5), [scale * x])
        yield Correct(f"x * x at scale {scale:g}", lambda x: x * x, [scale * x])


# -- random cases ------------------------------------------------------------------------------------------------------

_Domain = Callable[[Array], Array]


def _anywhere(x: Array) -> Array:
    return x


def _above_zero(x: Array) -> Array:
    return np.abs(x) + 1e-12


_ELEMENTWISE: dict[str, tuple[Function, _Domain]] = {
    **{n: (getattr(tl, n), _anywhere) for n in ("abs", "cos", "erf", "relu", "sigmoid", "sign", "silu", "sin")},
    **{n: (getattr(tl, n), _anywhere) for n in ("elu", "leaky_relu", "softplus", "tanh", "gelu", "cumsum")},
    **{n: (getattr(tl, n), _anywhere) for n in ("round", "floor", "ceil", "exp", "expm1")},
    **{n: (getattr(tl, n), _above_zero) for n in ("log", "log1p", "sqrt")},
    "gelu with tanh": (lambda x: tl.gelu(x, approximate="tanh"), _anywhere),
    "clip": (lambda x: tl.clip(x, -1, 1), _anywhere),
    "square": (lambda x: x * x, _anywhere),
    "cube": (lambda x: x**3, _anywhere),
    "root by power": (lambda x: x**0.5, _above_zero),
    "reciprocal": (lambda x: 1 / x, lambda x: np.where(x == 0, 1, x)),
    "norm": (tl.norm, _anywhere),
    "sum": (tl.sum, _anywhere),
    "sort": (lambda x: tl.sort(tl.reshape(x, -1)), _anywhere),
    "flip": (tl.flip, _anywhere),
    "dropout": (lambda x: tl.dropout(x, 0.3, rng=np.random.default_rng(1)), _anywhere),
}

_ALONG_LAST: dict[str, Function] = {
    "softmax": tl.softmax,
    "log_softmax": tl.log_softmax,
    **{
        n: functools.partial(getattr(tl, n), axis=-1)
        for n in ("logsumexp", "max", "min", "mean", "var", "std", "prod", "cumsum")
    },
    "layer_norm": lambda x: tl.layer_norm(x, x.shape[-1]),
    "rms_norm": lambda x: tl.rms_norm(x, x.shape[-1]),
    "rms_norm with eps": lambda x: tl.rms_norm(x, x.shape[-1], eps=1e-5),
    "cross_entropy": lambda x: tl.cross_entropy(x, np.zeros(x.shape[:-1], dtype=int), reduction="none"),
    "repeated picks": lambda x: x[..., [0, -1, 0]],
    "attention": lambda x: tl.scaled_dot_product_attention(x[None], x[None], x[None], is_causal=True),
}

_PAIRS: dict[str, Function] = {
    **{n: getattr(tl, n) for n in ("add", "subtract", "multiply", "maximum", "minimum")},
    "divide": lambda a, b: a / (b * b + 1e-3),
    "where": lambda a, b: tl.where(a > 0, a * b, 2 * a * b),
    "matmul": lambda a, b: tl.reshape(a, (-1, 1)) @ tl.reshape(b, (1, -1)),
    "repeated use": lambda a, b: a * a * b + tl.tanh(a * b) * tl.sum(a),
}

_SHAPES = [(), (1,), (3,), (5,), (1, 1), (2, 3), (4, 1), (1, 4), (2, 1, 3), (3, 2, 2), (0,), (2, 0), (0, 3)]

_VALUES: dict[str, Callable[[np.random.Generator, Array], Array]] = {
    "normal": lambda rng, x: x,
    "integers": lambda rng, x: np.round(x),
    "scale 1e-8": lambda rng, x: x * 1e-8,
    "scale 1e8": lambda rng, x: x * 1e8,
    "some zeros": lambda rng, x: np.where(rng.random(x.shape) < 0.3, 0.0, x),
    "some tiny": lambda rng, x: np.where(rng.random(x.shape) < 0.3, 1e-13, x),
    "every scale": lambda rng, x: x * 10.0 ** rng.uniform(-9, 3, size=x.shape),
    "far from 0": lambda rng, x: x + 1e4,
    "all equal": lambda rng, x: np.full(x.shape, rng.normal()),
}

LAYOUTS: dict[str, Callable[[Function], Function]] = {
    "contiguous": lambda f: f,
    "transposed": lambda f: lambda *xs: f(*(x.T for x in xs)),
    "reversed": lambda f: lambda *xs: f(*(tl.flip(x) for x in xs)),
    "used twice": lambda f: lambda *xs: f(*xs) * 0.5 + f(*xs),
}


def draw(pick: Pick) -> Correct:
    """A function of the library at a random point: shape, values, layout, dtype and order as `pick` chooses them."""
    rng = np.random.default_rng(pick(range(2**20)))
    shape = pick(_SHAPES)
    place = pick(list(_VALUES))
    values = _VALUES[place]
    layout = pick(list(LAYOUTS))
    kind = pick(["elementwise", "along the last axis", "pairs"])

    def numbers(shape: tuple[int, ...]) -> Array:
        return values(rng, rng.normal(size=shape))

    if kind == "elementwise":
        name = pick(list(_ELEMENTWISE))
        f, domain = _ELEMENTWISE[name]
        inputs = [domain(numbers(shape))]
    elif kind == "along the last axis":
        name = pick(list(_ALONG_LAST))
        shape = (*shape, pick([1, 2, 3, 4]))
        f, inputs = _ALONG_LAST[name], [numbers(shape)]
        if name in ("softmax", "log_softmax", "logsumexp") and pick([False, True]):
            masked = rng.random(shape) < 0.3
            masked[..., 0] = False
            inputs, layout = [np.where(masked, -np.inf, inputs[0])], "contiguous"
    else:
        name = pick(list(_PAIRS))
        narrow = tuple(pick([1, n]) for n in shape[pick([0, 1]) :])
        f, inputs = _PAIRS[name], [numbers(shape), numbers(narrow)]
    if layout == "transposed":
        inputs = [np.ascontiguousarray(x.T) for x in inputs]
    dtype, order = pick([np.float64] * 3 + [np.float32]), pick([1, 1, 2])
    ordinary = place == "normal" and dtype is np.float64 and order == 1
    given = [x.astype(dtype) for x in inputs]
    return Correct(f"{name}, {layout}, {place}", LAYOUTS[layout](f), given, order, ordinary)


def defined(case: Correct) -> bool:
    """Whether the function has a value at the point; where it is NaN there is no gradient to check."""
    with np.errstate(all="ignore"), tl.no_grad():
        return not np.isnan(case.f(*(Tensor(x) for x in case.inputs)).data).any()


def try_traps(seed: int) -> Tried:
    """Right rules at the points that are known to trip naive checkers."""
    return ask_all(traps(), seed)


def try_at_random(draws: int, seeds: tuple[int, ...]) -> Tried:
    """So many random right rules."""
    rng = np.random.default_rng(seeds)

    def cases() -> Iterator[Correct]:
        while True:
            case = draw(lambda options: options[int(rng.integers(len(options)))])
            if defined(case):
                yield case

    return ask_all(itertools.islice(cases(), draws))
