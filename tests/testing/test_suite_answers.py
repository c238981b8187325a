"""Right answers keep every law; each usual mistake breaks one, and is named."""

import textwrap

import numpy as np
import pytest

from tinyllm.testing.suite import table, topics
from tinyllm.testing.suite.checks import collect, guarded
from tinyllm.testing.suite.discover import find

NUMPY = """
import math
import numpy as np

def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)

def softmax_backward(g, x, axis=-1):
    y = softmax(x, axis)
    return y * (g - (g * y).sum(axis=axis, keepdims=True))

def logsumexp(x, axis=None, keepdims=False):
    m = x.max(axis=axis, keepdims=True)
    m = np.where(np.isfinite(m), m, 0)
    y = np.log(np.exp(x - m).sum(axis=axis, keepdims=True)) + m
    return y if keepdims else y.reshape(()) if axis is None else np.squeeze(y, axis)

def log_softmax(x, axis=-1):
    return x - logsumexp(x, axis, keepdims=True)

def log_softmax_vjp(g, x, axis=-1):
    return (g - softmax(x, axis) * g.sum(axis=axis, keepdims=True),)

def relu(x):
    return np.maximum(x, 0)

def relu_backward(g, x):
    return g * (x > 0)

def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))

def sigmoid_backward(dout, z):
    s = sigmoid(z)
    return dout * s * (1 - s)

def tanh(x):
    return np.tanh(x)

def softplus(x):
    return np.logaddexp(0, x)

def silu(x):
    return x * sigmoid(x)

def gelu(x, approximate="none"):
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))
    return 0.5 * x * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2)))

def layer_norm(x, gamma=None, beta=None, eps=1e-5):
    z = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
    return z * (1 if gamma is None else gamma) + (0 if beta is None else beta)

def layer_norm_backward(g, x, gamma=None, beta=None, eps=1e-5):
    s = np.sqrt(x.var(-1, keepdims=True) + eps)
    z = (x - x.mean(-1, keepdims=True)) / s
    u = g if gamma is None else g * gamma
    dx = (u - u.mean(-1, keepdims=True) - z * (u * z).mean(-1, keepdims=True)) / s
    axes = tuple(range(x.ndim - 1))
    return dx, (g * z).sum(axes), g.sum(axes)

def rms_norm(x, weight, eps=1e-5):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight

def cross_entropy(logits, targets, ignore_index=-100, reduction="mean"):
    keep = targets != ignore_index
    costs = -np.take_along_axis(log_softmax(logits), np.where(keep, targets, 0)[..., None], -1)[..., 0] * keep
    return {"none": costs, "sum": costs.sum(), "mean": costs.sum() / keep.sum()}[reduction]

def cross_entropy_backward(g, logits, targets):
    p = softmax(logits)
    np.put_along_axis(p, targets[..., None], np.take_along_axis(p, targets[..., None], -1) - 1, -1)
    return g * p / targets.size

def mse_loss(y, t):
    return ((y - t) ** 2).mean()

def mse_loss_backward(g, y, t):
    d = g * 2 * (y - t) / y.size
    return d, -d

def binary_cross_entropy_with_logits(x, t):
    return (np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))).mean()

def linear(x, W, b=None):
    return x @ W.T if b is None else x @ W.T + b

def linear_backward(g, x, W, b=None):
    axes = tuple(range(x.ndim - 1))
    flat = g.reshape(-1, g.shape[-1])
    return g @ W, flat.T @ x.reshape(-1, x.shape[-1]), g.sum(axes) if axes else g.copy()

def matmul(a, b):
    return a @ b

def embedding(ids, table):
    return table[ids]

def embedding_backward(g, ids, table):
    d = np.zeros_like(table)
    np.add.at(d, ids, g)
    return d

def attention(q, k, v, mask=None, causal=False):
    s = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    if mask is not None:
        s = np.where(mask, s, -np.inf)
    if causal:
        s = np.where(np.tril(np.ones(s.shape[-2:], dtype=bool)), s, -np.inf)
    m = s.max(-1, keepdims=True)
    e = np.exp(s - np.where(np.isfinite(m), m, 0))
    z = e.sum(-1, keepdims=True)
    a = e / np.where(z == 0, 1, z)
    return a @ v, a

def attention_backward(g, q, k, v, mask=None, causal=False):
    _, a = attention(q, k, v, mask, causal)
    c = 1 / np.sqrt(q.shape[-1])
    da = g @ np.swapaxes(v, -1, -2)
    ds = a * (da - (da * a).sum(-1, keepdims=True))
    return ds @ k * c, np.swapaxes(ds, -1, -2) @ q * c, np.swapaxes(a, -1, -2) @ g

def dropout(x, p=0.5, training=True, rng=None):
    if not training or p == 0:
        return x
    rng = rng or np.random.default_rng()
    return x * (rng.random(x.shape) >= p) / (1 - p)

def sgd_step(w, grad, lr):
    return w - lr * grad

def adam_step(w, grad, m, v, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8):
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad ** 2
    return w - lr * (m / (1 - beta1 ** t)) / (np.sqrt(v / (1 - beta2 ** t)) + eps), m, v

def sinusoidal_positions(T, C, base=10000.0):
    j = np.arange(C)
    a = np.arange(T)[:, None] / base ** ((j - j % 2) / C)
    return np.where(j % 2 == 0, np.sin(a), np.cos(a))

def positional_encoding(seq_len, d_model):
    pe = np.zeros((seq_len, d_model))
    i = np.arange(0, d_model, 2)
    a = np.arange(seq_len)[:, None] * np.exp(-np.log(10000.0) * i / d_model)
    pe[:, 0::2] = np.sin(a)
    pe[:, 1::2] = np.cos(a)[:, : d_model // 2]
    return pe
"""

