"""The right results: the literal loops of `tinyllm.formulas`, run over the rows and axes of arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyllm.formulas import activations, attention, block, linear, losses, optimisers, positions, words
from tinyllm.testing.problem import Array


def _list(x: Array) -> list[float]:
    return x.ravel().tolist()


def each(scalar: Callable[[float], float]) -> Callable[..., Array]:
    """A function of one number, for every element of `x`."""

    def elements(x: Array) -> Array:
        return np.array([scalar(float(v)) for v in x.ravel()]).reshape(x.shape)

    return elements


def rows(f: Callable[[Sequence[float]], Any], x: Array, axis: int) -> Array:
    """A function of one vector, for every line of `x` along an axis."""
    lines = np.moveaxis(x, axis, -1)
    found = np.array([f(line.tolist()) for line in lines.reshape(-1, lines.shape[-1])], dtype=float)
    if found.ndim == 1:
        return found.reshape(lines.shape[:-1])
    return np.moveaxis(found.reshape(lines.shape), -1, axis)


relu = each(activations.relu)
sigmoid = each(activations.sigmoid)
tanh = each(activations.tanh)
silu = each(lambda x: x * activations.sigmoid(x))
softplus = each(lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x))))


def gelu(x: Array, approximate: str) -> Array:
    """The exact one, or the tanh approximation."""
    return each(activations.gelu if approximate == "none" else activations.gelu_tanh)(x)


def softmax(x: Array, axis: int) -> Array:
    """F-ATTN's softmax along an axis."""
    return rows(attention.softmax, x, axis)


def _log_sum_exp(x: Sequence[float]) -> float:
    largest = max(x)
    if math.isinf(largest):
        return largest
    total = 0.0
    for value in x:
        total += math.exp(value - largest)
    return largest + math.log(total)


def logsumexp(x: Array, axis: int | None, keepdims: bool) -> Array:
    """log(sum(exp(x))); over all elements if the axis is None."""
    if axis is None:
        y = np.array(_log_sum_exp(x.ravel().tolist()))
        return y.reshape([1] * x.ndim) if keepdims else y
    y = rows(_log_sum_exp, x, axis)
    return np.expand_dims(y, axis) if keepdims else y


def log_softmax(x: Array, axis: int) -> Array:
    """The vector minus log(sum(exp(x)))."""
    return rows(lambda line: [v - _log_sum_exp(line) for v in line], x, axis)


def layer_norm(x: Array, normalized_shape: Any, weight: Array | None, bias: Array | None, eps: float) -> Array:
    """Over the last axes, as many as `normalized_shape` has."""
    return _last_axes(lambda line, w, b: block.layer_norm(line, w, b, eps), x, normalized_shape, weight, bias)


def _rms_norm(x: Sequence[float], weight: Sequence[float] | None, eps: float) -> list[float]:
    """Zhang and Sennrich 2019, equation 4: x_i / sqrt(mean of squares + eps) * weight_i."""
    total = 0.0
    for value in x:
        total += value**2
    root = math.sqrt(total / len(x) + eps)
    return [value / root * (weight[i] if weight is not None else 1.0) for i, value in enumerate(x)]


def rms_norm(x: Array, normalized_shape: Any, weight: Array | None, eps: float) -> Array:
    """Over the last axes, as many as `normalized_shape` has."""
    return _last_axes(lambda line, w, b: _rms_norm(line, w, eps), x, normalized_shape, weight, None)


def _last_axes(f: Callable[..., list[float]], x: Array, shape: Any, weight: Array | None, bias: Array | None) -> Array:
    n = math.prod(shape)
    w, b = (None if a is None else a.ravel().tolist() for a in (weight, bias))
    return np.array([f(line.tolist(), w, b) for line in x.reshape(-1, n)]).reshape(x.shape)


