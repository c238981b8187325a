"""What is differentiated in the tests: a line for each case, at least one for each operation that tinyllm exports."""

# ruff: noqa: E501 (a table reads best with one case on a line)

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import tinyllm as tl

_count = itertools.count()


class Case(NamedTuple):
    """A function of the arrays, to be differentiated with respect to all of them."""

    op: str
    f: Callable[..., tl.Tensor]
    arrays: tuple[np.ndarray, ...]

    @property
    def id(self) -> str:
        """Name in pytest's report."""
        return self.op + "-" + "-".join("x".join(map(str, a.shape)) or "0d" for a in self.arrays)


def case(op: str, f: Callable[..., tl.Tensor], *arrays: np.ndarray) -> Case:
    """A line of the table."""
    return Case(op, f, arrays)


def both(pair: tuple[tl.Tensor, tl.Tensor]) -> tl.Tensor:
    """The two results of an operation as one."""
    return tl.concatenate(pair, axis=-1)


def away(*shape: int) -> np.ndarray:
    """Numbers of either sign, none near 0, another integer or the half of one."""
    rng = np.random.default_rng(next(_count))
    return rng.choice([-1.0, 1.0], shape) * rng.uniform(0.3, 0.45, shape) + rng.integers(-1, 2, shape) * 1.0


def positive(*shape: int) -> np.ndarray:
    """Numbers in 0.4 .. 2."""
    return np.random.default_rng(next(_count)).uniform(0.4, 2.0, shape)


def share(*shape: int) -> np.ndarray:
    """Numbers in 0.1 .. 0.9."""
    return np.random.default_rng(next(_count)).uniform(0.1, 0.9, shape)


def distinct(*shape: int) -> np.ndarray:
    """Numbers of either sign that differ by 0.15 at least, also in size."""
    rng = np.random.default_rng(next(_count))
    n = int(np.prod(shape))
    return (rng.choice([-1.0, 1.0], n) * 0.2 * (1 + rng.permutation(n) + 0.2 * rng.uniform(size=n))).reshape(shape)


def probabilities(*shape: int) -> np.ndarray:
    """Positive numbers that sum to 1 over the last axis."""
    p = positive(*shape)
    return p / p.sum(-1, keepdims=True)


SHAPES = [(), (1,), (3,), (2, 1, 3), (0,), (2, 0, 3)]
PAIRS = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((2, 1), (1, 3)),
    ((), (2, 3)),
    ((2, 3), ()),
    ((1,), (2, 1, 3)),
    ((0, 3), (1, 3)),
    ((), ()),
]
AXES = [(0, False), (-1, True), ((0, 2), False), (None, False), (None, True), ((), False)]

ANY = [
    "abs",
    "copy",
    "exp",
    "expm1",
    "sin",
    "cos",
    "tanh",
    "erf",
    "negative",
    "identity",
    "sigmoid",
    "softplus",
    "relu",
]
ANY += ["leaky_relu", "elu", "silu", "gelu", "sign", "round", "floor", "ceil"]
POSITIVE = ["log", "log1p", "sqrt"]
EVERYWHERE = ["add", "subtract", "multiply", "maximum", "minimum"]
REDUCTIONS = ["sum", "mean", "var", "std", "max", "min", "prod", "logsumexp", "norm"]

MASK = np.array([[True, False, True], [False, False, True]])
IDS = np.array([[2, 0, 2], [1, 2, 4]])
LOWER = np.tri(3, 4, 1, dtype=bool)


def _reduction(name: str, axis: object, keepdims: bool) -> Callable[..., tl.Tensor]:
    return lambda x: getattr(tl, name)(x, axis=axis, keepdims=keepdims)


