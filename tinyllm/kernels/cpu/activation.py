"""GELU (Hendrycks and Gimpel 2016), exact and in its tanh approximation, SiLU and SwiGLU (Shazeer 2020), derivatives.

    gelu_erf:  y = x F(x),  F(x) = (1 + erf(x / sqrt 2)) / 2            y' = F(x) + x e^(-x^2 / 2) / sqrt(2 pi)
    gelu_tanh: y = x (1 + tanh u) / 2,  u = sqrt(2 / pi) (x + a x^3)    y' = (1 + t + x (1 - t^2) u') / 2,  t = tanh u
    silu:      y = x s(x),  s(x) = 1 / (1 + e^-x)                       y' = s(x) (1 + x (1 - s(x)))
    swiglu:    y = silu(x) up

One pass: each element is read once and written once, and everything between stays in registers. Backward computes erf,
tanh or the sigmoid again, which costs less than reading it back would.

Each also takes a bias, which is added to x (gate, up) on the way: the sum is never stored, and backward adds up
the bias's cotangent in the pass that computes x's. A network's first layer ends so.
"""

from __future__ import annotations

import math

from tinyllm.kernels.cpu.compile import Array, inline, jit
from tinyllm.kernels.cpu.mathfn import erf, exp, sigmoid, tanh

ROOT_HALF = math.sqrt(1 / 2)
DENSITY_AT_0 = math.sqrt(1 / (2 * math.pi))
ROOT_2_OVER_PI = math.sqrt(2 / math.pi)
CUBIC = 0.044715
# Beyond this |x|, tanh u is 1 in float64 too and the slope does not change; x^2 in it must not overflow.
FLAT = 10.0


@inline
def slope_silu(x, number):
    """Derivative of ``x sigmoid(x)``."""
    s = sigmoid(x)
    return s * (number(1) + x * (number(1) - s))


@inline
def value_erf(x, number):
    """GELU of a number; `number` is its type."""
    return number(0.5) * x * (number(1) + erf(x * number(ROOT_HALF)))


@inline
def slope_erf(x, number):
    """Derivative of `value_erf`."""
    half = number(0.5)
    return half * (number(1) + erf(x * number(ROOT_HALF))) + x * number(DENSITY_AT_0) * exp(-half * x * x)


@inline
def value_tanh(x, number):
    """GELU by tanh of a number; `number` is its type."""
    u = x * (number(ROOT_2_OVER_PI) + number(ROOT_2_OVER_PI * CUBIC) * x * x)
    return number(0.5) * x * (number(1) + tanh(u))


@inline
def slope_tanh(x, number):
    """Derivative of `value_tanh`."""
    one, linear, cubic = number(1), number(ROOT_2_OVER_PI), number(ROOT_2_OVER_PI * CUBIC)
    x = number(FLAT) if x > number(FLAT) else x
    x = number(-FLAT) if x < number(-FLAT) else x
    square = x * x
    t = tanh(x * (linear + cubic * square))
    return number(0.5) * (one + t + x * (one - t * t) * (linear + number(3) * cubic * square))


@jit
def gelu_erf(x: Array, out: Array) -> None:
    """GELU of each element of `x` (n,) into `out`."""
    for i in range(x.size):
        out[i] = value_erf(x[i], x.dtype.type)


@jit
def gelu_erf_vjp(g: Array, x: Array, out: Array) -> None:
    """Cotangent of the input from `g`, all (n,)."""
    for i in range(x.size):
        out[i] = g[i] * slope_erf(x[i], x.dtype.type)


@jit
def bias_gelu_erf(x: Array, bias: Array, out: Array) -> None:
    """GELU of `x` (R, C) + `bias` (C,) into `out`."""
    for i in range(x.shape[0]):
        row, y = x[i], out[i]
        for j in range(row.size):
            y[j] = value_erf(row[j] + bias[j], x.dtype.type)


@jit
def bias_gelu_erf_vjp(g: Array, x: Array, bias: Array, dx: Array, dbias: Array) -> None:
    """Cotangents of x (R, C) and bias (C,) from `g` (R, C)."""
    for j in range(dbias.size):
        dbias[j] = 0
    for i in range(x.shape[0]):
        g_row, row, dx_row = g[i], x[i], dx[i]
        for j in range(row.size):
            d = g_row[j] * slope_erf(row[j] + bias[j], x.dtype.type)
            dx_row[j] = d
            dbias[j] += d


@jit
def gelu_tanh(x: Array, out: Array) -> None:
    """GELU by tanh of each element of `x` (n,) into `out`."""
    for i in range(x.size):
        out[i] = value_tanh(x[i], x.dtype.type)


