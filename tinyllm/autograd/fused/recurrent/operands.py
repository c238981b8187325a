"""What recurrent operations are given, checked."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tinyllm.autograd import ops
from tinyllm.autograd.operands import as_tensor
from tinyllm.autograd.tensor import Operand, Tensor


def checked(
    name: str, blocks: int, operands: tuple[Operand, ...], lengths: ArrayLike | None
) -> tuple[list[Tensor], np.ndarray | None]:
    """The operands in one dtype, and the lengths, if all fit.

    Parameters
    ----------
    name : str
        The operation's, for messages.
    blocks : int
        G, how many blocks of H channels the weights have.
    operands
        x (T, B, I), weights (G H, I) and (G H, H), biases (G H,) and the first states, (B, H) each.
    lengths : (B,) integers, optional
    """
    x, *rest = (as_tensor(t) for t in operands)
    weight_hh = rest[1]
    if x.ndim != 3 or 0 in x.shape or weight_hh.ndim != 2 or weight_hh.size == 0:
        raise ValueError(
            f"{name} needs x (T, B, I) and weight_hh ({blocks} H, H), no length 0; got {x.shape} and {weight_hh.shape}"
        )
    (T, B, inputs), H = x.shape, weight_hh.shape[1]
    rows = blocks * H
    expected = [(rows, inputs), (rows, H), (rows,), (rows,), *((B, H) for _ in rest[4:])]
    if [t.shape for t in rest] != expected:
        raise ValueError(
            f"{name}: x {x.shape} with H = {H} needs weights, biases and a first state of the shapes "
            f"{', '.join(map(str, expected))}; got {', '.join(str(t.shape) for t in rest)}"
        )
    dtype = np.result_type(*(t.dtype for t in (x, *rest)))
    return [ops.astype(t, dtype) for t in (x, *rest)], checked_lengths(name, lengths, B, T)


def checked_lengths(name: str, lengths: ArrayLike | None, B: int, T: int) -> np.ndarray | None:
    """(B,) int64, each from 1 to T; None where all are T."""
    if lengths is None:
        return None
    found = np.asarray(lengths)
    if found.shape != (B,) or found.dtype.kind not in "iu" or (B and not (found.min() >= 1 and found.max() <= T)):
        raise ValueError(f"{name}: lengths must be {B} whole numbers from 1 to {T}, got {np.array2string(found)}")
    return None if (found == T).all() else found.astype(np.int64)
