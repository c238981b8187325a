"""Calls of every CUDA kernel, with what they must write: the engine's own small operations, in float64.

The simulator and a GPU run them, at sizes of their own; the compiler gets the kernels with the types they are called
with.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

import tinyllm as tl
from tinyllm.kernels.cuda import activation, adamw, attention, cross_entropy, embedding, matmul, norm, softmax

EPS = np.finfo(np.float32).eps


class Out(NamedTuple):
    """An output: the value it must get, and by how much it may be off, in units of rounding."""

    expected: np.ndarray
    ulps: float = 16
    before: np.ndarray | None = None  # for what is changed in place
    dtype: Any = np.float32

    def start(self) -> np.ndarray:
        """The array before the call: NaN, unless it is changed in place."""
        return np.full(self.expected.shape, np.nan, self.dtype) if self.before is None else self.before.copy()


class Case(NamedTuple):
    """One call: ``function(*arguments, **options)``, outputs among the arguments."""

    name: str
    function: Callable[..., None]
    arguments: tuple[Any, ...]
    options: dict[str, Any] = {}  # noqa: RUF012, it is never changed


def check(out: Out, found: np.ndarray) -> None:
    """|found - expected| <= ulps * eps * max(|expected|, the mean of all); NaN and infinities in the same places."""
    size = np.abs(out.expected)
    finite = size[np.isfinite(size)]
    bound = out.ulps * EPS * np.maximum(size, finite.mean() if finite.size else 0)
    with np.errstate(invalid="ignore"):
        error = np.abs(found.astype(float) - out.expected)
    same = (found == out.expected) | (np.isnan(found) & np.isnan(out.expected))
    wrong = ~(same | (error <= bound))
    assert not wrong.any(), f"{wrong.sum()} of {wrong.size} off, first at {np.argwhere(wrong)[0]}: found " + str(
        (found[wrong][0], "expected", out.expected[wrong][0])
    )


def run(
    case: Case, move: Callable[[np.ndarray], Any] = lambda a: a, back: Callable[[Any], np.ndarray] = np.asarray
) -> None:
    """Call it on arrays that were moved to where it runs; check what comes back."""
    given = [
        move(a.start() if isinstance(a, Out) else a.copy()) if isinstance(a, (Out, np.ndarray)) else a
        for a in case.arguments
    ]
    case.function(*given, **case.options)
    for a, array in zip(case.arguments, given, strict=True):
        if isinstance(a, Out):
            check(a, back(array))
        elif isinstance(a, np.ndarray):
            np.testing.assert_array_equal(back(array), a, err_msg="an input was changed")


class Draw:
    """Random float32 numbers, and what the engine makes of them."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def __call__(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * self.rng.normal(size=shape)).astype(np.float32)


def derived(f: Callable[..., tl.Tensor], g: np.ndarray, *arrays: np.ndarray) -> list[np.ndarray]:
    """``f`` of the arrays, and their cotangents, in float64 and by small operations."""
    with tl.backend("numpy"):
        inputs = [tl.tensor(a, dtype=np.float64, requires_grad=True) for a in arrays]
        y = f(*inputs)
        y.backward(g.astype(np.float64), create_graph=True)
    return [y.numpy()] + [x.grad.numpy() for x in inputs]


# -- rows --------------------------------------------------------------------------------------------------------------


