"""Chapter 03, training: the first deviation, Adam, a schedule, dropout with a given mask."""

from __future__ import annotations

import math

import numpy as np

from tinyllm.course.exercise import Exercise, law_on
from tinyllm.formulas import dropout as dropout_loops
from tinyllm.formulas import init as init_loops
from tinyllm.optim import schedules
from tinyllm.testing.problem import Array
from tinyllm.testing.suite import mistakes, oracle
from tinyllm.testing.suite.answer import Case
from tinyllm.testing.suite.topics import draw

# -- weight_deviation --------------------------------------------------------------------------------------------------


def _deviation(fan_in: int, fan_out: int, kind: str) -> float:
    return init_loops.he_std(fan_in) if kind == "he" else init_loops.xavier_std(fan_in, fan_out)


def _layers(rng: np.random.Generator) -> list[Case]:
    sizes = ((50, 200), (300, 70), (7, 7))
    return [{"fan_in": i, "fan_out": o, "kind": kind} for i, o in sizes for kind in ("he", "xavier")]


DEVIATION = Exercise(
    name="weight_deviation",
    chapter="03",
    asks='F-INIT: the deviation of a layer\'s first weights, for kind "he" (normal) or "xavier" (normal): one number.',
    arguments=("fan_in", "fan_out", "kind"),
    answer=_deviation,
    cases=_layers,
    mistakes=(
        (
            "this is the variance: the deviation is its root",
            lambda fan_in, fan_out, kind: _deviation(fan_in, fan_out, kind) ** 2,
        ),
        (
            "this is the bound of the uniform law, sqrt(3) times its deviation",
            lambda fan_in, fan_out, kind: math.sqrt(3) * _deviation(fan_in, fan_out, kind),
        ),
        (
            "fan_in and fan_out are exchanged: He counts the terms of a sum, and these are the inputs",
            lambda fan_in, fan_out, kind: _deviation(fan_out, fan_in, kind),
        ),
        (
            "He's factor 2 is missing: ReLU cuts off half of the signal",
            lambda fan_in, fan_out, kind: (
                math.sqrt(1 / fan_in) if kind == "he" else init_loops.xavier_std(fan_in, fan_out)
            ),
        ),
        (
            "He's deviation for both kinds: Xavier's takes the mean of fan_in and fan_out",
            lambda fan_in, fan_out, kind: init_loops.he_std(fan_in),
        ),
        (
            "Xavier's deviation for both kinds: He's looks at fan_in alone",
            lambda fan_in, fan_out, kind: init_loops.xavier_std(fan_in, fan_out),
        ),
        (
            "Xavier's 2 is missing: 2 / (fan_in + fan_out) is one over the mean of the two",
            lambda fan_in, fan_out, kind: (
                init_loops.he_std(fan_in) if kind == "he" else math.sqrt(1 / (fan_in + fan_out))
            ),
        ),
    ),
    hints=(
        "A sum of n independent terms has n times their variance. What variance keeps the sum as it came?",
        "Xavier wants 1/fan_in forward and 1/fan_out backward, and takes the mean of the fans; He doubles 1/fan_in.",
        "Write the variance of each kind first: 2 over something. The deviation is its root.",
    ),
)

# -- adam_update -------------------------------------------------------------------------------------------------------

ADAM_ARGUMENTS = ("theta", "g", "m", "v", "t", "lr", "beta_1", "beta_2", "eps")
_ADAM_SETTINGS: Case = {"lr": 0.125, "beta_1": 0.9, "beta_2": 0.999, "eps": 1e-8}


def _steps(rng: np.random.Generator) -> list[Case]:
    found: list[Case] = []
    for t, shape in ((1, (5,)), (2, (2, 3)), (10, (4,))):
        m = draw(rng, *shape) if t > 1 else np.zeros(shape)
        v = draw(rng, *shape) ** 2 if t > 1 else np.zeros(shape)
        found.append({"theta": draw(rng, *shape), "g": draw(rng, *shape), "m": m, "v": v, "t": t, **_ADAM_SETTINGS})
    return found


def _tiny() -> list[Case]:
    g = np.array([1e-8, -1e-7, 1e-5])
    return [{"theta": np.zeros(3), "g": g, "m": np.zeros(3), "v": np.zeros(3), "t": 1, **_ADAM_SETTINGS}]


ADAM = Exercise(
    name="adam_update",
    chapter="03",
    asks="F-ADAM: one step. Return the new (theta, m, v), the last two uncorrected; t counts the steps from 1.",
    arguments=ADAM_ARGUMENTS,
    answer=oracle.adam_step,
    cases=_steps,
    results=3,
    points=2,
    mistakes=mistakes.ADAM,
    hints=(
        "Five lines of the formula, five lines of code: m, v, m corrected, v corrected, theta.",
        "m = beta_1 * m + (1 - beta_1) * g, and v likewise with g squared. Make new arrays: the inputs are not yours.",
        "The corrected ones, m / (1 - beta_1**t) and v / (1 - beta_2**t), are used for theta, then forgotten; eps is "
        "added to the root.",
    ),
    laws=(law_on("tiny_gradients", "Gradients as small as eps: it is added to the root, not under it.", _tiny, 1e-6),),
)

# -- warmup_cosine -----------------------------------------------------------------------------------------------------


def _rate(t: int, lr: float, warmup: int, steps: int) -> float:
    return schedules.cosine(lr, warmup, steps)(t)


def _times(rng: np.random.Generator) -> list[Case]:
    plans = ((3, 10, 100), (30, 10, 100), (10, 10, 100), (75, 0, 80), (40, 20, 60))
    return [{"t": t, "lr": 0.25, "warmup": warmup, "steps": steps} for t, warmup, steps in plans]


