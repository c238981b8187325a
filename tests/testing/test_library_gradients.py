"""Every differentiable function of the library passes `gradcheck` at orders 1 and 2."""

import numpy as np
import pytest

import tinyllm as tl
from tinyllm.autograd import fused, ops
from tinyllm.testing import gradcheck

RNG = np.random.default_rng(11)


def real(*shape):
    return RNG.normal(size=shape)


X, IDS = real(3, 4), np.array([[0, 2, 2], [1, 0, 2]])
POSITIVE = 0.5 + RNG.random((3, 4))
MASK = np.where(RNG.random((3, 4)) < 0.3, -np.inf, X)
MASK[:, 0] = X[:, 0]

ONE_ARGUMENT = [
    "abs", "ceil", "copy", "cos", "cumsum", "elu", "erf", "exp", "expm1", "floor", "gelu", "identity",
    "leaky_relu", "log", "log1p", "log_softmax", "logsumexp", "max", "mean", "min", "negative", "norm",
    "prod", "relu", "round", "sigmoid", "sign", "silu", "sin", "softmax", "softplus", "sort", "sqrt",
    "squeeze", "std", "sum", "tanh", "transpose", "tril", "triu", "var",
]  # fmt: skip
TWO_ARGUMENTS = ["add", "divide", "maximum", "minimum", "multiply", "subtract"]
CASES = {name: (getattr(tl, name), POSITIVE) for name in ONE_ARGUMENT}
CASES |= {f"{name}, any sign": (getattr(tl, name), X) for name in ONE_ARGUMENT if name not in ("log", "sqrt", "log1p")}
CASES |= {name: (getattr(tl, name), POSITIVE, real(4) + 3) for name in TWO_ARGUMENTS}
CASES |= {
    "add_along_axis": (lambda x: tl.add_along_axis(x, IDS, (2, 4), 1), real(2, 3)),
    "add_at": (lambda x: tl.add_at(x, (np.array([0, 2, 2]),), (4, 2)), real(3, 2)),
    "add_layer_norm": (lambda x, w, b: tl.concatenate(tl.add_layer_norm(x, x * w, 4, w, b)), X, real(4), real(4)),
    "add_rms_norm": (lambda x, w: tl.concatenate(tl.add_rms_norm(x, x * w, 4, w)), X, real(4)),
    "astype": (lambda x: tl.astype(tl.astype(x, "float32"), "float64") * 0 + x, X),
    "binary_cross_entropy_with_logits": (tl.binary_cross_entropy_with_logits, X, RNG.random((3, 4))),
    "broadcast_to": (lambda x: tl.broadcast_to(x, (2, 3, 4)), real(3, 1)),
    "clip": (lambda x: tl.clip(x, -0.5, 0.5), X),
    "concatenate": (lambda a, b: tl.concatenate([a, b, a], axis=1), X, real(3, 2)),
    "cross_entropy": (lambda x: tl.cross_entropy(x, np.array([0, -100, 3]), label_smoothing=0.1), X),
    "cross_entropy, probabilities": (
        lambda x, t: tl.cross_entropy(x, t, weight=np.arange(1.0, 5.0)), X, POSITIVE / POSITIVE.sum(-1, keepdims=True),
    ),
    "dropout": (lambda x: tl.dropout(x, 0.5, rng=np.random.default_rng(3)), X),
    "einsum": (lambda a, b: tl.einsum("ij,kj->ik", a, b), X, real(2, 4)),
    "embedding": (lambda w: tl.embedding(IDS, w), real(3, 4)),
    "expand_dims": (lambda x: tl.expand_dims(x, 1), X),
    "flip": (lambda x: tl.flip(x, 1), X),
    "gelu, tanh": (lambda x: tl.gelu(x, "tanh"), X),
    "getitem": (lambda x: x[np.array([0, 2, 0]), 1:], X),
    "gru": (lambda *xs: tl.gru(*xs, reverse=True), real(3, 2, 4), real(6, 4), real(6, 2), real(6), real(6), real(2, 2)),
    "kl_div": (tl.kl_div, X, POSITIVE),
    "layer_norm": (lambda x, w, b: tl.layer_norm(x, 4, w, b), X, real(4), real(4)),
    "gelu, bias": (lambda x, b: tl.gelu(x, bias=b), X, real(4)),
    "linear": (tl.linear, real(2, 3, 4), real(5, 4), real(5)),
    "linear_cross_entropy": (lambda x, w: tl.linear_cross_entropy(x, w, np.array([0, -100, 4])), X, real(5, 4)),
    "log_softmax beside -inf": (tl.log_softmax, MASK),
    "lstm": (tl.lstm, real(3, 2, 1), real(8, 1), real(8, 2), real(8), real(8), real(2, 2), real(2, 2)),
    "masked_fill": (lambda x: tl.masked_fill(x, X > 0, 2.0), X),
    "matmul": (tl.matmul, real(2, 1, 2, 3), real(2, 3, 2)),
    "matmul, vectors": (tl.matmul, real(4), real(4, 2)),
    "mse_loss": (tl.mse_loss, X, real(3, 4)),
    "ones_like": (lambda x: x * tl.ones_like(x), X),
    "outer": (tl.outer, real(3), real(2)),
    "pad": (lambda x: tl.pad(x, ((1, 0), (0, 2))), X),
    "power": (tl.power, POSITIVE, real(4)),
    "repeat": (lambda x: tl.repeat(x, 2, 1), X),
    "repeated use": (lambda x: x * tl.exp(x) + x / (1 + x * x), X),
    "reshape": (lambda x: tl.reshape(x, (2, 6)), X),
    "rms_norm": (lambda x, w: tl.rms_norm(x, 4, w, eps=1e-6), X, real(4)),
    "rnn": (lambda *x: tl.rnn(*x, lengths=[3, 1]), real(3, 2, 1), real(2, 1), real(2, 2), real(2), real(2), real(2, 2)),
    "roll": (lambda x: tl.roll(x, 1, 0), X),
    "scaled_dot_product_attention": (
        lambda q, k, v, m: tl.scaled_dot_product_attention(q, k, v, attn_mask=m, is_causal=True),
        real(2, 3, 2), real(2, 3, 2), real(2, 3, 2), np.where(RNG.random((3, 3)) < 0.3, -np.inf, real(3, 3)),
    ),
    "self_attention": (lambda x: tl.self_attention(x, 2, is_causal=True), real(3, 6)),
    "softmax beside -inf": (tl.softmax, MASK),
    "split": (lambda x: tl.split(x, 2, axis=1)[1], X),
    "stack": (lambda a, b: tl.stack([a, b], axis=1), X, real(3, 4)),
    "sum_to": (lambda x: tl.sum_to(x, (3, 1)), X),
    "swapaxes": (lambda x: tl.swapaxes(x, 0, 1), X),
    "swiglu": (tl.swiglu, X, real(3, 4)),
    "swiglu, biases": (lambda x, u, b, c: tl.swiglu(x, u, gate_bias=b, up_bias=c), X, real(3, 4), real(4), real(4)),
    "silu, bias": (lambda x, b: tl.silu(x, bias=b), X, real(4)),
    "take_along_axis": (lambda x: tl.take_along_axis(x, IDS, 1), real(2, 3)),
    "tile": (lambda x: tl.tile(x, (2, 1)), X),
    "topk": (lambda x: tl.topk(x, 2)[0], X),
    "where": (lambda a, b: tl.where(X > 0, a, b), X, real(4)),
    "zeros_like": (lambda x: x + tl.zeros_like(x), X),
}  # fmt: skip
NOT_DIFFERENTIABLE = {
    "argmax", "argmin", "argsort", "bitwise_and", "bitwise_or", "equal", "greater", "greater_equal", "invert",
    "isfinite", "isnan", "less", "less_equal", "not_equal", "one_hot",
}  # fmt: skip


