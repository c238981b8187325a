"""The mistakes: wrong versions of a rule, made from the right one or written out.

A mistake looks at one passage of a gradient and either says why it cannot be made there, or gives the wrong rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tinyllm.autograd.ops.dropout import dropout_factor
from tinyllm.autograd.ops.special import erf
from tinyllm.testing.mutants.planted import Array, Passage, Wrong


class Mistake(NamedTuple):
    """One way to be wrong.

    Attributes
    ----------
    name : str
    column : str
        Its head in the table.
    make : callable
        ``make(passage)`` gives the wrong rule for passages like this one, or says why there is none.
    """

    name: str
    column: str
    make: Callable[[Passage], Wrong | str]


def _always(wrong: Wrong) -> Callable[[Passage], Wrong]:
    return lambda at: wrong


def _times_a_length(at: Passage) -> Wrong | str:
    length = max((*at.x.shape, *at.y.shape), default=1)
    return (lambda p: p.d * p.d.dtype.type(length)) if length > 1 else "no axis is longer than 1"


def _passed_on(at: Passage) -> Wrong | str:
    if at.x.shape != at.y.shape:
        return "the output has another shape"
    return lambda p: p.g.astype(p.x.dtype)


def _transposed(at: Passage) -> Wrong | str:
    if sum(n > 1 for n in at.x.shape) < 2:
        return "a number or a vector is its own transpose"
    return lambda p: p.d.T.reshape(p.d.shape)


def _without_one_output(at: Passage) -> Wrong | str:
    """One term of the sum over outputs is dropped."""
    for k in np.roll(np.arange(at.g.size), -1):
        alone = np.zeros_like(at.g)
        alone.flat[k] = 1
        if np.any(at.again(g=alone)):
            others = 1 - alone
            return lambda p: p.again(g=p.g * others)
    return lambda p: p.d


def _first_row_only(at: Passage) -> Wrong | str:
    """A broadcast argument is fed from one of its copies, or a sum over rows stops after the first."""
    axis = next((a for a, n in enumerate(at.y.shape) if n > 1), None)
    if axis is None:
        return "the output has one row only"

    def wrong(p: Passage) -> Array:
        g = np.zeros_like(p.g)
        first = (slice(None),) * axis + (slice(0, 1),)
        g[first] = p.g[first]
        return p.again(g=g)

    return wrong


def _left_broadcast(at: Passage) -> Wrong | str:
    try:
        fits = np.broadcast_shapes(at.x.shape, at.y.shape) == at.y.shape
    except ValueError:
        fits = False
    if not fits or at.x.shape == at.y.shape:
        return "the argument is not broadcast to the output"
    return lambda p: np.broadcast_to(p.d, p.y.shape)


def _shifted(at: Passage) -> Wrong | str:
    if at.x.size < 2:
        return "there is one element only"
    return lambda p: np.roll(p.d.ravel(), 1).reshape(p.d.shape)


def _one_element(at: Passage) -> Wrong:
    """The smallest element that is not 0 is 1% too large: the one that is hardest to see."""
    size = np.where(at.d == 0, np.inf, np.abs(at.d))
    k = int(np.argmin(size))

    def wrong(p: Passage) -> Array:
        d = p.d.copy()
        d.flat[k] *= d.dtype.type(1.01)
        return d

    return wrong


def _output_for_input(at: Passage) -> Wrong | str:
    places = [i for i, x in enumerate(at.xs) if (x.shape, x.dtype) == (at.y.shape, at.y.dtype)]
    if not places:
        return "no input has the shape and dtype of the output"
    return lambda p: p.again(inputs=dict.fromkeys(places, p.y))


def _input_for_output(at: Passage) -> Wrong | str:
    if at.x.shape != at.y.shape or at.x.dtype != at.y.dtype:
        return "input and output differ in shape or dtype"
    return lambda p: p.again(out=p.x)


def _anothers(at: Passage) -> Wrong | str:
    other = _another(at)
    return "no other argument has this shape" if other is None else lambda p: p.again(argument=other)


def _inputs_exchanged(at: Passage) -> Wrong | str:
    """The rule looks at this argument where it should look at another one."""
    other = _another(at)
    if other is None:
        return "no other argument has this shape"
    return lambda p: p.again(inputs={other: p.x, p.argument: p.xs[other]})


def _another(at: Passage) -> int | None:
    """Another argument with a gradient, of the same shape and dtype."""
    for i, x in enumerate(at.xs):
        if i != at.argument and at.node.needs[i] and x.shape == at.x.shape and x.dtype == at.x.dtype:
            return i
    return None


MISTAKES = (
    Mistake("zero", "0", _always(lambda p: np.zeros_like(p.d))),
    Mistake("negated", "-1", _always(lambda p: -p.d)),
    Mistake("x1.001", "1.001", _always(lambda p: p.d * p.d.dtype.type(1.001))),
    Mistake("x2", "2", _always(lambda p: 2 * p.d)),
    Mistake("x an axis length", "n", _times_a_length),
    Mistake("ones", "ones", _always(lambda p: np.ones_like(p.d))),
    Mistake("g passed on", "g", _passed_on),
    Mistake("transposed", "T", _transposed),
    Mistake("one output left out", "out", _without_one_output),
    Mistake("first row only", "row", _first_row_only),
    Mistake("broadcasting not undone", "bcast", _left_broadcast),
    Mistake("shifted by one", "shift", _shifted),
    Mistake("one element wrong", "elem", _one_element),
    Mistake("output used for input", "y>x", _output_for_input),
    Mistake("input used for output", "x>y", _input_for_output),
    Mistake("another argument's gradient", "other", _anothers),
    Mistake("arguments exchanged", "swap", _inputs_exchanged),
)


# -- terms dropped: what remains of each rule without one of its terms or factors --------------------------------------


def _keep(p: Passage, a: Array) -> Array:
    """Of a reduced array, the reduced axes put back with length 1."""
    return a.reshape([1 if i in p.params["axis"] else n for i, n in enumerate(p.x.shape)])


def _overwritten(p: Passage) -> Array:
    d = np.zeros_like(p.x)
    d[p.params["index"]] = p.g
    return d


def _overwritten_along(p: Passage) -> Array:
    d = np.zeros_like(p.x)
    np.put_along_axis(d, p.xs[1], p.g, p.params["axis"])
    return d


def _overwritten_rows(p: Passage) -> Array:
    d = np.zeros_like(p.x)
    d[p.xs[1]] = p.g
    return d


def _one_hot(p: Passage) -> tuple[Array, Array, Array]:
    """Of cross-entropy's rows: softmax, the weighted target, and whether they count."""
    logits, target, weight = p.xs
    kept = target != p.params["ignore_index"]
    e = np.exp(logits - logits.max(-1, keepdims=True))
    hot = np.zeros_like(logits)
    hot[np.flatnonzero(kept), target[kept]] = weight[target[kept]]
    return e / e.sum(-1, keepdims=True), hot, kept[:, None]