def _late() -> list[Case]:
    return [{"t": t, "lr": 0.25, "warmup": 10, "steps": 100} for t in (100, 130, 500)]


def _with(
    t: int, lr: float, warmup: int, steps: int, rise: float | None = None, done: float | None = None, turn: float = 1.0
) -> float:
    """The schedule with the rise, the share that is done or the length of the wave replaced."""
    if t < warmup:
        return lr * t / warmup if rise is None else rise
    share = min((t - warmup) / (steps - warmup), 1.0) if done is None else done
    return lr * 0.5 * (1 + math.cos(math.pi * turn * share))


COSINE = Exercise(
    name="warmup_cosine",
    chapter="03",
    asks="The rate at update t = 0, 1, ...: lr t / warmup, then half a cosine from lr to 0 at `steps`, and 0 after.",
    arguments=("t", "lr", "warmup", "steps"),
    answer=_rate,
    cases=_times,
    mistakes=(
        ("there is no warm-up", lambda t, lr, warmup, steps: _with(t, lr, warmup, steps, rise=lr)),
        (
            "the warm-up is one update ahead: at t = 0 the rate is 0",
            lambda t, lr, warmup, steps: _with(t, lr, warmup, steps, rise=lr * (t + 1) / max(warmup, 1)),
        ),
        (
            "the cosine counts from 0, not from the end of the warm-up: the rate jumps there",
            lambda t, lr, warmup, steps: _with(t, lr, warmup, steps, done=min(t / steps, 1.0)),
        ),
        (
            "the cosine is as long as the whole, not as what the warm-up leaves of it",
            lambda t, lr, warmup, steps: _with(t, lr, warmup, steps, done=min((t - warmup) / steps, 1.0)),
        ),
        (
            "a whole wave, which comes up again: pi, not 2 pi",
            lambda t, lr, warmup, steps: _with(t, lr, warmup, steps, turn=2),
        ),
        (
            "the cosine itself goes down to -1: (1 + cos) / 2 goes from 1 to 0",
            lambda t, lr, warmup, steps: 2 * _with(t, lr, warmup, steps) - lr if t >= warmup else lr * t / warmup,
        ),
        (
            "a straight line, where half a cosine is asked for",
            lambda t, lr, warmup, steps: (
                lr * t / warmup if t < warmup else lr * max(0.0, 1 - (t - warmup) / (steps - warmup))
            ),
        ),
        (
            "after `steps` the cosine comes up again: the share that is done is at most 1",
            lambda t, lr, warmup, steps: _with(t, lr, warmup, steps, done=(t - warmup) / (steps - warmup)),
        ),
    ),
    hints=(
        "Two cases: t < warmup, a line through 0; after it, how much of the rest is done, a share from 0 to 1.",
        "The share is (t - warmup) / (steps - warmup), and 1 from `steps` on.",
        "cos(pi * share) goes from 1 to -1; add 1 and halve it, and it goes from 1 to 0.",
    ),
    laws=(law_on("after_the_end", "From update number `steps` on the rate is 0.", _late),),
)

# -- inverted_dropout --------------------------------------------------------------------------------------------------


def _masked(rng: np.random.Generator) -> list[Case]:
    return [
        {"x": draw(rng, *shape), "keep": rng.random(shape) >= p, "p": p}
        for shape, p in (((8,), 0.25), ((3, 5), 0.125), ((4, 4), 0.75))
    ]


def _dropped(x: Array, keep: Array, p: float) -> Array:
    flat = dropout_loops.dropout(np.ravel(x).tolist(), np.ravel(keep).tolist(), p)
    return np.array(flat).reshape(np.shape(x))


def _edges() -> list[Case]:
    x = np.array([1.0, -2.0, 3.0])
    return [{"x": x, "keep": np.zeros(3, bool), "p": 0.5}, {"x": x, "keep": np.ones(3, bool), "p": 0.0}]


DROPOUT = Exercise(
    name="inverted_dropout",
    chapter="03",
    asks="F-DROP in training: x where `keep` is True, else 0, scaled so that the mean stays; p is what is dropped.",
    arguments=("x", "keep", "p"),
    answer=_dropped,
    cases=_masked,
    mistakes=(
        ("what is kept is not scaled up: the mean shrinks by 1 - p", lambda x, keep, p: x * keep),
        ("multiplied by 1 - p: divide, since fewer are left", lambda x, keep, p: x * keep * (1 - p)),
        ("divided by p: it is the probability of dropping, 1 - p that of keeping", lambda x, keep, p: x * keep / p),
        ("the mask is the wrong way round: True is kept", lambda x, keep, p: x * ~keep / (1 - p)),
        (
            "scaled by the share that this mask keeps: by the probability is meant, which is the same for all masks",
            lambda x, keep, p: x * keep / np.mean(keep),
        ),
        ("nothing is dropped", lambda x, keep, p: x / (1 - p)),
        (
            "what is dropped stays, and what is kept is scaled: zeros are missing",
            lambda x, keep, p: np.where(keep, x / (1 - p), x),
        ),
    ),
    hints=(
        "Two things happen: some numbers become 0, the others grow.",
        "A unit is there with probability 1 - p. By what must it be multiplied to count fully on average?",
        "np.where(keep, something, 0.0), or a product with the mask, divided by 1 - p.",
    ),
    laws=(law_on("edges", "A mask that keeps nothing gives zeros; p = 0 changes nothing.", _edges),),
)

EXERCISES = (DEVIATION, ADAM, COSINE, DROPOUT)
