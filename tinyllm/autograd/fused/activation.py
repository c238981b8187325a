"""GELU, exact and with tanh, as one operation."""

from __future__ import annotations

import functools
import math

import numpy as np

from tinyllm.autograd import ops
from tinyllm.autograd.operands import as_tensor
from tinyllm.autograd.ops.special import erf as erf_values
from tinyllm.autograd.tape import Kernel, Op, apply
from tinyllm.autograd.tensor import Array, Operand, Tensor, namespace

_ROOT_HALF = math.sqrt(0.5)
_DENSITY = 1 / math.sqrt(2 * math.pi)
_ROOT_2_OVER_PI = math.sqrt(2 / math.pi)
_CUBIC = 0.044715


def _ref(x: Tensor, approximate: str) -> Tensor:
    if approximate == "tanh":
        return 0.5 * x * (1 + ops.tanh(_ROOT_2_OVER_PI * (x + _CUBIC * x * x * x)))
    return 0.5 * x * (1 + ops.erf(x * _ROOT_HALF))


def _forward(x: Array, approximate: str) -> tuple[Array, None]:
    xp = namespace(x)
    if approximate == "tanh":
        return 0.5 * x * (1 + xp.tanh(_ROOT_2_OVER_PI * x * (1 + _CUBIC * x * x))), None
    return 0.5 * x * (1 + erf_values(xp, x * _ROOT_HALF)), None


def _vjp(needs: tuple[bool], g: Array, y: Array, saved: None, x: Array, approximate: str) -> tuple[Array]:
    xp = namespace(x)
    if approximate == "tanh":
        z = xp.clip(x, -10, 10)  # beyond, the slope is 0 or 1 to the last bit, and the square must not overflow
        t = xp.tanh(_ROOT_2_OVER_PI * z * (1 + _CUBIC * z * z))
        return (g * (0.5 * (1 + t) + 0.5 * z * (1 - t * t) * _ROOT_2_OVER_PI * (1 + 3 * _CUBIC * z * z)),)
    z = xp.clip(x, -40, 40)
    return (g * (0.5 * (1 + erf_values(xp, x * _ROOT_HALF)) + z * _DENSITY * xp.exp(-0.5 * z * z)),)


@functools.cache
def _numba() -> Kernel:
    from tinyllm.kernels.cpu import activation as kernels

    def forward(x: Array, approximate: str) -> tuple[Array, None]:
        out = np.empty(x.shape, x.dtype)
        kernel = kernels.gelu_tanh if approximate == "tanh" else kernels.gelu_erf
        kernel(np.ascontiguousarray(x).reshape(-1), out.reshape(-1))
        return out, None

    def vjp(needs: tuple[bool], g: Array, y: Array, saved: None, x: Array, approximate: str) -> tuple[Array]:
        out = np.empty(x.shape, x.dtype)
        kernel = kernels.gelu_tanh_vjp if approximate == "tanh" else kernels.gelu_erf_vjp
        kernel(np.ascontiguousarray(g).reshape(-1), np.ascontiguousarray(x).reshape(-1), out.reshape(-1))
        return (out,)

    return Kernel(forward, vjp)


_gelu = Op("gelu", ref=_ref, impls={"numpy": lambda: Kernel(_forward, _vjp), "numba": _numba})


def gelu(x: Operand, approximate: str = "none") -> Tensor:
    """``x F(x)``, F the distribution function of the standard normal law.

    Parameters
    ----------
    x : array_like or Tensor, floating
    approximate : {"none", "tanh"}
        The exact function, by erf, or ``0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))``. The two differ by up to
        5e-4: a model computes right only with the one it was trained with.

    Raises
    ------
    ValueError
        If `approximate` is neither.

    Notes
    -----
    Source: Hendrycks and Gimpel 2016, section 2.
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    x = as_tensor(x)
    if x.dtype.kind != "f":
        raise TypeError(f"gelu needs floating numbers, got {x.dtype}; convert them with astype")
    return apply(_gelu, x, approximate=approximate)
