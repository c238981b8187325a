"""GELU, SiLU and SwiGLU, each as one operation."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyllm import buffers
from tinyllm.autograd import ops
from tinyllm.autograd.fused.rows import as_rows, divided, flat, in_order
from tinyllm.autograd.operands import as_tensor
from tinyllm.autograd.ops.activations import sigmoid_values
from tinyllm.autograd.ops.special import erf as erf_values
from tinyllm.autograd.tape import Kernel, Op, apply
from tinyllm.autograd.tensor import Array, Operand, Tensor, namespace

_ROOT_HALF = math.sqrt(0.5)
_DENSITY = 1 / math.sqrt(2 * math.pi)
_ROOT_2_OVER_PI = math.sqrt(2 / math.pi)
_CUBIC = 0.044715


# -- GELU --------------------------------------------------------------------------------------------------------------


def _gelu_ref(x: Tensor, bias: Tensor | None = None, *, approximate: str) -> Tensor:
    x = x if bias is None else x + bias
    if approximate == "tanh":
        return 0.5 * x * (1 + ops.tanh(_ROOT_2_OVER_PI * (x + _CUBIC * x * x * x)))
    return 0.5 * x * (1 + ops.erf(x * _ROOT_HALF))


def _gelu_forward(x: Array, bias: Array | None = None, *, approximate: str) -> tuple[Array, None]:
    xp = namespace(x)
    x = x if bias is None else x + bias
    if approximate == "tanh":
        return 0.5 * x * (1 + xp.tanh(_ROOT_2_OVER_PI * x * (1 + _CUBIC * x * x))), None
    return 0.5 * x * (1 + erf_values(xp, x * _ROOT_HALF)), None


def _gelu_vjp(
    needs: tuple[bool, ...], g: Array, y: Array, saved: None, x: Array, bias: Array | None = None, *, approximate: str
) -> tuple[Array, ...]:
    xp = namespace(x)
    x = x if bias is None else x + bias
    if approximate == "tanh":
        z = xp.clip(x, -10, 10)  # beyond, the slope is 0 or 1 to the last bit, and the square must not overflow
        t = xp.tanh(_ROOT_2_OVER_PI * z * (1 + _CUBIC * z * z))
        dx = g * (0.5 * (1 + t) + 0.5 * z * (1 - t * t) * _ROOT_2_OVER_PI * (1 + 3 * _CUBIC * z * z))
    else:
        z = xp.clip(x, -40, 40)
        dx = g * (0.5 * (1 + erf_values(xp, x * _ROOT_HALF)) + z * _DENSITY * xp.exp(-0.5 * z * z))
    return (dx,) if bias is None else (dx, _over_rows(dx))


@functools.cache
def _numba_gelu() -> Kernel:
    from tinyllm.kernels.cpu import activation as kernels

    def forward(x: Array, bias: Array | None = None, *, approximate: str) -> tuple[Array, None]:
        out = buffers.empty(x.shape, x.dtype)
        if bias is None:
            _elementwise(kernels.gelu_tanh if approximate == "tanh" else kernels.gelu_erf, x, out)
            return out, None
        kernel = kernels.bias_gelu_tanh if approximate == "tanh" else kernels.bias_gelu_erf
        _with_bias(kernel, [x], [bias], out)
        return out, None

    def vjp(
        needs: tuple[bool, ...],
        g: Array,
        y: Array,
        saved: None,
        x: Array,
        bias: Array | None = None,
        *,
        approximate: str,
    ) -> tuple[Array, ...]:
        dx = buffers.empty(x.shape, x.dtype)
        if bias is None:
            _elementwise(kernels.gelu_tanh_vjp if approximate == "tanh" else kernels.gelu_erf_vjp, g, x, dx)
            return (dx,)
        kernel = kernels.bias_gelu_tanh_vjp if approximate == "tanh" else kernels.bias_gelu_erf_vjp
        return dx, *_with_bias_vjp(kernel, g, [x], [bias], [dx])

    return Kernel(forward, vjp)


def _elementwise(kernel: Any, *arrays: Array) -> None:
    """A kernel over (n,) arrays, the inputs and then the outputs, on arrays of any one shape."""
    rows = [flat(a) for a in arrays]
    divided(lambda i, j: kernel(*(a[i:j] for a in rows)), rows[0])


def _with_bias(kernel: Any, xs: list[Array], biases: list[Array], out: Array) -> None:
    """A kernel over rows (R, C), to which biases (C,) are added, into `out`."""
    C, vectors = biases[0].size, [flat(b) for b in biases]
    rows, y = [as_rows(x, C) for x in xs], out.reshape(-1, C)
    divided(lambda i, j: kernel(*(x[i:j] for x in rows), *vectors, y[i:j]), y)


def _with_bias_vjp(kernel: Any, g: Array, xs: list[Array], biases: list[Array], dxs: list[Array]) -> Sequence[Array]:
    """The biases' cotangents, by the kernel that also writes the rows' into `dxs`."""
    C, vectors = biases[0].size, [flat(b) for b in biases]
    rows, outs = [as_rows(a, C) for a in (g, *xs)], [dx.reshape(-1, C) for dx in dxs]

    def of_range(i: int, j: int) -> tuple[Array, ...]:
        sums = tuple(np.empty(C, g.dtype) for _ in biases)
        kernel(*(a[i:j] for a in rows), *vectors, *(a[i:j] for a in outs), *sums)
        return sums

    return in_order(divided(of_range, outs[0]))


_gelu = Op("gelu", ref=_gelu_ref, impls={"numpy": lambda: Kernel(_gelu_forward, _gelu_vjp), "numba": _numba_gelu})


def gelu(x: Operand, approximate: str = "none", *, bias: Operand | None = None) -> Tensor:
    """``x F(x)``, F the distribution function of the standard normal law.

    Parameters
    ----------
    x : array_like or Tensor, floating
    approximate : {"none", "tanh"}
        The exact function, by erf, or ``0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))``. The two differ by up to
        5e-4: a model computes right only with the one it was trained with.
    bias : (C,), optional
        Added to `x` (..., C) first. This spares a linear map before it a pass over memory in each direction.

    Raises
    ------
    ValueError
        If `approximate` is neither, or the bias does not fit.

    Notes
    -----
    Source: Hendrycks and Gimpel 2016, section 2.
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    x = _floating("gelu", x)
    return apply(_gelu, *_of_one_dtype("gelu", [x], [bias]), approximate=approximate)


