"""A sum and its norm in one pass: the residual stream of a Transformer, and what its next part sees of it.

On the tape they are the two operations that they are, `add` and the norm, with the derivatives of those. The models add
first and norm then: one pass is faster where no cache holds the sum until it is normed (`benchmarks/kernels.py`), but
that of a training step on a laptop lies in one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyllm import buffers
from tinyllm.autograd import tape
from tinyllm.autograd.fused.norm import _layer_norm_inputs, _layer_norm_op, _rms_norm_inputs, _rms_norm_op
from tinyllm.autograd.fused.rows import as_rows, divided, flat
from tinyllm.autograd.operands import as_tensor
from tinyllm.autograd.ops.elementwise import _add
from tinyllm.autograd.settings import choose_kernel, is_recording
from tinyllm.autograd.tape import Node, Op, apply
from tinyllm.autograd.tensor import Array, Operand, Storage, Tensor


def add_layer_norm(
    x: Operand,
    residual: Operand,
    normalized_shape: int | Sequence[int],
    weight: Operand | None = None,
    bias: Operand | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """``total = x + residual`` and ``layer_norm(total, ...)``, in one pass over memory.

    Parameters
    ----------
    x, residual : (..., *normalized_shape), floating
    normalized_shape, weight, bias, eps
        As in `layer_norm`.

    Returns
    -------
    total, normed : Tensors of the shape of `x`

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """

    def inputs(total: Tensor) -> tuple[tuple[Tensor, ...], float]:
        return _layer_norm_inputs(total, normalized_shape, weight, bias), eps

    return _add_norm(_layer_norm_op, _layer_norm, as_tensor(x), as_tensor(residual), inputs)


def add_rms_norm(
    x: Operand,
    residual: Operand,
    normalized_shape: int | Sequence[int],
    weight: Operand | None = None,
    eps: float | None = None,
) -> tuple[Tensor, Tensor]:
    """``total = x + residual`` and ``rms_norm(total, ...)``, in one pass: see `add_layer_norm`."""

    def inputs(total: Tensor) -> tuple[tuple[Tensor, ...], float]:
        given = _rms_norm_inputs(total, normalized_shape, weight)
        return given, float(np.finfo(total.dtype).eps) if eps is None else eps

    return _add_norm(_rms_norm_op, _rms_norm, as_tensor(x), as_tensor(residual), inputs)


def _add_norm(
    op: Op,
    compiled: Callable[..., tuple[Array, Any]],
    x: Tensor,
    residual: Tensor,
    inputs: Callable[[Tensor], tuple[tuple[Tensor, ...], float]],
) -> tuple[Tensor, Tensor]:
    """The sum, and `op` of its `inputs`: those, and eps, are functions of it.

    One after the other where no kernel of Numba does the norm, where shapes or dtypes have to meet first, and while the
    profiler asks what each of the two takes.
    """
    if (
        tape.watcher is not None
        or (x.shape, x.dtype, x.device) != (residual.shape, residual.dtype, residual.device)
        or choose_kernel(op.impls, x._storage.array) != "numba"
    ):
        total = x + residual
        given, eps = inputs(total)
        return total, apply(op, *given, eps=eps)
    total = _recorded(_add, (x, residual), buffers.empty(x.shape, x.dtype), "numba")
    given, eps = inputs(total)
    out, saved = compiled(*(t._storage.array for t in (x, residual, *given)), eps)
    return total, _recorded(op, given, out, "numba", saved, eps=eps)


def _recorded(op: Op, inputs: tuple[Tensor, ...], out: Array, kernel: str, saved: Any = None, **params: Any) -> Tensor:
    """What `apply` gives, of a result that is computed elsewhere."""
    storage = Storage(out)
    if is_recording() and any(t.requires_grad for t in inputs):
        return Tensor._wrap(storage, Node(op, inputs, storage, params, kernel, saved))
    return Tensor._wrap(storage)


def _layer_norm(
    x: Array, residual: Array, total: Array, weight: Array, bias: Array, eps: float
) -> tuple[Array, tuple[Array, Array]]:
    from tinyllm.kernels.cpu import norm as kernels

    a, b, rows = (as_rows(t, weight.size) for t in (x, residual, total))
    out, w, shift = buffers.empty(rows.shape, x.dtype), flat(weight), flat(bias)
    mean, rstd = np.empty((2, len(rows)), x.dtype)

    def work(i: int, j: int) -> None:
        kernels.add_layer_norm(a[i:j], b[i:j], w, shift, eps, rows[i:j], out[i:j], mean[i:j], rstd[i:j])

    divided(work, rows)
    return out.reshape(x.shape), (mean, rstd)


def _rms_norm(x: Array, residual: Array, total: Array, weight: Array, eps: float) -> tuple[Array, Array]:
    from tinyllm.kernels.cpu import norm as kernels

    a, b, rows = (as_rows(t, weight.size) for t in (x, residual, total))
    out, w, rstd = buffers.empty(rows.shape, x.dtype), flat(weight), np.empty(len(rows), x.dtype)
    divided(lambda i, j: kernels.add_rms_norm(a[i:j], b[i:j], w, eps, rows[i:j], out[i:j], rstd[i:j]), rows)
    return out.reshape(x.shape), rstd