def cross_entropy(logits: Array, target: Array, ignore_index: int, reduction: str) -> Array:
    """-log softmax(logits)[target], its mean, sum or neither over the targets that are not ignored."""
    costs = np.zeros(target.shape)
    for index in np.ndindex(target.shape):
        if target[index] != ignore_index:
            line = logits[index].tolist()
            costs[index] = _log_sum_exp(line) - line[target[index]]
    return _reduced(costs, reduction, int((target != ignore_index).sum()))


def mse_loss(input: Array, target: Array, reduction: str) -> Array:
    """F-MSE over all elements."""
    if reduction == "mean":
        return np.array(losses.mse(_list(target), _list(input)))
    return _reduced((input - target) ** 2, reduction, input.size)


def binary_cross_entropy_with_logits(input: Array, target: Array, reduction: str) -> Array:
    """-(t log sigmoid(x) + (1 - t) log(1 - sigmoid(x))) = softplus(x) - t x."""
    return _reduced(softplus(input) - target * input, reduction, input.size)


def _reduced(costs: Array, reduction: str, count: int) -> Array:
    if reduction == "none":
        return costs
    return np.array(costs.sum() if reduction == "sum" else costs.sum() / count)


def linear_layer(x: Array, weight: Array, bias: Array | None) -> Array:
    """The product x W^T + b, W stored (out, in)."""
    found = [
        linear.linear(line, weight.tolist(), None if bias is None else bias.tolist())
        for line in x.reshape(-1, x.shape[-1]).tolist()
    ]
    return np.array(found).reshape(*x.shape[:-1], len(weight))


def matmul(a: Array, b: Array) -> Array:
    """NumPy's rules for vectors, matrices and stacks of matrices, by dot products."""
    left, right = (a[None, :] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
    lead = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    left = np.broadcast_to(left, (*lead, *left.shape[-2:]))
    right = np.broadcast_to(right, (*lead, *right.shape[-2:]))
    y = np.zeros((*lead, left.shape[-2], right.shape[-1]))
    for index in np.ndindex(y.shape):
        *batch, i, j = index
        y[index] = linear.dot(left[(*batch, i)].tolist(), right[(*batch, slice(None), j)].tolist())
    y = y[..., 0, :] if a.ndim == 1 else y
    return y[..., 0] if b.ndim == 1 else y


def embedding(ids: Array, weight: Array) -> Array:
    """F-EMB: one row of the table for each id."""
    found = words.embedding(ids.ravel().tolist(), weight.tolist())
    return np.array(found).reshape(*ids.shape, weight.shape[-1])


def scaled_dot_product_attention(
    q: Array, k: Array, v: Array, attn_mask: Array | None, is_causal: bool, scale: float | None
) -> Array:
    """F-ATTN for every head of every text."""
    lead = q.shape[:-2]
    factor = 1.0 if scale is None else scale * math.sqrt(q.shape[-1])
    mask = None if attn_mask is None else np.broadcast_to(attn_mask, (*lead, q.shape[-2], k.shape[-2]))
    y = np.zeros((*q.shape[:-1], v.shape[-1]))
    for i in np.ndindex(lead):
        rules = None if mask is None else mask[i].tolist()
        y[i] = attention.attention((q[i] * factor).tolist(), k[i].tolist(), v[i].tolist(), rules, is_causal)
    return y


def sgd_step(theta: Array, g: Array, lr: float) -> Array:
    """F-SGD."""
    return np.array(optimisers.sgd_step(_list(theta), _list(g), lr)).reshape(theta.shape)


def adam_step(
    theta: Array, g: Array, m: Array, v: Array, t: int, lr: float, beta_1: float, beta_2: float, eps: float
) -> Array:
    """F-ADAM: the new theta, m and v, stacked."""
    found = optimisers.adam_step(_list(theta), _list(g), _list(m), _list(v), t, lr, beta_1, beta_2, eps)
    return np.array(found).reshape(3, *theta.shape)


def sinusoidal_positions(T: int, C: int, base: float) -> Array:
    """F-PE."""
    return np.array(positions.sinusoidal_positions(T, C, base))
