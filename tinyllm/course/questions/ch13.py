"""Chapter 13, looking inside: attention through all layers, attribution along a path, silent heads, the logit lens."""

from __future__ import annotations

import numpy as np

from tinyllm.course.exercise import Exercise, law_on
from tinyllm.explain import rollout
from tinyllm.testing.problem import Array
from tinyllm.testing.suite.answer import Case
from tinyllm.testing.suite.topics import draw


def _softmax(x: Array, axis: int = -1) -> Array:
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


# -- attention_rollout -------------------------------------------------------------------------------------------------


def _maps(rng: np.random.Generator) -> list[Case]:
    return [{"maps": _softmax(draw(rng, *shape, scale=2.0))} for shape in ((3, 2, 4, 4), (2, 3, 5, 5), (1, 2, 3, 3))]


def _followed(
    layers: Array, identity: float = 1.0, divisor: float = 2.0, backwards: bool = False, added: bool = False
) -> Array:
    T = layers.shape[-1]
    flow = np.eye(T)
    for layer in layers[::-1] if backwards else layers:
        step = (layer + identity * np.eye(T)) / divisor
        flow = flow + step if added else step @ flow
    return flow


ROLLOUT = Exercise(
    name="attention_rollout",
    chapter="13",
    asks="Attention through layers: maps (layers, heads, T, T) to (T, T), each layer (mean over heads + I) / 2.",
    arguments=("maps",),
    answer=rollout,
    cases=_maps,
    mistakes=(
        (
            "the residual stream is forgotten: without I, nothing stays where it was",
            lambda maps: _followed(maps.mean(1), identity=0.0, divisor=1.0),
        ),
        (
            "the sum with I is not halved: the rows no longer sum to 1",
            lambda maps: _followed(maps.mean(1), divisor=1.0),
        ),
        (
            "the layers are multiplied in the wrong order: the first one acts first, so it stands on the right",
            lambda maps: _followed(maps.mean(1), backwards=True),
        ),
        ("the largest head is taken, not the mean over heads", lambda maps: _followed(maps.max(1))),
        ("the heads are summed, not averaged", lambda maps: _followed(maps.sum(1))),
        (
            "the mean runs over the queries: axis 1 holds the heads",
            lambda maps: _followed(np.repeat(maps.mean(2)[:, :1], maps.shape[-1], axis=1)),
        ),
        (
            "the layers are added up: what follows acts on what came before, a product",
            lambda maps: _followed(maps.mean(1), added=True),
        ),
    ),
    hints=(
        "Begin with the identity: before the first layer every token is made of itself.",
        "One layer: half of each token passes by, half is what it attends to: (A + I) / 2, A the mean over heads.",
        "New rows are mixtures of old rows: flow = step @ flow, the layers in their order.",
    ),
)

# -- path_attributions -------------------------------------------------------------------------------------------------


def _paths(rng: np.random.Generator) -> list[Case]:
    return [
        {"slopes": draw(rng, m, t, c), "x": draw(rng, t, c), "base": draw(rng, t, c)}
        for m, t, c in ((4, 3, 2), (7, 2, 5), (1, 4, 3))
    ]


PATH = Exercise(
    name="path_attributions",
    chapter="13",
    asks="Slopes (m, T, C) at m evenly spaced points between base and x (T, C): what each token did, an array (T,).",
    arguments=("slopes", "x", "base"),
    answer=lambda slopes, x, base: ((x - base) * slopes.mean(axis=0)).sum(axis=-1),
    cases=_paths,
    mistakes=(
        (
            "times x, not times the way from base to x: the sum is then no change of the score",
            lambda slopes, x, base: (x * slopes.mean(0)).sum(-1),
        ),
        (
            "the slopes are summed along the path, not averaged: more points would give a larger answer",
            lambda slopes, x, base: ((x - base) * slopes.sum(0)).sum(-1),
        ),
        (
            "only the slope at the end counts: that is gradient times input",
            lambda slopes, x, base: ((x - base) * slopes[-1]).sum(-1),
        ),
        (
            "the channels are averaged: a token did what all its channels did together",
            lambda slopes, x, base: ((x - base) * slopes.mean(0)).mean(-1),
        ),
        (
            "the way goes backwards, from x to base: the sign is wrong",
            lambda slopes, x, base: ((base - x) * slopes.mean(0)).sum(-1),
        ),
        (
            "the signs are lost: a token may speak against the answer",
            lambda slopes, x, base: np.abs((x - base) * slopes.mean(0)).sum(-1),
        ),
    ),
    hints=(
        "Along a straight line the score changes by slope times way, at every point a little.",
        "The way is x - base, the same at every point; the slope to use is the mean of the slopes.",
        "One number for each token: sum over the channels, the last axis.",
    ),
)

# -- silence_head ------------------------------------------------------------------------------------------------------


def _outputs(rng: np.random.Generator) -> list[Case]:
    sizes = ((4, 6, 3, 1), (3, 8, 2, 0), (2, 12, 4, 3))
    return [{"out": draw(rng, t, c), "head": head, "heads": heads} for t, c, heads, head in sizes]


def _cut(out: Array, first: int, last: int, value: float = 0.0) -> Array:
    out = out.copy()
    out[:, first:last] = value
    return out


