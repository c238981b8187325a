"""Every operation with a rule at drawn shapes: 0-d, empty, axes of 1, broadcast, not contiguous, used twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

import tinyllm as tl
from tinyllm.autograd import Tensor, ops
from tinyllm.autograd.fused.attention import self_attention
from tinyllm.autograd.fused.rotary import rotary
from tinyllm.testing.mutants.alarms import LAYOUTS
from tinyllm.testing.mutants.cases import BROADCAST_EDGE, DTYPE_EDGE, Case, Draw, apart, positive, real, single

# What a draw is to show; an operation that cannot (a matrix product of numbers) shows what comes nearest.
KINDS = ("0-d", "empty", "axes of 1", "broadcast", "not contiguous", "used twice")

_LAYOUT = {"not contiguous": LAYOUTS["reversed"], "used twice": LAYOUTS["used twice"]}


class Shapes:
    """Shapes of one kind.

    Parameters
    ----------
    rng : numpy.random.Generator
    kind : str
        One of `KINDS`.
    """

    def __init__(self, rng: np.random.Generator, kind: str) -> None:
        self.rng, self.kind = rng, kind

    def any(self, least: int = 0, most: int = 3, full: int = 0) -> tuple[int, ...]:
        """A shape of `least` to `most` axes, the last `full` of which are never empty."""
        dims = least if self.kind == "0-d" else int(self.rng.integers(max(least, 1), most, endpoint=True))
        shape = [int(n) for n in self.rng.integers(2, 3, dims, endpoint=True)]
        if self.kind == "empty" and dims > full:
            shape[int(self.rng.integers(dims - full))] = 0
        elif self.kind == "axes of 1" and dims:
            shape[int(self.rng.integers(dims))] = 1
        return tuple(shape)

    def pair(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Two shapes that broadcast to one another, in either order; equal ones for some kinds."""
        shape = self.any()
        if self.kind != "broadcast":
            return shape, shape
        narrow = self.narrow(shape)
        return (shape, narrow) if self.rng.random() < 0.5 else (narrow, shape)

    def narrow(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape that must be broadcast to become `shape`."""
        first = int(self.rng.integers(len(shape), endpoint=True))
        kept = [1 if self.rng.random() < 0.5 else n for n in shape[first:]]
        return tuple(kept) if first else (1, *kept[1:])

    def axis(self, shape: tuple[int, ...]) -> int:
        """One of the axes, from either end."""
        return int(self.rng.integers(-len(shape), len(shape)))

    def below(self, n: int, *shape: int) -> np.ndarray:
        """Indices, some of them repeated."""
        return self.rng.integers(n, size=shape)


_Draw: TypeAlias = Callable[[Shapes], Case]


def _unary(f: Callable[..., Tensor], values: Callable[..., Any] = real) -> _Draw:
    return lambda s: Case(f, (values(*s.any()),))


def _binary(f: Callable[..., Tensor], a: Callable[..., Any] = real, b: Callable[..., Any] = real) -> _Draw:
    def case(s: Shapes) -> Case:
        one, other = s.pair()
        return Case(f, (a(*one), b(*other)))

    return case


def _along(f: Callable[..., Tensor], values: Callable[..., Any] = real) -> _Draw:
    """`f` takes an axis, which is not empty."""

    def case(s: Shapes) -> Case:
        shape = s.any(1, full=1)
        axis = s.axis(shape) if 0 not in shape else -1
        return Case(lambda x: f(x, axis=axis), (values(*shape),))

    return case


def _other_dtype(x: Tensor) -> Tensor:
    return tl.astype(x, np.float32 if x.dtype == np.float64 else np.float64)


def _where(s: Shapes) -> Case:
    one, other = s.pair()
    chosen = s.rng.random(np.broadcast_shapes(one, other)) < 0.5
    return Case(lambda a, b: tl.where(chosen, a, b), (real(*one), real(*other)))


def _edge(s: Shapes) -> Case:
    shape = s.any(1)
    f = (tl.add, tl.multiply, tl.divide)[int(s.rng.integers(3))]
    return Case(f, (real(*shape), real(*s.narrow(shape))))


def _sum(s: Shapes) -> Case:
    shape, keepdims = s.any(), bool(s.rng.random() < 0.5)
    axis = s.axis(shape) if shape and s.rng.random() < 0.7 else None
    return Case(lambda x: tl.sum(x, axis, keepdims), (real(*shape),))


def _sum_to(s: Shapes) -> Case:
    shape = s.any(1)
    target = s.narrow(shape)
    return Case(lambda x: tl.sum_to(x, target), (real(*shape),))


def _broadcast_to(s: Shapes) -> Case:
    shape = s.any(1)
    return Case(lambda x: tl.broadcast_to(x, shape), (real(*s.narrow(shape)),))


def _matmul(s: Shapes) -> Case:
    *lead, n, k = s.any(2)
    m = int(s.rng.integers(1, 4))
    batch = s.narrow(tuple(lead)) if s.kind == "broadcast" and lead else tuple(lead)
    if s.kind == "0-d":  # the nearest there is: two vectors
        return Case(tl.matmul, (real(k), real(k)))
    return Case(tl.matmul, (real(*lead, n, k), real(*batch, k, m)))


def _einsum(s: Shapes) -> Case:
    b, i, j = s.any(3)
    return Case(lambda x, y: tl.einsum("bij,bjk->kbi", x, y), (real(b, i, j), real(b, j, 2)))


def _reshape(s: Shapes) -> Case:
    shape = s.any()
    return Case(lambda x: tl.reshape(x, (1, *shape[::-1])), (real(*shape),))


def _transpose(s: Shapes) -> Case:
    shape = s.any()
    axes = tuple(int(a) for a in s.rng.permutation(len(shape)))
    return Case(lambda x: tl.transpose(x, axes), (real(*shape),))


def _pad(s: Shapes) -> Case:
    shape = s.any(1)
    widths = tuple((int(a), int(b)) for a, b in s.rng.integers(0, 3, (len(shape), 2)))
    return Case(lambda x: tl.pad(x, widths), (real(*shape),))


def _concatenate(s: Shapes) -> Case:
    shape = s.any(1)
    axis = s.axis(shape)
    return Case(lambda a, b: tl.concatenate([a, b, a], axis=axis), (real(*shape), real(*shape)))


def _getitem(s: Shapes) -> Case:
    n, *rest = s.any(1, full=1) if s.kind != "empty" else (3, 0)
    index = (s.below(n, 4), ..., None) if s.rng.random() < 0.5 else (slice(None, None, -2), ...)
    return Case(lambda x: x[index], (real(n, *rest),))


def _add_at(s: Shapes) -> Case:
    n, *rest = s.any(1)
    ids = s.below(3, n)
    return Case(lambda x: tl.add_at(x, (ids,), (3, *rest)), (real(n, *rest),))


def _along_ids(s: Shapes) -> tuple[np.ndarray, tuple[int, ...], tuple[int, ...], int]:
    """Ids along an axis, their shape, the shape that they point into, and the axis."""
    shape = s.any(1)
    axis = s.axis(shape)
    into = list(shape)
    into[axis] = int(s.rng.integers(1, 4))
    return s.below(into[axis], *shape), shape, tuple(into), axis


def _take_along_axis(s: Shapes) -> Case:
    ids, _, into, axis = _along_ids(s)
    return Case(lambda x: tl.take_along_axis(x, ids, axis=axis), (real(*into),))


def _add_along_axis(s: Shapes) -> Case:
    ids, shape, into, axis = _along_ids(s)
    return Case(lambda x: tl.add_along_axis(x, ids, into, axis=axis), (real(*shape),))


def _cross_entropy(s: Shapes) -> Case:
    *lead, v = s.any(1, full=1)
    target = s.below(v, *lead)
    settings: dict[str, Any] = {"reduction": "none", "label_smoothing": 0.2 * int(s.rng.integers(2))}
    return Case(lambda x: tl.cross_entropy(x, target, **settings), (real(*lead, v),))


def _linear_cross_entropy(s: Shapes) -> Case:
    *lead, c = s.any(1, full=1)
    target, smooth = s.below(3, *lead), 0.2 * int(s.rng.integers(2))
    f = lambda x, w: tl.linear_cross_entropy(x, w, target, reduction="sum", label_smoothing=smooth)  # noqa: E731
    return Case(f, (real(*lead, c), real(3, c)))


def _gelu(s: Shapes) -> Case:
    shape, approximate = s.any(), ("none", "tanh")[int(s.rng.integers(2))]
    if s.kind == "broadcast" and shape:
        return Case(lambda x, b: tl.gelu(x, approximate, bias=b), (real(*shape), real(shape[-1])))
    return Case(lambda x: tl.gelu(x, approximate), (real(*shape),))


def _silu(s: Shapes) -> Case:
    shape = s.any()
    if s.kind == "broadcast" and shape:
        return Case(lambda x, b: tl.silu(x, bias=b), (real(*shape), real(shape[-1])))
    return Case(tl.silu, (real(*shape),))


def _swiglu(s: Shapes) -> Case:
    shape = s.any()
    if s.kind == "broadcast" and shape:
        f = lambda x, u, b, c: tl.swiglu(x, u, gate_bias=b, up_bias=c)  # noqa: E731
        return Case(f, (real(*shape), real(*shape), real(shape[-1]), real(shape[-1])))
    return Case(tl.swiglu, (real(*shape), real(*shape)))


def _layer_norm(s: Shapes) -> Case:
    *_, last = shape = s.any(1, full=1)
    f = lambda x, w, b: tl.layer_norm(x, last, w, b, eps=0.1)  # noqa: E731
    return Case(f, (real(*shape), positive(last), real(last)))


def _rms_norm(s: Shapes) -> Case:
    *_, last = shape = s.any(1, full=1)
    return Case(lambda x, w: tl.rms_norm(x, last, w, eps=0.1), (real(*shape), positive(last)))


def _linear(s: Shapes) -> Case:
    *lead, c = s.any(1, full=1)
    return Case(tl.linear, (real(*lead, c), real(2, c), real(2)))


def _grouped_linear(s: Shapes) -> Case:
    n, c = s.any(2)[-2:]
    first = int(s.rng.integers(n + 1))
    return Case(lambda x, *w: tl.nn.grouped_linear(x, w, [first, n - first]), (real(n, c), real(2, c), real(2, c)))


def _embedding(s: Shapes) -> Case:
    ids = s.below(4, *s.any())
    return Case(lambda w: tl.embedding(ids, w), (real(4, 2),))


def _attention(s: Shapes) -> Case:
    *lead, t, d = s.any(2)
    size, causal = int(s.rng.integers(1, 4)), bool(s.rng.random() < 0.5)
    mask = s.narrow((t, size)) if s.kind == "broadcast" else (t, size)
    f = lambda q, k, v, m: tl.scaled_dot_product_attention(q, k, v, m, is_causal=causal, scale=0.7)  # noqa: E731
    return Case(f, (real(*lead, t, d), real(*lead, size, d), real(*lead, size, 2), real(*mask)))


def _self_attention(s: Shapes) -> Case:
    *lead, t = s.any(1, most=2)
    causal = bool(s.rng.random() < 0.5)
    mask = s.narrow((t, t)) if s.kind == "broadcast" else (t, t)
    f = lambda x, m: self_attention(x, 2, m, is_causal=causal, scale=0.7)  # noqa: E731
    return Case(f, (real(*lead, t, 12), real(*mask)))


def _mild(*shape: int) -> Draw:
    """Half of `real`: states keep away from 1, where 1 - h^2 has few digits left, and a kernel's are not NumPy's."""
    return lambda rng: 0.5 * real(*shape)(rng)


def _recurrent(f: Callable[..., Tensor], blocks: int, states: int) -> _Draw:
    """One to three steps of one or two sequences, of different lengths for some kinds, in either direction."""

    def draw(s: Shapes) -> Case:
        T, B = (1, 1) if s.kind == "0-d" else (int(s.rng.integers(2, 4)), 1 if s.kind == "axes of 1" else 2)
        lengths = s.rng.integers(1, T, B, endpoint=True) if s.kind == "broadcast" else None
        reverse, rows = bool(s.rng.integers(2)), 2 * blocks
        shapes = [(T, B, 3), (rows, 3), (rows, 2), (rows,), (rows,), *[(B, 2)] * states]
        return Case(lambda *xs: f(*xs, lengths=lengths, reverse=reverse), tuple(_mild(*shape) for shape in shapes))

    return draw


def _rotary(s: Shapes) -> Case:
    shape = s.any(1, most=2)
    return Case(lambda x: rotary(x, 10.0, offset=2), (real(*shape, 4),))


_SMOOTH = (
    "abs",
    "copy",
    "cos",
    "erf",
    "exp",
    "expm1",
    "negative",
    "relu",
    "sigmoid",
    "sin",
    "softplus",
    "tanh",
)
_STEPS = ("ceil", "floor", "round", "sign")

# name of the row in the table of cases -> a case of the shapes given
DRAWN: dict[str, _Draw] = {
    **{name: _unary(getattr(tl, name)) for name in _SMOOTH + _STEPS},
    **{name: _unary(getattr(tl, name), positive) for name in ("log", "log1p", "sqrt")},
    "identity": _unary(ops.identity),
    "clip": _unary(lambda x: tl.clip(x, -1.0, 0.5)),
    "astype": _unary(_other_dtype),
    "dropout": _unary(lambda x: tl.dropout(x, 0.4, rng=np.random.default_rng(5))),
    **{name: _binary(getattr(tl, name)) for name in ("add", "subtract", "multiply", "divide")},
    "power": _binary(tl.power, positive, real),
    **{name: _binary(getattr(tl, name), apart, lambda *n: apart(*n, by=0.23)) for name in ("maximum", "minimum")},
    "where": _where,
    BROADCAST_EDGE: _edge,
    DTYPE_EDGE: _binary(tl.multiply, lambda *n: single(real(*n)), real),
    "sum": _sum,
    "sum_to": _sum_to,
    **{name: _along(getattr(tl, name), apart) for name in ("max", "min", "logsumexp")},
    **{name: _along(getattr(tl, name)) for name in ("cumsum", "softmax", "log_softmax")},
    "matmul": _matmul,
    "einsum": _einsum,
    "reshape": _reshape,
    "transpose": _transpose,
    "broadcast_to": _broadcast_to,
    "pad": _pad,
    "concatenate": _concatenate,
    "getitem": _getitem,
    "add_at": _add_at,
    "take_along_axis": _take_along_axis,
    "add_along_axis": _add_along_axis,
    "cross_entropy": _cross_entropy,
    "linear_cross_entropy": _linear_cross_entropy,
    "gelu": _gelu,
    "silu": _silu,
    "swiglu": _swiglu,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "linear": _linear,
    "grouped_linear": _grouped_linear,
    "embedding": _embedding,
    "rnn": _recurrent(tl.rnn, 1, 1),
    "lstm": _recurrent(tl.lstm, 4, 2),
    "gru": _recurrent(tl.gru, 3, 1),
    "scaled_dot_product_attention": _attention,
    "self_attention": _self_attention,
    "rotary": _rotary,
    "checkpoint": _binary(lambda x, w: tl.checkpoint(lambda a, b: ops.exp(a) * b, x, w)),
}


def drawn(row: str, kind: str, rng: np.random.Generator) -> tuple[Callable[..., Tensor], list[np.ndarray]]:
    """A function in which the operation of a row occurs, and inputs of a kind of shape."""
    case = DRAWN[row](Shapes(rng, kind))
    return _LAYOUT.get(kind, LAYOUTS["contiguous"])(case.f), case.inputs(rng)