def _of_one_dtype(name: str, xs: list[Tensor], biases: list[Operand | None]) -> list[Tensor]:
    """The operands of an activation, its biases behind them, where there are any."""
    given = [as_tensor(b, like=tuple(xs)) for b in biases if b is not None]
    if given and len(given) < len(biases):
        raise ValueError(f"{name} takes a bias for each of its inputs or for none, got {len(given)} for {len(biases)}")
    for x, bias in zip(xs, given, strict=False):
        if x.ndim == 0 or bias.shape != x.shape[-1:]:
            raise ValueError(f"{name}: x {x.shape} needs a bias of the shape of its last axis, got {bias.shape}")
    dtype = np.result_type(*(t.dtype for t in (*xs, *given)))
    return [ops.astype(t, dtype) for t in (*xs, *given)]


def _floating(name: str, x: Operand) -> Tensor:
    x = as_tensor(x)
    if x.dtype.kind != "f":
        raise TypeError(f"{name} needs floating numbers, got {x.dtype}; convert them with astype")
    return x


# -- SiLU and SwiGLU ---------------------------------------------------------------------------------------------------


def _silu_ref(x: Tensor, bias: Tensor | None = None) -> Tensor:
    x = x if bias is None else x + bias
    return x * ops.sigmoid(x)


def _silu_forward(x: Array, bias: Array | None = None) -> tuple[Array, None]:
    x = x if bias is None else x + bias
    return x * sigmoid_values(namespace(x), x), None


def _silu_vjp(
    needs: tuple[bool, ...], g: Array, y: Array, saved: None, x: Array, bias: Array | None = None
) -> tuple[Array, ...]:
    x = x if bias is None else x + bias
    s = sigmoid_values(namespace(x), x)
    dx = g * s * (1 + x * (1 - s))
    return (dx,) if bias is None else (dx, _over_rows(dx))


def _swiglu_ref(gate: Tensor, up: Tensor, gate_bias: Tensor | None = None, up_bias: Tensor | None = None) -> Tensor:
    if gate_bias is not None and up_bias is not None:
        gate, up = gate + gate_bias, up + up_bias
    return gate * ops.sigmoid(gate) * up


def _swiglu_forward(
    gate: Array, up: Array, gate_bias: Array | None = None, up_bias: Array | None = None
) -> tuple[Array, None]:
    if gate_bias is not None:
        gate, up = gate + gate_bias, up + up_bias
    return gate * sigmoid_values(namespace(gate), gate) * up, None