TENSOR = """
import math
import numpy as np
import tinyllm as tl
from tinyllm.testing import implements

def softmax(x, axis=-1):
    e = tl.exp(x - tl.max(x, axis, keepdims=True))
    return e / tl.sum(e, axis, keepdims=True)

def log_softmax(x, axis=-1):
    return x - tl.logsumexp(x, axis, keepdims=True)

def relu(x):
    return tl.where(x > 0, x, 0.0)

@implements("gelu")
def bent(x):
    return 0.5 * x * (1 + tl.erf(x / math.sqrt(2)))

def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    axes = tuple(range(-len(normalized_shape), 0))
    c = x - x.mean(axes, keepdims=True)
    z = c / tl.sqrt((c * c).mean(axes, keepdims=True) + eps)
    z = z if weight is None else z * weight
    return z if bias is None else z + bias

def cross_entropy(logits, target):
    return -tl.mean(tl.take_along_axis(log_softmax(logits), target[..., None], axis=-1))

def mse_loss(input, target):
    return ((input - target) ** 2).mean()

def linear(x, weight, bias=None):
    y = x @ weight.mT
    return y if bias is None else y + bias

def embedding(ids, weight):
    return weight[ids]

def attention(q, k, v, attn_mask=None, is_causal=False):
    s = q @ k.mT / math.sqrt(q.shape[-1])
    allowed = np.ones(s.shape, dtype=bool) if attn_mask is None else np.broadcast_to(attn_mask, s.shape)
    allowed = np.tril(allowed) if is_causal else allowed
    some = allowed.any(-1, keepdims=True)
    s = tl.masked_fill(s, ~(allowed | ~some), -np.inf)
    return tl.where(some, tl.softmax(s), 0.0) @ v
"""

