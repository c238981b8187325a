"""Every operation with a rule, at points where the rule has something to say: where mistakes are planted."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

import tinyllm as tl
from tinyllm.autograd import Tensor, ops
from tinyllm.autograd.fused.attention import self_attention
from tinyllm.autograd.fused.rotary import rotary
from tinyllm.errors import ConfigError, nearest

Array: TypeAlias = np.ndarray
Draw: TypeAlias = Callable[[np.random.Generator], Array]

# An edge is the step that the engine itself puts between two operations.
BROADCAST_EDGE, DTYPE_EDGE = "edge: broadcast_to", "edge: astype"


@dataclass(frozen=True)
class Case:
    """A function in which an operation occurs, and random inputs for it.

    Attributes
    ----------
    f : callable
        Of Tensors.
    draws : tuple of callables
        One for each input, ``draw(rng) -> array``.
    """

    f: Callable[..., Tensor]
    draws: tuple[Draw, ...]

    def inputs(self, rng: np.random.Generator) -> list[Array]:
        """A point."""
        return [draw(rng) for draw in self.draws]


def real(*shape: int) -> Draw:
    """Numbers of either sign, none near 0 or near another integer or the half of one."""
    return lambda rng: rng.choice([-1.0, 1.0], shape) * rng.uniform(0.3, 0.45, shape) + rng.integers(-1, 2, shape)


def positive(*shape: int) -> Draw:
    """Numbers in 0.4 .. 2."""
    return lambda rng: rng.uniform(0.4, 2.0, shape)


def apart(*shape: int, by: float = 0.0) -> Draw:
    """Numbers of either sign, no two of them close."""
    n = int(np.prod(shape))
    return lambda rng: ((rng.permutation(n) - n / 2 + rng.uniform(0.1, 0.4, n)) * 0.5 + by).reshape(shape)


def single(draw: Draw) -> Draw:
    """The same in float32."""
    return lambda rng: draw(rng).astype(np.float32)


_MASK = np.array([[True, False, True], [False, True, True]])
_IDS = np.array([[0, 2, 2], [4, 0, 1]])
_LOWER = np.tri(3, 4, 1, dtype=bool)
_TARGET = np.array([1, -100, 2])
_CLASS_WEIGHTS = np.array([0.5, 2.0, 1.5])
_SOME_PLACES = (slice(None), [0, 2, 2])


def _one(f: Callable[..., Tensor], *draws: Draw) -> Case:
    return Case(f, draws)


def _attend(**settings: Any) -> Callable[..., Tensor]:
    return lambda q, k, v, mask=None: tl.scaled_dot_product_attention(q, k, v, mask, **settings)


_STEPS = ["ceil", "floor", "round", "sign"]
_SMOOTH = ["abs", "copy", "cos", "exp", "expm1", "negative", "relu", "sigmoid", "sin", "softplus", "tanh"]

# name of the row -> cases; the operation is the one that the row is named after
CASES: dict[str, list[Case]] = {
    # one argument
    **{name: [_one(getattr(tl, name), real(2, 3))] for name in _SMOOTH + _STEPS},
    **{name: [_one(getattr(tl, name), positive(2, 3))] for name in ("log", "log1p", "sqrt")},
    "erf": [_one(tl.erf, real(2, 2))],
    "identity": [_one(ops.identity, real(2, 3))],
    "clip": [_one(lambda x: tl.clip(x, -1.0, 0.5), real(3, 4))],
    "astype": [
        _one(lambda x: tl.astype(x, np.float64), single(real(2, 3))),
        _one(lambda x: tl.astype(x, np.float32), real(2, 3)),
    ],
    "dropout": [_one(lambda x: tl.dropout(x, 0.4, rng=np.random.default_rng(5)), real(2, 3))],
    # two arguments
    **{name: [_one(getattr(tl, name), real(2, 3), real(2, 3))] for name in ("add", "subtract", "multiply", "divide")},
    "power": [_one(tl.power, positive(2, 3), real(2, 3))],
    **{name: [_one(getattr(tl, name), apart(2, 3), apart(2, 3, by=0.23))] for name in ("maximum", "minimum")},
    "where": [_one(lambda a, b: tl.where(_MASK, a, b), real(2, 3), real(2, 3))],
    # the edge
    BROADCAST_EDGE: [
        _one(tl.add, real(2, 3), real(3)),
        _one(tl.multiply, real(2, 3), real(2, 1)),
        _one(tl.divide, real(2, 2, 3), real(2, 3)),
        _one(tl.multiply, real(2, 3), real()),
    ],
    DTYPE_EDGE: [_one(tl.multiply, single(real(2, 3)), real(2, 3))],
    # over axes
    "sum": [_one(lambda x: tl.sum(x, axis=1), real(2, 3, 2)), _one(tl.sum, real(2, 3))],
    "sum_to": [_one(lambda x: tl.sum_to(x, (3, 1)), real(2, 3, 4))],
    **{
        name: [_one(functools.partial(getattr(tl, name), axis=1), apart(2, 3, 2))]
        for name in ("max", "min", "logsumexp")
    },
    "cumsum": [_one(lambda x: tl.cumsum(x, axis=1), real(2, 3))],
    # products of matrices
    "matmul": [
        _one(tl.matmul, real(2, 3), real(3, 4)),
        _one(tl.matmul, real(3, 3), real(3, 3)),
        _one(tl.matmul, real(2, 2, 3), real(2, 3, 2)),
    ],
    "einsum": [
        _one(lambda a, b: tl.einsum("ij,jk->ki", a, b), real(2, 2), real(2, 2)),
        _one(lambda a, b: tl.einsum("bij,bjk->bik", a, b), real(2, 2, 3), real(2, 3, 2)),
    ],
    # moving elements
    "reshape": [_one(lambda x: tl.reshape(x, (3, 2)), real(2, 3))],
    "transpose": [_one(lambda x: tl.transpose(x, (2, 0, 1)), real(2, 3, 2)), _one(tl.transpose, real(3, 3))],
    "broadcast_to": [
        _one(lambda x: tl.broadcast_to(x, (2, 3, 4)), real(3, 1)),
        _one(lambda x: tl.broadcast_to(x, (2, 2, 3)), real(2, 3)),
    ],
    "pad": [_one(lambda x: tl.pad(x, ((1, 2), (0, 1))), real(2, 3))],
    "concatenate": [_one(lambda a, b: tl.concatenate([a, b], axis=1), real(2, 3), real(2, 3))],
    # picking elements
    "getitem": [
        _one(lambda x: x[_SOME_PLACES], real(2, 3)),
        _one(lambda x: x[::-2, 1:], real(3, 3)),
        _one(lambda x: x[_MASK], real(2, 3)),
    ],
    "add_at": [_one(lambda x: tl.add_at(x, [0, 0, 3], (4, 2)), real(3, 2))],
    "take_along_axis": [_one(lambda x: tl.take_along_axis(x, _IDS, axis=1), real(2, 5))],
    "add_along_axis": [_one(lambda x: tl.add_along_axis(x, _IDS, (2, 5), axis=1), real(2, 3))],
    # fused
    "softmax": [_one(tl.softmax, real(2, 3)), _one(lambda x: tl.softmax(x, axis=0), real(3, 3))],
    "log_softmax": [_one(tl.log_softmax, real(2, 3)), _one(lambda x: tl.log_softmax(x, axis=0), real(3, 3))],
    "cross_entropy": [
        _one(lambda x: tl.cross_entropy(x, _TARGET[1:], reduction="none"), real(2, 3)),
        _one(lambda x: tl.cross_entropy(x, _TARGET, _CLASS_WEIGHTS, label_smoothing=0.2), real(3, 3)),
    ],
    "linear_cross_entropy": [
        _one(lambda x, w: tl.linear_cross_entropy(x, w, _TARGET), real(3, 2), real(4, 2)),
        _one(
            lambda x, w: tl.linear_cross_entropy(x, w, _TARGET, reduction="sum", label_smoothing=0.2),
            real(3, 3),
            real(3, 3),
        ),
    ],
    "gelu": [
        _one(lambda x, b: tl.gelu(x, bias=b), real(2, 2), real(2)),
        _one(lambda x, b: tl.gelu(x, approximate="tanh", bias=b), real(2, 2), real(2)),
    ],
    "silu": [_one(lambda x, b: tl.silu(x, bias=b), real(2, 2), real(2))],
    "swiglu": [
        _one(lambda x, u, b, c: tl.swiglu(x, u, gate_bias=b, up_bias=c), real(2, 2), real(2, 2), real(2), real(2))
    ],
    "layer_norm": [
        _one(lambda x, w, b: tl.layer_norm(x, 4, w, b), real(3, 4), positive(4), real(4)),
        _one(lambda x, w, b: tl.layer_norm(x, (2, 3), w, b, eps=0.1), real(2, 2, 3), positive(2, 3), real(2, 3)),
    ],
    "rms_norm": [
        _one(lambda x, w: tl.rms_norm(x, 4, w), real(3, 4), positive(4)),
        _one(lambda x, w: tl.rms_norm(x, (2, 3), w, eps=0.1), real(2, 2, 3), positive(2, 3)),
    ],
    "linear": [
        _one(tl.linear, real(2, 3), real(4, 3), real(4)),
        _one(lambda x, w, b: tl.linear(x, w.mT, b), real(2, 2, 3), real(3, 4), real(4)),
        _one(tl.linear, real(3, 3), real(3, 3), real(3)),
    ],
    # One group: further weights have no name of their own, and their mistakes are the first one's.
    "grouped_linear": [_one(lambda x, w: tl.nn.grouped_linear(x, [w], [3]), real(3, 2), real(4, 2))],
    "embedding": [_one(lambda w: tl.embedding(_IDS, w), real(5, 3))],
    "rnn": [
        _one(tl.rnn, real(2, 2, 2), real(2, 2), real(2, 2), real(2), real(2), real(2, 2)),
        _one(
            lambda x, w, u, b, c, h: tl.rnn(x, w, u, b, c, h, lengths=[1, 2]),
            *(real(2, 2, 2), real(2, 2), real(2, 2), real(2), real(2), real(2, 2)),
        ),
    ],
    "lstm": [_one(tl.lstm, real(2, 2, 1), real(8, 1), real(8, 2), real(8), real(8), real(2, 2), real(2, 2))],
    "gru": [_one(tl.gru, real(2, 2, 1), real(6, 1), real(6, 2), real(6), real(6), real(2, 2))],
    "scaled_dot_product_attention": [
        _one(_attend(), real(3, 2), real(4, 2), real(4, 3)),
        _one(_attend(is_causal=True, scale=0.7), real(3, 3), real(3, 3), real(3, 3)),
        _one(_attend(), real(2, 3, 2), real(2, 4, 2), real(2, 4, 2), real(3, 4)),
        _one(lambda q, k, v: tl.scaled_dot_product_attention(q, k, v, _LOWER), real(3, 2), real(4, 2), real(4, 2)),
    ],
    "self_attention": [
        _one(lambda x: self_attention(x, 2, is_causal=True, scale=0.7), real(3, 12)),
        _one(lambda x, m: self_attention(x, 2, m), real(2, 3, 12), real(3, 3)),
    ],
    "rotary": [_one(rotary, real(3, 4)), _one(lambda x: rotary(x, 10.0, offset=2), real(2, 3, 4))],
    "checkpoint": [_one(lambda x, w: tl.checkpoint(lambda a, b: ops.exp(a) * b, x, w), real(2, 3), real(2, 3))],
}


def rows(chosen: Sequence[str] | None = None) -> list[str]:
    """The rows of the table that were chosen; all by default.

    Raises
    ------
    ConfigError
        If there is no such row.
    """
    for name in chosen or ():
        if name not in CASES:
            raise ConfigError(f"there is no operation {name!r} with a rule{nearest(name, CASES)}")
    return list(chosen or CASES)


def operation(row: str) -> str:
    """The operation that mistakes are planted in."""
    return row.removeprefix("edge: ")
