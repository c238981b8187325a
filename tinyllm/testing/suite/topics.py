"""The functions that are known: their arguments (and what answers call them), their formulas, and what to try."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinyllm.testing.problem import Array
from tinyllm.testing.suite import mistakes, oracle
from tinyllm.testing.suite.answer import Case, Topic
from tinyllm.testing.suite.signature import Argument


def draw(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Array:
    """Normal numbers that float32 holds exactly, in float64."""
    return (scale * rng.normal(size=shape)).astype(np.float32).astype(np.float64)


X = Argument("x", ("a", "z", "input", "inputs", "inp", "logits", "scores", "arr", "t"))
AXIS = Argument("axis", ("dim",), default=-1, named=True)
EPS = Argument("eps", ("epsilon",), default=1e-5, optional=True)
WEIGHT = Argument("weight", ("gamma", "scale", "gain", "w", "g"), default=None)
BIAS = Argument("bias", ("beta", "shift", "b"), default=None)
SHAPE = Argument("normalized_shape", ("shape", "dims"), optional=True, named=True)
REDUCTION = Argument("reduction", default="mean", named=True)


def _of_x(rng: np.random.Generator) -> list[Case]:
    return [{"x": draw(rng, 3, 5)}, {"x": draw(rng, 7)}, {"x": draw(rng, 4, 4, scale=3.0)}]


def _odd_x(rng: np.random.Generator) -> list[Case]:
    return [{"x": draw(rng, *shape)} for shape in ((2, 3, 4), (1,), (5, 1), (1, 3), (2, 1, 3, 2))]


def _odd_elements(rng: np.random.Generator) -> list[Case]:
    return [{"x": draw(rng, *shape)} for shape in ((2, 3, 4), (1,), (5, 1))]


def _normed(rng: np.random.Generator) -> list[Case]:
    cases: list[Case] = []
    for shape in ((3, 5), (2, 7)):
        x, weight, bias = draw(rng, *shape) * 2 + 1, draw(rng, shape[-1]), draw(rng, shape[-1])
        case: Case = {"x": x, "normalized_shape": (shape[-1],), "eps": 1e-5}
        cases += [{**case, "weight": weight, "bias": bias}, {**case, "weight": weight}, case]
    return cases


def _odd_normed(rng: np.random.Generator) -> list[Case]:
    cases: list[Case] = []
    for shape in ((2, 3, 5), (6,), (1, 4), (3, 2)):
        case: Case = {"x": draw(rng, *shape), "normalized_shape": (shape[-1],), "eps": 1e-5}
        affine = {"weight": draw(rng, shape[-1]), "bias": draw(rng, shape[-1])}
        cases += [case, {**case, "weight": affine["weight"]}, {**case, **affine}]
    return cases


def _without_bias(cases: Callable[[np.random.Generator], list[Case]]) -> Callable[[np.random.Generator], list[Case]]:
    return lambda rng: [case for case in cases(rng) if "bias" not in case]


def _labelled(rng: np.random.Generator) -> list[Case]:
    return [{"logits": draw(rng, 4, 5), "target": np.array([0, 4, 2, 2])},
            {"logits": draw(rng, 3, 7, scale=3.0), "target": np.array([6, 0, 3])}]  # fmt: skip


def _odd_labelled(rng: np.random.Generator) -> list[Case]:
    return [{"logits": draw(rng, 2, 3, 4), "target": np.array([[0, 3, 1], [2, 2, 0]])},
            {"logits": draw(rng, 1, 3), "target": np.array([1])}]  # fmt: skip


def _regression(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator], list[Case]]:
    return lambda rng: [{"input": draw(rng, *s), "target": draw(rng, *s)} for s in shapes]


def _binary(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator], list[Case]]:
    return lambda rng: [{"input": draw(rng, *s), "target": rng.integers(0, 2, s) * 1.0} for s in shapes]


def _affine(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator], list[Case]]:
    def cases(rng: np.random.Generator) -> list[Case]:
        found: list[Case] = []
        for *lead, n_in, n_out in shapes:
            case: Case = {"x": draw(rng, *lead, n_in), "weight": draw(rng, n_out, n_in)}
            found += [{**case, "bias": draw(rng, n_out)}, case]
        return found

    return cases


def _factors(*pairs: tuple[tuple[int, ...], tuple[int, ...]]) -> Callable[[np.random.Generator], list[Case]]:
    return lambda rng: [{"a": draw(rng, *a), "b": draw(rng, *b)} for a, b in pairs]


def _tokens(rng: np.random.Generator) -> list[Case]:
    return [{"ids": np.array([0, 3, 1]), "weight": draw(rng, 5, 4)},
            {"ids": np.array([4, 4, 0, 2, 4]), "weight": draw(rng, 5, 3)}]  # fmt: skip


def _odd_tokens(rng: np.random.Generator) -> list[Case]:
    return [{"ids": np.array([[0, 3, 1], [1, 1, 4]]), "weight": draw(rng, 5, 4)},
            {"ids": np.array([2]), "weight": draw(rng, 3, 1)}]  # fmt: skip


def _queries(*sizes: tuple[int, ...]) -> Callable[[np.random.Generator], list[Case]]:
    """(..., T, S, D, D of the values)."""
    return lambda rng: [
        {"q": draw(rng, *lead, t, d), "k": draw(rng, *lead, s, d), "v": draw(rng, *lead, s, e)}
        for *lead, t, s, d, e in sizes
    ]


def _undropped(rng: np.random.Generator) -> list[Case]:
    return [{"x": draw(rng, 3, 5), "p": 0.0}]


def _descents(rng: np.random.Generator) -> list[Case]:
    return [{"theta": draw(rng, *s), "g": draw(rng, *s), "lr": 0.125} for s in ((5,), (2, 3))]


def _adams(rng: np.random.Generator) -> list[Case]:
    return [{"theta": draw(rng, *s), "g": draw(rng, *s), "m": draw(rng, *s), "v": np.abs(draw(rng, *s)), "t": t,
             "lr": 0.125} for s, t in (((5,), 3), ((2, 3), 1))]  # fmt: skip


def _grids(*sizes: tuple[int, int]) -> Callable[[np.random.Generator], list[Case]]:
    return lambda rng: [{"T": t, "C": c} for t, c in sizes]


ATTENTION = Topic(
    (
        Argument("q", ("query", "queries", "qs")),
        Argument("k", ("key", "keys", "ks")),
        Argument("v", ("value", "values", "vs")),
        Argument("attn_mask", ("mask", "attention_mask", "m"), default=None),
        Argument("is_causal", ("causal",), default=False, named=True),
        Argument("scale", default=None, named=True),
    ),
    oracle.scaled_dot_product_attention,
    _queries((2, 3, 2, 4), (2, 3, 3, 2, 2), (2, 2, 3, 3, 4)),
    mistakes.ATTENTION,
    tuples=True,
)
POSITIONS = Topic(
    (
        Argument(
            "T", ("t", "seq_len", "length", "n_positions", "max_len", "context", "n", "num_positions", "block_size")
        ),
        Argument("C", ("c", "d_model", "d", "dim", "n_embd", "channels", "embed_dim", "embedding_dim")),
        Argument("base", ("theta", "max_period"), default=10000.0, named=True),
    ),
    oracle.sinusoidal_positions,
    _grids((5, 6), (7, 4)),
    mistakes.POSITIONS,
)

TOPICS: dict[str, Topic] = {
    "softmax": Topic((X, AXIS), oracle.softmax, _of_x, mistakes.SOFTMAX),
    "log_softmax": Topic((X, AXIS), oracle.log_softmax, _of_x, mistakes.LOG_SOFTMAX),
    "logsumexp": Topic(
        (
            X,
            Argument("axis", ("dim",), default=None, named=True),
            Argument("keepdims", ("keepdim",), False, named=True),
        ),
        oracle.logsumexp,
        lambda rng: [{**case, "axis": -1} for case in _of_x(rng)] + [{"x": draw(rng, 4)}],
        mistakes.LOGSUMEXP,
    ),
    "relu": Topic((X,), oracle.relu, _of_x, mistakes.RELU),
    "sigmoid": Topic((X,), oracle.sigmoid, _of_x, mistakes.SIGMOID),
    "tanh": Topic((X,), oracle.tanh, _of_x, mistakes.TANH),
    "gelu": Topic(
        (X, Argument("approximate", ("approximation", "approx"), default="none", named=True)),
        oracle.gelu,
        _of_x,
        mistakes.GELU,
    ),
    "silu": Topic((X,), oracle.silu, _of_x, mistakes.SILU),
    "softplus": Topic((X,), oracle.softplus, _of_x, mistakes.SOFTPLUS),
    "layer_norm": Topic((X, SHAPE, WEIGHT, BIAS, EPS), oracle.layer_norm, _normed, mistakes.LAYER_NORM),
    "rms_norm": Topic((X, SHAPE, WEIGHT, EPS), oracle.rms_norm, _without_bias(_normed), mistakes.RMS_NORM),
    "cross_entropy": Topic(
        (
            Argument("logits", ("x", "input", "scores", "z", "logit", "yhat", "y_hat", "y_pred")),
            Argument("target", ("targets", "labels", "label", "y_true", "t", "ids")),
            Argument("ignore_index", default=-100, named=True),
            REDUCTION,
        ),
        oracle.cross_entropy,
        _labelled,
        mistakes.CROSS_ENTROPY,
    ),
    "mse_loss": Topic(
        (
            Argument("input", ("x", "pred", "prediction", "yhat", "y_hat", "y_pred", "a")),
            Argument("target", ("targets", "y_true", "t", "b")),
            REDUCTION,
        ),
        oracle.mse_loss,
        _regression((5,), (3, 4)),
        mistakes.MSE,
    ),
    "binary_cross_entropy_with_logits": Topic(
        (
            Argument("input", ("x", "logits", "z", "scores")),
            Argument("target", ("targets", "y_true", "t", "labels")),
            REDUCTION,
        ),
        oracle.binary_cross_entropy_with_logits,
        _binary((5,), (3, 4)),
        mistakes.BCE,
    ),
    "linear": Topic(
        (X, Argument("weight", ("w",)), BIAS), oracle.linear_layer, _affine((3, 4, 5), (2, 5, 2)), mistakes.LINEAR
    ),
    "matmul": Topic(
        (Argument("a", ("x", "left")), Argument("b", ("y", "right"))),
        oracle.matmul,
        _factors(((2, 3), (3, 4)), ((3, 3), (3, 3))),
        mistakes.MATMUL,
    ),
    "embedding": Topic(
        (
            Argument("ids", ("input_ids", "idx", "indices", "index", "tokens", "x", "input")),
            Argument("weight", ("table", "w", "embeddings", "embedding_matrix", "e", "wte")),
        ),
        oracle.embedding,
        _tokens,
        mistakes.EMBEDDING,
    ),
    "scaled_dot_product_attention": ATTENTION,
    "attention": ATTENTION,
    "dropout": Topic(
        (
            X,
            Argument("p", ("rate", "prob", "drop_prob", "dropout_p", "p_drop"), default=0.5),
            Argument("training", ("train", "is_training"), default=True, named=True),
            Argument("rng", ("generator",), default=None, optional=True, named=True),
        ),
        lambda x, p, training, rng: x,
        _undropped,
    ),
    "sgd_step": Topic(
        (
            Argument("theta", ("params", "param", "p", "w", "weights", "x")),
            Argument("g", ("grad", "grads", "gradient", "dw", "dx")),
            Argument("lr", ("learning_rate", "eta", "alpha")),
        ),
        oracle.sgd_step,
        _descents,
        mistakes.SGD,
    ),
    "adam_step": Topic(
        (
            Argument("theta", ("params", "param", "p", "w", "weights", "x")),
            Argument("g", ("grad", "grads", "gradient", "dw", "dx")),
            Argument("m", ("exp_avg",)),
            Argument("v", ("exp_avg_sq",)),
            Argument("t", ("step", "n")),
            Argument("lr", ("learning_rate", "eta", "alpha"), default=1e-3),
            Argument("beta_1", ("beta1", "b1"), default=0.9),
            Argument("beta_2", ("beta2", "b2"), default=0.999),
            Argument("eps", ("epsilon",), default=1e-8),
        ),
        oracle.adam_step,
        _adams,
        mistakes.ADAM,
        results=3,
    ),
    "sinusoidal_positions": POSITIONS,
    "positional_encoding": POSITIONS,
}

_ODD: dict[str, Callable[[np.random.Generator], list[Case]]] = {
    "softmax": _odd_x,
    "log_softmax": _odd_x,
    "logsumexp": lambda rng: [{**case, "axis": -1} for case in _odd_x(rng)],
    **dict.fromkeys(("relu", "sigmoid", "tanh", "gelu", "silu", "softplus"), _odd_elements),
    "layer_norm": _odd_normed,
    "rms_norm": _without_bias(_odd_normed),
    "cross_entropy": _odd_labelled,
    "mse_loss": _regression((2, 3, 2), (1,)),
    "binary_cross_entropy_with_logits": _binary((2, 3, 2), (1,)),
    "linear": _affine((2, 3, 4, 5), (4, 5), (1, 1, 1)),
    "matmul": _factors(((2, 3, 4), (2, 4, 5)), ((3,), (3,)), ((2, 3), (3,)), ((1, 1), (1, 1)), ((2, 3, 4), (4, 5))),
    "embedding": _odd_tokens,
    **dict.fromkeys(
        ("scaled_dot_product_attention", "attention"), _queries((2, 2, 2, 3, 2, 1), (1, 1, 1, 1), (1, 3, 1, 4, 4))
    ),
    "sgd_step": _descents,
    "adam_step": _adams,
    **dict.fromkeys(("sinusoidal_positions", "positional_encoding"), _grids((1, 2), (3, 1), (4, 5))),
}


def odd_cases(name: str, rng: np.random.Generator) -> list[Case]:
    """Unusual shapes for a function."""
    return _ODD[name](rng) if name in _ODD else []
