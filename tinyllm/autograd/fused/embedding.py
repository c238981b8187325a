"""Rows of a table picked by id, as one operation."""

from __future__ import annotations

import functools

import numpy as np

from tinyllm import buffers
from tinyllm.autograd import ops
from tinyllm.autograd.fused.rows import as_rows, divided
from tinyllm.autograd.operands import as_tensor, beside
from tinyllm.autograd.ops.indexing import check_ids
from tinyllm.autograd.sparse import Sparse
from tinyllm.autograd.tape import Kernel, Op, apply
from tinyllm.autograd.tensor import Array, Operand, Tensor, namespace


def _ref(weight: Tensor, ids: Tensor, padding_idx: int | None) -> Tensor:
    if padding_idx is not None:  # the row keeps its value and loses its gradient
        is_padding = (np.arange(weight.shape[0]) == padding_idx)[:, None]
        weight = ops.where(is_padding, weight.detach(), weight)
    return weight[ids]


def _forward(weight: Array, ids: Array, padding_idx: int | None) -> tuple[Array, None]:
    return weight[ids], None


def _vjp(
    needs: tuple[bool, bool], g: Array, y: Array, saved: None, weight: Array, ids: Array, padding_idx: int | None
) -> tuple[Array, None]:
    xp = namespace(weight)
    out = xp.zeros(weight.shape, dtype=weight.dtype)
    xp.add.at(out, ids, g)
    if padding_idx is not None:
        out[padding_idx] = 0
    return out, None


@functools.cache
def _numba() -> Kernel:
    from tinyllm.kernels.cpu import embedding as kernels

    def forward(weight: Array, ids: Array, padding_idx: int | None) -> tuple[Array, None]:
        table, places = np.ascontiguousarray(weight), np.ascontiguousarray(ids, dtype=np.int64).reshape(-1)
        out = buffers.empty((places.size, table.shape[1]), table.dtype)
        divided(lambda i, j: kernels.embedding(table, places[i:j], out[i:j]), out)
        return out.reshape(*ids.shape, table.shape[1]), None

    def vjp(
        needs: tuple[bool, bool], g: Array, y: Array, saved: None, weight: Array, ids: Array, padding_idx: int | None
    ) -> tuple[Tensor, None]:
        places, g_rows = ids.astype(np.int64).reshape(-1), as_rows(g, weight.shape[1])
        if padding_idx is not None:
            places[places == padding_idx] = -1  # no row

        def add_to(table: Array) -> None:
            divided(lambda i, j: kernels.embedding_vjp(g_rows, places, i, table[i:j]), table)

        return Sparse(weight.shape, weight.dtype, add_to), None

    return Kernel(forward, vjp)


_embedding = Op("embedding", ref=_ref, impls={"numpy": lambda: Kernel(_forward, _vjp), "numba": _numba})


def embedding(ids: Operand, weight: Operand, padding_idx: int | None = None) -> Tensor:
    """The rows of `weight` named by `ids` (F-EMB); ids that come twice add up their gradients.

    Parameters
    ----------
    ids : (...), integers
    weight : (V, C)
    padding_idx : int, optional
        The row of this id gets no gradient.

    Returns
    -------
    Tensor, (..., C)

    Raises
    ------
    IndexError
        If an id is outside the vocabulary, naming it.
    """
    ids, weight = (as_tensor(t) for t in (ids, weight))
    if weight.ndim != 2:
        raise ValueError(f"embedding: weight must have shape (V, C), got {weight.shape}")
    check_ids("embedding", ids, weight.shape[0])
    if padding_idx is not None:
        if not -weight.shape[0] <= padding_idx < weight.shape[0]:
            raise IndexError(f"embedding: padding_idx {padding_idx} is outside 0..{weight.shape[0] - 1}")
        padding_idx %= weight.shape[0]
    return apply(_embedding, weight, beside(ids, weight), padding_idx=padding_idx)
