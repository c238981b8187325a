"""Values, gradients and second derivatives against PyTorch, an implementation that shares nothing with this one."""

# ruff: noqa: E501 (a table reads best with one case on a line)

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

import tinyllm as tl

torch = pytest.importorskip("torch", reason="PyTorch is not installed: peers are compared where it is")
F = torch.nn.functional
pytestmark = pytest.mark.peers


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Numbers without ties; the seed also depends on the shape."""
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def positive(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).uniform(0.2, 2.0, shape)


def simplex(*shape: int) -> np.ndarray:
    p = positive(*shape)
    return p / p.sum(-1, keepdims=True)


class Pair(NamedTuple):
    """The same function twice, and the arrays that it is differentiated by."""

    name: str
    ours: Callable
    theirs: Callable
    arrays: tuple[np.ndarray, ...]


def pair(name: str, ours: Callable, theirs: Callable, *arrays: np.ndarray) -> Pair:
    return Pair(name, ours, theirs, arrays)


IDS = np.array([[2, 0, -100], [1, 3, 3]])
WEIGHT = np.array([0.5, 1.0, 2.0, 0.3])
MASK = np.array([[True, False, True], [True, True, False], [False, False, True]])
INDEX = np.array([[0, 2, 2], [1, 1, 0]])
t = torch.as_tensor


def last_class(theirs: Callable) -> Callable:
    """PyTorch's cross_entropy with the classes on the last axis, as ours has them."""
    return lambda x, *rest: theirs(x.movedim(-1, 1) if x.ndim > 1 else x, *rest)


def attention(**options) -> tuple[Callable, Callable]:
    def theirs(q, k, v):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return F.scaled_dot_product_attention(
                q, k, v, **{n: t(o) if isinstance(o, np.ndarray) else o for n, o in options.items()}
            )

    return (lambda q, k, v: tl.scaled_dot_product_attention(q, k, v, **options)), theirs


def with_mask(q, k, v, m):
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=m)


QKV = (normal(2, 4, 3, 5), normal(2, 4, 3, 5, seed=1), normal(2, 4, 3, 5, seed=2))
GQA = (normal(2, 4, 3, 5), normal(2, 2, 3, 5, seed=1), normal(2, 2, 3, 5, seed=2))
CROSS = (normal(2, 2, 3, 4), normal(2, 2, 5, 4, seed=1), normal(2, 2, 5, 6, seed=2))