EINSUM: list[tuple[str, list[tuple[int, ...]]]] = [
    ("ij,jk->ik", [(2, 3), (3, 4)]), ("ij->ji", [(2, 3)]), ("ij->", [(2, 3)]), ("ij->j", [(2, 3)]), ("ii->i", [(3, 3)]),
    ("ii", [(3, 3)]), ("iij->j", [(3, 3, 2)]), ("bthd,bshd->bhts", [(2, 3, 2, 2), (2, 4, 2, 2)]), ("i,i,i->i", [(3,), (3,), (3,)]),
    ("...ij,...jk->...ik", [(2, 2, 3), (3, 2)]), ("...i->...", [(2, 3)]), ("i,j->ij", [(2,), (3,)]), ("ij,k->i", [(2, 3), (4,)]),
    (",->", [(), ()]), ("ij,jk,kl->il", [(2, 3), (3, 2), (2, 4)]), ("i,i->i", [(1,), (3,)]), ("ij,j->i", [(2, 0), (0,)]), ("ba,cb", [(2, 3), (4, 2)]),
    ("ijij->", [(2, 3, 2, 3)]),
]  # fmt: skip

CASES: list[Case] = [
    *(case(n, getattr(tl, n), away(*s)) for n in ANY for s in SHAPES),
    *(case(n, getattr(tl, n), positive(*s)) for n in POSITIVE for s in SHAPES),
    *(case(n, getattr(tl, n), distinct(*a), distinct(*b) + 0.11) for n in EVERYWHERE for a, b in PAIRS),
    *(case("divide", tl.divide, away(*a), away(*b)) for a, b in PAIRS),
    *(case("power", tl.power, positive(*a), away(*b)) for a, b in PAIRS),
    *(case(n, _reduction(n, a, k), distinct(2, 3, 4)) for n in REDUCTIONS if n not in ("std", "var") for a, k in AXES),
    *(case(n, _reduction(n, a, k), distinct(2, 3, 4)) for n in ("std", "var") for a, k in AXES[:-1]),
    *(case(n, _reduction(n, 0, False), distinct(1, 3)) for n in REDUCTIONS if n != "std"),
    *(case(n, _reduction(n, None, False), distinct()) for n in REDUCTIONS if n != "std"),
    *(case(n, _reduction(n, 1, False), distinct(0, 3)) for n in REDUCTIONS),
    *(case(n, _reduction(n, 0, True), distinct(0, 3)) for n in ("sum", "prod")),
    # elementwise, with settings
    case("multiply", lambda x: x * x, away(2, 3)),
    case("divide", lambda x: x / x, away(3)),
    case("subtract", lambda x: x - x * x, away(3)),
    case("maximum", lambda x: tl.maximum(x, -x), away(3)),
    case("power", lambda x: x**3, away(2, 3)),
    case("power", lambda x: x**-2.0, away(2, 3)),
    case("power", lambda x: x**0, away(3)),
    case("power", lambda x: 2.0**x, away(2, 3)),
    case("power", lambda x: x**x, positive(2, 3)),
    case("power", lambda x: x ** np.array([1, 2, 0]), away(2, 3)),
    case("add", lambda x: 1 + x + np.ones((2, 1)), away(3)),
    case("multiply", lambda x: np.arange(3.0) * x * np.float64(3), away(2, 3)),
    case("leaky_relu", lambda x: tl.leaky_relu(x, 0.2), away(2, 3)),
    case("elu", lambda x: tl.elu(x, 1.5), away(2, 3)),
    case("gelu", lambda x: tl.gelu(x, approximate="tanh"), away(2, 3)),
    case("gelu", lambda x: tl.gelu(4 * x), away(5, 7)),
    *(case("gelu", lambda x, b, a=a: tl.gelu(x, a, bias=b), away(*s), away(3)) for a in ("none", "tanh") for s in ((2, 4, 3), (3,), (0, 3))),
    *(case("swiglu", tl.swiglu, away(*s), away(*s)) for s in ((), (2, 4, 3), (0, 3))),
    case("swiglu", lambda x: tl.swiglu(x, x), away(2, 3)),
    *(case("swiglu", lambda x, u, b, c: tl.swiglu(x, u, gate_bias=b, up_bias=c), away(*s), away(*s), away(3), away(3)) for s in ((2, 4, 3), (3,), (0, 3))),
    *(case("silu", lambda x, b: tl.silu(x, bias=b), away(*s), away(3)) for s in ((2, 4, 3), (3,), (0, 3))),
    case("clip", lambda x: tl.clip(x, -1.0, 0.5), away(4, 5) * 1.1),
    case("clip", lambda x: tl.clip(x, min=0.0), away(0)),
    case("clip", lambda x: tl.clip(x, max=np.array([[0.0], [1.0]])), away(3)),
    case("astype", lambda x: tl.astype(x, np.longdouble) * 3, away(2, 3)),
    case("where", lambda a, b: tl.where(MASK, a, b), away(2, 3), away(3)),
    case("where", lambda a, b: tl.where(MASK[:, :1], a, b), away(), away(1, 3)),
    case("where", lambda x: tl.where(x > 0, x, x * x), away(2, 3)),
    case("masked_fill", lambda x: tl.masked_fill(x, MASK, 7.0), away(2, 3)),
    case("masked_fill", lambda x, v: tl.masked_fill(x, MASK[0], v), away(2, 3), away()),
    # over axes
    *(case("norm", lambda x, o=o: tl.norm(x, o, axis=-1), 3 * distinct(2, 3)) for o in (1, 2, 3, 0.5, -1, -2, np.inf, -np.inf)),
    case("var", lambda x: tl.var(x, axis=1, ddof=1), away(2, 3)),
    case("std", lambda x: tl.std(x, axis=(0, 1), ddof=1, keepdims=True), distinct(2, 3)),
    case("prod", lambda x: tl.prod(x, axis=0), np.array([[0.0, 1.5], [2.0, 0.0], [0.5, 0.0]])),
    case("prod", tl.prod, distinct(7)),
    case("cumsum", lambda x: tl.cumsum(x, axis=1), away(2, 3)),
    case("cumsum", tl.cumsum, away(2, 3)),
    case("cumsum", lambda x: tl.cumsum(x, axis=0), away(0, 3)),
    case("logsumexp", lambda x: tl.logsumexp(x + 800, axis=-1), distinct(2, 3)),
    case("max", lambda x: tl.max(x * x, axis=1), distinct(2, 5)),
    case("sum_to", lambda x: tl.sum_to(x, (3, 1)), away(2, 3, 4)),
    case("sum_to", lambda x: tl.sum_to(x, ()), away(2, 3)),
    case("sum_to", lambda x: tl.sum_to(x, (1, 3)), away(0, 3)),
    case("sum_to", lambda x: tl.sum_to(x, (2, 3)), away(2, 3)),
    # products of matrices
    *(
        case("matmul", tl.matmul, away(*a), away(*b))
        for a, b in [
            ((2, 3), (3, 4)), ((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)),
            ((5, 1, 2, 3), (4, 3, 1)), ((3,), (5, 3, 2)), ((5, 2, 3), (3,)), ((2, 0), (0, 3)), ((0, 2, 3), (3, 4)), ((1, 1), (1, 1)),
        ]
    ),
    case("matmul", lambda x: x @ x, away(3, 3)),
    case("matmul", lambda x: x @ x.mT, away(2, 3)),
    case("outer", tl.outer, away(3), away(2)),
    case("outer", tl.outer, away(2, 2), away(0)),
    *(
        case("einsum", lambda *xs, s=s: tl.einsum(s, *xs), *(away(*a) for a in shapes))
        for s, shapes in EINSUM
    ),
    case("einsum", lambda x: tl.einsum("ij,jk->ik", x, x), away(3, 3)),
    # moving elements
    case("transpose", tl.transpose, away(2, 3, 4)),
    case("transpose", lambda x: tl.transpose(x, (1, -1, 0)), away(2, 3, 4)),
    case("transpose", tl.transpose, away()),
    case("swapaxes", lambda x: tl.swapaxes(x, 0, -1), away(2, 3, 0)),
    case("swapaxes", lambda x: x.mT * x.T, away(3, 3)),
    case("reshape", lambda x: tl.reshape(x, (3, -1)), away(2, 3)),
    case("reshape", lambda x: tl.reshape(x.mT, -1), away(2, 3)),
    case("reshape", lambda x: tl.reshape(x, ()), away(1, 1)),
    case("squeeze", tl.squeeze, away(1, 3, 1)),
    case("squeeze", lambda x: tl.squeeze(x, (0, -1)), away(1, 1, 1)),
    case("expand_dims", lambda x: tl.expand_dims(x, (0, -1)), away(2, 3)),
    case("expand_dims", lambda x: tl.expand_dims(x, 0), away()),
    case("broadcast_to", lambda x: tl.broadcast_to(x, (4, 2, 3)), away(2, 1)),
    case("broadcast_to", lambda x: tl.broadcast_to(x, (2, 0)), away(1)),
    case("broadcast_to", lambda x: tl.broadcast_to(x, 3), away()),
    case("repeat", lambda x: tl.repeat(x, 3, axis=1), away(2, 2)),
    case("repeat", lambda x: tl.repeat(x, [1, 0, 2], axis=-1), away(2, 3)),
    case("repeat", lambda x: tl.repeat(x, 2), away(2, 2)),
    case("repeat", lambda x: tl.repeat(x, 0, axis=0), away(2, 2)),
    case("repeat", lambda x: tl.repeat(x, 3), away()),
    case("tile", lambda x: tl.tile(x, (2, 1, 3)), away(2, 2)),
    case("tile", lambda x: tl.tile(x, 2), away(3, 2)),
    case("tile", lambda x: tl.tile(x, (0, 2)), away(3)),
    case("concatenate", lambda a, b: tl.concatenate([a, b, a], axis=1), away(2, 3), away(2, 1)),
    case("concatenate", lambda a, b: tl.concatenate([a, np.ones(2), b]), away(0), away(3)),
    case("stack", lambda a, b: tl.stack([a, b, a * b], axis=-1), away(2, 3), away(2, 3)),
    case("stack", lambda a, b: tl.stack([a, b]), away(), away()),
    case("split", lambda x: tl.concatenate([i * p * p for i, p in enumerate(tl.split(x, 3, axis=1), 2)]), away(2, 6)),
    case("split", lambda x: tl.concatenate([i * p for i, p in enumerate(tl.split(x, [1, 1, 3]), 2)], axis=0), away(5, 2)),
    case("pad", lambda x: tl.pad(x, ((1, 2), (0, 1)), constant_values=3.0), away(2, 3)),
    *(case("pad", lambda x, m=m: tl.pad(x, ((2, 1), (0, 2)), mode=m), away(3, 4)) for m in ("edge", "reflect", "symmetric", "wrap")),
    case("pad", lambda x: tl.pad(x, 1), away(0, 2)),
    case("flip", tl.flip, away(2, 3)),
    case("flip", lambda x: tl.flip(x, (0, -1)), away(2, 2, 3)),
    case("flip", tl.flip, away()),
    case("roll", lambda x: tl.roll(x, 2, axis=-1), away(2, 5)),
    case("roll", lambda x: tl.roll(x, -3), away(2, 4)),
    case("roll", lambda x: tl.roll(x, 1, 0), away(0, 2)),
    case("tril", lambda x: tl.tril(x, 1), away(2, 3, 4)),
    case("triu", lambda x: tl.triu(x, -1), away(4, 3)),
    case("triu", tl.triu, away(0, 3)),
    # picking elements
    *(
        case("getitem", lambda x, i=i: tl.getitem(x, i), away(4, 3, 2))
        for i in [
            1, -1, slice(None, None, -2), (0, 1, 1), (..., 0), (None, slice(1, 3), None, 0), [0, 0, 3], (np.array([[0, 1], [1, 1]]), slice(None), 1),
            (slice(None), [0, 2, 2], [1, 1, 1]), ([3, 3, 0], slice(None), [0, 0, 1]), np.array([True, False, True, True]), np.arange(24).reshape(4, 3, 2) % 3 == 0,
            np.array([], dtype=int), np.array(2), (slice(2, 2),), (Ellipsis,), (np.array([True, False, True, False]), [0, 2]), np.int64(2),
        ]
    ),
    case("getitem", lambda x: x[0] * x[1:2] + x[tl.tensor([2, 0])], away(3, 2)),
    case("add_at", lambda x: tl.add_at(x, [0, 0, 3], (4, 2)), away(3, 2)),
    case("add_at", lambda x: tl.add_at(x, (slice(None, None, 2), 1), (4, 2)), away(2)),
    case("take_along_axis", lambda x: tl.take_along_axis(x, IDS, axis=1), away(2, 5)),
    case("take_along_axis", lambda x: tl.take_along_axis(x, IDS % 2, axis=0), away(2, 3)),
    case("add_along_axis", lambda x: tl.add_along_axis(x, IDS, (2, 5), axis=1), away(2, 3)),
    case("add_along_axis", lambda x: tl.add_along_axis(x, IDS % 2, (2, 3), axis=-2), away(2, 3)),
    case("sort", lambda x: tl.sort(x, axis=0), distinct(4, 2)),
    case("sort", tl.sort, distinct(0)),
    case("topk", lambda x: tl.topk(x, 2)[0], distinct(2, 5)),
    case("topk", lambda x: tl.topk(x, 3, axis=0, largest=False)[0], distinct(5, 2)),
    # softmax and losses
    *(case(n, lambda x, n=n, a=a: getattr(tl, n)(x, axis=a), away(*s)) for n in ("softmax", "log_softmax") for a, s in [(-1, (2, 3)), (0, (4, 2)), (1, (2, 3, 2)), (-1, (5, 1)), (-1, (0, 3)), (0, (3,))]),
    *(case("cross_entropy", lambda x, r=r, s=s: tl.cross_entropy(x, np.array([[1, 0, -100], [3, 3, 2]]), reduction=r, label_smoothing=s), away(2, 3, 4)) for r in ("mean", "sum", "none") for s in (0.0, 0.1)),
    case("cross_entropy", lambda x: tl.cross_entropy(x, np.array([1, 0, 2]), weight=np.array([0.5, 2.0, 1.5]), ignore_index=0), away(3, 3)),
    case("cross_entropy", lambda x: tl.cross_entropy(x, np.array([1, 0, 2]), weight=np.array([0.5, 2.0, 1.5]), label_smoothing=0.3), away(3, 3)),
    case("cross_entropy", lambda x: tl.cross_entropy(x, 2), away(4)),
    case("cross_entropy", lambda x: tl.cross_entropy(x, np.zeros(0, dtype=int), reduction="sum"), away(0, 4)),
    case("cross_entropy", tl.cross_entropy, away(2, 3), probabilities(2, 3)),
    case("cross_entropy", lambda x, p: tl.cross_entropy(x, p, weight=np.array([0.5, 2.0, 1.5]), reduction="none", label_smoothing=0.2), away(2, 3), probabilities(2, 3)),
    *(case("linear_cross_entropy", lambda x, w, r=r, s=s: tl.linear_cross_entropy(x, w, np.array([[1, 0, -100], [3, 3, 2]]), reduction=r, label_smoothing=s), away(2, 3, 5), away(4, 5)) for r in ("mean", "sum", "none") for s in (0.0, 0.1)),
    case("linear_cross_entropy", lambda x, w: tl.linear_cross_entropy(x, w.mT, np.array([1, 0, 2]), ignore_index=0), away(3, 2), away(2, 3)),
    case("linear_cross_entropy", lambda x: tl.linear_cross_entropy(x, x, np.array([1, 0, 2])), away(3, 4)),
    case("linear_cross_entropy", lambda x, w: tl.linear_cross_entropy(x, w, 2), away(3), away(4, 3)),
    *(case("mse_loss", lambda a, b, r=r: tl.mse_loss(a, b, reduction=r), away(2, 3), away(2, 3)) for r in ("mean", "sum", "none")),
    *(case("binary_cross_entropy_with_logits", lambda a, b, r=r: tl.binary_cross_entropy_with_logits(a, b, reduction=r), away(2, 3), share(2, 3)) for r in ("mean", "sum", "none")),
    case("binary_cross_entropy_with_logits", lambda a, b, w, p: tl.binary_cross_entropy_with_logits(a, b, weight=w, pos_weight=p), away(2, 3), share(2, 3), positive(3), positive(3)),
    *(case("kl_div", lambda a, b, r=r: tl.kl_div(a, b, reduction=r), away(2, 3), probabilities(2, 3)) for r in ("mean", "batchmean", "sum", "none")),
    case("kl_div", lambda a, b: tl.kl_div(a, b, log_target=True, reduction="sum"), away(2, 3), away(2, 3)),
    # layers
    case("layer_norm", lambda x: tl.layer_norm(x, 5), away(3, 5)),
    case("layer_norm", lambda x, w: tl.layer_norm(x, (5,), w), away(3, 5), away(5)),
    case("layer_norm", lambda x, w, b: tl.layer_norm(x, (2, 3), w, b, eps=0.1), away(2, 2, 3), away(2, 3), away(2, 3)),
    case("layer_norm", lambda x, b: tl.layer_norm(x, 3, None, b), away(3), away(3)),
    case("layer_norm", lambda x, w, b: tl.layer_norm(x, 3, w, b), away(0, 3), away(3), away(3)),
    case("layer_norm", lambda x: tl.layer_norm(x, 3, x[0], x[1]), away(2, 3)),
    case("rms_norm", lambda x: tl.rms_norm(x, 5), away(3, 5)),
    case("rms_norm", lambda x, w: tl.rms_norm(x, (2, 3), w, eps=0.1), away(2, 2, 3), away(2, 3)),
    case("rms_norm", lambda x, w: tl.rms_norm(x, 1, w), away(4, 1), away(1)),
    case("linear", tl.linear, away(2, 3), away(4, 3)),
    case("linear", tl.linear, away(2, 5, 3), away(4, 3), away(4)),
    case("linear", tl.linear, away(3), away(4, 3), away(4)),
    case("linear", tl.linear, away(0, 3), away(4, 3), away(4)),
    case("linear", lambda x, w, b: tl.linear(x, w.mT, b), away(2, 5, 3), away(3, 4), away(4)),
    case("linear", lambda x: tl.linear(x, x), away(3, 3)),
    case("embedding", lambda w: tl.embedding(IDS, w), away(5, 3)),
    case("embedding", lambda w: tl.embedding(IDS, w, padding_idx=-1)[:, :2], away(6, 3)),
    case("embedding", lambda w: tl.embedding(np.array(1), w), away(5, 3)),
    case("embedding", lambda w: tl.embedding(np.zeros((0, 2), dtype=int), w), away(5, 3)),
    case("dropout", lambda x: tl.dropout(x, 0.4, rng=np.random.default_rng(5)), away(4, 5)),
    case("dropout", lambda x: tl.dropout(x, 0.4, training=False) * x, away(2, 3)),
    case("dropout", lambda x: tl.dropout(x, 1.0), away(2, 3)),
    # recurrent layers: x, both matrices, both biases, the first state
    case("rnn", tl.rnn, away(2, 2, 3), away(2, 3), away(2, 2), away(2), away(2), away(2, 2)),
    case("rnn", lambda *xs: tl.rnn(*xs, "relu", [3, 1], True), away(3, 2, 1), away(2, 1), away(2, 2), away(2), away(2), away(2, 2)),
    case("lstm", tl.lstm, away(2, 2, 1), away(8, 1), away(8, 2), away(8), away(8), away(2, 2), away(2, 2)),
    case("lstm", lambda *xs: tl.lstm(*xs, lengths=[1, 2], reverse=True), away(2, 2, 1), away(4, 1), away(4, 1), away(4), away(4), away(2, 1), away(2, 1)),
    case("gru", tl.gru, away(2, 1, 2), away(6, 2), away(6, 2), away(6), away(6), away(1, 2)),
    case("gru", lambda *xs: tl.gru(*xs, lengths=[3, 2]), away(3, 2, 2), away(3, 2), away(3, 1), away(3), away(3), away(2, 1)),
    # attention
    case("scaled_dot_product_attention", tl.scaled_dot_product_attention, away(2, 3, 2), away(2, 4, 2), away(2, 4, 3)),
    case("scaled_dot_product_attention", lambda q, k, v: tl.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.7), away(3, 2), away(4, 2), away(4, 2)),
    case("scaled_dot_product_attention", lambda q, k, v: tl.scaled_dot_product_attention(q, k, v, is_causal=True, offset=2), away(1, 2, 2), away(1, 4, 2), away(1, 4, 2)),
    case("scaled_dot_product_attention", lambda q, k, v: tl.scaled_dot_product_attention(q, k, v, attn_mask=LOWER), away(2, 1, 3, 2), away(2, 1, 4, 2), away(2, 1, 4, 2)),
    case("scaled_dot_product_attention", lambda q, k, v: tl.scaled_dot_product_attention(q, k, v, attn_mask=LOWER & (np.arange(3)[:, None] > 0)), away(3, 2), away(4, 2), away(4, 2)),
    case("scaled_dot_product_attention", lambda q, k, v, m: tl.scaled_dot_product_attention(q, k, v, m), away(2, 3, 2), away(2, 4, 2), away(2, 4, 2), away(3, 4)),
    case("scaled_dot_product_attention", lambda q, k, v, m: tl.scaled_dot_product_attention(q, k, v, m, is_causal=True), away(2, 3, 2), away(2, 3, 2), away(2, 3, 2), away(2, 1, 3)),
    case("scaled_dot_product_attention", lambda q, k, v: tl.scaled_dot_product_attention(q, k, v, enable_gqa=True), away(1, 4, 3, 2), away(1, 2, 3, 2), away(1, 2, 3, 2)),
    case("scaled_dot_product_attention", lambda q, k, v: tl.scaled_dot_product_attention(q, k, v, dropout_p=0.3, rng=np.random.default_rng(3)), away(2, 3, 2), away(2, 4, 2), away(2, 4, 2)),
    case("scaled_dot_product_attention", lambda x: tl.scaled_dot_product_attention(x, x, x, is_causal=True), away(2, 4, 3)),
    case("self_attention", lambda x: tl.self_attention(x, 2), away(2, 3, 12)),
    case("self_attention", lambda x: tl.self_attention(x, 1, is_causal=True, scale=0.7, attn_mask=LOWER[:, :3]), away(3, 6)),
    case("self_attention", lambda x, m: tl.self_attention(x, 2, m, 0.3, rng=np.random.default_rng(3)), away(1, 3, 6), away(2, 1, 3)),
    case("add_layer_norm", lambda x, r, w, b: both(tl.add_layer_norm(x, r, (5,), w, b, eps=0.1)), away(3, 5), away(3, 5), away(5), away(5)),
    case("add_layer_norm", lambda x, r: both(tl.add_layer_norm(x, r, 5, eps=0.1)), away(3, 5), away(1, 5)),
    case("add_rms_norm", lambda x, r, w: both(tl.add_rms_norm(x, r, (2, 3), w, eps=0.1)), away(2, 2, 3), away(2, 2, 3), away(2, 3)),
    case("add_rms_norm", lambda x: both(tl.add_rms_norm(x, x, 5, eps=0.1)), away(3, 5)),
]  # fmt: skip

FUSED = set(tl.autograd.fused.__all__)

# Results are integers or booleans, or do not depend on the values.
NO_DERIVATIVE = {
    "argmax": lambda x: tl.argmax(x, 1),
    "argmin": lambda x: tl.argmin(x, 0),
    "argsort": tl.argsort,
    "bitwise_and": lambda x: (x > 0) & (x < 1),
    "bitwise_or": lambda x: (x > 0) | (x < 1),
    "equal": lambda x: x == x,
    "greater": lambda x: x > 0,
    "greater_equal": lambda x: x >= 0,
    "invert": lambda x: ~(x > 0),
    "isfinite": tl.isfinite,
    "isnan": tl.isnan,
    "less": lambda x: x < 0,
    "less_equal": lambda x: x <= 0,
    "not_equal": lambda x: x != x,
    "one_hot": lambda x: tl.one_hot(tl.argmax(x, 1), 3),
    "ones_like": tl.ones_like,
    "zeros_like": tl.zeros_like,
}