def test_the_table_is_complete():
    named = {name.split(",")[0].split(" beside")[0] for name in CASES}
    assert (set(ops.__all__) | set(fused.__all__)) - NOT_DIFFERENTIABLE <= named


@pytest.mark.parametrize("name", CASES)
def test_orders_1_and_2(name):
    f, *inputs = CASES[name]
    gradcheck(f, *inputs, order=2)


@pytest.mark.parametrize("shape", [(), (0, 3), (1, 1), (2, 1, 3)])
@pytest.mark.parametrize("name", ["exp", "relu", "sum", "mean", "softplus", "logsumexp", "norm", "negative"])
def test_awkward_shapes(name, shape):
    if name in ("logsumexp", "mean") and 0 in shape:
        shape = (1,)  # of nothing they are -inf and NaN
    gradcheck(getattr(tl, name), real(*shape), order=2)


@pytest.mark.parametrize("name", ["gelu", "softmax", "log_softmax", "layer_norm", "rms_norm"])
def test_compiled_kernels(name):
    functions = {"layer_norm": lambda x: tl.layer_norm(x, 31), "rms_norm": lambda x: tl.rms_norm(x, 31)}
    with tl.backend("numba"):
        gradcheck(functions.get(name) or getattr(tl, name), real(5, 31))


SHIFTED = {
    "softmax": lambda x, v: tl.softmax(x),
    "log_softmax": lambda x, v: tl.log_softmax(x),
    "attention": lambda x, v: tl.scaled_dot_product_attention(0 * v, 0 * v, v, x),  # x alone makes the scores
}


@pytest.mark.parametrize(("dtype", "offset"), [("float64", 1e8), ("float64", -1e8), ("float32", 1e4)])
@pytest.mark.parametrize("name", SHIFTED)
def test_second_derivatives_do_not_feel_an_offset(name, dtype, offset):
    """The same number added to all of a row changes nothing: what float64 says without it holds to the last digits."""
    rng = np.random.default_rng(2)
    x = rng.integers(-200, 200, size=(4, 4)) / 64  # few bits, so that no offset rounds them
    x[1] = 0.5
    if name != "log_softmax":  # whose logarithm is infinite there
        x[0, 2] = -np.inf
    if name == "attention":  # where it is nothing, and NaN in the others
        x[3] = -np.inf
    v, g, h = rng.normal(size=(3, 4, 4)).astype(dtype)

    def second(x):
        def first(x):
            return tl.sum(tl.grad(lambda x: tl.sum(SHIFTED[name](x, tl.tensor(v.astype(x.dtype))) * g))(x) * h)

        return tl.grad(first)(tl.tensor(x)).numpy()

    expected = second(x)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(second((x + offset).astype(dtype)), expected, rtol=0, atol=32 * eps)
    assert np.abs(expected).max() > 0.1