def _without_softmax(p: Passage) -> Array:
    _, hot, _ = _one_hot(p)
    return -p.g[:, None] * hot


def _without_target(p: Passage) -> Array:
    softmax, hot, kept = _one_hot(p)
    return np.where(kept, p.g[:, None] * softmax * hot.sum(-1, keepdims=True), 0)


def _without_smoothing(p: Passage) -> Array:
    softmax, hot, kept = _one_hot(p)
    return np.where(kept, p.g[:, None] * (softmax * hot.sum(-1, keepdims=True) - hot), 0)


def _normed(p: Passage) -> tuple[Array, Array, Array, Array]:
    """Of a normalisation, in rows: g, g times the weight, the normalised input, and one over its deviation."""
    x, weight = p.xs[0].reshape(-1, p.xs[1].size), p.xs[1].ravel()
    g = p.g.reshape(x.shape)
    centred = x - x.mean(1, keepdims=True) if p.op.name == "layer_norm" else x
    rstd = 1 / np.sqrt((centred**2).mean(1, keepdims=True) + p.params["eps"])
    return g, g * weight, centred * rstd, rstd


def _without_mean(p: Passage) -> Array:
    _, u, normed, rstd = _normed(p)
    return ((u - normed * (u * normed).mean(1, keepdims=True)) * rstd).reshape(p.x.shape)


