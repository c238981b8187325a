"""The affine map as one operation: one matrix product forward, two backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyllm.autograd import ops
from tinyllm.autograd.arrays import add_to, matmul, rows_times
from tinyllm.autograd.operands import as_tensor
from tinyllm.autograd.tape import Kernel, Op, apply
from tinyllm.autograd.tensor import Array, Operand, Tensor


def _ref(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    y = x @ weight.mT
    return y if bias is None else y + bias


def _forward(x: Array, weight: Array, bias: Array | None = None) -> tuple[Array, Any]:
    out = rows_times(x.reshape(-1, weight.shape[1]), weight)
    if bias is not None:
        out = add_to(out, bias)
    return out.reshape(*x.shape[:-1], weight.shape[0]), None


def _vjp(
    needs: tuple[bool, ...], g: Array, y: Array, saved: None, x: Array, weight: Array, bias: Array | None = None
) -> tuple[Array | None, ...]:
    g = g.reshape(-1, weight.shape[0])
    rows = x.reshape(-1, weight.shape[1])
    dx = matmul(g, weight).reshape(x.shape) if needs[0] else None
    dweight = None
    if needs[1]:  # in the order of axes that the weight itself has in memory, which may be a transpose
        dweight = matmul(rows.T, g).T if weight.strides[0] < weight.strides[1] else matmul(g.T, rows)
    return (dx, dweight) if bias is None else (dx, dweight, g.sum(axis=0) if needs[2] else None)


_linear = Op("linear", ref=_ref, impls={"numpy": lambda: Kernel(_forward, _vjp)})


def linear(x: Operand, weight: Operand, bias: Operand | None = None) -> Tensor:
    """``x weight^T + bias`` over the last axis (a term of F-MLP-004).

    Parameters
    ----------
    x : (..., in)
    weight : (out, in)
    bias : (out,), optional

    Returns
    -------
    Tensor, (..., out)

    Raises
    ------
    ValueError
        If the lengths do not agree.
    """
    x, weight = (as_tensor(t) for t in (x, weight))
    if weight.ndim != 2 or x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"linear: x {x.shape} needs a weight of shape (out, {x.shape[-1] if x.ndim else 'in'}), got {weight.shape}"
        )
    given = [x, weight]
    if bias is not None:
        bias = as_tensor(bias)
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"linear: the bias must have shape {weight.shape[:1]}, got {bias.shape}")
        given.append(bias)
    dtype = np.result_type(*(t.dtype for t in given))
    if 0 in (x.size, weight.size) or dtype.kind != "f" or x.ndim == 1:  # the small operations know every case
        return _ref(*given)
    return apply(_linear, *(ops.astype(t, dtype) for t in given))
