"""The usual wrong versions of each function: an answer that gives one's numbers has made its mistake.

Each takes the function's arguments by name, defaults written out, and returns what the mistake gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyllm.testing.problem import Array
from tinyllm.testing.suite import oracle

Mistakes = tuple[tuple[str, Callable[..., Any]], ...]


# -- softmax and its relatives -----------------------------------------------------------------------------------------


def _exp_over_sum(x: Array, axis: Any, keepdims: bool = True) -> Array:
    return np.exp(x) / np.exp(x).sum(axis=axis, keepdims=keepdims)


def _other(axis: int, x: Array) -> int:
    """An axis that is not the right one."""
    return 0 if axis % x.ndim != 0 else -1


NO_MAX = "the maximum is not subtracted before exp, which overflows"

SOFTMAX: Mistakes = (
    (NO_MAX, lambda x, axis: _exp_over_sum(x, axis)),
    ("the axis is ignored: it always normalises along the last one", lambda x, axis: oracle.softmax(x, -1)),
    ("the wrong axis: it normalises along the other one", lambda x, axis: oracle.softmax(x, _other(axis, x))),
    ("the axis is missing: it normalises over the whole array", lambda x, axis: _exp_over_sum(x, None)),
    ("not normalised: the division by the sum is missing", lambda x, axis: np.exp(x)),
    ("not normalised: the division by the sum is missing", lambda x, axis: np.exp(x - x.max(axis, keepdims=True))),
    ("the logarithm is returned: this is log-softmax", lambda x, axis: oracle.log_softmax(x, axis)),
    ("the sign of the exponent is wrong: exp(-x)", lambda x, axis: oracle.softmax(-x, axis)),
    ("divided by the sum of x, not of exp(x)", lambda x, axis: np.exp(x) / x.sum(axis=axis, keepdims=True)),
    ("exp is missing: x over its sum", lambda x, axis: x / x.sum(axis=axis, keepdims=True)),
    ("normalised by the root of the sum of squares", lambda x, axis: x / np.sqrt((x * x).sum(axis, keepdims=True))),
)

LOG_SOFTMAX: Mistakes = (
    ("the logarithm of softmax underflows to -inf: use x - max - log(sum(exp(x - max)))",
     lambda x, axis: np.log(oracle.softmax(x, axis))),
    (NO_MAX, lambda x, axis: x - np.log(np.exp(x).sum(axis, keepdims=True))),
    ("the axis is ignored: it always normalises along the last one", lambda x, axis: oracle.log_softmax(x, -1)),
    ("the wrong axis: it normalises along the other one", lambda x, axis: oracle.log_softmax(x, _other(axis, x))),
    ("the axis is missing: it normalises over the whole array", lambda x, axis: x - np.log(np.exp(x).sum())),
    ("the logarithm is missing: this is softmax", lambda x, axis: oracle.softmax(x, axis)),
    ("the sign is wrong: this is -log softmax", lambda x, axis: -oracle.log_softmax(x, axis)),
    ("the maximum is subtracted and not accounted for: x - log(sum(exp(x - max)))",
     lambda x, axis: x - np.log(np.exp(x - x.max(axis, keepdims=True)).sum(axis, keepdims=True))),
)  # fmt: skip


def _shifted_sum(x: Array, axis: Any, keepdims: bool) -> Array:
    return np.log(np.exp(x - x.max(axis, keepdims=True)).sum(axis, keepdims=keepdims))


LOGSUMEXP: Mistakes = (
    (NO_MAX, lambda x, axis, keepdims: np.log(np.exp(x).sum(axis=axis, keepdims=keepdims))),
    ("the maximum is subtracted and never added again", _shifted_sum),
    ("the mean of exp is taken, not the sum",
     lambda x, axis, keepdims: np.log(np.exp(x).mean(axis, keepdims=keepdims))),
    ("the logarithm is missing", lambda x, axis, keepdims: np.exp(x).sum(axis, keepdims=keepdims)),
    ("the sum of the logarithms is taken, not the logarithm of the sum",
     lambda x, axis, keepdims: x.sum(axis, keepdims=keepdims)),
    ("the axis is ignored: it always goes along the last one",
     lambda x, axis, keepdims: oracle.logsumexp(x, -1, keepdims)),
    ("where all is -inf, -inf - (-inf) is NaN: log(0) = -inf is meant",
     lambda x, axis, keepdims: _shifted_sum(x, axis, keepdims) + x.max(axis, keepdims=keepdims)),
)  # fmt: skip


# -- activations -------------------------------------------------------------------------------------------------------

RELU: Mistakes = (
    ("the absolute value", lambda x: np.abs(x)),
    ("the sign is the wrong way round: min(0, x)", lambda x: np.minimum(x, 0)),
    ("the derivative (0 or 1) is returned, not the value", lambda x: (x > 0) * 1.0),
    ("leaky: negative numbers keep a small part", lambda x: np.where(x > 0, x, 0.01 * x)),
    ("the input is returned as it is", lambda x: x),
    ("the maximum of the whole array is taken: np.maximum(x, 0) is meant, element by element", lambda x: np.max(x)),
)

SIGMOID: Mistakes = (
    ("exp(x) overflows for large x: use 1 / (1 + exp(-x)) there", lambda x: np.exp(x) / (1 + np.exp(x))),
    ("the sign of the exponent is wrong: 1 / (1 + exp(x))", lambda x: 1 / (1 + np.exp(x))),
    ("the derivative s (1 - s) is returned, not the value", lambda x: oracle.sigmoid(x) * (1 - oracle.sigmoid(x))),
    ("tanh is returned", lambda x: np.tanh(x)),
    ("tanh(x / 2) is returned, which runs from -1 to 1", lambda x: np.tanh(x / 2)),
    ("sigmoid of 2 x", lambda x: oracle.sigmoid(2 * x)),
)

TANH: Mistakes = (
    ("exp overflows: inf / inf is NaN", lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x))),
    ("exp overflows: inf / inf is NaN", lambda x: (np.exp(2 * x) - 1) / (np.exp(2 * x) + 1)),
    ("exp overflows: inf / inf is NaN", lambda x: (1 - np.exp(-2 * x)) / (1 + np.exp(-2 * x))),
    ("sigmoid is returned", lambda x: oracle.sigmoid(x)),
    ("the derivative 1 - tanh^2 is returned, not the value", lambda x: 1 - np.tanh(x) ** 2),
    ("tanh of x / 2: exp(x) where exp(2 x) is meant", lambda x: np.tanh(x / 2)),
    ("the plus and the minus are exchanged", lambda x: 1 / np.tanh(x)),
    ("the sign is wrong", lambda x: -np.tanh(x)),
)


def _tanh_gelu(x: Array, inner: Callable[[Array], Array]) -> Array:
    return 0.5 * x * (1 + np.tanh(inner(x)))


ROOT = math.sqrt(2 / math.pi)
GELU: Mistakes = (
    ("this is the tanh approximation, and the exact one (erf) is expected",
     lambda x, approximate: oracle.gelu(x, "tanh")),
    ("this is the exact one (erf), and the tanh approximation was asked for",
     lambda x, approximate: oracle.gelu(x, "none")),
    ("the factor 1/2 is missing", lambda x, approximate: 2 * oracle.gelu(x, approximate)),
    ("the factor x is missing: the share of the normal law alone",
     lambda x, approximate: oracle.gelu(x, approximate) / x),
    ("erf(x) where erf(x / sqrt(2)) is meant",
     lambda x, approximate: oracle.gelu(x * math.sqrt(2), "none") / math.sqrt(2)),
    ("the cubic term is missing inside tanh", lambda x, approximate: _tanh_gelu(x, lambda x: ROOT * x)),
    ("x^2 where x^3 is meant inside tanh",
     lambda x, approximate: _tanh_gelu(x, lambda x: ROOT * (x + 0.044715 * x**2))),
    ("sqrt(2 / pi) is missing inside tanh", lambda x, approximate: _tanh_gelu(x, lambda x: x + 0.044715 * x**3)),
    ("sqrt(2 / pi) must multiply the cubic term too",
     lambda x, approximate: _tanh_gelu(x, lambda x: ROOT * x + 0.044715 * x**3)),
    ("2 / pi without its root", lambda x, approximate: _tanh_gelu(x, lambda x: 2 / math.pi * (x + 0.044715 * x**3))),
    ("this is x sigmoid(1.702 x), a coarser approximation", lambda x, approximate: x * oracle.sigmoid(1.702 * x)),
    ("this is x sigmoid(x), SiLU", lambda x, approximate: oracle.silu(x)),
    ("this is ReLU", lambda x, approximate: oracle.relu(x)),
)  # fmt: skip

SILU: Mistakes = (
    ("the factor x is missing: this is sigmoid", lambda x: oracle.sigmoid(x)),
    ("the sign of the exponent is wrong: x sigmoid(-x)", lambda x: x * oracle.sigmoid(-x)),
    ("this is GELU", lambda x: oracle.gelu(x, "none")),
    ("this is x sigmoid(1.702 x)", lambda x: x * oracle.sigmoid(1.702 * x)),
    ("exp overflows: inf / inf is NaN", lambda x: x * np.exp(x) / (1 + np.exp(x))),
)

SOFTPLUS: Mistakes = (
    ("exp(x) overflows: use max(x, 0) + log1p(exp(-|x|))", lambda x: np.log(1 + np.exp(x))),
    ("exp(x) overflows: use max(x, 0) + log1p(exp(-|x|))", lambda x: np.log1p(np.exp(x))),
    ("the 1 is missing: log(exp(x)) is x", lambda x: x),
    ("the sign is wrong: softplus of -x", lambda x: oracle.softplus(-x)),
    ("the derivative, sigmoid, is returned", lambda x: oracle.sigmoid(x)),
)


# -- normalisation -----------------------------------------------------------------------------------------------------


def _norm(
    x: Array,
    normalized_shape: Any,
    weight: Any,
    bias: Any,
    eps: float,
    *,
    axis: Any = "last",
    ddof: int = 0,
    centre: bool = True,
    scale: Callable[[Array, float], Array] = lambda variance, eps: np.sqrt(variance + eps),
    late: Callable[[Array, Any, Any], Array] = lambda z, w, b: z * w + b,
) -> Array:
    """Layer normalisation with one thing done differently."""
    axis = tuple(range(-len(normalized_shape), 0)) if axis == "last" else axis
    mean = x.mean(axis=axis, keepdims=True)
    variance = x.var(axis=axis, ddof=ddof, keepdims=True)
    z = (x - mean if centre else x) / scale(variance, eps)
    return late(z, 1.0 if weight is None else weight, 0.0 if bias is None else bias)


def _norm_with(**change: Any) -> Callable[..., Array]:
    return lambda x, normalized_shape, weight, bias, eps: _norm(x, normalized_shape, weight, bias, eps, **change)


def _by_squares(x: Array, normalized_shape: Any, weight: Any, bias: Any, eps: float) -> Array:
    axis = tuple(range(-len(normalized_shape), 0))
    mean = x.mean(axis, keepdims=True)
    variance = (x * x).mean(axis, keepdims=True) - mean * mean
    return _norm(x, normalized_shape, weight, bias, eps, scale=lambda _, eps: np.sqrt(variance + eps))


EPS_OUTSIDE = "eps is added outside the root: sqrt(variance) + eps, where sqrt(variance + eps) is meant"
LAYER_NORM: Mistakes = (
    ("the variance divides by n - 1 (ddof=1): the biased one, by n, is meant", _norm_with(ddof=1)),
    (EPS_OUTSIDE, _norm_with(scale=lambda variance, eps: np.sqrt(variance) + eps)),
    ("the variance divides by n - 1 (ddof=1), and eps is added outside the root: both are wrong",
     _norm_with(ddof=1, scale=lambda variance, eps: np.sqrt(variance) + eps)),
    ("eps is missing", _norm_with(scale=lambda variance, eps: np.sqrt(variance))),
    ("eps is squared", _norm_with(scale=lambda variance, eps: np.sqrt(variance + eps**2))),
    *((f"eps is {e:g}, and 1e-05 is expected (or take eps as an argument)",
       _norm_with(scale=lambda variance, eps, e=e: np.sqrt(variance + e))) for e in (1e-3, 1e-6, 1e-8, 1e-12)),
    ("the root is missing: divided by the variance, not by the standard deviation",
     _norm_with(scale=lambda variance, eps: variance + eps)),
    ("the mean is not subtracted", _norm_with(centre=False)),
    ("not divided by the standard deviation", _norm_with(scale=lambda variance, eps: np.ones_like(variance))),
    ("the wrong axis: statistics over the first axis (that is batch norm)", _norm_with(axis=0)),
    ("the axis is missing: statistics over the whole array", _norm_with(axis=None)),
    ("statistics over the last axis alone, where several are to be normalised", _norm_with(axis=-1)),
    ("weight and bias are ignored", _norm_with(late=lambda z, w, b: z)),
    ("the weight is ignored", _norm_with(late=lambda z, w, b: z + b)),
    ("the bias is ignored", _norm_with(late=lambda z, w, b: z * w)),
    ("the bias is added before the weight multiplies", _norm_with(late=lambda z, w, b: (z + b) * w)),
    ("weight and bias are exchanged", _norm_with(late=lambda z, w, b: z * b + w)),
    ("this is RMS norm: the mean is not subtracted",
     lambda x, normalized_shape, weight, bias, eps: oracle.rms_norm(x, normalized_shape, weight, eps)),
    ("the variance is computed as E[x^2] - E[x]^2, which cancels when the mean is large: subtract the mean first",
     _by_squares),
)  # fmt: skip


def _rms(
    x: Array,
    normalized_shape: Any,
    weight: Any,
    eps: float,
    *,
    axis: Any = "last",
    centre: bool = False,
    weighted: bool = True,
    scale: Callable[[Array, float], Array] = lambda square, eps: np.sqrt(square + eps),
    total: Callable[..., Array] = np.mean,
) -> Array:
    """RMS normalisation with one thing done differently."""
    axis = tuple(range(-len(normalized_shape), 0)) if axis == "last" else axis
    x = x - x.mean(axis, keepdims=True) if centre else x
    z = x / scale(total(x * x, axis=axis, keepdims=True), eps)
    return z if weight is None or not weighted else z * weight


def _rms_with(**change: Any) -> Callable[..., Array]:
    return lambda x, normalized_shape, weight, eps: _rms(x, normalized_shape, weight, eps, **change)


RMS_NORM: Mistakes = (
    ("the mean is subtracted: RMS norm does not centre", _rms_with(centre=True)),
    ("the sum of squares is taken, not their mean", _rms_with(total=np.sum)),
    ("eps is added outside the root: sqrt(mean square) + eps, where sqrt(mean square + eps) is meant",
     _rms_with(scale=lambda square, eps: np.sqrt(square) + eps)),
    ("eps is missing", _rms_with(scale=lambda square, eps: np.sqrt(square))),
    *((f"eps is {e:g}, and 1e-05 is expected (or take eps as an argument)",
       _rms_with(scale=lambda square, eps, e=e: np.sqrt(square + e))) for e in (1e-3, 1e-6, 1e-8, 1e-12)),
    ("the root is missing: divided by the mean square itself", _rms_with(scale=lambda square, eps: square + eps)),
    ("the wrong axis: over the first one", _rms_with(axis=0)),
    ("the axis is missing: over the whole array", _rms_with(axis=None)),
    ("over the last axis alone, where several are to be normalised", _rms_with(axis=-1)),
    ("the weight is ignored", _rms_with(weighted=False)),
    ("1 + weight multiplies, where weight alone is meant",
     lambda x, normalized_shape, weight, eps: _rms(x, normalized_shape, None, eps) * (1 + weight)),
)  # fmt: skip


# -- losses ------------------------------------------------------------------------------------------------------------


def _costs(probabilities: Array, target: Array) -> Array:
    return -np.log(np.take_along_axis(probabilities, target[..., None], axis=-1)[..., 0])


def _ce(logits: Array, target: Array, ignore_index: int, reduction: str) -> Array:
    return oracle.cross_entropy(logits, target, ignore_index, reduction)


def _ce_of(costs: Callable[[Array, Array], Array]) -> Callable[..., Any]:
    """A cross-entropy with these costs, their mean over all targets."""

    def loss(logits: Array, target: Array, ignore_index: int, reduction: str) -> Any:
        if (target == ignore_index).any():
            raise ValueError("not a mistake to be made with ignored targets")
        found = costs(logits, target)
        return found if reduction == "none" else found.sum() if reduction == "sum" else found.mean()

    return loss


CROSS_ENTROPY: Mistakes = (
    ("log of a probability that underflowed to 0: use log-softmax, x - max - log(sum(exp(x - max)))",
     _ce_of(lambda logits, target: _costs(oracle.softmax(logits, -1), target))),
    (NO_MAX, _ce_of(lambda logits, target: _costs(_exp_over_sum(logits, -1), target))),
    ("the sign is wrong: the mean of log p, not of -log p",
     lambda logits, target, ignore_index, reduction: -_ce(logits, target, ignore_index, reduction)),
    ("the sum is returned, not the mean over the targets",
     lambda logits, target, ignore_index, reduction: _ce(logits, target, ignore_index, "sum")),
    ("the mean is returned whatever the reduction",
     lambda logits, target, ignore_index, reduction: _ce(logits, target, ignore_index, "mean")),
    ("divided by the number of classes as well: np.mean over the classes too",
     _ce_of(lambda logits, target: _costs(oracle.softmax(logits, -1), target) / logits.shape[-1])),
    ("divided by the size of the first axis, not by the number of targets",
     lambda logits, target, ignore_index, reduction: _ce(logits, target, ignore_index, "sum") / len(target)),
    ("divided by all targets: those that are ignored do not count",
     lambda logits, target, ignore_index, reduction: _ce(logits, target, ignore_index, "sum") / target.size),
    ("softmax is taken twice (the logits are logits)",
     _ce_of(lambda logits, target: _costs(oracle.softmax(oracle.softmax(logits, -1), -1), target))),
    ("the logits are taken for probabilities: softmax is missing", _ce_of(_costs)),
    ("softmax along the wrong axis: the classes are on the last one",
     _ce_of(lambda logits, target: _costs(oracle.softmax(logits, 0), target))),
    ("softmax over the whole array: the axis is missing",
     _ce_of(lambda logits, target: _costs(_exp_over_sum(logits, None), target))),
    ("1 - p, or the score itself, where -log p is meant",
     _ce_of(lambda logits, target: 1 - np.exp(-_costs(oracle.softmax(logits, -1), target)))),
    ("the logarithm has base 2",
     lambda logits, target, ignore_index, reduction: _ce(logits, target, ignore_index, reduction) / math.log(2)),
    ("the normalisation is missing: minus the logit of the target alone",
     _ce_of(lambda logits, target: -np.take_along_axis(logits, target[..., None], -1)[..., 0])),
)  # fmt: skip

MSE: Mistakes = (
    ("the sum is returned, not the mean", lambda input, target, reduction: ((input - target) ** 2).sum()),
    ("half of it: the factor 1/2 is not part of the mean squared error",
     lambda input, target, reduction: ((input - target) ** 2).mean() / 2),
    ("the root is taken: RMSE", lambda input, target, reduction: np.sqrt(((input - target) ** 2).mean())),
    ("absolute values, not squares", lambda input, target, reduction: np.abs(input - target).mean()),
    ("squared after the mean", lambda input, target, reduction: (input - target).mean() ** 2),
    ("divided by the first axis only: a mean over all elements is meant",
     lambda input, target, reduction: ((input - target) ** 2).sum() / len(input)),
    ("plus where minus is meant", lambda input, target, reduction: ((input + target) ** 2).mean()),
    ("the mean is returned whatever the reduction", lambda input, target, reduction: ((input - target) ** 2).mean()),
)  # fmt: skip


def _bce(input: Array, target: Array, p: Array) -> Any:
    return -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean()


BCE: Mistakes = (
    ("log of 0: use max(x, 0) - x t + log1p(exp(-|x|))",
     lambda input, target, reduction: _bce(input, target, 1 / (1 + np.exp(-input)))),
    ("exp(x) overflows: use max(x, 0) - x t + log1p(exp(-|x|))",
     lambda input, target, reduction: (np.log(1 + np.exp(input)) - input * target).mean()),
    ("the sum is returned, not the mean",
     lambda input, target, reduction: oracle.binary_cross_entropy_with_logits(input, target, "sum")),
    ("the mean is returned whatever the reduction",
     lambda input, target, reduction: oracle.binary_cross_entropy_with_logits(input, target, "mean")),
    ("the sign is wrong",
     lambda input, target, reduction: -oracle.binary_cross_entropy_with_logits(input, target, reduction)),
    ("target and 1 - target are exchanged",
     lambda input, target, reduction: oracle.binary_cross_entropy_with_logits(input, 1 - target, reduction)),
    ("the term of the zeros, (1 - t) log(1 - p), is missing",
     lambda input, target, reduction: -(target * np.log(oracle.sigmoid(input))).mean()),
    ("the logits are taken for probabilities: sigmoid is missing",
     lambda input, target, reduction: _bce(input, target, input)),
)  # fmt: skip


# -- layers ------------------------------------------------------------------------------------------------------------


def _b(bias: Any) -> Any:
    return 0.0 if bias is None else bias


LINEAR: Mistakes = (
    ("the bias is ignored", lambda x, weight, bias: x @ weight.T),
    ("the bias is subtracted", lambda x, weight, bias: x @ weight.T - bias),
    ("x @ weight, where x @ weight.T is meant: weights are stored (out, in)",
     lambda x, weight, bias: x @ weight + _b(bias)),
    ("the weight is reshaped where it should be transposed: weights are stored (out, in)",
     lambda x, weight, bias: x @ weight.reshape(weight.shape[::-1]) + _b(bias)),
    ("the bias is added twice", lambda x, weight, bias: x @ weight.T + 2 * bias),
)  # fmt: skip

MATMUL: Mistakes = (
    ("the product is taken element by element: a * b", lambda a, b: a * b),
    ("the factors are exchanged: b @ a", lambda a, b: b @ a),
    ("the transpose of b is used", lambda a, b: a @ np.swapaxes(b, -1, -2)),
    ("the transpose of a is used", lambda a, b: np.swapaxes(a, -1, -2) @ b),
    ("np.dot pairs every matrix of one stack with every matrix of the other: use matmul", np.dot),
)

EMBEDDING: Mistakes = (
    ("columns are looked up, not rows", lambda ids, weight: weight.T[ids]),
    ("ids are counted from 1: row id - 1 is returned", lambda ids, weight: weight[ids - 1]),
    ("the ids are flattened: the result must keep their shape", lambda ids, weight: weight[ids.ravel()]),
    ("the rows are multiplied by sqrt(C)", lambda ids, weight: weight[ids] * math.sqrt(weight.shape[-1])),
)


def _attend(
    q: Array,
    k: Array,
    v: Array,
    attn_mask: Any,
    is_causal: bool,
    scale: Any,
    *,
    factor: Callable[[int], float] = lambda d: 1 / math.sqrt(d),
    axis: int = -1,
    allowed: Callable[[Array], Array] = lambda m: m,
    low: float = -np.inf,
    triangle: Callable[[Array], Array] = np.tril,
    normalise: Callable[[Array, int], Array] | None = None,
) -> Array:
    """Attention with one thing done differently, with plain NumPy's NaN where nothing is allowed."""
    scores = q @ np.swapaxes(k, -1, -2) * (factor(q.shape[-1]) if scale is None else scale)
    if attn_mask is not None:
        scores = np.where(allowed(attn_mask), scores, low) if attn_mask.dtype == bool else scores + attn_mask
    if is_causal:
        scores = np.where(triangle(np.ones(scores.shape[-2:], dtype=bool)), scores, low)
    if normalise is None:
        weights = np.exp(scores - scores.max(axis, keepdims=True))
        weights = weights / weights.sum(axis, keepdims=True)
    else:
        weights = normalise(scores, axis)
    return weights @ v