def softmax_cases(draw: Draw, rows: int, cols: int) -> Iterator[Case]:
    x, g = draw(rows, cols, scale=3), draw(rows, cols)
    x[0, : cols // 2] = -np.inf
    y, dx = derived(tl.softmax, g, x)
    yield Case("softmax", softmax.softmax, (x, Out(y)))
    yield Case("softmax_vjp", softmax.softmax_vjp, (g, y.astype(np.float32), Out(dx, 64)))
    x = draw(rows, cols, scale=3)
    y, dx = derived(tl.log_softmax, g, x)
    yield Case("log_softmax", softmax.log_softmax, (x, Out(y)))
    yield Case("log_softmax_vjp", softmax.log_softmax_vjp, (g, y.astype(np.float32), Out(dx, 64)))


def norm_cases(draw: Draw, rows: int, cols: int) -> Iterator[Case]:
    x, g, weight, bias = draw(rows, cols) + np.float32(0.5), draw(rows, cols), draw(cols), draw(cols)
    y, dx, dweight, dbias = derived(lambda x, w, b: tl.layer_norm(x, cols, w, b), g, x, weight, bias)
    mean = x.mean(axis=1, dtype=float)
    rstd = 1 / np.sqrt(x.var(axis=1, dtype=float) + 1e-5)
    outs = Out(y, 32), Out(mean, 32), Out(rstd, 32)
    yield Case("layer_norm", norm.layer_norm, (x, weight, bias, 1e-5, *outs))
    saved = mean.astype(np.float32), rstd.astype(np.float32)
    size = 16 + 4 * math.sqrt(rows)
    outs = Out(dx, 64 * max(1, rstd.max() / 30)), Out(dweight, 4 * size), Out(dbias, size)
    yield Case("layer_norm_vjp", norm.layer_norm_vjp, (g, x, weight, *saved, *outs))
    y, dx, dweight = derived(lambda x, w: tl.rms_norm(x, cols, w, 1e-6), g, x, weight)
    rstd = 1 / np.sqrt((x.astype(float) ** 2).mean(axis=1) + 1e-6)
    yield Case("rms_norm", norm.rms_norm, (x, weight, 1e-6, Out(y, 32), Out(rstd, 32)))
    outs = Out(dx, 64 * max(1, rstd.max())), Out(dweight, size)
    yield Case("rms_norm_vjp", norm.rms_norm_vjp, (g, x, weight, rstd.astype(np.float32), *outs))


def cross_entropy_cases(draw: Draw, rows: int, classes: int) -> Iterator[Case]:
    logits, g = draw(rows, classes, scale=2), draw(rows)
    target = draw.rng.integers(classes, size=rows)
    target[rows // 2] = -100
    weight = np.abs(draw(classes)) + np.float32(0.1)
    kept = target != -100
    lse = np.where(kept, np.log(np.exp(logits.astype(float)).sum(axis=1)), 0)
    for smoothing in (0.0, 0.1):

        def loss(x: tl.Tensor, weight: np.ndarray = weight, smoothing: float = smoothing) -> tl.Tensor:
            return tl.cross_entropy(x, target, weight, reduction="none", label_smoothing=smoothing)

        y, dx = derived(loss, g, logits)
        name = f"smoothing {smoothing}"
        given = logits, target, weight, smoothing, -100
        yield Case(f"cross_entropy {name}", cross_entropy.cross_entropy, (*given, Out(y, 32), Out(lse)))
        given = (g, *given, lse.astype(np.float32))
        yield Case(f"cross_entropy_vjp {name}", cross_entropy.cross_entropy_vjp, (*given, Out(dx, 64)))
        ones = np.ones(classes, np.float32)
        y, dx = derived(lambda x: loss(x, ones), np.full(rows, 0.25), logits)  # noqa: B023
        given = (Out(dx, 64, logits), target, smoothing, -100, 0.25, Out(y, 32))
        yield Case(f"cross_entropy_in_place {name}", cross_entropy.cross_entropy_in_place, given)


def embedding_cases(draw: Draw, positions: int, size: int, vocabulary: int) -> Iterator[Case]:
    g, ids = draw(positions, size), draw.rng.integers(vocabulary, size=positions)
    _, dweight = derived(lambda w: tl.embedding(ids, w), g, draw(vocabulary, size))
    for function in (embedding.embedding_vjp, embedding.embedding_vjp_atomic):
        yield Case(function.__name__, function, (g, ids, Out(dweight, 8 + positions / vocabulary)))


# -- elements ----------------------------------------------------------------------------------------------------------


def activation_cases(draw: Draw, rows: int, cols: int) -> Iterator[Case]:
    x, g, bias = draw(rows, cols, scale=3), draw(rows, cols), draw(cols)
    flat, flat_g = x.ravel(), g.ravel()
    for name, f in (
        ("gelu_erf", tl.gelu),
        ("gelu_tanh", lambda x: tl.gelu(x, "tanh")),
        ("silu", lambda x: x / (1 + tl.exp(-x))),
    ):
        y, dx = derived(f, flat_g, flat)
        yield Case(name, getattr(activation, name), (flat, Out(y)))
        yield Case(f"{name}_vjp", getattr(activation, f"{name}_vjp"), (flat_g, flat, Out(dx, 32)))
        y, dx, dbias = derived(lambda x, b, f=f: f(x + b), g, x, bias)
        yield Case(f"bias_{name}", getattr(activation, f"bias_{name}"), (x, bias, Out(y)))
        outs = Out(dx, 32), Out(dbias, 16 + 4 * math.sqrt(rows))
        yield Case(f"bias_{name}_vjp", getattr(activation, f"bias_{name}_vjp"), (g, x, bias, *outs))
    up = draw(rows, cols).ravel()
    y, dgate, dup = derived(lambda gate, up: gate / (1 + tl.exp(-gate)) * up, flat_g, flat, up)
    yield Case("swiglu", activation.swiglu, (flat, up, Out(y)))
    yield Case("swiglu_vjp", activation.swiglu_vjp, (flat_g, flat, up, Out(dgate, 32), Out(dup, 32)))
    given = x, up.reshape(x.shape), bias, draw(cols)
    y, *grads = derived(lambda x, up, b, c: (x + b) / (1 + tl.exp(-x - b)) * (up + c), g, *given)
    yield Case("bias_swiglu", activation.bias_swiglu, (*given, Out(y)))
    sums = 16 + 4 * math.sqrt(rows)
    outs = (Out(d, of) for d, of in zip(grads, (32, 32, sums, sums), strict=True))
    yield Case("bias_swiglu_vjp", activation.bias_swiglu_vjp, (g, *given, *outs))


def adamw_cases(draw: Draw, size: int) -> Iterator[Case]:
    p, g, m, v = draw(size), draw(size), draw(size, scale=0.1), np.abs(draw(size))
    lr, beta1, beta2, eps, decay, bias1, bias2 = numbers = 1e-2, 0.9, 0.99, 1e-8, 0.1, 0.19, 0.0199
    scale = 0.5
    for function in (adamw.adamw, adamw.adam):
        p1, g1, m1, v1 = (a.astype(float) for a in (p, scale * g, m, v))
        if function is adamw.adam:
            g1 = g1 + decay * p1
        else:
            p1 = p1 * (1 - lr * decay)
        m1, v1 = beta1 * m1 + (1 - beta1) * g1, beta2 * v1 + (1 - beta2) * g1**2
        p1 = p1 - lr * (m1 / bias1) / (np.sqrt(v1 / bias2) + eps)
        outs = Out(p1, 16, p), Out(m1, 16, m), Out(v1, 16, v)
        yield Case(function.__name__, function, (outs[0], g, *outs[1:], *numbers, scale))
    total = np.array([np.sum(p.astype(float) ** 2)])
    yield Case("sum_of_squares", adamw.sum_of_squares, (p, Out(total, 1e-6, dtype=np.float64)))


# -- products ----------------------------------------------------------------------------------------------------------


def matmul_cases(draw: Draw, m: int, n: int, k: int) -> Iterator[Case]:
    a, b = draw(m, k), draw(k, n)
    product = a.astype(float) @ b.astype(float)
    for rung in matmul.RUNGS:
        unit = {"tf32": 2**-11 / EPS, "bf16": 2**-8 / EPS}.get(rung, 1)  # half a unit of the rounded input, twice
        ulps = unit * (4 + math.sqrt(k))
        yield Case(f"matmul {rung}", matmul.matmul, (a, b, Out(product, ulps)), {"rung": rung})


class Attention(NamedTuple):
    """One shape of attention: N query heads and M key heads of size D, T queries, S keys, and what is masked."""

    N: int
    M: int
    T: int
    S: int
    D: int
    offset: int | None = None  # causal, with so many keys before the first query
    mask: str | None = None


def attention_cases(draw: Draw, shape: Attention) -> Iterator[Case]:
    N, M, T, S, D, offset, kind = shape
    q, k, v, g = draw(N, T, D), draw(M, S, D), draw(M, S, D), draw(N, T, D)
    scale = 1 / math.sqrt(D)
    mask = index = None
    if kind is not None:
        allowed = draw.rng.random((2, T if kind != "one row" else 1, S)) < 0.7
        allowed[0, 0] = False  # a query that sees nothing
        mask = allowed if kind == "boolean" else np.where(allowed, draw(*allowed.shape), np.float32(-np.inf))
        index = draw.rng.integers(2, size=N)
        index[0] = 0

    def f(q: tl.Tensor, k: tl.Tensor, v: tl.Tensor) -> tl.Tensor:
        k, v = (tl.repeat(x, N // M, axis=0) for x in (k, v))
        chosen = None if mask is None else mask[index].astype(bool if kind == "boolean" else float)
        return tl.scaled_dot_product_attention(
            q, k, v, chosen, is_causal=offset is not None, offset=offset or 0, scale=scale
        )

    out, dq, dk, dv = derived(f, g, q, k, v)
    scores = scale * q.astype(float) @ np.repeat(k.astype(float), N // M, axis=0).swapaxes(1, 2)
    if mask is not None:
        scores = scores + (mask[index] if kind != "boolean" else np.where(mask[index], 0, -np.inf))
    if offset is not None:
        scores = np.where(np.tri(T, S, offset, dtype=bool), scores, -np.inf)
    with np.errstate(divide="ignore"):
        lse = np.log(np.exp(scores).sum(axis=2))
    ulps = 32 + 4 * math.sqrt(S)
    given = q, k, v, scale, S if offset is None else offset, mask, index
    yield Case("attention", attention.attention, (*given, Out(out, ulps), Out(lse, ulps)))
    for deterministic in (True, False):
        outs = Out(dq, 4 * ulps), Out(dk, 4 * ulps * math.sqrt(N / M)), Out(dv, ulps * math.sqrt(N / M))
        saved = out.astype(np.float32), lse.astype(np.float32)
        name = f"attention_vjp {'deterministic' if deterministic else 'atomic'}"
        yield Case(name, attention.attention_vjp, (g, *given, *saved, *outs), {"deterministic": deterministic})


# -- all of them -------------------------------------------------------------------------------------------------------

# Shapes that fill no tile, just fill one, and need several; 1; not multiples of a vector.
TINY: dict[str, list[Callable[[Draw], Iterator[Case]]]] = {
    "softmax": [
        lambda d: softmax_cases(d, 3, 37),
        lambda d: softmax_cases(d, 1, 1),
        lambda d: softmax_cases(d, 2, 600),
    ],
    "norm": [lambda d: norm_cases(d, 3, 37), lambda d: norm_cases(d, 1, 130)],
    "cross_entropy": [lambda d: cross_entropy_cases(d, 3, 137), lambda d: cross_entropy_cases(d, 2, 5)],
    "embedding": [lambda d: embedding_cases(d, 9, 5, 4), lambda d: embedding_cases(d, 1, 130, 3)],
    "activation": [lambda d: activation_cases(d, 11, 37), lambda d: activation_cases(d, 1, 4)],
    "adamw": [lambda d: adamw_cases(d, 517), lambda d: adamw_cases(d, 3)],
    "matmul": [lambda d: matmul_cases(d, 5, 7, 3), lambda d: matmul_cases(d, 33, 36, 20)],
    "attention": [
        lambda d: attention_cases(d, Attention(2, 1, 5, 7, 5)),
        lambda d: attention_cases(d, Attention(1, 1, 34, 35, 8, offset=1)),
        lambda d: attention_cases(d, Attention(2, 2, 3, 5, 32, mask="boolean")),
        lambda d: attention_cases(d, Attention(2, 2, 3, 5, 36, offset=2, mask="added")),
        lambda d: attention_cases(d, Attention(1, 1, 2, 3, 33, mask="one row")),
        lambda d: attention_cases(d, Attention(1, 1, 2, 20, 68)),
    ],
}


def all_cases(group: str, seed: int = 0) -> Iterator[Case]:
    """The tiny cases of one file of kernels."""
    draw = Draw(seed)
    for make in TINY[group]:
        yield from make(draw)