# Per function: code, the laws it must break (among others), and words of the diagnosis.
WRONG = [
    ("softmax", "e = np.exp(x); return e / e.sum(axis, keepdims=True)", "large_inputs", "maximum is not subtracted"),
    ("softmax", "e = np.exp(x - x.max()); return e / e.sum()", "values", "over the whole array"),
    ("softmax", "e = np.exp(x - x.max(0)); return e / e.sum(0)", "values", "wrong axis"),
    ("softmax", "e = np.exp(x - x.max(-1, keepdims=True)); return e / e.sum(-1, keepdims=True)", "axes",
     "axis is ignored"),
    ("softmax", "return np.exp(x - x.max(axis, keepdims=True))", "values", "not normalised"),
    ("softmax", "x -= x.max(axis, keepdims=True); e = np.exp(x); return e / e.sum(axis, keepdims=True)",
     "unchanged", "in place"),
    ("softmax", "e = np.exp(x - x.max(axis)); return e / e.sum(axis)", "values", "keepdims=True"),
    ("layer_norm",
     "return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, ddof=1, keepdims=True) + eps) * weight + bias",
     "values", "ddof=1"),
    ("layer_norm", "return (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + eps) * weight + bias",
     "small_variance", "outside the root"),
    ("layer_norm", "return (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True) * weight + bias",
     "small_variance", "eps is missing"),
    ("layer_norm", "return (x - x.mean(0)) / np.sqrt(x.var(0) + eps) * weight + bias", "values", "batch norm"),
    ("layer_norm", "return (x - x.mean(-1, keepdims=True)) / (x.var(-1, keepdims=True) + eps) * weight + bias",
     "values", "the root is missing"),
    ("layer_norm", "return x / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias", "values",
     "mean is not subtracted"),
    ("layer_norm", "return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)", "values",
     "ignored"),
    ("layer_norm", "m = x.mean(-1, keepdims=True); v = (x * x).mean(-1, keepdims=True) - m * m; "
     "return (x - m) / np.sqrt(np.maximum(v, 0) + eps) * weight + bias", "far_from_zero", None),
    ("layer_norm", "m = x.mean(-1, keepdims=True); v = (x * x).mean(-1, keepdims=True) - m * m; "
     "return (x - m) / np.sqrt(v + eps) * weight + bias", "far_from_zero", "E[x^2] - E[x]^2"),
    ("gelu", "return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))", "values",
     "tanh approximation"),
    ("gelu", "return x / (1 + np.exp(-1.702 * x))", "values", "1.702"),
    ("gelu", "return 0.5 * x * (1 + erf(x))", "values", "erf(x / sqrt(2))"),
    ("gelu", "return x * (1 + erf(x / math.sqrt(2)))", "values", "1/2 is missing"),
    ("gelu", "return np.maximum(x, 0)", "values", "ReLU"),
    ("cross_entropy", "p = np.exp(logits - logits.max(-1, keepdims=True)); p /= p.sum(-1, keepdims=True); "
     "return -np.log(np.take_along_axis(p, target[..., None], -1)).mean()", "large_logits", "log-softmax"),
    ("cross_entropy", "return lsm(logits, target).mean()", "values", "sign is wrong"),
    ("cross_entropy", "return -lsm(logits, target).sum()", "values", "not the mean"),
    ("cross_entropy", "p = np.exp(logits); p /= p.sum(-1, keepdims=True); return -lsm(p, target).mean()", "values",
     "twice"),
    ("cross_entropy", "p = np.exp(logits); p /= p.sum(0); "
     "return -np.log(np.take_along_axis(p, target[..., None], -1)).mean()", "values", "wrong axis"),
    ("cross_entropy", "return -lsm(logits, target)", "values", "one number"),
    ("attention", "return sm(q @ T(k)) @ v", "values", "scale is missing"),
    ("attention", "return sm(q @ T(k) / q.shape[-1]) @ v", "values", "root of d"),
    ("attention", "return sm(q @ T(k) / math.sqrt(q.shape[-1]), -2) @ v", "values", "wrong axis"),
    ("attention", "s = q @ T(k) / math.sqrt(q.shape[-1]); "
     "return sm(s if mask is None else np.where(mask, -np.inf, s)) @ v", "masks", "inverted"),
    ("attention", "s = q @ T(k) / math.sqrt(q.shape[-1]); "
     "return sm(s if mask is None else np.where(mask, s, -1e9)) @ v", "masked_row", "finite number"),
    ("attention", "s = q @ T(k) / math.sqrt(q.shape[-1]); "
     "return sm(s if mask is None else np.where(mask, s, -np.inf)) @ v", "masked_row", "zeros are meant"),
    ("attention", "s = q @ T(k) / math.sqrt(q.shape[-1]); "
     "return sm(s if mask is None else s * mask) @ v", "masks", "fills with 0"),
    ("attention", "s = q @ T(k) / math.sqrt(q.shape[-1]); t = np.triu(np.ones(s.shape[-2:]), 0) > 0; "
     "return sm(np.where(t, s, -np.inf) if causal else s) @ v", "no_leak", "wrong way round"),
    ("attention", "s = q @ T(k) / math.sqrt(q.shape[-1]); t = np.tril(np.ones(s.shape[-2:]), 1) > 0; "
     "return sm(np.where(t, s, -np.inf) if causal else s) @ v", "no_leak", "off by one"),
    ("attention", "return sm(q @ k.T / math.sqrt(q.shape[-1])) @ v", "shapes", None),
    ("sigmoid", "return 1 / (1 + np.exp(x))", "values", "sign of the exponent"),
    ("sigmoid", "return np.exp(x) / (1 + np.exp(x))", "extremes", "overflows"),
    ("sigmoid", "s = 1 / (1 + np.exp(-x)); return s * (1 - s)", "values", "derivative"),
    ("sigmoid", "return np.tanh(x)", "values", "tanh"),
    ("adam_step",
     "m = b1 * m + (1 - b1) * g; v = b2 * v + (1 - b2) * g * g; return w - lr * m / (np.sqrt(v) + eps), m, v",
     "values", "bias correction is missing"),
    ("adam_step", "m = b1 * m + (1 - b1) * g; v = b2 * v + (1 - b2) * g * g; "
     "return w + lr * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps), m, v", "values", "uphill"),
    ("adam_step", "m = b1 * m + (1 - b1) * g; v = b2 * v + (1 - b2) * g; "
     "return w - lr * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps), m, v", "values", "not squared"),
    ("adam_step", "m = b1 * m + (1 - b1) * g; v = b2 * v + (1 - b2) * g * g; "
     "return w - lr * m / (1 - b1**t) / np.sqrt(v / (1 - b2**t) + eps), m, v", "tiny_gradients", "inside the root"),
    ("adam_step", "m *= b1; m += (1 - b1) * g; v = b2 * v + (1 - b2) * g * g; "
     "return w - lr * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps), m, v", "unchanged", "in place"),
    ("positional_encoding", "a = np.arange(T)[:, None] / 10000 ** (np.arange(0, C, 2) / C); "
     "return np.concatenate([np.sin(a), np.cos(a)], 1)", "values", "alternate"),
    ("positional_encoding", "j = np.arange(C); a = np.arange(T)[:, None] / 10000 ** (j / C); "
     "return np.where(j % 2 == 0, np.sin(a), np.cos(a))", "values", "share one"),
    ("positional_encoding", "j = np.arange(C); a = np.arange(T)[:, None] / 10000 ** ((j - j % 2) / C); "
     "return np.where(j % 2 == 0, np.cos(a), np.sin(a))", "values", "exchanged"),
    ("positional_encoding", "j = np.arange(C); a = np.arange(1, T + 1)[:, None] / 10000 ** ((j - j % 2) / C); "
     "return np.where(j % 2 == 0, np.sin(a), np.cos(a))", "values", "counted from 1"),
    ("mse_loss", "return ((x - t) ** 2).sum()", "values", "sum is returned"),
    ("mse_loss", "return ((x - t) ** 2).mean() / 2", "values", "1/2"),
    ("mse_loss", "return np.sqrt(((x - t) ** 2).mean())", "values", "RMSE"),
    ("mse_loss", "return np.abs(x - t).mean()", "values", "absolute"),
    ("linear", "return x @ weight.reshape(weight.shape[::-1]) + (0 if bias is None else bias)", "values", "reshaped"),
    ("linear",
     "w = weight if weight.shape[0] == weight.shape[1] else weight.T; return x @ w + (0 if bias is None else bias)",
     "square_weight", "(out, in)"),
    ("linear", "return x @ weight.T", "values", "bias is ignored"),
    ("linear", "return x @ weight.T - (0 if bias is None else bias)", "values", "subtracted"),
    ("embedding", "return weight[ids.ravel()]", "shapes", None),
    ("embedding", "return weight[ids - 1]", "values", "counted from 1"),
    ("dropout", "return x * (np.random.rand(*x.shape) >= p)", "scaled_up", "1 - p"),
    ("dropout", "return x * (np.random.rand(*x.shape) < p) / p if p else x", "scaled_up", "divided by p"),
    ("dropout", "return x * (np.random.rand(*x.shape) < p) / (1 - p) if p else x", "share_dropped", "not of keeping"),
    ("dropout", "r = np.random.default_rng(0); return x * (r.random(x.shape) >= p) / (1 - p)", "random_draws",
     "seed is fixed"),
]  # fmt: skip
SIGNATURES = {
    "softmax": "x, axis=-1",
    "layer_norm": "x, weight, bias, eps=1e-5",
    "gelu": "x",
    "cross_entropy": "logits, target",
    "attention": "q, k, v, mask=None, causal=False",
    "sigmoid": "x",
    "adam_step": "w, g, m, v, t, lr=1e-3, b1=0.9, b2=0.999, eps=1e-8",
    "positional_encoding": "T, C",
    "mse_loss": "x, t",
    "linear": "x, weight, bias=None",
    "embedding": "ids, weight",
    "dropout": "x, p=0.5",
}
TOOLS = """
import math
import numpy as np
erf = np.vectorize(math.erf, otypes=[float])
T = lambda k: np.swapaxes(k, -1, -2)
def sm(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True)); return e / e.sum(axis, keepdims=True)
def lsm(x, t):
    x = x - x.max(-1, keepdims=True)
    return np.take_along_axis(x - np.log(np.exp(x).sum(-1, keepdims=True)), t[..., None], -1)[..., 0]
"""
GRADIENTS = [
    ("softmax", "e = np.exp(x - x.max(-1, keepdims=True)); return e / e.sum(-1, keepdims=True)",
     "y = softmax(x); return y * g",
     "a term is missing"),
    ("softmax", "e = np.exp(x - x.max(-1, keepdims=True)); return e / e.sum(-1, keepdims=True)",
     "y = softmax(x); return -y * (g - (g * y).sum(-1, keepdims=True))", "sign"),
    ("sigmoid", "e = np.exp(-np.abs(x)); return np.where(x > 0, 1 / (1 + e), e / (1 + e))", "return g",
     "passed on unchanged"),
    ("sigmoid", "e = np.exp(-np.abs(x)); return np.where(x > 0, 1 / (1 + e), e / (1 + e))",
     "s = sigmoid(x); return s * (1 - s)", "g is not used"),
    ("mse_loss", "return ((x - t) ** 2).mean()", "return g * 2 * (x - t), -g * 2 * (x - t)", "constant factor"),
    ("linear", "return x @ weight.T + (0 if bias is None else bias)",
     "return g @ weight, x.T @ g, g.sum(0)", "transposed"),
    ("linear", "return x @ weight.T + (0 if bias is None else bias)",
     "return g @ weight, g.T @ x, g", "broadcasting not undone"),
    ("embedding", "return weight[ids]", "d = np.zeros_like(weight); d[ids] = g; return d", "more than once"),
]  # fmt: skip