def _attend_with(**change: Any) -> Callable[..., Array]:
    return lambda q, k, v, attn_mask, is_causal, scale: _attend(q, k, v, attn_mask, is_causal, scale, **change)


def _mask_after(q: Array, k: Array, v: Array, attn_mask: Any, is_causal: bool, scale: Any) -> Array:
    """Weights set to zero after the softmax."""
    weights = oracle.softmax(q @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1]), -1)
    shape = np.ones(weights.shape[-2:], dtype=bool)
    return (weights * (np.tril(shape) if is_causal else shape) * (True if attn_mask is None else attn_mask)) @ v


ATTENTION: Mistakes = (
    ("a row in which nothing is allowed is softmax of -inf alone, NaN: zeros are meant", _attend_with()),
    ("the scale is missing: scores must be divided by sqrt(d)", _attend_with(factor=lambda d: 1.0)),
    ("divided by d, where the root of d is meant", _attend_with(factor=lambda d: 1 / d)),
    ("multiplied by sqrt(d), where divided is meant", _attend_with(factor=math.sqrt)),
    ("softmax along the wrong axis: it must sum to 1 over the keys (the last one)", _attend_with(axis=-2)),
    ("the mask is inverted: True means that attention is allowed", _attend_with(allowed=lambda m: ~m)),
    ("the mask is ignored", _attend_with(allowed=np.ones_like)),
    ("is_causal is ignored", _attend_with(triangle=np.ones_like)),
    ("the causal mask is the wrong way round: it lets each query see the future only", _attend_with(triangle=np.triu)),
    ("the causal mask is inverted: it hides the past and the present",
     _attend_with(triangle=lambda a: ~np.tril(a))),
    ("the causal mask is off by one: a query may see its own position",
     _attend_with(triangle=lambda a: np.tril(a, -1))),
    ("the causal mask is off by one: a query sees one position of the future",
     _attend_with(triangle=lambda a: np.tril(a, 1))),
    ("the causal mask is aligned at the end: query i sees keys 0..i",
     _attend_with(triangle=lambda a: np.tril(a, a.shape[-1] - a.shape[-2]))),
    ("the mask fills with 0, which still lets through: fill with -inf before the softmax", _attend_with(low=0.0)),
    ("the mask fills with a finite number: where nothing is allowed the weights become equal; zeros are meant",
     _attend_with(low=-1e9)),
    ("the mask is applied after the softmax: the weights no longer sum to 1", _mask_after),
    (NO_MAX, _attend_with(normalise=_exp_over_sum)),
    ("the softmax is missing", _attend_with(normalise=lambda scores, axis: scores)),
    ("the softmax runs over the whole array: the axis is missing",
     _attend_with(normalise=lambda scores, axis: _exp_over_sum(scores, None))),
    ("the scale argument is ignored",
     lambda q, k, v, attn_mask, is_causal, scale: _attend(q, k, v, attn_mask, is_causal, None)),
)  # fmt: skip


