"""Linear maps of groups of rows, each group by a matrix of its own, as one operation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tinyllm.autograd import ops
from tinyllm.autograd.arrays import matmul
from tinyllm.autograd.operands import as_tensor
from tinyllm.autograd.tape import Kernel, Op, apply
from tinyllm.autograd.tensor import Array, Operand, Tensor, namespace

# The operation takes x (N, in) and E weights (out, in); `counts` (E,) are the rows of each group.


def _groups(counts: tuple[int, ...]) -> Iterator[tuple[int, slice]]:
    """The number of every group that is not empty, and its rows."""
    start = 0
    for e, count in enumerate(counts):
        if count:
            yield e, slice(start, start + count)
        start += count


def _ref(x: Tensor, *weights: Tensor, counts: tuple[int, ...]) -> Tensor:
    return ops.concatenate([x[rows] @ weights[e].mT for e, rows in _groups(counts)], axis=0)


def _forward(x: Array, *weights: Array, counts: tuple[int, ...]) -> tuple[Array, None]:
    y = namespace(x).empty((len(x), len(weights[0])), dtype=x.dtype)
    for e, rows in _groups(counts):
        y[rows] = matmul(x[rows], weights[e].T)
    return y, None


def _vjp(
    needs: tuple[bool, ...], g: Array, y: Array, saved: None, x: Array, *weights: Array, counts: tuple[int, ...]
) -> tuple[Array | None, ...]:
    xp = namespace(x)
    dx = xp.empty(x.shape, dtype=x.dtype) if needs[0] else None
    dweights = [xp.zeros(w.shape, dtype=w.dtype) if need else None for w, need in zip(weights, needs[1:], strict=True)]
    for e, rows in _groups(counts):
        if dx is not None:
            dx[rows] = matmul(g[rows], weights[e])
        if needs[1 + e]:
            dweights[e] = matmul(g[rows].T, x[rows])
    return dx, *dweights


_grouped_linear = Op("grouped_linear", ref=_ref, impls={"numpy": lambda: Kernel(_forward, _vjp)})


def grouped_linear(x: Operand, weights: Sequence[Operand], counts: Sequence[int] | np.ndarray) -> Tensor:
    """``x[rows of group e] weights[e]^T`` for every group e of consecutive rows: the experts of a mixture at work.

    Parameters
    ----------
    x : (N, in)
        The rows of group 0, then those of group 1, and so on.
    weights : E arrays or Tensors (out, in)
    counts : E ints
        How many rows each group has; 0 is allowed, and gives that weight a gradient of zeros.

    Returns
    -------
    Tensor (N, out)

    Raises
    ------
    ValueError
        If shapes do not agree, or the counts do not add up to N.

    Notes
    -----
    Source: Gale et al. 2023 (MegaBlocks), section 3, where the groups are blocks of one sparse matrix: no token is
    dropped, and none is padded.
    """
    x, given = as_tensor(x), [as_tensor(w) for w in weights]
    shapes = {w.shape for w in given}
    if x.ndim != 2 or len(shapes) != 1 or len(given[0].shape) != 2 or given[0].shape[1] != x.shape[1]:
        raise ValueError(f"grouped_linear needs x (N, in) and weights of one shape (out, in), got {x.shape}, {shapes}")
    sizes = tuple(int(n) for n in counts)
    if len(sizes) != len(given) or min(sizes) < 0 or sum(sizes) != len(x):
        raise ValueError(f"grouped_linear: {len(given)} counts that sum to {len(x)} rows are needed, got {sizes}")
    dtype = np.result_type(x.dtype, *(w.dtype for w in given))
    if len(x) == 0:
        return ops.astype(x, dtype) @ given[0].mT  # no rows
    return apply(_grouped_linear, ops.astype(x, dtype), *(ops.astype(w, dtype) for w in given), counts=sizes)