def _swiglu_vjp(
    needs: tuple[bool, ...],
    g: Array,
    y: Array,
    saved: None,
    gate: Array,
    up: Array,
    gate_bias: Array | None = None,
    up_bias: Array | None = None,
) -> tuple[Array, ...]:
    if gate_bias is not None:
        gate, up = gate + gate_bias, up + up_bias
    s = sigmoid_values(namespace(gate), gate)
    dgate, dup = g * up * s * (1 + gate * (1 - s)), g * gate * s
    return (dgate, dup) if gate_bias is None else (dgate, dup, _over_rows(dgate), _over_rows(dup))


def _over_rows(dx: Array) -> Array:
    """The cotangent of a bias (C,) from that of the sum (..., C)."""
    return dx.reshape(-1, dx.shape[-1]).sum(axis=0)


@functools.cache
def _numba_silu() -> Kernel:
    from tinyllm.kernels.cpu import activation as kernels

    def forward(x: Array, bias: Array | None = None) -> tuple[Array, None]:
        out = buffers.empty(x.shape, x.dtype)
        if bias is None:
            _elementwise(kernels.silu, x, out)
        else:
            _with_bias(kernels.bias_silu, [x], [bias], out)
        return out, None

    def vjp(
        needs: tuple[bool, ...], g: Array, y: Array, saved: None, x: Array, bias: Array | None = None
    ) -> tuple[Array, ...]:
        dx = buffers.empty(x.shape, x.dtype)
        if bias is None:
            _elementwise(kernels.silu_vjp, g, x, dx)
            return (dx,)
        return dx, *_with_bias_vjp(kernels.bias_silu_vjp, g, [x], [bias], [dx])

    return Kernel(forward, vjp)


@functools.cache
def _numba_swiglu() -> Kernel:
    from tinyllm.kernels.cpu import activation as kernels

    def forward(gate: Array, up: Array, *biases: Array) -> tuple[Array, None]:
        out = buffers.empty(gate.shape, gate.dtype)
        if biases:
            _with_bias(kernels.bias_swiglu, [gate, up], list(biases), out)
        else:
            _elementwise(kernels.swiglu, gate, up, out)
        return out, None

    def vjp(
        needs: tuple[bool, ...], g: Array, y: Array, saved: None, gate: Array, up: Array, *biases: Array
    ) -> tuple[Array, ...]:
        dgate, dup = buffers.empty(gate.shape, gate.dtype), buffers.empty(gate.shape, gate.dtype)
        if biases:
            sums = _with_bias_vjp(kernels.bias_swiglu_vjp, g, [gate, up], list(biases), [dgate, dup])
            return dgate, dup, *sums
        _elementwise(kernels.swiglu_vjp, g, gate, up, dgate, dup)
        return dgate, dup

    return Kernel(forward, vjp)


_silu = Op(
    "silu",
    ref=_silu_ref,
    impls={"numpy": lambda: Kernel(_silu_forward, _silu_vjp), "numba": _numba_silu},
)
_swiglu = Op(
    "swiglu",
    ref=_swiglu_ref,
    impls={"numpy": lambda: Kernel(_swiglu_forward, _swiglu_vjp), "numba": _numba_swiglu},
)


def silu(x: Operand, *, bias: Operand | None = None) -> Tensor:
    """``x * sigmoid(x)``, also called swish.

    Parameters
    ----------
    x : array_like or Tensor, floating
    bias : (C,), optional
        Added to `x` (..., C) first, as in `gelu`.

    Raises
    ------
    ValueError
        If the bias does not fit.

    Notes
    -----
    Source: Hendrycks and Gimpel 2016, section 2; Ramachandran, Zoph and Le 2017.
    """
    return apply(_silu, *_of_one_dtype("silu", [_floating("silu", x)], [bias]))


def swiglu(gate: Operand, up: Operand, *, gate_bias: Operand | None = None, up_bias: Operand | None = None) -> Tensor:
    """``silu(gate) * up``: what stands between the matrices of a gated feed-forward network.

    Parameters
    ----------
    gate, up : floating, of one shape
    gate_bias, up_bias : (C,), optional
        Both or neither: added to `gate` and `up` (..., C) first, as in `gelu`.

    Raises
    ------
    ValueError
        If the shapes differ, a bias does not fit, or only one is given.

    Notes
    -----
    Source: Shazeer 2020, eq. 6.
    """
    gate, up = _floating("swiglu", gate), _floating("swiglu", up)
    if gate.shape != up.shape:
        raise ValueError(f"swiglu: gate {gate.shape} and up {up.shape} must have the same shape")
    return apply(_swiglu, *_of_one_dtype("swiglu", [gate, up], [gate_bias, up_bias]))