FAR = np.array([[1000.0, -1000.0, 0.0]])
ROWS = {"x": FAR, "axis": 0}
QKV = {"q": np.eye(3), "k": np.eye(3)[::-1] * 2.0, "v": np.arange(9.0).reshape(3, 3)}
WIDE = {n: np.arange(float(t * 2)).reshape(t, 2) for n, t in (("q", 2), ("k", 3), ("v", 3))}
NORM = {"x": np.arange(24.0).reshape(2, 3, 4), "normalized_shape": (3, 4), "eps": 0.5}
# Where mistakes show that the usual cases do not show.
TINY = {"theta": np.zeros(1), "g": np.array([1e-8]), "m": np.zeros(1), "v": np.zeros(1), "t": 1, "lr": 0.1}
HARD = np.array([[1.0, 3.0]])
# Where mistakes show that the usual cases do not show.
SOFT = [{"x": FAR, "axis": -1}, ROWS]
ATTEND = [
    {**QKV, "is_causal": True},
    {**QKV, "scale": 3.0},
    {**WIDE, "is_causal": True},
    {**QKV, "q": np.eye(3) * 1e4},
    {**QKV, "attn_mask": np.array([[0, 0, 0], [1, 0, 1], [0, 1, 1]], dtype=bool)},
]
EXTREME = {
    "softmax": SOFT,
    "log_softmax": SOFT,
    "logsumexp": [*SOFT, {"x": np.array([-np.inf, -np.inf])}],
    "sigmoid": [{"x": FAR}],
    "tanh": [{"x": FAR}],
    "silu": [{"x": FAR}],
    "softplus": [{"x": FAR}],
    "gelu": [{"x": np.ones(3), "approximate": "tanh"}],
    "layer_norm": [NORM, {"x": np.arange(4.0) + 2.0**26, "normalized_shape": (4,)}],
    "rms_norm": [NORM],
    "linear": [{"x": HARD, "weight": np.arange(4.0).reshape(2, 2)}],
    "adam_step": [TINY],
    "cross_entropy": [
        {"logits": FAR, "target": np.array([1])},
        {"logits": HARD, "target": np.array([1]), "reduction": "sum"},
        {"logits": np.repeat(HARD, 3, 0), "target": np.array([1, 1, 0]), "reduction": "sum"},
        {"logits": np.ones((3, 2)), "target": np.array([1, -100, 0])},
    ],
    "mse_loss": [{"input": FAR, "target": FAR * 2, "reduction": "sum"}],
    "binary_cross_entropy_with_logits": [
        {"input": FAR, "target": FAR * 0 + 0.5},
        {"input": FAR, "target": FAR * 0, "reduction": "sum"},
    ],
    "attention": ATTEND,
    "scaled_dot_product_attention": ATTEND,
    "sinusoidal_positions": [{"T": 5, "C": 4, "base": 50.0}],
    "positional_encoding": [{"T": 5, "C": 4, "base": 50.0}],
}