# -- optimisers and positions ------------------------------------------------------------------------------------------

SGD: Mistakes = (
    ("the sign is wrong: it walks uphill", lambda theta, g, lr: theta + lr * g),
    ("the learning rate is ignored", lambda theta, g, lr: theta - g),
    ("only the step is returned, not the new parameters", lambda theta, g, lr: lr * g),
    ("only the step is returned, not the new parameters", lambda theta, g, lr: -lr * g),
)


def _adam(
    theta: Array,
    g: Array,
    m: Array,
    v: Array,
    t: int,
    lr: float,
    beta_1: float,
    beta_2: float,
    eps: float,
    *,
    sign: float = -1.0,
    correct: tuple[bool, bool] = (True, True),
    since: int = 0,
    square: Callable[[Array], Array] = np.square,
    root: Callable[[Array, float], Array] = lambda v, eps: np.sqrt(v) + eps,
    keep: bool = False,
    shares: bool = True,
) -> Array:
    """Adam with one thing done differently."""
    m = beta_1 * m + (1 - beta_1 if shares else 1.0) * g
    v = beta_2 * v + (1 - beta_2 if shares else 1.0) * square(g)
    m_hat = m / (1 - beta_1 ** (t + since)) if correct[0] else m
    v_hat = v / (1 - beta_2 ** (t + since)) if correct[1] else v
    new = theta + sign * lr * m_hat / root(v_hat, eps)
    return np.stack([new, m_hat, v_hat] if keep else [new, m, v])