SAME_NAME = [
    "abs",
    "exp",
    "expm1",
    "sin",
    "cos",
    "tanh",
    "erf",
    "sigmoid",
    "negative",
    "sign",
    "round",
    "floor",
    "ceil",
]
PAIRS: list[Pair] = [
    *(pair(n, getattr(tl, n), getattr(torch, n), normal(3, 4)) for n in SAME_NAME),
    *(pair(n, getattr(tl, n), getattr(torch, n), positive(3, 4)) for n in ("log", "log1p", "sqrt")),
    *(pair(n, getattr(tl, n), getattr(F, n), normal(3, 4)) for n in ("softplus", "relu", "leaky_relu", "elu", "silu")),
    pair("leaky_relu slope", lambda x: tl.leaky_relu(x, 0.3), lambda x: F.leaky_relu(x, 0.3), normal(3, 4)),
    pair("elu alpha", lambda x: tl.elu(x, 0.3), lambda x: F.elu(x, 0.3), normal(3, 4)),
    *(pair(f"gelu {a}", lambda x, a=a: tl.gelu(x, a), lambda x, a=a: F.gelu(x, approximate=a), normal(3, 4)) for a in ("none", "tanh")),
    *(pair(f"gelu {a} with bias", lambda x, b, a=a: tl.gelu(x, a, bias=b), lambda x, b, a=a: F.gelu(x + b, approximate=a), normal(2, 3, 4), normal(4)) for a in ("none", "tanh")),
    pair("swiglu", tl.swiglu, lambda a, b: F.silu(a) * b, normal(3, 4), normal(3, 4, seed=1)),
    pair("swiglu with biases", lambda a, b, c, d: tl.swiglu(a, b, gate_bias=c, up_bias=d), lambda a, b, c, d: F.silu(a + c) * (b + d), normal(2, 3, 4), normal(2, 3, 4, seed=1), normal(4), normal(4, seed=2)),
    pair("silu with bias", lambda x, b: tl.silu(x, bias=b), lambda x, b: F.silu(x + b), normal(2, 3, 4), normal(4)),
    *(pair(n, getattr(tl, n), getattr(torch, n), normal(3, 4), normal(4, seed=1)) for n in ("add", "subtract", "multiply", "divide", "maximum", "minimum")),
    pair("power", tl.power, torch.pow, positive(3, 4), normal(3, 1)),
    *(pair(f"power {n}", lambda x, n=n: x**n, lambda x, n=n: x**n, normal(3, 4)) for n in (2, 3, -1, 0, 1)),
    pair("maximum with ties", lambda a, b: tl.maximum(a, b), torch.maximum, np.array([1.0, 2, 3]), np.array([1.0, 3, 2])),
    pair("minimum with ties", lambda a, b: tl.minimum(a, b), torch.minimum, np.array([1.0, 2, 3]), np.array([1.0, 3, 2])),
    *(pair(f"clip {o}", lambda x, o=o: tl.clip(x, *o), lambda x, o=o: torch.clamp(x, *o), np.array([-2.0, -1, 0, 0.5, 1, 3])) for o in ((-1, 1), (None, 1), (0, None), (1, -1))),
    pair("clip by arrays", lambda x: tl.clip(x, WEIGHT - 1, WEIGHT), lambda x: torch.clamp(x, t(WEIGHT - 1), t(WEIGHT)), normal(3, 4)),
    pair("where", lambda a, b: tl.where(MASK, a, b), lambda a, b: torch.where(t(MASK), a, b), normal(3, 3), normal(3)),
    pair("masked_fill", lambda x: tl.masked_fill(x, MASK, 2.0), lambda x: x.masked_fill(t(MASK), 2.0), normal(3, 3)),
    # reductions
    *(pair(f"{n} {a}", lambda x, n=n, a=a: getattr(tl, n)(x, axis=a, keepdims=True), lambda x, n=n, a=a: getattr(torch, n)(x, dim=a, keepdim=True), normal(2, 3, 4)) for n in ("sum", "mean", "logsumexp") for a in (0, (0, 2), -1)),
    *(pair(f"{n} {a} {d}", lambda x, n=n, a=a, d=d: getattr(tl, n)(x, axis=a, ddof=d), lambda x, n=n, a=a, d=d: getattr(torch, n)(x, dim=a, correction=d), normal(2, 3, 4)) for n in ("var", "std") for a in (1, (0, 2)) for d in (0, 1)),
    *(pair(f"a{n} with ties", lambda x, n=n: getattr(tl, n)(x, axis=(0, 1)), lambda x, n=n: getattr(torch, "a" + n)(x, dim=(0, 1)), np.array([[1.0, 2, 2], [2, 1, 1]])) for n in ("max", "min")),
    pair("std of equal numbers", lambda x: tl.std(x, axis=1), lambda x: torch.std(x, dim=1, correction=0), np.array([[1.0, 1], [1, 2]])),
    *(pair(f"prod {i}", lambda x: tl.prod(x, axis=1), lambda x: torch.prod(x, dim=1), a) for i, a in enumerate([normal(2, 5), np.array([[1.0, 0, 2], [0, 3, 0]])])),
    *(pair(f"norm {o}", lambda x, o=o: tl.norm(x, o, axis=1), lambda x, o=o: torch.linalg.vector_norm(x, o, dim=1), normal(3, 4)) for o in (1, 2, 3, 0.5, -1, -2.5, np.inf, -np.inf)),
    *(pair(f"norm {o} of zeros", lambda x, o=o: tl.norm(x, o), lambda x, o=o: torch.linalg.vector_norm(x, o), np.zeros(3)) for o in (1, 2, 3)),
    pair("norm inf with ties", lambda x: tl.norm(x, np.inf), lambda x: torch.linalg.vector_norm(x, np.inf), np.array([3.0, -3, 1])),
    pair("cumsum", lambda x: tl.cumsum(x, axis=1), lambda x: torch.cumsum(x, 1), normal(2, 5)),
    pair("logsumexp with -inf", lambda x: tl.logsumexp(tl.masked_fill(x, MASK, -np.inf), axis=1), lambda x: torch.logsumexp(x.masked_fill(t(MASK), -np.inf), 1), normal(3, 3)),
    # products
    *(pair(f"matmul {a} {b}", tl.matmul, torch.matmul, normal(*a), normal(*b, seed=1)) for a, b in [((2, 3), (3, 4)), ((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((5, 1, 2, 3), (4, 3, 2)), ((5, 2, 3), (3, 4)), ((3,), (5, 3, 2))]),
    pair("outer", tl.outer, torch.outer, normal(3), normal(4)),
    *(pair(f"einsum {s}", lambda *xs, s=s: tl.einsum(s, *xs), lambda *xs, s=s: torch.einsum(s, *xs), *(normal(*a, seed=i) for i, a in enumerate(shapes))) for s, shapes in [("bthd,bshd->bhts", [(2, 3, 2, 4), (2, 5, 2, 4)]), ("...ij,...jk->...ik", [(4, 2, 3), (3, 2)]), ("ii->i", [(3, 3)]), ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 2)]), ("ij->", [(2, 3)]), ("ba,cb", [(2, 3), (4, 2)])]),
    # shapes
    pair("transpose", lambda x: tl.transpose(x, (2, 0, 1)), lambda x: x.permute(2, 0, 1), normal(2, 3, 4)),
    pair("broadcast_to", lambda x: tl.broadcast_to(x, (4, 2, 3)), lambda x: x.expand(4, 2, 3), normal(2, 1)),
    pair("repeat", lambda x: tl.repeat(x, [1, 0, 2], axis=1), lambda x: torch.repeat_interleave(x, t([1, 0, 2]), dim=1), normal(2, 3)),
    pair("repeat by one number", lambda x: tl.repeat(x, 3), lambda x: torch.repeat_interleave(x, 3), normal(2, 3)),
    pair("tile", lambda x: tl.tile(x, (2, 1, 3)), lambda x: torch.tile(x, (2, 1, 3)), normal(2, 3)),
    pair("concatenate", lambda a, b: tl.concatenate([a, b, a], 1), lambda a, b: torch.cat([a, b, a], 1), normal(2, 3), normal(2, 1)),
    pair("stack", lambda a, b: tl.stack([a, b], -1), lambda a, b: torch.stack([a, b], -1), normal(2, 3), normal(2, 3, seed=1)),
    pair("split", lambda x: tl.split(x, [1, 3], 1)[1], lambda x: torch.tensor_split(x, [1, 3], 1)[1], normal(2, 5)),
    pair("pad", lambda x: tl.pad(x, ((0, 0), (1, 2)), constant_values=3), lambda x: F.pad(x, (1, 2), value=3), normal(2, 5)),
    *(pair(f"pad {m}", lambda x, m=m: tl.pad(x, ((0, 0), (2, 3)), mode=m), lambda x, p=p: F.pad(x, (2, 3), mode=p), normal(2, 5)) for m, p in (("edge", "replicate"), ("reflect", "reflect"), ("wrap", "circular"))),
    pair("flip", lambda x: tl.flip(x, (0, 1)), lambda x: torch.flip(x, (0, 1)), normal(2, 3)),
    pair("roll", lambda x: tl.roll(x, 2, 1), lambda x: torch.roll(x, 2, 1), normal(2, 5)),
    *(pair(f"{n} {k}", lambda x, n=n, k=k: getattr(tl, n)(x, k), lambda x, n=n, k=k: getattr(torch, n)(x, k), normal(3, 4)) for n in ("tril", "triu") for k in (-1, 0, 2)),
    pair("getitem", lambda x: x[np.array([0, 2, 2]), 1:], lambda x: x[[0, 2, 2], 1:], normal(3, 4)),
    pair("getitem by mask", lambda x: x[MASK], lambda x: x[t(MASK)], normal(3, 3)),
    pair("take_along_axis", lambda x: tl.take_along_axis(x, INDEX, 1), lambda x: torch.take_along_dim(x, t(INDEX), 1), normal(2, 4)),
    pair("add_along_axis", lambda x: tl.add_along_axis(x, INDEX, (2, 4), 1), lambda x: torch.zeros(2, 4, dtype=x.dtype).scatter_add(1, t(INDEX), x), normal(2, 3)),
    pair("sort", lambda x: tl.sort(x, 0), lambda x: torch.sort(x, 0).values, normal(5, 3)),
    *(pair(f"topk {b}", lambda x, b=b: tl.topk(x, 3, 1, b)[0], lambda x, b=b: torch.topk(x, 3, 1, b).values, normal(2, 5)) for b in (True, False)),
    # softmax, losses
    *(pair(f"{n} {a}", lambda x, n=n, a=a: getattr(tl, n)(x, a), lambda x, n=n, a=a: getattr(torch, n)(x, a), normal(2, 3, 4)) for n in ("softmax", "log_softmax") for a in (0, 1, -1)),
    *(
        pair(f"cross_entropy {r} {s} {w is not None} {i}", lambda x, r=r, s=s, w=w, i=i: tl.cross_entropy(x, IDS, w, i, r, s), last_class(lambda x, r=r, s=s, w=w, i=i: F.cross_entropy(x, t(np.where(IDS == -100, i, IDS)), None if w is None else t(w), ignore_index=i, reduction=r, label_smoothing=s)), normal(2, 3, 4))
        for r in ("mean", "sum", "none") for s in (0.0, 0.2) for w in (None, WEIGHT) for i in (-100,)
    ),
    pair("cross_entropy ignoring a class", lambda x: tl.cross_entropy(x, [0, 2, 2], ignore_index=2), lambda x: F.cross_entropy(x, t([0, 2, 2]), ignore_index=2), normal(3, 4)),
    pair("cross_entropy of one row", lambda x: tl.cross_entropy(x, 2), lambda x: F.cross_entropy(x, t(2)), normal(4)),
    *(pair(f"cross_entropy of probabilities {r} {s} {w is not None}", lambda x, p, r=r, s=s, w=w: tl.cross_entropy(x, p, w, reduction=r, label_smoothing=s), lambda x, p, r=r, s=s, w=w: F.cross_entropy(x, p, None if w is None else t(w), reduction=r, label_smoothing=s), normal(3, 4), simplex(3, 4)) for r in ("mean", "sum", "none") for s in (0.0, 0.2) for w in (None, WEIGHT)),
    *(
        pair(f"linear_cross_entropy {r} {s}", lambda x, w, r=r, s=s: tl.linear_cross_entropy(x, w, IDS, -100, r, s), lambda x, w, r=r, s=s: F.linear_cross_entropy(x.flatten(0, 1), w, t(IDS.ravel()), reduction=r, label_smoothing=s).reshape(IDS.shape if r == "none" else ()), normal(2, 3, 5), normal(4, 5))
        for r in ("mean", "sum", "none") for s in (0.0, 0.2)
    ),
    *(pair(f"mse_loss {r}", lambda a, b, r=r: tl.mse_loss(a, b, r), lambda a, b, r=r: F.mse_loss(a, b, reduction=r), normal(2, 3), normal(2, 3, seed=1)) for r in ("mean", "sum", "none")),
    *(pair(f"binary_cross_entropy_with_logits {r}", lambda a, b, r=r: tl.binary_cross_entropy_with_logits(a, b, WEIGHT, r, WEIGHT[::-1]), lambda a, b, r=r: F.binary_cross_entropy_with_logits(a, b, t(WEIGHT), reduction=r, pos_weight=t(WEIGHT[::-1].copy())), 3 * normal(3, 4), positive(3, 4) / 2) for r in ("mean", "sum", "none")),
    pair("binary_cross_entropy_with_logits", tl.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits, 3 * normal(3, 4), positive(3, 4) / 2),
    *(pair(f"kl_div {r} {g}", lambda a, b, r=r, g=g: tl.kl_div(a, b, r, g), lambda a, b, r=r, g=g: F.kl_div(a, b, reduction=r, log_target=g), normal(3, 4), simplex(3, 4)) for r in ("mean", "batchmean", "sum", "none") for g in (False, True)),
    pair("kl_div with zeros", lambda a: tl.kl_div(a, np.array([[0.0, 1.0]])), lambda a: F.kl_div(a, t([[0.0, 1.0]], dtype=torch.float64)), normal(1, 2)),
    # layers
    pair("layer_norm", lambda x: tl.layer_norm(x, 4), lambda x: F.layer_norm(x, (4,)), normal(2, 3, 4)),
    pair("layer_norm (3, 4)", lambda x, w, b: tl.layer_norm(x, (3, 4), w, b, 0.01), lambda x, w, b: F.layer_norm(x, (3, 4), w, b, 0.01), normal(2, 3, 4), normal(3, 4), normal(3, 4, seed=1)),
    pair("layer_norm weight", lambda x, w: tl.layer_norm(x, 4, w), lambda x, w: F.layer_norm(x, (4,), w), normal(2, 3, 4), normal(4)),
    pair("rms_norm", lambda x: tl.rms_norm(x, 4), lambda x: F.rms_norm(x, (4,)), normal(2, 3, 4)),
    pair("rms_norm (3, 4)", lambda x, w: tl.rms_norm(x, (3, 4), w, 0.01), lambda x, w: F.rms_norm(x, (3, 4), w, 0.01), normal(2, 3, 4), normal(3, 4)),
    pair("linear", tl.linear, F.linear, normal(2, 3, 4), normal(5, 4), normal(5)),
    pair("linear without bias", tl.linear, F.linear, normal(4), normal(5, 4)),
    pair("embedding", lambda w: tl.embedding(INDEX, w), lambda w: F.embedding(t(INDEX), w), normal(4, 3)),
    *(pair(f"embedding padding {p}", lambda w, p=p: tl.embedding(INDEX, w, p), lambda w, p=p: F.embedding(t(INDEX), w, p), normal(4, 3)) for p in (0, 2, -3)),
    # attention
    *(
        pair(f"attention {i}", *attention(**o), *arrays)
        for i, (arrays, o) in enumerate([
            (QKV, {}), (QKV, {"is_causal": True}), (QKV, {"scale": 0.3}), (QKV, {"attn_mask": MASK}), (QKV, {"attn_mask": MASK[None, None].repeat(4, 1)}),
            (QKV, {"attn_mask": np.array([[False] * 3, [True] * 3, [True, False, True]])}), (GQA, {"enable_gqa": True, "is_causal": True}),
            (GQA, {"enable_gqa": True, "attn_mask": MASK}), (CROSS, {}), (CROSS, {"is_causal": True}), (QKV, {"attn_mask": normal(3, 3)}),
        ])
    ),
    pair("attention with an additive mask", tl.scaled_dot_product_attention, with_mask, *QKV, normal(2, 1, 3, 3)),
]  # fmt: skip

