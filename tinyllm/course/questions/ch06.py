"""Chapter 06, the Transformer block: LayerNorm and its way back, positions, the residual stream."""

from __future__ import annotations

import numpy as np

from tinyllm.autograd import Tensor, vjp
from tinyllm.autograd.fused import layer_norm
from tinyllm.course.exercise import Exercise, law_on
from tinyllm.formulas import block, positions
from tinyllm.testing.problem import Array
from tinyllm.testing.suite.answer import Case
from tinyllm.testing.suite.topics import draw

EPS = 1e-5


def _mean(x: Array) -> Array:
    return x.mean(axis=-1, keepdims=True)


def _deviation(x: Array, ddof: int = 0) -> Array:
    return np.sqrt(x.var(axis=-1, ddof=ddof, keepdims=True) + EPS)


# -- normalise_rows ----------------------------------------------------------------------------------------------------


def _rows(rng: np.random.Generator) -> list[Case]:
    return [{"x": 2 * draw(rng, *shape) + 1, "weight": draw(rng, shape[1]), "bias": draw(rng, shape[1])}
            for shape in ((3, 5), (1, 4), (6, 2))]  # fmt: skip


def _faint() -> list[Case]:
    x = draw(np.random.default_rng(4), 3, 6, scale=2.0**-8)
    return [
        {"x": x, "weight": np.ones(6), "bias": np.zeros(6)},
        {"x": np.full((2, 4), 3.0), "weight": np.ones(4), "bias": np.ones(4)},
    ]


NORMALISE = Exercise(
    name="normalise_rows",
    chapter="06",
    asks="LayerNorm of x (T, C) over its last axis, times weight (C,), plus bias (C,), eps = 1e-5: (T, C).",
    arguments=("x", "weight", "bias"),
    answer=lambda x, weight, bias: np.array([block.layer_norm(row, weight, bias, EPS) for row in x]),
    cases=_rows,
    mistakes=(
        (
            "the unbiased variance, divided by n - 1: LayerNorm divides by n",
            lambda x, weight, bias: (x - _mean(x)) / _deviation(x, 1) * weight + bias,
        ),
        (
            "eps is added to the deviation, outside the root: sqrt(var + eps)",
            lambda x, weight, bias: (x - _mean(x)) / (x.std(-1, keepdims=True) + EPS) * weight + bias,
        ),
        (
            "normalised along the positions (axis 0): each position is normalised alone",
            lambda x, weight, bias: (x - x.mean(0)) / np.sqrt(x.var(0) + EPS) * weight + bias,
        ),
        (
            "divided by the variance, not by its root",
            lambda x, weight, bias: (x - _mean(x)) / (x.var(-1, keepdims=True) + EPS) * weight + bias,
        ),
        ("the mean is not taken off", lambda x, weight, bias: x / _deviation(x) * weight + bias),
        ("weight and bias are not used", lambda x, weight, bias: (x - _mean(x)) / _deviation(x)),
    ),
    hints=(
        "Four steps: the mean of each row, the deviations from it, the mean of their squares, the quotient.",
        "keepdims=True keeps the axis, so that (T, 1) broadcasts against (T, C). x.var(axis=-1) divides by n already.",
        "(x - mean) / np.sqrt(var + 1e-5) * weight + bias",
    ),
    laws=(law_on("small_variance", "Rows that hardly vary, where eps decides; and constant rows.", _faint),),
)

# -- normalise_rows_vjp ------------------------------------------------------------------------------------------------


def _cotangents(rng: np.random.Generator) -> list[Case]:
    return [{"g": draw(rng, *shape), "x": 2 * draw(rng, *shape) + 1, "weight": draw(rng, shape[1])}
            for shape in ((3, 5), (1, 4), (5, 3))]  # fmt: skip


def _back(g: Array, x: Array, weight: Array) -> Array:
    _, pull = vjp(lambda x: layer_norm(x, x.shape[-1], weight, eps=EPS), Tensor(x))
    return pull(g)[0].numpy()


def _partly(g: Array, x: Array, weight: Array, mean: bool = True, along: bool = True, ddof: int = 0) -> Array:
    h, u = (x - _mean(x)) / _deviation(x, ddof), g * weight
    return (u - (_mean(u) if mean else 0) - (h * _mean(u * h) if along else 0)) / _deviation(x, ddof)


NORMALISE_VJP = Exercise(
    name="normalise_rows_vjp",
    chapter="06",
    asks="The gradient (T, C) of x in normalise_rows(x, weight, bias), given the gradient g (T, C) of the result.",
    arguments=("g", "x", "weight"),
    answer=_back,
    cases=_cotangents,
    points=2,
    mistakes=(
        (
            "the term of the mean is missing: x_j moves the mean of its row",
            lambda g, x, weight: _partly(g, x, weight, mean=False),
        ),
        (
            "the term of the variance is missing: x_j moves the deviation of its row",
            lambda g, x, weight: _partly(g, x, weight, along=False),
        ),
        (
            "mean and deviation are treated as constants: both terms are missing",
            lambda g, x, weight: g * weight / _deviation(x),
        ),
        ("the weight is forgotten: u = g * weight", lambda g, x, weight: _back(g, x, np.ones_like(weight))),
        (
            "the unbiased deviation, divided by n - 1, is used on the way back",
            lambda g, x, weight: _partly(g, x, weight, ddof=1),
        ),
        ("the division by the deviation is missing", lambda g, x, weight: _back(g, x, weight) * _deviation(x)),
    ),
    hints=(
        "Write h for the normalised row, u = g * weight. Each x_j moves h_i in three ways: itself, mean, deviation.",
        "dh_i/dx_j = (1 if i = j else 0 - 1/n - h_i h_j / n) / deviation. Sum over i with the weights u_i.",
        "(u - mean(u) - h * mean(u * h)) / sqrt(var + eps), the means along the last axis.",
    ),
)

