"""Steps of Adam (Kingma, Ba 2015, algorithm 1) and AdamW (Loshchilov, Hutter 2019, algorithm 2); a sum of squares.

    m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;  p -= lr (m / bias1) / (sqrt(v / bias2) + eps)

with bias = 1 - beta^t. Weight decay shrinks p before the step (AdamW) or is added to the gradient as weight_decay * p
(Adam). One pass over flat buffers that hold all parameters of a kind: four numbers read and three written for each, in
vectors of four. It is bound by memory, not by arithmetic.

A sum of squares reads its numbers once and adds them in float64, in which float32 squares cannot overflow; each block
writes one number, and one block adds those up, in order.
"""

from __future__ import annotations

import math

from tinyllm.kernels.cuda.compile import Array, cuda, empty, float64, inline, kernel
from tinyllm.kernels.cuda.intrinsics import load4, store4
from tinyllm.kernels.cuda.rows import THREADS, WALKERS, WARPS, block_sum


@inline
def step(p, g, m, v, scale, keep, decay, rate, fresh1, beta2, fresh2, eps, root):
    """Parameter and moments of one parameter after a step; fresh is 1 - beta, `rate` is lr / bias1."""
    g = scale * g + decay * p
    m = m + fresh1 * (g - m)
    v = beta2 * v + fresh2 * g * g
    return keep * p - rate * m / (math.sqrt(v) * root + eps), m, v


@kernel
def step_kernel(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    scale: float,
    keep: float,
    decay: float,
    rate: float,
    fresh1: float,
    beta2: float,
    fresh2: float,
    eps: float,
    root: float,
) -> None:
    """Four parameters; the last thread may have fewer."""
    i = 4 * cuda.grid(1)
    if i + 4 <= p.size:
        p0, p1, p2, p3 = load4(p, i)
        g0, g1, g2, g3 = load4(g, i)
        m0, m1, m2, m3 = load4(m, i)
        v0, v1, v2, v3 = load4(v, i)
        p0, m0, v0 = step(p0, g0, m0, v0, scale, keep, decay, rate, fresh1, beta2, fresh2, eps, root)
        p1, m1, v1 = step(p1, g1, m1, v1, scale, keep, decay, rate, fresh1, beta2, fresh2, eps, root)
        p2, m2, v2 = step(p2, g2, m2, v2, scale, keep, decay, rate, fresh1, beta2, fresh2, eps, root)
        p3, m3, v3 = step(p3, g3, m3, v3, scale, keep, decay, rate, fresh1, beta2, fresh2, eps, root)
        store4(p, i, p0, p1, p2, p3)
        store4(m, i, m0, m1, m2, m3)
        store4(v, i, v0, v1, v2, v3)
    else:
        for k in range(i, p.size):
            p[k], m[k], v[k] = step(p[k], g[k], m[k], v[k], scale, keep, decay, rate, fresh1, beta2, fresh2, eps, root)


@kernel
def sum_of_squares_kernel(x: Array, partial: Array) -> None:
    """Every gridDim-th stretch of the numbers, into one element of `partial`."""
    shared = cuda.shared.array(WARPS, float64)
    total = float64(0)
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        total += float64(x[i]) * float64(x[i])
    total = block_sum(total, shared)
    if cuda.threadIdx.x == 0:
        partial[cuda.blockIdx.x] = total


@kernel
def sum_kernel(partial: Array, out: Array) -> None:
    """All of `partial`, by one block."""
    shared = cuda.shared.array(WARPS, float64)
    total = float64(0)
    for i in range(cuda.threadIdx.x, partial.size, THREADS):
        total += partial[i]
    total = block_sum(total, shared)
    if cuda.threadIdx.x == 0:
        out[0] = total


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
    """AdamW step, in place on `p` and its moments `m`, `v`, for the gradient `scale` * `g`, all (n,).

    bias is 1 - beta^t.
    """
    _step(p, g, m, v, 1 - lr * weight_decay, 0.0, lr, beta1, beta2, eps, bias1, bias2, scale)


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
    """Adam step, in place on `p` and its moments `m`, `v`, all (n,), for `scale` * `g` + weight_decay * `p`."""
    _step(p, g, m, v, 1.0, weight_decay, lr, beta1, beta2, eps, bias1, bias2, scale)


def _step(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    keep: float,
    decay: float,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    bias1: float,
    bias2: float,
    scale: float,
) -> None:
    numbers = (scale, keep, decay, lr / bias1, 1 - beta1, beta2, 1 - beta2, eps, 1 / math.sqrt(bias2))
    step_kernel[-(-p.size // (4 * THREADS)), THREADS](p, g, m, v, *map(float, numbers))


def sum_of_squares(x: Array, out: Array) -> None:
    """Sum of the squares of `x` (n,) into `out` (1,), float64."""
    blocks = min(-(-max(x.size, 1) // THREADS), WALKERS)
    partial = empty(x, blocks, dtype="float64")
    sum_of_squares_kernel[blocks, THREADS](x, partial)
    sum_kernel[1, THREADS](partial, out)
