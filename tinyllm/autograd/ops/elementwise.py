"""Arithmetic and functions of single elements. The table of rules comes first; it is a page of a calculus book.

In every rule `g` is the gradient arriving at the output `y`. No rule mentions broadcasting or dtypes: both are undone
on the edge (`operands.meet`). Subgradients are PyTorch's: ties of maximum and minimum share equally, abs and relu have
0 at 0, clip passes on its bounds, round, floor, ceil and sign have 0 everywhere.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tinyllm.autograd import ops
from tinyllm.autograd.arrays import copied
from tinyllm.autograd.operands import as_tensor, as_tensors
from tinyllm.autograd.ops.primitive import primitive
from tinyllm.autograd.ops.special import erf as _erf_values
from tinyllm.autograd.tape import apply
from tinyllm.autograd.tensor import Operand, Tensor

# -- rules: two arguments ----------------------------------------------------------------------------------------------

_add = primitive("add", lambda g, y, a, b: g, lambda g, y, a, b: g, elementwise=True)
_subtract = primitive("subtract", lambda g, y, a, b: g, lambda g, y, a, b: -g, elementwise=True)
_multiply = primitive("multiply", lambda g, y, a, b: g * b, lambda g, y, a, b: g * a, elementwise=True, arithmetic=True)
_divide = primitive(
    "divide", lambda g, y, a, b: g / b, lambda g, y, a, b: -g * y / b, elementwise=True, arithmetic=True
)
_power = primitive(
    "power",
    # b a^(b-1), which is 0 for b = 0 even where a = 0; and a^b ln a, which is 0 where a = 0
    lambda g, y, a, b: where(b == 0, 0.0, g * b * a ** where(b == 0, 1, b - 1)),
    lambda g, y, a, b: where(a == 0, 0.0, g * y * log(where(a == 0, 1, a))),
    elementwise=True,
)
_maximum = primitive(
    "maximum",
    lambda g, y, a, b: where(a > b, g, where(a == b, 0.5 * g, 0.0)),
    lambda g, y, a, b: where(b > a, g, where(a == b, 0.5 * g, 0.0)),
    elementwise=True,
)
_minimum = primitive(
    "minimum",
    lambda g, y, a, b: where(a < b, g, where(a == b, 0.5 * g, 0.0)),
    lambda g, y, a, b: where(b < a, g, where(a == b, 0.5 * g, 0.0)),
    elementwise=True,
)
_where = primitive(
    "where",
    None,
    lambda g, y, condition, a, b: where(condition, g, 0.0),
    lambda g, y, condition, a, b: where(condition, 0.0, g),
    elementwise=True,
)

# -- rules: one argument -----------------------------------------------------------------------------------------------

_negative = primitive("negative", lambda g, y, x: -g, arithmetic=True)
_exp = primitive("exp", lambda g, y, x: g * y, arithmetic=True)
_expm1 = primitive("expm1", lambda g, y, x: g * (y + 1), arithmetic=True)
_log = primitive("log", lambda g, y, x: g / x, arithmetic=True)
_log1p = primitive("log1p", lambda g, y, x: g / (1 + x), arithmetic=True)
_sqrt = primitive("sqrt", lambda g, y, x: 0.5 * g / y, arithmetic=True)
_sin = primitive("sin", lambda g, y, x: g * cos(x))
_cos = primitive("cos", lambda g, y, x: -g * sin(x))
_tanh = primitive("tanh", lambda g, y, x: g * (1 - y * y), arithmetic=True)
_erf = primitive("erf", lambda g, y, x: g * (2 / math.sqrt(math.pi)) * exp(-x * x), forward=_erf_values)
_abs = primitive("abs", lambda g, y, x: g * sign(x))
_round = primitive("round", lambda g, y, x, decimals: ops.zeros_like(g))
_floor = primitive("floor", lambda g, y, x: ops.zeros_like(g))
_ceil = primitive("ceil", lambda g, y, x: ops.zeros_like(g))
_sign = primitive("sign", lambda g, y, x: ops.zeros_like(g))
_clip = primitive(
    "clip",
    lambda g, y, x, low, high: where((x >= low) & (x <= high), g, 0.0),
    None,
    None,
    forward=lambda xp, x, low, high: xp.minimum(xp.maximum(x, low), high),
    elementwise=True,
)
_astype = primitive("astype", lambda g, y, x, dtype: astype(g, x.dtype), forward=lambda xp, x, dtype: copied(x, dtype))
_copy = primitive("copy", lambda g, y, x: g, forward=lambda xp, x: copied(x, x.dtype))
_identity = primitive("identity", lambda g, y, x: g, forward=lambda xp, x: x[...], view=True)

# -- without derivative ------------------------------------------------------------------------------------------------

_equal = primitive("equal", elementwise=True)
_not_equal = primitive("not_equal", elementwise=True)
_less = primitive("less", elementwise=True)
_less_equal = primitive("less_equal", elementwise=True)
_greater = primitive("greater", elementwise=True)
_greater_equal = primitive("greater_equal", elementwise=True)
_bitwise_and = primitive("bitwise_and", elementwise=True)
_bitwise_or = primitive("bitwise_or", elementwise=True)
_invert = primitive("invert")
_isnan = primitive("isnan")
_isfinite = primitive("isfinite")
_to_integer = primitive("astype", forward=lambda xp, x, dtype: copied(x, dtype))


def add(a: Operand, b: Operand) -> Tensor:
    """``a + b``, broadcast."""
    return apply(_add, a, b)


def subtract(a: Operand, b: Operand) -> Tensor:
    """``a - b``, broadcast."""
    return apply(_subtract, a, b)


def multiply(a: Operand, b: Operand) -> Tensor:
    """``a * b``, broadcast."""
    return apply(_multiply, a, b)


def divide(a: Operand, b: Operand) -> Tensor:
    """``a / b``, broadcast."""
    return apply(_divide, a, b)


def power(a: Operand, b: Operand) -> Tensor:
    """``a ** b``, broadcast. The derivative with respect to `b` is 0 where ``a = 0``."""
    a, b = as_tensors((a, b))
    return apply(_power, a, astype(b, np.int8) if b.dtype == bool else b)  # the rule has b - 1


def maximum(a: Operand, b: Operand) -> Tensor:
    """The larger of two elements, broadcast; where they are equal each gets half of the gradient."""
    return apply(_maximum, a, b)


def minimum(a: Operand, b: Operand) -> Tensor:
    """The smaller of two elements, broadcast; where they are equal each gets half of the gradient."""
    return apply(_minimum, a, b)


def where(condition: Operand, a: Operand, b: Operand) -> Tensor:
    """`a` where `condition` holds, else `b`, all three broadcast. No gradient passes through the branch not taken."""
    return apply(_where, astype(as_tensor(condition, like=(a, b)), bool), a, b)


def masked_fill(x: Operand, mask: Operand, value: Operand) -> Tensor:
    """`x` with `value` where `mask` is True (mask is broadcast to `x`)."""
    return where(mask, value, x)


def negative(x: Operand) -> Tensor:
    """``-x``."""
    return apply(_negative, x)


def exp(x: Operand) -> Tensor:
    """The exponential function."""
    return apply(_exp, x)


def expm1(x: Operand) -> Tensor:
    """``exp(x) - 1``, exact for small x."""
    return apply(_expm1, x)


def log(x: Operand) -> Tensor:
    """The natural logarithm."""
    return apply(_log, x)


def log1p(x: Operand) -> Tensor:
    """``log(1 + x)``, exact for small x."""
    return apply(_log1p, x)


def sqrt(x: Operand) -> Tensor:
    """The square root."""
    return apply(_sqrt, x)


def sin(x: Operand) -> Tensor:
    """The sine, of radians."""
    return apply(_sin, x)


def cos(x: Operand) -> Tensor:
    """The cosine, of radians."""
    return apply(_cos, x)


def tanh(x: Operand) -> Tensor:
    """The hyperbolic tangent (F-ACT)."""
    return apply(_tanh, x)


def erf(x: Operand) -> Tensor:
    """The error function, ``2 / sqrt(pi)`` times the integral of ``exp(-t^2)`` from 0 to x."""
    return apply(_erf, x)


def abs(x: Operand) -> Tensor:
    """The absolute value; its derivative at 0 is declared 0."""
    return apply(_abs, x)


def round(x: Operand, decimals: int = 0) -> Tensor:
    """Rounded to `decimals`, halves to even; the derivative is 0."""
    return apply(_round, x, decimals=decimals)


def floor(x: Operand) -> Tensor:
    """The largest integer not above x; the derivative is 0."""
    return apply(_floor, x)


def ceil(x: Operand) -> Tensor:
    """The smallest integer not below x; the derivative is 0."""
    return apply(_ceil, x)


def sign(x: Operand) -> Tensor:
    """-1, 0 or 1; the derivative is 0."""
    return apply(_sign, x)


def clip(x: Operand, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """`x` limited to ``[min, max]``; the gradient passes inside and on the bounds.

    Parameters
    ----------
    x : array_like or Tensor
    min, max : number, array_like or None
        Constants, broadcast with `x`; None for no bound.

    Raises
    ------
    TypeError
        If a bound requires a gradient: bounds are constants here, `maximum` and `minimum` differentiate them.
    """
    x = as_tensor(x)
    if any(isinstance(bound, Tensor) and bound.requires_grad for bound in (min, max)):
        raise TypeError("clip takes constant bounds; use maximum and minimum for bounds with a gradient")
    least, most = (-np.inf, np.inf) if x.dtype.kind == "f" else (_limit(x, "min"), _limit(x, "max"))
    return apply(_clip, x, least if min is None else min, most if max is None else max)


def _limit(x: Tensor, which: str) -> int:
    return which == "max" if x.dtype == bool else getattr(np.iinfo(x.dtype), which)


def astype(x: Operand, dtype: DTypeLike) -> Tensor:
    """`x` converted to `dtype`; the gradient is converted back. Integers and booleans have no gradient."""
    x = as_tensor(x)
    dtype = np.dtype(dtype)
    if x.dtype == dtype:
        return x
    if dtype.kind not in "fiub":
        raise TypeError(f"a Tensor holds real numbers or booleans, not dtype {dtype}")
    return apply(_astype if dtype.kind == "f" else _to_integer, x, dtype=dtype)


def copy(x: Operand) -> Tensor:
    """`x` in memory of its own."""
    return apply(_copy, x)


def identity(x: Operand) -> Tensor:
    """`x` itself, as a new node of the tape."""
    return apply(_identity, x)


def equal(a: Operand, b: Any) -> Tensor:
    """``a == b`` element by element, a boolean tensor."""
    return apply(_equal, a, b)


def not_equal(a: Operand, b: Any) -> Tensor:
    """``a != b`` element by element."""
    return apply(_not_equal, a, b)


def less(a: Operand, b: Operand) -> Tensor:
    """``a < b`` element by element."""
    return apply(_less, a, b)


def less_equal(a: Operand, b: Operand) -> Tensor:
    """``a <= b`` element by element."""
    return apply(_less_equal, a, b)


def greater(a: Operand, b: Operand) -> Tensor:
    """``a > b`` element by element."""
    return apply(_greater, a, b)


def greater_equal(a: Operand, b: Operand) -> Tensor:
    """``a >= b`` element by element."""
    return apply(_greater_equal, a, b)


def bitwise_and(a: Operand, b: Operand) -> Tensor:
    """``a & b`` for booleans and integers."""
    return apply(_bitwise_and, a, b)


def bitwise_or(a: Operand, b: Operand) -> Tensor:
    """``a | b`` for booleans and integers."""
    return apply(_bitwise_or, a, b)


def invert(x: Operand) -> Tensor:
    """``~x`` for booleans and integers."""
    return apply(_invert, x)


def isnan(x: Operand) -> Tensor:
    """Where x is not a number."""
    return apply(_isnan, x)


def isfinite(x: Operand) -> Tensor:
    """Where x is neither infinite nor NaN."""
    return apply(_isfinite, x)
