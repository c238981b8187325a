"""GELU (Hendrycks and Gimpel 2016), exact and in its tanh approximation, SiLU and SwiGLU (Shazeer 2020), derivatives.

    gelu_erf:  y = x F(x),  F(x) = (1 + erf(x / sqrt 2)) / 2            y' = F(x) + x e^(-x^2 / 2) / sqrt(2 pi)
    gelu_tanh: y = x (1 + tanh u) / 2,  u = sqrt(2 / pi) (x + a x^3)    y' = (1 + t + x (1 - t^2) u') / 2,  t = tanh u
    silu:      y = x s(x),  s(x) = 1 / (1 + e^-x)                       y' = s(x) (1 + x (1 - s(x)))
    swiglu:    y = silu(x) up

One pass: each element is read once and written once, four at a time, and everything between stays in registers.
Backward computes erf, tanh or the sigmoid again, which costs less than reading it back would.

With a bias, the sum is never stored, and backward adds up the bias's cotangent in the pass that computes x's: 8 warps
walk down 32 columns, and what the blocks have summed is added in a fixed order by `column_sums`.

The three activations differ in two functions of a number, their value and their slope; the kernels are made from these.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyllm.kernels.cuda.compile import Array, Kernel, cuda, empty, float32, inline, kernel
from tinyllm.kernels.cuda.intrinsics import WARP, exp, load4, store4
from tinyllm.kernels.cuda.rows import THREADS, WALKERS, ZERO, column_sums

HALF, ONE, THREE = np.float32(0.5), np.float32(1), np.float32(3)
ROOT_HALF = np.float32(math.sqrt(1 / 2))
DENSITY_AT_0 = np.float32(math.sqrt(1 / (2 * math.pi)))
LINEAR = np.float32(math.sqrt(2 / math.pi))
CUBIC = np.float32(math.sqrt(2 / math.pi) * 0.044715)
# Beyond this |x|, tanh u is 1 and the slope does not change; x^2 in it must not overflow.
FLAT = np.float32(10)
WALKING_WARPS = 8


@inline
def value_erf(x):
    """GELU of a number."""
    return HALF * x * (ONE + math.erf(x * ROOT_HALF))


@inline
def slope_erf(x):
    """Derivative of `value_erf`."""
    return HALF * (ONE + math.erf(x * ROOT_HALF)) + x * DENSITY_AT_0 * exp(-HALF * x * x)


@inline
def value_tanh(x):
    """GELU by tanh of a number."""
    return HALF * x * (ONE + math.tanh(x * (LINEAR + CUBIC * x * x)))


@inline
def slope_tanh(x):
    """Derivative of `value_tanh`."""
    x = FLAT if x > FLAT else x
    x = -FLAT if x < -FLAT else x
    square = x * x
    t = math.tanh(x * (LINEAR + CUBIC * square))
    return HALF * (ONE + t + x * (ONE - t * t) * (LINEAR + THREE * CUBIC * square))


@inline
def sigmoid(x):
    """1 / (1 + e^-x); e^-x may be infinite, which gives the right zero."""
    return ONE / (ONE + exp(-x))


@inline
def value_silu(x):
    """SiLU of a number."""
    return x * sigmoid(x)


@inline
def slope_silu(x):
    """Derivative of `value_silu`."""
    s = sigmoid(x)
    return s * (ONE + x * (ONE - s))


# -- without a bias: flat arrays, four elements for each thread --------------------------------------------------------


def elementwise_kernel(name: str, value: Any) -> Kernel:
    """The kernel ``out = value(x)`` over arrays (n,)."""

    def body(x, out):
        i = 4 * cuda.grid(1)
        if i + 4 <= x.size:
            a, b, c, d = load4(x, i)
            store4(out, i, value(a), value(b), value(c), value(d))
        else:
            for k in range(i, x.size):
                out[k] = value(x[k])

    return kernel(body, name)


def elementwise_vjp_kernel(name: str, slope: Any) -> Kernel:
    """The kernel ``out = g slope(x)`` over arrays (n,)."""

    def body(g, x, out):
        i = 4 * cuda.grid(1)
        if i + 4 <= x.size:
            a, b, c, d = load4(x, i)
            p, q, r, s = load4(g, i)
            store4(out, i, p * slope(a), q * slope(b), r * slope(c), s * slope(d))
        else:
            for k in range(i, x.size):
                out[k] = g[k] * slope(x[k])

    return kernel(body, name)


@kernel
def swiglu_kernel(gate: Array, up: Array, out: Array) -> None:
    """Four elements; the last thread may have fewer."""
    i = 4 * cuda.grid(1)
    if i + 4 <= gate.size:
        a, b, c, d = load4(gate, i)
        p, q, r, s = load4(up, i)
        store4(out, i, value_silu(a) * p, value_silu(b) * q, value_silu(c) * r, value_silu(d) * s)
    else:
        for k in range(i, gate.size):
            out[k] = value_silu(gate[k]) * up[k]


@kernel
def swiglu_vjp_kernel(g: Array, gate: Array, up: Array, dgate: Array, dup: Array) -> None:
    """Four elements; the last thread may have fewer."""
    first = 4 * cuda.grid(1)
    if first + 4 <= gate.size:
        a, b, c, d = load4(gate, first)
        p, q, r, s = load4(up, first)
        w, x, y, z = load4(g, first)
        store4(dup, first, w * value_silu(a), x * value_silu(b), y * value_silu(c), z * value_silu(d))
        w, x, y, z = w * p, x * q, y * r, z * s
        store4(dgate, first, w * slope_silu(a), x * slope_silu(b), y * slope_silu(c), z * slope_silu(d))
    else:
        for k in range(first, gate.size):
            dup[k] = g[k] * value_silu(gate[k])
            dgate[k] = g[k] * up[k] * slope_silu(gate[k])


# -- with a bias: (R, C), a warp for 32 columns ------------------------------------------------------------------------


def bias_kernel(name: str, value: Any) -> Kernel:
    """The kernel ``out = value(x + bias)`` over rows (R, C)."""

    def body(x, bias, out):
        j = cuda.blockIdx.x * WARP + cuda.threadIdx.x
        if j < x.shape[1]:
            b = bias[j]
            for i in range(
                cuda.blockIdx.y * WALKING_WARPS + cuda.threadIdx.y, x.shape[0], cuda.gridDim.y * WALKING_WARPS
            ):
                out[i, j] = value(x[i, j] + b)

    return kernel(body, name)


def bias_vjp_kernel(name: str, slope: Any) -> Kernel:
    """The kernel ``dx = g slope(x + bias)`` over rows (R, C), whose sums go to rows of `dbiases` (blocks, C)."""

    def body(g, x, bias, dx, dbiases):
        sums = cuda.shared.array((WALKING_WARPS, WARP), float32)
        column, walker = cuda.threadIdx.x, cuda.threadIdx.y
        j = cuda.blockIdx.x * WARP + column
        total = ZERO
        if j < x.shape[1]:
            b = bias[j]
            for i in range(cuda.blockIdx.y * WALKING_WARPS + walker, x.shape[0], cuda.gridDim.y * WALKING_WARPS):
                d = g[i, j] * slope(x[i, j] + b)
                dx[i, j] = d
                total += d
        sums[walker, column] = total
        cuda.syncthreads()
        if walker == 0 and j < x.shape[1]:
            for k in range(1, WALKING_WARPS):
                total += sums[k, column]
            dbiases[cuda.blockIdx.y, j] = total

    return kernel(body, name)


def _grid(x: Array) -> tuple[int, int]:
    """Blocks for the columns, and so many down the rows that there are some hundreds in all."""
    across = -(-x.shape[1] // WARP)
    return across, min(-(-max(len(x), 1) // WALKING_WARPS), max(1, 4 * WALKERS // max(across, 1)))


@kernel
def bias_swiglu_kernel(gate: Array, up: Array, gate_bias: Array, up_bias: Array, out: Array) -> None:
    """A warp for 32 columns, whose two biases stay in registers."""
    j = cuda.blockIdx.x * WARP + cuda.threadIdx.x
    if j < gate.shape[1]:
        b, c = gate_bias[j], up_bias[j]
        for i in range(
            cuda.blockIdx.y * WALKING_WARPS + cuda.threadIdx.y, gate.shape[0], cuda.gridDim.y * WALKING_WARPS
        ):
            out[i, j] = value_silu(gate[i, j] + b) * (up[i, j] + c)


@kernel
def bias_swiglu_vjp_kernel(
    g: Array,
    gate: Array,
    up: Array,
    gate_bias: Array,
    up_bias: Array,
    dgate: Array,
    dup: Array,
    dgate_biases: Array,
    dup_biases: Array,
) -> None:
    """As `bias_vjp_kernel`, for two inputs; the sums go to rows of `dgate_biases` and `dup_biases` (blocks, C)."""
    gate_sums = cuda.shared.array((WALKING_WARPS, WARP), float32)
    up_sums = cuda.shared.array((WALKING_WARPS, WARP), float32)
    column, walker = cuda.threadIdx.x, cuda.threadIdx.y
    j = cuda.blockIdx.x * WARP + column
    of_gate = of_up = ZERO
    if j < gate.shape[1]:
        b, c = gate_bias[j], up_bias[j]
        for i in range(cuda.blockIdx.y * WALKING_WARPS + walker, gate.shape[0], cuda.gridDim.y * WALKING_WARPS):
            z, d = gate[i, j] + b, g[i, j]
            d_up, d_gate = d * value_silu(z), d * (up[i, j] + c) * slope_silu(z)
            dup[i, j], dgate[i, j] = d_up, d_gate
            of_up += d_up
            of_gate += d_gate
    gate_sums[walker, column], up_sums[walker, column] = of_gate, of_up
    cuda.syncthreads()
    if walker == 0 and j < gate.shape[1]:
        for k in range(1, WALKING_WARPS):
            of_gate += gate_sums[k, column]
            of_up += up_sums[k, column]
        dgate_biases[cuda.blockIdx.y, j], dup_biases[cuda.blockIdx.y, j] = of_gate, of_up


# -- the functions -----------------------------------------------------------------------------------------------------

Function = Callable[..., None]


def _blocks(x: Array) -> int:
    return -(-x.size // (4 * THREADS))


def _activation(name: str, value: Any, slope: Any) -> tuple[Function, Function, Function, Function]:
    """Value and cotangent, without and with a bias, of one activation."""
    forward, backward = elementwise_kernel(name, value), elementwise_vjp_kernel(f"{name}_vjp", slope)
    with_bias, with_bias_vjp = bias_kernel(f"bias_{name}", value), bias_vjp_kernel(f"bias_{name}_vjp", slope)

    def apply(x: Array, out: Array) -> None:
        """The activation of each element of `x` (n,) into `out`."""
        forward[_blocks(x), THREADS](x, out)

    def vjp(g: Array, x: Array, out: Array) -> None:
        """Cotangent of the input from `g`, all (n,)."""
        backward[_blocks(x), THREADS](g, x, out)

    def bias_apply(x: Array, bias: Array, out: Array) -> None:
        """The activation of `x` (R, C) + `bias` (C,) into `out`."""
        with_bias[_grid(x), (WARP, WALKING_WARPS)](x, bias, out)

    def bias_vjp(g: Array, x: Array, bias: Array, dx: Array, dbias: Array) -> None:
        """Cotangents of x (R, C) and bias (C,) from `g` (R, C)."""
        dbiases = empty(x, _grid(x)[1], x.shape[1])
        with_bias_vjp[_grid(x), (WARP, WALKING_WARPS)](g, x, bias, dx, dbiases)
        column_sums(dbiases, dbias)

    return apply, vjp, bias_apply, bias_vjp


gelu_erf, gelu_erf_vjp, bias_gelu_erf, bias_gelu_erf_vjp = _activation("gelu_erf", value_erf, slope_erf)
gelu_tanh, gelu_tanh_vjp, bias_gelu_tanh, bias_gelu_tanh_vjp = _activation("gelu_tanh", value_tanh, slope_tanh)
silu, silu_vjp, bias_silu, bias_silu_vjp = _activation("silu", value_silu, slope_silu)


def swiglu(gate: Array, up: Array, out: Array) -> None:
    """SiLU of `gate`, times `up`, into `out`, all (n,)."""
    swiglu_kernel[_blocks(gate), THREADS](gate, up, out)


def swiglu_vjp(g: Array, gate: Array, up: Array, dgate: Array, dup: Array) -> None:
    """Cotangents of `gate` and `up` from `g`, all (n,)."""
    swiglu_vjp_kernel[_blocks(gate), THREADS](g, gate, up, dgate, dup)


def bias_swiglu(gate: Array, up: Array, gate_bias: Array, up_bias: Array, out: Array) -> None:
    """SiLU of `gate` + `gate_bias`, times `up` + `up_bias`, into `out`; (R, C) and (C,)."""
    bias_swiglu_kernel[_grid(gate), (WARP, WALKING_WARPS)](gate, up, gate_bias, up_bias, out)


def bias_swiglu_vjp(
    g: Array,
    gate: Array,
    up: Array,
    gate_bias: Array,
    up_bias: Array,
    dgate: Array,
    dup: Array,
    dgate_bias: Array,
    dup_bias: Array,
) -> None:
    """Cotangents of gate and up (R, C) and of their biases (C,) from `g` (R, C)."""
    sums = [empty(gate, _grid(gate)[1], gate.shape[1]) for _ in range(2)]
    shape = _grid(gate), (WARP, WALKING_WARPS)
    bias_swiglu_vjp_kernel[shape](g, gate, up, gate_bias, up_bias, dgate, dup, *sums)
    column_sums(sums[0], dgate_bias)
    column_sums(sums[1], dup_bias)