def _without_projection(p: Passage) -> Array:
    _, u, _, rstd = _normed(p)
    mean = u.mean(1, keepdims=True) if p.op.name == "layer_norm" else 0
    return ((u - mean) * rstd).reshape(p.x.shape)


def _without_both(p: Passage) -> Array:
    _, u, _, rstd = _normed(p)
    return (u * rstd).reshape(p.x.shape)


def _without_centring(p: Passage) -> Array:
    g, _, _, rstd = _normed(p)
    return (g * p.xs[0].reshape(g.shape) * rstd).sum(0).reshape(p.x.shape)


def _without_scale(p: Passage) -> Array:
    g, _, normed, rstd = _normed(p)
    return (g * normed / rstd).sum(0).reshape(p.x.shape)


def _gelu_slope(p: Passage, approximate: str, density: bool = True) -> Array:
    x = p.x
    if approximate == "tanh":
        t = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
        slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
        return p.g * (0.5 * (1 + t) + (0.5 * x * (1 - t * t) * slope if density else 0))
    below = 0.5 * (1 + erf(np, x * math.sqrt(0.5)))
    return p.g * (below + (x * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi) if density else 0))


def _gelu_of_the_other_kind(p: Passage) -> Array:
    return _gelu_slope(p, "none" if p.params["approximate"] == "tanh" else "tanh")


def _scores(p: Passage) -> tuple[Array, Array]:
    """Of attention: the weights, and the gradient that arrives at them."""
    q, k, v, *mask = p.xs
    scores = q @ np.swapaxes(k, -1, -2) * p.params["scale"]
    if mask:
        scores = np.where(mask[0], scores, -np.inf) if mask[0].dtype == bool else scores + mask[0]
    if p.params["limit"] is not None:
        scores = np.where(np.tri(scores.shape[-2], scores.shape[-1], p.params["limit"], dtype=bool), scores, -np.inf)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True), p.g @ np.swapaxes(v, -1, -2)


def _attention_back(p: Passage, dscores: Array) -> Array:
    """From the gradient of the scores to that of the query, the key or the mask."""
    if p.argument == 3:
        lead = tuple(range(dscores.ndim - p.x.ndim))
        return dscores.sum(lead)
    other = p.xs[1 - p.argument]
    return (dscores if p.argument == 0 else np.swapaxes(dscores, -1, -2)) @ other * p.params["scale"]


def _without_softmax_sum(p: Passage) -> Array:
    weights, arriving = _scores(p)
    return _attention_back(p, weights * arriving)


def _without_weights(p: Passage) -> Array:
    weights, arriving = _scores(p)
    return _attention_back(p, arriving - (arriving * weights).sum(-1, keepdims=True))


class Term(NamedTuple):
    """A term or factor of the rule of an argument, and what the rule gives without it."""

    argument: int
    name: str
    wrong: Wrong