def _adam_with(**change: Any) -> Callable[..., Array]:
    return lambda **case: _adam(**case, **change)


ADAM: Mistakes = (
    ("the bias correction is missing: m / (1 - beta_1^t), v / (1 - beta_2^t)", _adam_with(correct=(False, False))),
    ("the bias correction of v is missing", _adam_with(correct=(True, False))),
    ("the bias correction of m is missing", _adam_with(correct=(False, True))),
    ("the bias correction counts from 0: t is the number of this step, from 1", _adam_with(since=1)),
    ("the bias correction is one step late: t is the number of this step, from 1", _adam_with(since=-1)),
    ("the corrected m and v are kept: the uncorrected ones are to be returned", _adam_with(keep=True)),
    ("eps stands inside the root: sqrt(v) + eps is meant", _adam_with(root=lambda v, eps: np.sqrt(v + eps))),
    ("the root is missing: divided by v + eps", _adam_with(root=lambda v, eps: v + eps)),
    ("eps is missing", _adam_with(root=lambda v, eps: np.sqrt(v))),
    ("the gradient is not squared in v", _adam_with(square=lambda g: g)),
    ("the gradient's size stands in v where its square is meant", _adam_with(square=np.abs)),
    ("the sign is wrong: it walks uphill", _adam_with(sign=1.0)),
    ("the factors 1 - beta are missing", _adam_with(shares=False)),
    ("beta_1 and beta_2 are exchanged",
     lambda **case: _adam(**{**case, "beta_1": case["beta_2"], "beta_2": case["beta_1"]})),
)  # fmt: skip


