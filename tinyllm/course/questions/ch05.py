"""Chapter 05, attention by hand: scores, the causal mask, and the way back through both."""

from __future__ import annotations

import numpy as np

from tinyllm.autograd import Tensor, vjp
from tinyllm.autograd.fused import scaled_dot_product_attention, softmax
from tinyllm.course.exercise import Exercise, law_on
from tinyllm.formulas import attention as loops
from tinyllm.testing.problem import Array
from tinyllm.testing.suite.answer import Case
from tinyllm.testing.suite.topics import draw


def _exp(scores: Array) -> Array:
    return np.exp(scores - scores.max(-1, keepdims=True))


def _softmax(scores: Array, axis: int = -1) -> Array:
    e = np.exp(scores - np.max(scores, axis=axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def _scores(q: Array, k: Array) -> Array:
    return q @ k.T / np.sqrt(q.shape[-1])


def _visible(q: Array, k: Array) -> Array:
    return np.tri(len(q), len(k), dtype=bool)


def _causal(q: Array, k: Array) -> Array:
    """The right weights."""
    return _softmax(np.where(_visible(q, k), _scores(q, k), -np.inf))


# -- attention_weights -------------------------------------------------------------------------------------------------


def _pairs(rng: np.random.Generator) -> list[Case]:
    return [{"q": draw(rng, t, d), "k": draw(rng, s, d)} for t, s, d in ((6, 6, 2), (3, 5, 4), (1, 4, 3))]


def _large_scores() -> list[Case]:
    return [{"q": np.array([[100.0, 0.0], [0.0, 100.0]]), "k": np.array([[100.0, 1.0], [99.0, 7.0], [0.0, 100.0]])}]


WEIGHTS = Exercise(
    name="attention_weights",
    chapter="05",
    asks="The weights softmax(q k^T / sqrt(d)) of queries q (T, d) over keys k (S, d): an array (T, S).",
    arguments=("q", "k"),
    answer=lambda q, k: np.array(loops.attention_weights(q, k)),
    cases=_pairs,
    mistakes=(
        ("the scores are not divided by sqrt(d)", lambda q, k: _softmax(q @ k.T)),
        ("divided by d, not by its root", lambda q, k: _softmax(q @ k.T / q.shape[-1])),
        (
            "the softmax runs over the queries (axis 0), not over the keys (axis -1)",
            lambda q, k: _softmax(_scores(q, k), 0),
        ),
        ("sqrt of the number of keys, not of the vectors' size d", lambda q, k: _softmax(q @ k.T / np.sqrt(len(k)))),
        ("the exponentials are not divided by their sum", lambda q, k: np.exp(_scores(q, k))),
        (
            "the maximum is not subtracted before exp, which overflows",
            lambda q, k: np.exp(_scores(q, k)) / np.exp(_scores(q, k)).sum(-1, keepdims=True),
        ),
    ),
    hints=(
        "Three steps, each a line: all dot products at once, the division, the softmax along the last axis.",
        "All dot products of rows of q with rows of k are q @ k.T, of shape (T, S). What is d in q.shape?",
        "Before np.exp, subtract the largest score of each row (axis=-1, keepdims=True): it cancels, and exp(1000) is "
        "not a number a computer has.",
    ),
    laws=(law_on("large_scores", "Scores in the thousands overflow nowhere.", _large_scores),),
)

# -- masked_attention --------------------------------------------------------------------------------------------------


def _triples(rng: np.random.Generator) -> list[Case]:
    return [{"q": draw(rng, t, d), "k": draw(rng, t, d), "v": draw(rng, t, d)} for t, d in ((6, 2), (4, 3), (1, 5))]


def _zero_masked(q: Array, k: Array, v: Array) -> Array:
    return _softmax(np.where(_visible(q, k), _scores(q, k), 0.0)) @ v


def _mask_after(q: Array, k: Array, v: Array) -> Array:
    return (_softmax(_scores(q, k)) * _visible(q, k)) @ v


MASKED = Exercise(
    name="masked_attention",
    chapter="05",
    asks="Causal attention of q, k, v (T, d): position t mixes the values of positions 0..t only. An array (T, d).",
    arguments=("q", "k", "v"),
    answer=lambda q, k, v: np.array(loops.attention(q, k, v, causal=True)),
    cases=_triples,
    mistakes=(
        ("nothing is masked: a position sees the ones after it", lambda q, k, v: _softmax(_scores(q, k)) @ v),
        ("masked scores are 0, and exp(0) = 1 still takes its share: they must be -inf", _zero_masked),
        ("masked after the softmax: the weights that are left no longer sum to 1", _mask_after),
        (
            "the mask is the wrong way round: a position sees only those after it",
            lambda q, k, v: np.nan_to_num(_softmax(np.where(_visible(k, q).T, _scores(q, k), -np.inf))) @ v,
        ),
        (
            "a position does not see itself: the diagonal is allowed",
            lambda q, k, v: (
                np.nan_to_num(_softmax(np.where(np.tri(len(q), k=-1, dtype=bool), _scores(q, k), -np.inf))) @ v
            ),
        ),
        (
            "off by one: each position also sees the next, which is the answer it is to predict",
            lambda q, k, v: _softmax(np.where(np.tri(len(q), k=1, dtype=bool), _scores(q, k), -np.inf)) @ v,
        ),
        (
            "the scores are not divided by sqrt(d)",
            lambda q, k, v: _softmax(np.where(_visible(q, k), q @ k.T, -np.inf)) @ v,
        ),
    ),
    hints=(
        "Put the mask between the scores and the softmax: what has no weight after a softmax?",
        "exp(-inf) is 0. np.where(allowed, scores, -np.inf) hides what is not allowed.",
        "np.tri(T, dtype=bool) is True on the diagonal and below it: row t, column s, s <= t.",
    ),
)

# -- the way back ------------------------------------------------------------------------------------------------------


def _cotangents(rng: np.random.Generator) -> list[Case]:
    return [{"g": draw(rng, *shape), "p": _softmax(draw(rng, *shape))} for shape in ((1, 4), (3, 5), (4, 4))]


def _through_softmax(g: Array, p: Array) -> Array:
    with np.errstate(divide="ignore"):
        _, pull = vjp(softmax, Tensor(np.log(p)))
    return pull(g)[0].numpy()


SOFTMAX_VJP = Exercise(
    name="softmax_vjp",
    chapter="05",
    asks="Given softmax's result p (T, S) and the gradient g arriving at it, the gradient of the scores (T, S).",
    arguments=("g", "p"),
    answer=_through_softmax,
    cases=_cotangents,
    mistakes=(
        (
            "only the diagonal p (1 - p) of the Jacobian: each weight depends on every score",
            lambda g, p: g * p * (1 - p),
        ),
        ("the sum term is missing: p * (g - sum(g * p))", lambda g, p: g * p),
        (
            "the sum runs over the whole array: each row is a softmax of its own (axis=-1, keepdims=True)",
            lambda g, p: p * (g - (g * p).sum()),
        ),
        ("the mean is subtracted, not the sum weighted by p", lambda g, p: p * (g - g.mean(-1, keepdims=True))),
        ("the factor p in front is missing", lambda g, p: g - (g * p).sum(-1, keepdims=True)),
        ("the sign is wrong", lambda g, p: -_through_softmax(g, p)),
    ),
    hints=(
        "From dp_i / dx_j = p_i (1 if i = j else 0) - p_i p_j, write sum_i g_i dp_i / dx_j.",
        "The sum has two parts: g_j p_j, and p_j times something that is the same for every j of a row.",
        "That something is the sum of g * p along the last axis; keep the axis so that it broadcasts.",
    ),
)


def _attention_cotangents(rng: np.random.Generator) -> list[Case]:
    return [{"g": draw(rng, *case["v"].shape), **case} for case in _triples(rng)]


def _back(g: Array, q: Array, k: Array, v: Array) -> Array:
    f = lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True)  # noqa: E731
    _, pull = vjp(f, Tensor(q), Tensor(k), Tensor(v))
    return np.stack([d.numpy() for d in pull(g)])


def _by_parts(
    g: Array, q: Array, k: Array, v: Array, through: str = "", scale: bool = True, mask: bool = True
) -> Array:
    p = _causal(q, k) if mask else _softmax(_scores(q, k))
    dp = g @ v.T
    ds = dp * p if through == "no sum" else p * (dp - (dp * p).sum(-1, keepdims=True))
    ds = ds / np.sqrt(q.shape[-1]) if scale else ds
    if through == "swapped":
        return np.stack([ds.T @ k, ds @ q, p.T @ g])
    return np.stack([ds @ k, ds.T @ q, p @ g if through == "untransposed" else p.T @ g])


MASKED_VJP = Exercise(
    name="masked_attention_vjp",
    chapter="05",
    asks="The gradients (dq, dk, dv) of masked_attention(q, k, v), given the gradient g of its result; all (T, d).",
    arguments=("g", "q", "k", "v"),
    answer=_back,
    cases=_attention_cotangents,
    results=3,
    points=2,
    mistakes=(
        ("the factor 1 / sqrt(d) is missing on the way back", lambda g, q, k, v: _by_parts(g, q, k, v, scale=False)),
        ("the sum term of softmax's derivative is missing", lambda g, q, k, v: _by_parts(g, q, k, v, "no sum")),
        (
            "dv takes the weights untransposed: value s collects from every query, p.T @ g",
            lambda g, q, k, v: _by_parts(g, q, k, v, "untransposed"),
        ),
        (
            "dq and dk: the score's gradient belongs untransposed to k, transposed to q",
            lambda g, q, k, v: _by_parts(g, q, k, v, "swapped"),
        ),
        ("the weights are computed without the mask", lambda g, q, k, v: _by_parts(g, q, k, v, mask=False)),
        (
            "the gradients of k and v are exchanged: return (dq, dk, dv)",
            lambda g, q, k, v: _back(g, q, k, v)[[0, 2, 1]],
        ),
    ),
    hints=(
        "Walk the three steps of the forward pass backwards: the product with v, the softmax, the product of q and k.",
        "For y = p @ v: dp = g @ v.T and dv = p.T @ g. For scores = q @ k.T / sqrt(d) it is the same rule once more.",
        "The mask needs nothing of its own: where p is 0, softmax_vjp gives 0.",
    ),
)

EXERCISES = (WEIGHTS, MASKED, SOFTMAX_VJP, MASKED_VJP)