@jit
def gelu_tanh_vjp(g: Array, x: Array, out: Array) -> None:
    """Cotangent of the input from `g`, all (n,)."""
    for i in range(x.size):
        out[i] = g[i] * slope_tanh(x[i], x.dtype.type)


@jit
def bias_gelu_tanh(x: Array, bias: Array, out: Array) -> None:
    """GELU by tanh of `x` (R, C) + `bias` (C,) into `out`."""
    for i in range(x.shape[0]):
        row, y = x[i], out[i]
        for j in range(row.size):
            y[j] = value_tanh(row[j] + bias[j], x.dtype.type)


@jit
def bias_gelu_tanh_vjp(g: Array, x: Array, bias: Array, dx: Array, dbias: Array) -> None:
    """Cotangents of x (R, C) and bias (C,) from `g` (R, C)."""
    for j in range(dbias.size):
        dbias[j] = 0
    for i in range(x.shape[0]):
        g_row, row, dx_row = g[i], x[i], dx[i]
        for j in range(row.size):
            d = g_row[j] * slope_tanh(row[j] + bias[j], x.dtype.type)
            dx_row[j] = d
            dbias[j] += d


@jit
def silu(x: Array, out: Array) -> None:
    """SiLU of each element of `x` (n,) into `out`."""
    for i in range(x.size):
        out[i] = x[i] * sigmoid(x[i])


@jit
def silu_vjp(g: Array, x: Array, out: Array) -> None:
    """Cotangent of the input from `g`, all (n,)."""
    for i in range(x.size):
        out[i] = g[i] * slope_silu(x[i], x.dtype.type)


@jit
def bias_silu(x: Array, bias: Array, out: Array) -> None:
    """SiLU of `x` (R, C) + `bias` (C,) into `out`."""
    for i in range(x.shape[0]):
        row, y = x[i], out[i]
        for j in range(row.size):
            z = row[j] + bias[j]
            y[j] = z * sigmoid(z)


@jit
def bias_silu_vjp(g: Array, x: Array, bias: Array, dx: Array, dbias: Array) -> None:
    """Cotangents of x (R, C) and bias (C,) from `g` (R, C)."""
    for j in range(dbias.size):
        dbias[j] = 0
    for i in range(x.shape[0]):
        g_row, row, dx_row = g[i], x[i], dx[i]
        for j in range(row.size):
            d = g_row[j] * slope_silu(row[j] + bias[j], x.dtype.type)
            dx_row[j] = d
            dbias[j] += d


@jit
def swiglu(gate: Array, up: Array, out: Array) -> None:
    """SiLU of `gate`, times `up`, into `out`, all (n,)."""
    for i in range(gate.size):
        out[i] = gate[i] * sigmoid(gate[i]) * up[i]


@jit
def swiglu_vjp(g: Array, gate: Array, up: Array, dgate: Array, dup: Array) -> None:
    """Cotangents of `gate` and `up` from `g`, all (n,)."""
    one = gate.dtype.type(1)
    for i in range(gate.size):
        s = sigmoid(gate[i])
        dup[i] = g[i] * gate[i] * s
        dgate[i] = g[i] * up[i] * s * (one + gate[i] * (one - s))


@jit
def bias_swiglu(gate: Array, up: Array, gate_bias: Array, up_bias: Array, out: Array) -> None:
    """SiLU of `gate` + `gate_bias`, times `up` + `up_bias`, into `out`; (R, C) and (C,)."""
    for i in range(gate.shape[0]):
        gate_row, up_row, y = gate[i], up[i], out[i]
        for j in range(gate_row.size):
            z = gate_row[j] + gate_bias[j]
            y[j] = z * sigmoid(z) * (up_row[j] + up_bias[j])


@jit
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
    one = gate.dtype.type(1)
    for j in range(gate_bias.size):
        dgate_bias[j] = dup_bias[j] = 0
    for i in range(gate.shape[0]):
        g_row, gate_row, up_row, dgate_row, dup_row = g[i], gate[i], up[i], dgate[i], dup[i]
        for j in range(gate_row.size):
            z = gate_row[j] + gate_bias[j]
            s = sigmoid(z)
            of_up = g_row[j] * z * s
            of_gate = g_row[j] * (up_row[j] + up_bias[j]) * s * (one + z * (one - s))
            dup_row[j], dgate_row[j] = of_up, of_gate
            dup_bias[j] += of_up
            dgate_bias[j] += of_gate