# -- sinusoid_table ----------------------------------------------------------------------------------------------------


def _tables(rng: np.random.Generator) -> list[Case]:
    return [{"T": t, "C": c} for t, c in ((6, 4), (1, 2), (20, 8))]


def _angles(T: int, C: int, base: float = 10000.0, divisor: float = 0.0) -> Array:
    return np.arange(T)[:, None] / base ** (2 * np.arange(C // 2) / (divisor or C))


def _interleaved(angles: Array) -> Array:
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(len(angles), -1)


SINUSOIDS = Exercise(
    name="sinusoid_table",
    chapter="06",
    asks="F-PE: the sinusoidal positions of T places and C channels (even), sin and cos interleaved: an array (T, C).",
    arguments=("T", "C"),
    answer=lambda T, C: np.array(positions.sinusoidal_positions(T, C)),
    cases=_tables,
    mistakes=(
        (
            "sines in the first half, cosines in the second: they alternate",
            lambda T, C: np.concatenate([np.sin(_angles(T, C)), np.cos(_angles(T, C))], axis=1),
        ),
        (
            "cosine first: channel 0 is a sine",
            lambda T, C: np.stack([np.cos(_angles(T, C)), np.sin(_angles(T, C))], -1).reshape(T, C),
        ),
        ("the exponent is i / C, not 2 i / C", lambda T, C: _interleaved(_angles(T, C, divisor=2 * C))),
        ("the base is 10000, not 1000", lambda T, C: _interleaved(_angles(T, C, base=1000.0))),
        ("positions count from 0, not from 1", lambda T, C: _interleaved(_angles(T + 1, C)[1:])),
        (
            "the frequencies are upside down: position times base^(...) where it is divided by it",
            lambda T, C: _interleaved(np.arange(T)[:, None] * 10000.0 ** (2 * np.arange(C // 2) / C)),
        ),
    ),
    hints=(
        "Make the angles first: a column of positions over a row of C / 2 wavelengths.",
        "angle[t, i] = t / 10000 ** (2 i / C) for i = 0 .. C/2 - 1.",
        "table[:, 0::2] = np.sin(angles) and table[:, 1::2] = np.cos(angles).",
    ),
)

# -- pre_norm_block ----------------------------------------------------------------------------------------------------


def _layers(rng: np.random.Generator) -> list[Case]:
    return [{"x": 2 * draw(rng, t, c) + 1, "w_in": draw(rng, f, c), "w_out": draw(rng, c, f)}
            for t, c, f in ((4, 3, 6), (1, 4, 4), (5, 2, 3))]  # fmt: skip


def _normed(x: Array) -> Array:
    return (x - _mean(x)) / _deviation(x)


def _network(x: Array, w_in: Array, w_out: Array) -> Array:
    return np.maximum(x @ w_in.T, 0) @ w_out.T


PRE_NORM = Exercise(
    name="pre_norm_sublayer",
    chapter="06",
    asks="x + FeedForward(LayerNorm(x)), with FeedForward(h) = relu(h w_in^T) w_out^T and a plain LayerNorm: (T, C).",
    arguments=("x", "w_in", "w_out"),
    answer=lambda x, w_in, w_out: x + _network(_normed(x), w_in, w_out),
    cases=_layers,
    mistakes=(
        (
            "post-norm: the sum is normalised, not the input of the sublayer",
            lambda x, w_in, w_out: _normed(x + _network(x, w_in, w_out)),
        ),
        ("the residual is missing: x itself is added", lambda x, w_in, w_out: _network(_normed(x), w_in, w_out)),
        (
            "the residual is taken from the normalised x, which cuts the stream",
            lambda x, w_in, w_out: _normed(x) + _network(_normed(x), w_in, w_out),
        ),
        ("the norm is missing", lambda x, w_in, w_out: x + _network(x, w_in, w_out)),
        (
            "a second ReLU closes the layer: it can only raise what it is added to",
            lambda x, w_in, w_out: x + np.maximum(_network(_normed(x), w_in, w_out), 0),
        ),
        (
            "the ReLU is missing: two linear maps in a row are one",
            lambda x, w_in, w_out: x + _normed(x) @ w_in.T @ w_out.T,
        ),
    ),
    hints=(
        "Keep x aside. What the sublayer sees is normalised; what it adds to is not.",
        "h = LayerNorm(x) with weight 1 and bias 0; then relu(h @ w_in.T) @ w_out.T.",
        "The last line adds the x that came in, untouched.",
    ),
)

EXERCISES = (NORMALISE, NORMALISE_VJP, SINUSOIDS, PRE_NORM)