def _sinusoids(
    T: int, C: int, base: float, exponent: Callable[[Array], Array], first: int = 0, waves: Any = (np.sin, np.cos)
) -> Array:
    j = np.arange(C)
    angles = np.arange(first, T + first)[:, None] / base ** (exponent(j) / C)
    return np.where(j % 2 == 0, waves[0](angles), waves[1](angles))


def _pairs(j: Array) -> Array:
    return j - j % 2


POSITIONS: Mistakes = (
    ("sines first, then cosines: they alternate, sine in even channels, cosine in odd ones",
     lambda T, C, base: np.concatenate([f(np.arange(T)[:, None] / base ** (np.arange(0, C, 2)[: n] / C))
                                        for f, n in ((np.sin, (C + 1) // 2), (np.cos, C // 2))], axis=1)),
    ("sine and cosine are exchanged", lambda T, C, base: _sinusoids(T, C, base, _pairs, waves=(np.cos, np.sin))),
    ("every channel has its own frequency: sine and cosine of a pair share one, exponent 2i/C for channels 2i and 2i+1",
     lambda T, C, base: _sinusoids(T, C, base, lambda j: j)),
    ("the exponent is i/C, where 2i/C is meant", lambda T, C, base: _sinusoids(T, C, base, lambda j: j // 2)),
    ("the exponent is doubled: for channel j = 2i it is j/C",
     lambda T, C, base: _sinusoids(T, C, base, lambda j: 2 * j)),
    ("the exponent is doubled: for channel j = 2i it is j/C",
     lambda T, C, base: _sinusoids(T, C, base, lambda j: 2 * _pairs(j))),
    ("positions are counted from 1: the first one is 0", lambda T, C, base: _sinusoids(T, C, base, _pairs, first=1)),
    ("multiplied by base^(2i/C), where divided is meant", lambda T, C, base: _sinusoids(T, C, 1 / base, _pairs)),
    ("the base is ignored: it is always 10000", lambda T, C, base: _sinusoids(T, C, 10000.0, _pairs)),
    ("the base is 1000, not 10000", lambda T, C, base: _sinusoids(T, C, 1000.0, _pairs)),
)  # fmt: skip
