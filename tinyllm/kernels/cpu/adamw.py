"""Steps of Adam (Kingma, Ba 2015, algorithm 1) and AdamW (Loshchilov, Hutter 2019, algorithm 2), and the norm.

    m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;  p -= lr (m / bias1) / (sqrt(v / bias2) + eps)

with bias = 1 - beta^t. Weight decay shrinks p before the step (AdamW) or is added to the gradient as weight_decay * p
(Adam). One pass: four numbers read and three written for each parameter, where an expression of arrays takes some
twelve passes. It is bound by memory, not by arithmetic.
"""

from __future__ import annotations

import numpy as np

from tinyllm.kernels.cpu.compile import Array, inline, jit


@inline
def step(p, g, m, v, rate, fresh1, beta2, fresh2, eps, inverse_root_bias2):
    """Parameter and moments of one parameter after a step; fresh is 1 - beta, `rate` is lr / bias1."""
    m += fresh1 * (g - m)
    v = beta2 * v + fresh2 * g * g
    return p - rate * m / (np.sqrt(v) * inverse_root_bias2 + eps), m, v


@jit
def adamw(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    bias1: float,
    bias2: float,
    scale: float = 1.0,
) -> None:
    """AdamW step, in place on `p` and its moments `m`, `v`, for the gradient ``scale * g``, all (n,).

    bias is 1 - beta^t.
    """
    number = p.dtype.type
    rate, fresh1, fresh2, root = number(lr / bias1), number(1 - beta1), number(1 - beta2), number(1 / np.sqrt(bias2))
    beta2, eps, keep, scale = number(beta2), number(eps), number(1 - lr * weight_decay), number(scale)
    for i in range(p.size):
        p[i], m[i], v[i] = step(keep * p[i], scale * g[i], m[i], v[i], rate, fresh1, beta2, fresh2, eps, root)


@jit
def adam(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    bias1: float,
    bias2: float,
    scale: float = 1.0,
) -> None:
    """Adam step, in place on `p` and its moments `m`, `v`, for the gradient ``scale * g + weight_decay * p``."""
    number = p.dtype.type
    rate, fresh1, fresh2, root = number(lr / bias1), number(1 - beta1), number(1 - beta2), number(1 / np.sqrt(bias2))
    beta2, eps, weight_decay, scale = number(beta2), number(eps), number(weight_decay), number(scale)
    for i in range(p.size):
        gradient = scale * g[i] + weight_decay * p[i]
        p[i], m[i], v[i] = step(p[i], gradient, m[i], v[i], rate, fresh1, beta2, fresh2, eps, root)


@jit
def add(a: Array, b: Array, out: Array) -> float:
    """``out = a + b``, all (n,); returns the sum of the squares of the sums, in float64."""
    total = 0.0
    for i in range(a.size):
        out[i] = a[i] + b[i]
        value = np.float64(out[i])
        total += value * value
    return total


@jit
def sum_of_squares(x: Array) -> float:
    """Sum of the squares of `x` (n,), in float64: in float32 they overflow at 2e19 and a long sum loses digits."""
    total = 0.0
    for i in range(x.size):
        value = np.float64(x[i])
        total += value * value
    return total
