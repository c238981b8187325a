"""GELU (Hendrycks and Gimpel 2016), exact and in its tanh approximation, with derivatives.

    gelu_erf:  y = x F(x),  F(x) = (1 + erf(x / sqrt 2)) / 2            y' = F(x) + x e^(-x^2 / 2) / sqrt(2 pi)
    gelu_tanh: y = x (1 + tanh u) / 2,  u = sqrt(2 / pi) (x + a x^3)    y' = (1 + t + x (1 - t^2) u') / 2,  t = tanh u

One pass: each element is read once and written once, and everything between stays in registers. Backward computes erf
or tanh again, which costs less than reading it back would.
"""

from __future__ import annotations

import math

from tinyllm.kernels.cpu.compile import Array, jit
from tinyllm.kernels.cpu.mathfn import erf, exp, tanh

ROOT_HALF = math.sqrt(1 / 2)
DENSITY_AT_0 = math.sqrt(1 / (2 * math.pi))
ROOT_2_OVER_PI = math.sqrt(2 / math.pi)
CUBIC = 0.044715
# Beyond this |x|, tanh u is 1 in float64 too and the slope does not change; x^2 in it must not overflow.
FLAT = 10.0


@jit
def gelu_erf(x: Array, out: Array) -> None:
    """GELU of each element of `x` (n,) into `out`."""
    half, root_half, one = x.dtype.type(0.5), x.dtype.type(ROOT_HALF), x.dtype.type(1)
    for i in range(x.size):
        out[i] = half * x[i] * (one + erf(x[i] * root_half))


@jit
def gelu_erf_vjp(g: Array, x: Array, out: Array) -> None:
    """Cotangent of the input from `g`, all (n,)."""
    half, root_half, one = x.dtype.type(0.5), x.dtype.type(ROOT_HALF), x.dtype.type(1)
    density = x.dtype.type(DENSITY_AT_0)
    for i in range(x.size):
        below = half * (one + erf(x[i] * root_half))
        out[i] = g[i] * (below + x[i] * density * exp(-half * x[i] * x[i]))


@jit
def gelu_tanh(x: Array, out: Array) -> None:
    """GELU by tanh of each element of `x` (n,) into `out`."""
    half, one = x.dtype.type(0.5), x.dtype.type(1)
    linear, cubic = x.dtype.type(ROOT_2_OVER_PI), x.dtype.type(ROOT_2_OVER_PI * CUBIC)
    for i in range(x.size):
        u = x[i] * (linear + cubic * x[i] * x[i])
        out[i] = half * x[i] * (one + tanh(u))


@jit
def gelu_tanh_vjp(g: Array, x: Array, out: Array) -> None:
    """Cotangent of the input from `g`, all (n,)."""
    half, one, three = x.dtype.type(0.5), x.dtype.type(1), x.dtype.type(3)
    linear, cubic = x.dtype.type(ROOT_2_OVER_PI), x.dtype.type(ROOT_2_OVER_PI * CUBIC)
    flat = x.dtype.type(FLAT)
    for i in range(x.size):
        z = flat if x[i] > flat else x[i]
        z = -flat if z < -flat else z
        square = z * z
        t = tanh(z * (linear + cubic * square))
        slope = linear + three * cubic * square
        out[i] = g[i] * half * (one + t + z * (one - t * t) * slope)
