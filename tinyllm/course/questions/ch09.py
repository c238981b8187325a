"""Chapter 09, the modern decoder: RMSNorm and its derivative, rotary positions, grouped heads, a windowed cache."""

from __future__ import annotations

import numpy as np

from tinyllm.autograd import Tensor, vjp
from tinyllm.autograd.fused import rms_norm, scaled_dot_product_attention
from tinyllm.autograd.fused.rotary import rotary_tables, rotate
from tinyllm.course.exercise import Exercise, law_on
from tinyllm.testing.problem import Array
from tinyllm.testing.suite import oracle
from tinyllm.testing.suite.answer import Case
from tinyllm.testing.suite.topics import draw

EPS = 1e-5

# -- rms_rows ----------------------------------------------------------------------------------------------------------


def _rows(rng: np.random.Generator) -> list[Case]:
    return [{"x": 1 + 2 * draw(rng, n, c), "weight": draw(rng, c)} for n, c in ((3, 6), (1, 4), (5, 2))]


def _rms(x: Array, weight: Array) -> Array:
    return rms_norm(x, x.shape[-1], weight, EPS).numpy()


def _divided(x: Array, by: Array, weight: Array) -> Array:
    return x / by * weight


RMS = Exercise(
    name="rms_rows",
    chapter="09",
    asks="RMSNorm of x (T, C): each row divided by the root of the mean of its squares, eps = 1e-5 under the root, "
    "then times weight (C,). An array (T, C).",
    arguments=("x", "weight"),
    answer=_rms,
    cases=_rows,
    mistakes=(
        (
            "the mean is taken off first: that is LayerNorm; RMSNorm only divides",
            lambda x, weight: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + EPS) * weight,
        ),
        (
            "divided by the mean of the squares: the root is missing",
            lambda x, weight: _divided(x, (x * x).mean(-1, keepdims=True) + EPS, weight),
        ),
        (
            "the squares are summed, not averaged: the size would depend on the number of channels",
            lambda x, weight: _divided(x, np.sqrt((x * x).sum(-1, keepdims=True) + EPS), weight),
        ),
        (
            "one root for the whole array: each row has its own",
            lambda x, weight: (
                _divided(x, np.sqrt((x * x).mean() + EPS), weight)
                if len(x) > 1
                else _divided(x, np.sqrt((x * x).sum() + EPS), weight)
            ),
        ),
        (
            "the mean runs down the columns (axis 0): a position is normed alone",
            lambda x, weight: _divided(x, np.sqrt((x * x).mean(0, keepdims=True) + EPS), weight),
        ),
        ("the weight is left out", lambda x, weight: _rms(x, np.ones_like(weight))),
        ("the weight is added, not multiplied", lambda x, weight: _rms(x, np.ones_like(weight)) + weight),
    ),
    hints=(
        "It is LayerNorm without the mean: what is left is one division for each row, and the weight.",
        "Square, take the mean of each row with keepdims=True, add eps, take the root.",
        "x / np.sqrt((x * x).mean(...) + 1e-5), then times the weight.",
    ),
    laws=(
        law_on(
            "zero_row",
            "A row of zeros stays a row of zeros, and a tiny one is held back by eps under the root.",
            [{"x": np.array([[0.0, 0.0], [1e-3, -2e-3]]), "weight": np.array([1.0, 2.0])}],
        ),
    ),
)

# -- rms_rows_vjp ------------------------------------------------------------------------------------------------------


def _rows_and_gradients(rng: np.random.Generator) -> list[Case]:
    return [{"g": draw(rng, *case["x"].shape), **case} for case in _rows(rng)]


def _rms_vjp(g: Array, x: Array, weight: Array) -> Array:
    _, pull = vjp(lambda x: rms_norm(x, x.shape[-1], weight, EPS), Tensor(x))
    return pull(g)[0].numpy()