def outcomes(source: str, only: tuple[str, ...] = ()) -> dict[str, dict]:
    namespace = {"__name__": "answers"}
    exec(textwrap.dedent(source), namespace)
    _, checks = collect(namespace, "answers", only)
    return {name: guarded(check.run, "answers.py") for name, check in checks.items()}


def written(name: str, body: str) -> str:
    return f"{TOOLS}\ndef {name}({SIGNATURES[name]}):\n    {body}\n"


@pytest.mark.parametrize("source", [NUMPY, TENSOR], ids=["numpy", "tensor"])
def test_right_answers_keep_every_law(source):
    found = outcomes(source)
    assert {n: o for n, o in found.items() if o["status"] not in ("passed", "skipped")} == {}
    passed = [n for n, o in found.items() if o["status"] == "passed"]
    assert len(passed) > (60 if source is TENSOR else 110)
    if source is TENSOR:
        assert [n for n in found if n.endswith(".gradient") and n not in passed] == []


def test_every_function_has_a_right_answer_here():
    namespace = {"__name__": "answers"}
    exec(NUMPY, namespace)
    assert set(table.LAWS) - set(find(namespace, "answers", table.LAWS)) == {"scaled_dot_product_attention"}
    assert set(topics.TOPICS) == set(table.LAWS)


