"""The middle of attention: scores to weights, softmax(scale * scores + mask), with the derivative.

The products q k^T before and p v after are matrix products and stay with BLAS; everything between is done here in one
sweep over the scores, where separate operations for scale, mask and softmax would each go through memory. A query
that may see only the keys up to some position costs only these, rounded up to whole vectors: the rest of its row is
filled with zeros, unread.
"""

from __future__ import annotations

import numpy as np

from tinyllm.kernels.cpu.compile import Array, inline, jit
from tinyllm.kernels.cpu.rows import exponentials, maximum

# float32 numbers in the widest vector register. A loop over a multiple of it leaves no single numbers at its end,
# each of which would cost as much as a whole vector.
LANES = 16


@inline
def visible(i, offset, size):
    """How many keys query i may see, those j <= i + offset, and how many to work on."""
    count = min(max(i + offset + 1, 0), size)
    return count, min((count + LANES - 1) // LANES * LANES, size)


@jit
def masked_softmax(scores: Array, scale: float, offset: int, mask: Array | None, mask_index: Array) -> None:
    """Turn scores (N, T, S) into attention weights, in place.

    Query i sees the keys j <= i + offset: 0 is the causal mask aligned top left, S lifts the limit. `mask` is None or
    (M, T or 1, S) and either of the scores' dtype, then added, or boolean, then True where attention is allowed;
    mask_index (N,) says which of the M each of the N takes. A row that nothing is visible to becomes zeros.
    """
    scale = scores.dtype.type(scale)
    hidden = scores.dtype.type(-np.inf)
    nothing, one = scores.dtype.type(0), scores.dtype.type(1)
    for n in range(scores.shape[0]):
        for i in range(scores.shape[1]):
            count, whole = visible(i, offset, scores.shape[2])
            row, rest = scores[n, i, :whole], scores[n, i, whole:]
            if mask is None:
                for j in range(whole):
                    row[j] *= scale
            else:
                mask_row = mask[mask_index[n], i if mask.shape[1] > 1 else 0]
                if mask.dtype == scores.dtype:
                    for j in range(whole):
                        row[j] = scale * row[j] + mask_row[j]
                else:
                    for j in range(whole):
                        row[j] = scale * row[j] if mask_row[j] else hidden
            for j in range(count, whole):
                row[j] = hidden
            largest = maximum(row)
            # Where all is hidden, e^(-inf - 0) makes the zeros; NaN is not hidden and goes through.
            total = exponentials(row, largest if largest > hidden else nothing)
            inverse = one / total if total != 0 else nothing
            for j in range(whole):
                row[j] *= inverse
            for j in range(rest.size):
                rest[j] = nothing


@jit
def masked_softmax_vjp(g: Array, y: Array, scale: float, offset: int, out: Array) -> None:
    """Cotangent of the scores: scale * y (g - sum g y), all (N, T, S), zero where the weight `y` is. `out` may be `g`.

    `offset` is the same as in `masked_softmax`; `g` must be finite where `y` is zero. With scale = 1.0 this is the
    cotangent of an added mask, before summing over the axes which that was broadcast along.
    """
    scale = g.dtype.type(scale)
    for n in range(g.shape[0]):
        for i in range(g.shape[1]):
            _, whole = visible(i, offset, g.shape[2])
            g_row, y_row, out_row = g[n, i], y[n, i], out[n, i]
            total = g.dtype.type(0)
            for j in range(whole):
                total += g_row[j] * y_row[j]
            # By way of a copy, since a loop from an array to one that may be the same is not vectorised.
            for j in range(whole):
                out_row[j] = g_row[j]
            for j in range(whole):
                out_row[j] = scale * y_row[j] * (out_row[j] - total)
            for j in range(whole, out_row.size):
                out_row[j] = 0