def _parts(g: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    """The root r of each row, the normed row h, and the gradient u that arrives at it."""
    r = np.sqrt((x * x).mean(-1, keepdims=True) + EPS)
    return r, x / r, g * weight


def _without_projection(g: Array, x: Array, weight: Array) -> Array:
    r, _, u = _parts(g, x, weight)
    return u / r


def _of_layer_norm(g: Array, x: Array, weight: Array) -> Array:
    r, h, u = _parts(g, x, weight)
    return (u - u.mean(-1, keepdims=True) - h * (u * h).mean(-1, keepdims=True)) / r


def _sum_for_mean(g: Array, x: Array, weight: Array) -> Array:
    r, h, u = _parts(g, x, weight)
    return (u - h * (u * h).sum(-1, keepdims=True)) / r


def _along_x(g: Array, x: Array, weight: Array) -> Array:
    r, _, u = _parts(g, x, weight)
    return (u - x * (u * x).mean(-1, keepdims=True)) / r


def _undivided(g: Array, x: Array, weight: Array) -> Array:
    _, h, u = _parts(g, x, weight)
    return u - h * (u * h).mean(-1, keepdims=True)


RMS_VJP = Exercise(
    name="rms_rows_vjp",
    chapter="09",
    asks="The gradient (T, C) of x, given the gradient g (T, C) of rms_rows(x, weight).",
    arguments=("g", "x", "weight"),
    answer=_rms_vjp,
    cases=_rows_and_gradients,
    points=2,
    mistakes=(
        ("the root depends on x, too: the second term is missing", _without_projection),
        ("the mean of the gradient is taken off: that belongs to LayerNorm", _of_layer_norm),
        ("the second term has the sum of u h, not its mean", _sum_for_mean),
        ("the second term is along x, not along the normed row", _along_x),
        ("the division by the root is missing", _undivided),
        (
            "the weight is left out: the gradient arrives through it",
            lambda g, x, weight: _rms_vjp(g, x, weight * 0 + 1),
        ),
    ),
    hints=(
        "Write h = x / r. Two things move with x: the numerator, and r.",
        "The derivative of r by x_j is h_j / C. So h_i moves by (delta_ij - h_i h_j / C) / r.",
        "With u = g * weight: u minus h times the mean of u h, and all that divided by r.",
    ),
)

# -- turned_by_position ------------------------------------------------------------------------------------------------


def _placed(rng: np.random.Generator) -> list[Case]:
    places = ([0, 1, 2, 3, 4, 5], [7, 8], [3, 1, 40])
    return [{"x": draw(rng, len(p), d), "positions": np.array(p)} for p, d in zip(places, (4, 6, 8), strict=True)]


def _rotated(x: Array, positions: Array, base: float = 10000.0, times: float = 2.0) -> Array:
    D = x.shape[-1]
    cos, sin = rotary_tables(positions, base ** (-times * np.arange(D // 2) / D), dtype=np.float64)
    return rotate(x, cos, sin).numpy()


def _neighbours(x: Array, positions: Array) -> Array:
    order = np.concatenate([np.arange(0, x.shape[-1], 2), np.arange(1, x.shape[-1], 2)])
    out = np.empty_like(x)
    out[:, order] = _rotated(x[:, order], positions)
    return out


def _one_half(x: Array, positions: Array) -> Array:
    half = x.shape[-1] // 2
    return np.concatenate([_rotated(x, positions)[:, :half], x[:, half:]], axis=1)


TURNED = Exercise(
    name="turned_by_position",
    chapter="09",
    asks="Rotary positions: in each row t of x (T, D) the pair of channels i and i + D/2 is turned by the angle "
    "positions[t] * 10000 ** (-2 i / D), i = 0 .. D/2 - 1. An array (T, D).",
    arguments=("x", "positions"),
    answer=_rotated,
    cases=_placed,
    points=2,
    mistakes=(
        ("neighbouring channels are paired: here i goes with i + D/2", _neighbours),
        ("turned the other way: the signs of the sines are exchanged", lambda x, positions: _rotated(x, -positions)),
        (
            "the places are counted from 0: a token has the position that it is given",
            lambda x, positions: _rotated(x, np.arange(len(x))),
        ),
        (
            "the exponent is -i / D: the pairs turn by base ** (-2 i / D)",
            lambda x, positions: _rotated(x, positions, times=1.0),
        ),
        (
            "all pairs turn by the same angle: each has its own speed",
            lambda x, positions: _rotated(x, positions, times=0.0),
        ),
        ("only the first half is turned: a turn changes both channels of a pair", _one_half),
        (
            "the exponent has the wrong sign: later pairs are slower",
            lambda x, positions: _rotated(x, positions, times=-2.0),
        ),
    ),
    hints=(
        "A turn by the angle a takes (u, v) to (u cos a - v sin a, v cos a + u sin a). Which two channels are u and v?",
        "The angles are positions[:, None] * 10000 ** (-2 * np.arange(D // 2) / D), of shape (T, D/2).",
        "u, v = x[:, :D//2], x[:, D//2:]; put the two results side by side with np.concatenate.",
    ),
    laws=(
        law_on(
            "where_it_stands",
            "A token at position 0 is left as it is.",
            [{"x": np.array([[1.0, 2.0, 3.0, 4.0]]), "positions": np.array([0])}],
        ),
    ),
)

# -- grouped_attention -------------------------------------------------------------------------------------------------


def _groups(rng: np.random.Generator) -> list[Case]:
    shapes = ((4, 2, 5, 3), (6, 3, 4, 2), (3, 1, 3, 4))
    return [{"q": draw(rng, h, t, d), "k": draw(rng, kv, t, d), "v": draw(rng, kv, t, d)} for h, kv, t, d in shapes]


def _grouped(q: Array, k: Array, v: Array, causal: bool = True, scale: float | None = None) -> Array:
    return scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale, enable_gqa=True).numpy()


def _tiled(q: Array, k: Array, v: Array) -> Array:
    times = (len(q) // len(k), 1, 1)
    return _grouped(q, np.tile(k, times), np.tile(v, times)) if len(k) > 1 else _grouped(q, k, v[:, ::-1])


def _first(q: Array, k: Array, v: Array) -> Array:
    return _grouped(q, k[:1], v[:1]) if len(k) > 1 else _grouped(q, k, v, causal=False)


GROUPED = Exercise(
    name="grouped_attention",
    chapter="09",
    asks="Causal attention of q (H, T, D) with k and v (H', T, D), where each head of keys and values serves H / H' "
    "heads of queries that stand side by side; scale 1 / sqrt(D). An array (H, T, D).",
    arguments=("q", "k", "v"),
    answer=_grouped,
    cases=_groups,
    points=2,
    mistakes=(
        ("np.tile gives 0 1 0 1: neighbours share a head, 0 0 1 1, which is np.repeat", _tiled),
        ("not causal: a token sees those after it", lambda q, k, v: _grouped(q, k, v, causal=False)),
        ("all heads of queries use the first head of keys and values", _first),
        ("the scores are not divided by the root of D", lambda q, k, v: _grouped(q, k, v, scale=1.0)),
        (
            "divided by D, not by its root",
            lambda q, k, v: _grouped(q, k, v, scale=1 / q.shape[-1]),
        ),
        (
            "the keys are shared by groups, the values by others: both belong to the same head",
            lambda q, k, v: _grouped(q, k, v[::-1]) if len(k) > 1 else _grouped(q, k, v[:, :, ::-1]),
        ),
    ),
    hints=(
        "Nothing is new but which head of keys a head of queries looks at. For 6 and 3: 0 0 1 1 2 2.",
        "Make k and v as many as q with np.repeat along the first axis; then it is chapter 05.",
        "scores = q @ k.swapaxes(-1, -2) / sqrt(D), -inf above the diagonal, softmax along the last axis, times v.",
    ),
)

# -- windowed_step -----------------------------------------------------------------------------------------------------


def _texts(rng: np.random.Generator) -> list[Case]:
    sizes = ((5, 3, 4), (2, 4, 3), (7, 2, 2), (6, 6, 2))  # tokens so far, window, channels
    return [{"q": draw(rng, d), "keys": draw(rng, s, d), "values": draw(rng, s, d), "window": w} for s, w, d in sizes]


def _seen(q: Array, keys: Array, values: Array, begin: int, end: int | None = None) -> Array:
    k, v = keys[begin:end], values[begin:end]
    return np.exp(oracle.log_softmax(k @ q / np.sqrt(len(q)), -1)) @ v


def _begin(keys: Array, window: int) -> int:
    return max(0, len(keys) - window)


def _masked_with_zeros(q: Array, keys: Array, values: Array, window: int) -> Array:
    scores = keys @ q / np.sqrt(len(q))
    scores[: _begin(keys, window)] = 0.0
    return np.exp(oracle.log_softmax(scores, -1)) @ values


def _uneven(q: Array, keys: Array, values: Array, window: int) -> Array:
    begin = _begin(keys, window)
    weights = np.exp(oracle.log_softmax(keys[begin:] @ q / np.sqrt(len(q)), -1))
    return weights @ values[: len(weights)]


WINDOWED = Exercise(
    name="windowed_step",
    chapter="09",
    asks="Attention of the newest token with a cache: its query q (D,), the keys and values (S, D) of all tokens so "
    "far, the newest last; it sees the last `window` of them, itself included, or all if there are fewer: (D,).",
    arguments=("q", "keys", "values", "window"),
    answer=lambda q, keys, values, window: _seen(q, keys, values, _begin(keys, window)),
    cases=_texts,
    mistakes=(
        (
            "all tokens are seen: the window is forgotten once there are more",
            lambda q, keys, values, window: _seen(q, keys, values, 0),
        ),
        (
            "the oldest tokens are kept and the newest dropped: it is the other way round",
            lambda q, keys, values, window: _seen(q, keys, values, 0, window),
        ),
        (
            "one token too many is seen: the newest one counts among the window",
            lambda q, keys, values, window: _seen(q, keys, values, _begin(keys, window + 1)),
        ),
        (
            "one token too few is seen: the newest one is itself seen",
            lambda q, keys, values, window: _seen(q, keys, values, min(len(keys) - 1, _begin(keys, window) + 1)),
        ),
        ("a score of 0 is not a score of -inf: what is hidden still takes its share", _masked_with_zeros),
        ("the keys are cut and the values are not: the two go together", _uneven),
    ),
    hints=(
        "How many keys are left of 5 if the window is 3, and of 2 if it is 4? Which are they?",
        "Python's keys[-window:] does both cases; cut the values in the same way.",
        "Then scores = keys @ q / sqrt(D), a softmax, and the weighted sum of the values.",
    ),
    laws=(
        law_on(
            "alone",
            "With a window of 1 the newest token sees itself alone.",
            [
                {
                    "q": np.array([1.0, -1.0]),
                    "keys": np.array([[3.0, 1.0], [0.5, 2.0]]),
                    "values": np.array([[1.0, 1.0], [5.0, -2.0]]),
                    "window": 1,
                }
            ],
        ),
    ),
)

EXERCISES = (RMS, RMS_VJP, TURNED, GROUPED, WINDOWED)