# PyTorch declares the first derivative here and gives NaN for the second.
NAN_THERE = ("std of equal numbers", "norm 2 of zeros", "norm 3 of zeros")

FUSED = (
    "softmax",
    "log_softmax",
    "cross_entropy",
    "linear_cross_entropy",
    "gelu",
    "silu",
    "swiglu",
    "layer_norm",
    "rms_norm",
    "linear",
    "embedding",
    "attention",
)


def close(ours: tl.Tensor, theirs: object, what: str) -> None:
    expected = theirs.detach().numpy(force=True)
    assert ours.shape == expected.shape, what
    np.testing.assert_allclose(ours.data, expected, rtol=1e-10, atol=1e-11, err_msg=what)


def compare(p: Pair) -> None:
    rng = np.random.default_rng(1)
    xs = [tl.tensor(a, requires_grad=True) for a in p.arrays]
    us = [torch.tensor(a, requires_grad=True) for a in p.arrays]
    y, v = p.ours(*xs), p.theirs(*us)
    close(y, v, "value")
    g = rng.normal(size=y.shape)
    gt = torch.tensor(g, requires_grad=True)
    theirs = torch.autograd.grad(v, us, gt, create_graph=True, materialize_grads=True)
    y.backward(g, retain_graph=True)
    for x, d in zip(xs, theirs, strict=True):
        close(x.grad if x.grad is not None else tl.zeros_like(x), d, "gradient")
    # <grads, r>, differentiated by the cotangent and every argument
    rs = [rng.normal(size=a.shape) for a in p.arrays]
    total = functools.reduce(torch.add, [(d * t(r)).sum() for d, r in zip(theirs, rs, strict=True)])
    if not total.requires_grad:
        return
    seconds = torch.autograd.grad(total, [gt, *us], materialize_grads=True, allow_unused=True)

    def pulled(g: tl.Tensor, *at: tl.Tensor) -> tl.Tensor:
        grads = tl.vjp(p.ours, *at)[1](g)
        return functools.reduce(tl.add, [tl.sum(d * r) for d, r in zip(grads, rs, strict=True)])

    ours = tl.grad(pulled, tuple(range(len(xs) + 1)))(tl.tensor(g), *(tl.tensor(a) for a in p.arrays))
    for d, e in zip(ours, seconds, strict=True):
        if p.name in NAN_THERE:
            assert np.isfinite(d.data).all()
        else:
            close(d, e, "second derivative")


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.parametrize(
    ("p", "backend"),
    [
        pytest.param(p, b, id=f"{p.name}-{b}")
        for p in PAIRS
        for b in (("numpy", "numba") if p.name.startswith(FUSED) else ("numpy",))
    ],
)
def test_equals_torch(p: Pair, backend: str) -> None:
    with tl.backend(backend):
        compare(p)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_promotion_of_numbers(dtype: str) -> None:
    """Bare numbers are weak in both; 0-d tensors are weak in PyTorch alone."""
    ours, theirs = tl.tensor(np.ones(2, dtype)), torch.ones(2, dtype=getattr(torch, dtype))
    for f in (lambda x: x * 3.0, lambda x: 3 / x, lambda x: x**2, lambda x: 2.0**x):
        assert str(f(ours).dtype) == str(f(theirs).dtype).removeprefix("torch.")


@pytest.mark.parametrize("n", [1, 7, 64])
def test_long_rows(n: int) -> None:
    """Rows longer than any tile of a kernel, in float32, to single precision."""
    x = normal(3, 1000 * n).astype(np.float32)
    for ours, theirs in (
        (tl.softmax(x).data, torch.softmax(t(x), -1)),
        (tl.log_softmax(x).data, torch.log_softmax(t(x), -1)),
        (tl.layer_norm(x, x.shape[-1:]).data, F.layer_norm(t(x), x.shape[-1:])),
        (tl.gelu(x, "tanh").data, F.gelu(t(x), approximate="tanh")),
    ):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=3e-5, atol=3e-6)