def _every(out: Array, start: int, step: int) -> Array:
    out = out.copy()
    out[:, start::step] = 0
    return out


def _kept_alone(out: Array, first: int, last: int) -> Array:
    return np.where((np.arange(out.shape[1]) >= first) & (np.arange(out.shape[1]) < last), out, 0.0)


def _width(out: Array, heads: int) -> int:
    return out.shape[1] // heads


SILENCE = Exercise(
    name="silence_head",
    chapter="13",
    asks="A copy of the output (T, C) of an attention with `heads` heads side by side, in which head `head` gives 0.",
    arguments=("out", "head", "heads"),
    answer=lambda out, head, heads: _cut(out, head * _width(out, heads), (head + 1) * _width(out, heads)),
    cases=_outputs,
    mistakes=(
        (
            "every heads-th channel is taken: the channels of a head lie side by side",
            lambda out, head, heads: _every(out, head, heads),
        ),
        (
            "one channel is silenced: a head has C / heads of them",
            lambda out, head, heads: _cut(out, head, head + 1),
        ),
        (
            "the slice is `heads` channels wide: a head has C / heads",
            lambda out, head, heads: _cut(out, head * heads, head * heads + heads),
        ),
        (
            "all other heads are silenced, and this one is left",
            lambda out, head, heads: _kept_alone(out, head * _width(out, heads), (head + 1) * _width(out, heads)),
        ),
        (
            "counted from 1: head 0 is the first one",
            lambda out, head, heads: _cut(out, (head - 1) * _width(out, heads), head * _width(out, heads)),
        ),
        (
            "the head gives its mean over the tokens, not 0",
            lambda out, head, heads: np.where(
                _kept_alone(np.ones_like(out), head * _width(out, heads), (head + 1) * _width(out, heads)) > 0,
                out.mean(0),
                out,
            ),
        ),
    ),
    hints=(
        "The heads' outputs lie side by side along the last axis; how many channels has each?",
        "D = C // heads; head h has the channels h * D to (h + 1) * D.",
        "Copy first: out = out.copy(). Whoever gave it to you still needs it.",
    ),
)

# -- lens --------------------------------------------------------------------------------------------------------------


def _states(rng: np.random.Generator) -> list[Case]:
    grown = np.array([[0.1], [1.0], [8.0], [30.0]])  # the stream grows from layer to layer
    return [
        {"states": draw(rng, n, c) * grown[:n], "weight": draw(rng, c), "bias": draw(rng, c), "W": draw(rng, v, c)}
        for n, c, v in ((4, 6, 5), (3, 4, 7), (2, 8, 3))
    ]


def _norm(h: Array, spread: Array | None = None, ddof: int = 0) -> Array:
    """LayerNorm of each row, or with the spread of others."""
    spread = h if spread is None else spread
    return (h - h.mean(-1, keepdims=True)) / np.sqrt(spread.var(-1, ddof=ddof, keepdims=True) + 1e-5)


LENS = Exercise(
    name="lens",
    chapter="13",
    asks="What each state (layers, C) would say: LayerNorm (eps 1e-5) with weight, bias; softmax of @ W.T, W (V, C).",
    arguments=("states", "weight", "bias", "W"),
    answer=lambda states, weight, bias, W: _softmax((_norm(states) * weight + bias) @ W.T),
    cases=_states,
    mistakes=(
        (
            "all layers are normed by the spread of the last one, whose state is the largest: early layers seem unsure",
            lambda states, weight, bias, W: _softmax((_norm(states, states[-1:]) * weight + bias) @ W.T),
        ),
        ("the final norm is left out", lambda states, weight, bias, W: _softmax(states @ W.T)),
        (
            "the norm's weight and bias are left out",
            lambda states, weight, bias, W: _softmax(_norm(states) @ W.T),
        ),
        (
            "the softmax runs over the layers: each layer says something of its own",
            lambda states, weight, bias, W: _softmax((_norm(states) * weight + bias) @ W.T, 0),
        ),
        (
            "the statistics are those of all layers together",
            lambda states, weight, bias, W: _softmax(
                ((states - states.mean()) / np.sqrt(states.var() + 1e-5) * weight + bias) @ W.T
            ),
        ),
        (
            "the scores are returned: the softmax is missing",
            lambda states, weight, bias, W: (_norm(states) * weight + bias) @ W.T,
        ),
        (
            "the variance divides by C - 1: LayerNorm's divides by C",
            lambda states, weight, bias, W: _softmax((_norm(states, ddof=1) * weight + bias) @ W.T),
        ),
    ),
    hints=(
        "Two steps that the model itself takes after its last block: the final norm, then the scores of all tokens.",
        "The norm is of each row alone: its own mean, its own variance (axis=-1, keepdims=True).",
        "h = (states - mean) / np.sqrt(variance + 1e-5) * weight + bias; the scores are h @ W.T; softmax over axis -1.",
    ),
    laws=(
        law_on(
            "early_states",
            "A state a thousand times smaller than the last says its own.",
            lambda: [
                {
                    "states": np.array([[0.01, -0.02, 0.01], [10.0, 20.0, -30.0]]),
                    "weight": np.ones(3),
                    "bias": np.zeros(3),
                    "W": np.eye(3),
                }
            ],
        ),
    ),
)

EXERCISES = (ROLLOUT, PATH, SILENCE, LENS)