@pytest.mark.parametrize(("name", "body", "law", "words"), WRONG, ids=[f"{w[0]}-{i}" for i, w in enumerate(WRONG)])
def test_a_wrong_answer_is_named(name, body, law, words):
    laws = (f"{name}.{law}",)
    outcome = outcomes(written(name, body), laws)[laws[0]]
    assert outcome["status"] in ("failed", "error"), outcome
    if words is not None:
        assert words in " ".join(outcome["likely"]), outcome


@pytest.mark.parametrize(
    ("name", "body", "backward", "words"), GRADIENTS, ids=[f"{g[0]}-{i}" for i, g in enumerate(GRADIENTS)]
)
def test_a_wrong_backward_pass_is_named(name, body, backward, words):
    source = written(name, body) + f"\ndef {name}_backward(g, {SIGNATURES[name]}):\n    {backward}\n"
    outcome = outcomes(source, (f"{name}.gradient",))[f"{name}.gradient"]
    assert outcome["status"] == "failed"
    assert words in " ".join(outcome["likely"]), outcome


def test_a_wrong_rule_in_tensor_code_is_named():
    source = """
        import tinyllm as tl
        def softmax(x, axis=-1):
            e = tl.exp(x - tl.max(x, axis, keepdims=True))
            return e / tl.sum(e, axis, keepdims=True).detach()
    """
    assert outcomes(source, ("softmax.gradient",))["softmax.gradient"]["status"] == "failed"


