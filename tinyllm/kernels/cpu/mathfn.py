"""exp, tanh, the sigmoid and erf that a compiled loop can run in vector lanes.

A call into the C library takes one number; a loop around it stays scalar. The functions here are a dozen or two
multiply-adds without a branch, so that LLVM turns a loop over them into vector instructions; erf in float64 alone is
the C library's. The errors are at most 1.1 (exp), 3 (tanh, sigmoid) and 5 (erf) units in the last place. All of them
keep NaN and take infinities to their limits.

The plain function is what Python steps into; the `overload` beside it gives Numba the version for a dtype. They may
fuse a product and a sum but reorder nothing: the roundings rely on the order written.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from tinyllm.kernels.cpu.compile import IN_ORDER, inline_in_order

ONE, TWO = np.float32(1), np.float32(2)
LOG2_E = np.float32(1 / math.log(2))
# ln 2 in two parts: the first has 15 significant bits, so that n * LN2_HIGH is exact for every n that occurs.
LN2_HIGH = np.float32(0.693145751953125)
LN2_LOW = np.float32(math.log(2) - 0.693145751953125)
# 1.5 * 2^23 added to a float32 rounds it to an integer, which is then found in the low bits of the sum.
ROUND = np.float32(12582912)
ROUND_BITS = ROUND.view(np.int32)
C2, C3, C4, C5, C6, C7 = (np.float32(1 / math.factorial(k)) for k in range(2, 8))
# exp is 0 below and infinite above these; tanh and erf are 1 in float32 above theirs.
EXP_LOW, EXP_HIGH, TANH_HIGH, ERF_HIGH = np.float32(-104), np.float32(89), np.float32(10), np.float32(4)
# The same for float64: 32 significant bits in the first part of ln 2, and 1.5 * 2^52.
LN2_HIGH64 = np.float64(0.69314718036912381649017333984375)
LN2_LOW64 = np.float64(1.9082149292705877e-10)
ROUND64 = np.float64(6755399441055744)
ROUND64_BITS = ROUND64.view(np.int64)
D2, D3, D4, D5, D6, D7, D8, D9, D10, D11, D12, D13 = (np.float64(1 / math.factorial(k)) for k in range(2, 14))
EXP_LOW64, EXP_HIGH64, TANH_HIGH64 = np.float64(-746), np.float64(710), np.float64(20)
# erf(x) = x P(x^2) / Q(x^2) on |x| <= 4, relative error 5e-8: least squares, weighted up where the error was large.
P0, P1, P2 = np.float32(1.12837911), np.float32(0.193544641), np.float32(0.0531016402)
P3, P4, P5 = np.float32(0.00388330966), np.float32(0.000284562586), np.float32(1.98675502e-06)
Q1, Q2, Q3 = np.float32(0.504857004), np.float32(0.115349784), np.float32(0.0152071873)
Q4, Q5 = np.float32(0.00118555792), np.float32(3.74197116e-05)


@inline_in_order
def reduce(x):
    """(n, e^r - 1) with x = n ln 2 + r, n the nearest integer, |r| <= ln 2 / 2: the Taylor series up to r^7."""
    shifted = x * LOG2_E + ROUND
    n = shifted - ROUND
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    series = r + r * r * (C2 + r * (C3 + r * (C4 + r * (C5 + r * (C6 + r * C7)))))
    return np.int32(np.float32(shifted).view(np.int32) - ROUND_BITS), series


@inline_in_order
def power_of_two(n):
    """2^n for -126 <= n <= 127, written into the exponent bits."""
    return np.int32((n + np.int32(127)) << np.int32(23)).view(np.float32)


@inline_in_order
def exp32(x):
    """e^x in float32; 2^n is applied in two halves, so that results below 2^-126 underflow gradually."""
    x = EXP_LOW if x < EXP_LOW else x  # written so that NaN passes
    x = EXP_HIGH if x > EXP_HIGH else x
    n, series = reduce(x)
    half = np.int32(n >> np.int32(1))
    return (ONE + series) * power_of_two(half) * power_of_two(np.int32(n - half))


@inline_in_order
def tanh32(x):
    """Hyperbolic tangent in float32: m / (m + 2) with m = e^(2|x|) - 1, which loses no digits near 0."""
    a = abs(x)
    a = TANH_HIGH if a > TANH_HIGH else a
    n, series = reduce(TWO * a)
    power = power_of_two(n)
    m = power * series + (power - ONE)
    y = m / (m + TWO)
    return -y if x < 0 else y


@inline_in_order
def reduce64(x):
    """Like `reduce`, with the series up to r^13."""
    shifted = x * (1 / math.log(2)) + ROUND64
    n = shifted - ROUND64
    r = (x - n * LN2_HIGH64) - n * LN2_LOW64
    tail = D8 + r * (D9 + r * (D10 + r * (D11 + r * (D12 + r * D13))))
    series = r + r * r * (D2 + r * (D3 + r * (D4 + r * (D5 + r * (D6 + r * (D7 + r * tail))))))
    return np.int64(np.float64(shifted).view(np.int64) - ROUND64_BITS), series


@inline_in_order
def power_of_two64(n):
    """2^n for -1022 <= n <= 1023."""
    return np.int64((n + np.int64(1023)) << np.int64(52)).view(np.float64)


@inline_in_order
def exp64(x):
    """e^x in float64."""
    x = EXP_LOW64 if x < EXP_LOW64 else x
    x = EXP_HIGH64 if x > EXP_HIGH64 else x
    n, series = reduce64(x)
    half = np.int64(n >> np.int64(1))
    return (1.0 + series) * power_of_two64(half) * power_of_two64(np.int64(n - half))


@inline_in_order
def tanh64(x):
    """Hyperbolic tangent in float64."""
    a = abs(x)
    a = TANH_HIGH64 if a > TANH_HIGH64 else a
    n, series = reduce64(2.0 * a)
    power = power_of_two64(n)
    m = power * series + (power - 1.0)
    y = m / (m + 2.0)
    return -y if x < 0 else y


@inline_in_order
def sigmoid32(x):
    """1 / (1 + e^-x) in float32, by way of e^-|x|, which cannot overflow."""
    e = exp32(-abs(x))
    return (ONE if x >= 0 else e) / (ONE + e)


@inline_in_order
def sigmoid64(x):
    """1 / (1 + e^-x) in float64."""
    e = exp64(-abs(x))
    return (1.0 if x >= 0 else e) / (1.0 + e)


@inline_in_order
def erf32(x):
    """The error function in float32: one rational function, with its rounding beyond 1 cut off."""
    x = ERF_HIGH if x > ERF_HIGH else x
    x = -ERF_HIGH if x < -ERF_HIGH else x
    z = x * x
    p = P0 + z * (P1 + z * (P2 + z * (P3 + z * (P4 + z * P5))))
    q = ONE + z * (Q1 + z * (Q2 + z * (Q3 + z * (Q4 + z * Q5))))
    y = x * p / q
    y = ONE if y > ONE else y
    return -ONE if y < -ONE else y


def exp(x: Any) -> Any:
    """e^x of a float32 or float64 scalar."""
    return exp32(x) if x.dtype == np.float32 else exp64(x)


def tanh(x: Any) -> Any:
    """Hyperbolic tangent of a float32 or float64 scalar."""
    return tanh32(x) if x.dtype == np.float32 else tanh64(x)


def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x) of a float32 or float64 scalar."""
    return sigmoid32(x) if x.dtype == np.float32 else sigmoid64(x)


def erf(x: Any) -> Any:
    """Error function of a float32 or float64 scalar."""
    return erf32(x) if x.dtype == np.float32 else np.float64(math.erf(x))


@overload(exp, jit_options=IN_ORDER)
def exp_for_dtype(x):
    """The `exp` that a kernel of this dtype calls."""
    return exp32 if x == types.float32 else exp64


@overload(tanh, jit_options=IN_ORDER)
def tanh_for_dtype(x):
    """The `tanh` that a kernel of this dtype calls."""
    return tanh32 if x == types.float32 else tanh64


@overload(sigmoid, jit_options=IN_ORDER)
def sigmoid_for_dtype(x):
    """The `sigmoid` that a kernel of this dtype calls."""
    return sigmoid32 if x == types.float32 else sigmoid64


@overload(erf, jit_options=IN_ORDER)
def erf_for_dtype(x):
    """The `erf` that a kernel of this dtype calls."""
    return erf32 if x == types.float32 else (lambda x: math.erf(x))