TERMS: dict[str, tuple[Term, ...]] = {
    "sigmoid": (Term(0, "1 - y", lambda p: p.g * p.y), Term(0, "y", lambda p: p.g * (1 - p.y))),
    "softplus": (Term(0, "1 in 1 + exp(-x)", lambda p: p.g * np.exp(p.x)),),
    "tanh": (Term(0, "1", lambda p: -p.g * p.y * p.y),),
    "expm1": (Term(0, "1", lambda p: p.g * p.y),),
    "log1p": (Term(0, "1", lambda p: p.g / p.x),),
    "sqrt": (Term(0, "1/y", lambda p: 0.5 * p.g),),
    "erf": (
        Term(0, "exp(-x^2)", lambda p: p.g * (2 / math.sqrt(math.pi))),
        Term(0, "2/sqrt(pi)", lambda p: p.g * np.exp(-p.x * p.x)),
    ),
    "divide": (Term(1, "y", lambda p: -p.g / p.xs[1]), Term(1, "1/b", lambda p: -p.g * p.y)),
    "power": (
        Term(0, "b", lambda p: p.g * p.xs[0] ** (p.xs[1] - 1)),
        Term(0, "- 1 in the exponent", lambda p: p.g * p.xs[1] * p.y),
        Term(1, "log a", lambda p: p.g * p.y),
    ),
    "dropout": (
        Term(0, "1/(1-p)", lambda p: p.d * (1 - p.params["p"])),
        Term(0, "mask", lambda p: p.g / (1 - p.params["p"])),
        Term(0, "key", lambda p: p.g * _other_mask(p)),
    ),
    "logsumexp": (Term(0, "weights", lambda p: _keep(p, p.g) * np.ones_like(p.x)),),
    "max": (Term(0, "mask", lambda p: _keep(p, p.g) * np.ones_like(p.x)),),
    "min": (Term(0, "mask", lambda p: _keep(p, p.g) * np.ones_like(p.x)),),
    "cumsum": (Term(0, "flips", lambda p: np.cumsum(p.g, p.params["axis"])),),
    "matmul": (Term(0, "transpose of b", lambda p: p.g @ p.xs[1]), Term(1, "transpose of a", lambda p: p.xs[0] @ p.g)),
    "astype": (Term(0, "conversion back", lambda p: p.g),),
    "getitem": (Term(0, "addition of repeated places", _overwritten),),
    "take_along_axis": (Term(0, "addition of repeated places", _overwritten_along),),
    "embedding": (Term(0, "addition of repeated ids", _overwritten_rows),),
    "softmax": (
        Term(0, "sum", lambda p: p.g * p.y),
        Term(0, "factor y", lambda p: p.g - (p.g * p.y).sum(p.params["axis"], keepdims=True)),
    ),
    "log_softmax": (
        Term(0, "softmax in the sum", lambda p: p.g - p.g.sum(p.params["axis"], keepdims=True)),
        Term(0, "g", lambda p: -np.exp(p.y) * p.g.sum(p.params["axis"], keepdims=True)),
        Term(0, "sum", lambda p: p.g - np.exp(p.y) * p.g),
    ),
    "cross_entropy": (
        Term(0, "softmax", _without_softmax),
        Term(0, "target", _without_target),
        Term(0, "label smoothing", _without_smoothing),
    ),
    "gelu": (
        Term(0, "density", lambda p: _gelu_slope(p, p.params["approximate"], density=False)),
        Term(0, "the right one of erf and tanh", _gelu_of_the_other_kind),
    ),
    "layer_norm": (
        Term(0, "mean", _without_mean),
        Term(0, "projection", _without_projection),
        Term(0, "mean and projection", _without_both),
        Term(1, "mean", _without_centring),
        Term(1, "1/deviation", _without_scale),
    ),
    "rms_norm": (Term(0, "projection", _without_projection), Term(1, "1/deviation", _without_scale)),
    "rnn": (
        Term(0, "the way back through time", lambda p: (p.g * (1 - p.y * p.y)) @ p.xs[1]),
        Term(5, "all steps but the first", lambda p: (p.g[0] * (1 - p.y[0] ** 2)) @ p.xs[2]),
    ),
    "scaled_dot_product_attention": (
        *(Term(i, "sum of softmax", _without_softmax_sum) for i in (0, 1, 3)),
        *(Term(i, "weights of softmax", _without_weights) for i in (0, 1, 3)),
        *(Term(i, "scale", lambda p: p.d / p.params["scale"]) for i in (0, 1)),
        Term(2, "weights", lambda p: np.ones_like(np.swapaxes(_scores(p)[0], -1, -2)) @ p.g),
    ),
}


def _other_mask(p: Passage) -> Array:
    """The factors of a dropout that draws again on the way back."""
    other = p.params["key"]._replace(layer=p.params["key"].layer + 1)
    return dropout_factor(np, other, p.x.shape, p.params["p"], p.x.dtype)


def mistakes(row: str, argument: int) -> list[Mistake]:
    """Every way in which the rule of one argument is to be wrong."""
    terms = [
        Mistake(f"dropped: {t.name}", "term", _where_it_fits(t)) for t in TERMS.get(row, ()) if t.argument == argument
    ]
    return [*MISTAKES, *terms]


def _where_it_fits(term: Term) -> Callable[[Passage], Wrong | str]:
    def make(at: Passage) -> Wrong | str:
        try:
            term.wrong(at)
        except (ValueError, IndexError):
            return "the shapes do not let this happen"
        return term.wrong

    return make