@pytest.mark.parametrize("cast", ["np.float32", "lambda a: np.asarray(np.asarray(a, np.float32), np.float64)"])
def test_right_answers_in_single_precision_pass(cast):
    """A grader that fails a right answer for computing in float32 is wrong."""
    source = f"""
        import numpy as np
        cast = {cast}
        def softmax(x, axis=-1):
            x = np.asarray(x, np.float32)
            e = np.exp(x - x.max(axis, keepdims=True))
            return cast(e / e.sum(axis, keepdims=True))
        def softmax_backward(g, x, axis=-1):
            y = softmax(x, axis)
            return cast(y * (g - (g * y).sum(axis, keepdims=True)))
        def layer_norm(x, weight, bias, eps=1e-5):
            x = np.asarray(x, np.float32)
            y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + np.float32(eps))
            return cast(y * np.float32(weight) + np.float32(bias))
        def sigmoid(x):
            e = np.exp(-np.abs(np.float32(x)))
            return cast(np.where(x >= 0, 1 / (1 + e), e / (1 + e)))
    """
    found = outcomes(source)
    assert {n: o for n, o in found.items() if o["status"] not in ("passed", "skipped")} == {}
    assert "single precision" in found["softmax.values"]["message"]


def test_functions_that_are_imported_are_nobodys_answers():
    source = """
        from math import tanh
        from numpy import matmul
        from tinyllm import softmax
        def relu(x):
            return x * (x > 0)
    """
    assert {name.partition(".")[0] for name in outcomes(source)} == {"relu"}


def test_a_mark_counts_more_than_a_name():
    source = """
        import numpy as np
        from tinyllm.testing import implements
        def relu(x):
            raise ValueError("not this one")
        @implements("relu")
        def mine(x):
            return np.maximum(x, 0)
        @implements("relu_backward")
        def its_derivative(g, x):
            return g * (x > 0)
    """
    assert {o["status"] for o in outcomes(source).values()} == {"passed"}


def test_parameters_are_matched_by_name_and_then_by_place():
    source = """
        import numpy as np
        def layer_norm(eps, beta, gamma, inp):
            return (inp - inp.mean(-1, keepdims=True)) / np.sqrt(inp.var(-1, keepdims=True) + eps) * gamma + beta
        def linear(eingabe, gewicht, verschiebung):
            return eingabe @ gewicht.T + verschiebung
        def relu(*args):
            return np.maximum(*args, 0)
        def sigmoid(a, b, c):
            return a
    """
    found = outcomes(source, ("*.values",))
    assert [o["status"] for o in found.values()] == ["passed", "passed", "passed", "failed"]
    assert "demands more than it can be given: b, c" in found["sigmoid.values"]["message"]


def test_backward_without_the_cotangent_is_explained():
    source = """
        import numpy as np
        def cross_entropy(logits, target):
            x = logits - logits.max(-1, keepdims=True)
            return -np.take_along_axis(x - np.log(np.exp(x).sum(-1, keepdims=True)), target[..., None], -1).mean()
        def cross_entropy_backward(logits, target):
            return logits
    """
    assert "the incoming gradient g first" in outcomes(source)["cross_entropy.gradient"]["message"]


@pytest.mark.parametrize("name", [name for name, topic in topics.TOPICS.items() if topic.mistakes])
def test_no_mistake_is_named_that_is_none(name):
    """No "usual mistake" gives the right numbers wherever it is tried."""
    topic = topics.TOPICS[name]
    rng = np.random.default_rng(0)
    for said, wrong in topic.mistakes:
        differs = False
        for case in [*topic.cases(rng), *topics.odd_cases(name, rng), *EXTREME.get(name, [])]:
            full = {a.name: case.get(a.name, a.default) for a in topic.arguments}
            try:
                with np.errstate(all="ignore"):
                    given = np.asarray(wrong(**full))
            except (ValueError, TypeError, IndexError, ArithmeticError):
                continue
            right = np.asarray(topic.formula(**full), dtype=float)
            differs |= given.shape != right.shape or not np.allclose(given, right, rtol=1e-7, atol=0)
        assert differs, said
