"""What softmax, attention and cross-entropy do to one row: its maximum, and the exponentials below it.

Each function reads its row once. Rows are short enough to stay in the first or second level of cache between the
passes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from tinyllm.kernels.cpu.compile import FAST, inline, inline_in_order
from tinyllm.kernels.cpu.mathfn import exp

SIGN_SHIFT, ALL_BUT_SIGN = np.int32(31), np.int32(2**31 - 1)
LOWEST = ALL_BUT_SIGN ^ np.float32(-np.inf).view(np.int32)  # the key of -inf


@inline
def key(bits):
    """Integers in the order of the float32 numbers whose bits they are; its own inverse."""
    return np.int32(bits ^ ((bits >> SIGN_SHIFT) & ALL_BUT_SIGN))


@inline
def maximum32(row):
    """Largest of a float32 row, found among integers.

    A maximum of floats has to heed NaN and is not vectorised; one of integers is. A NaN may win or lose here. Either
    way the exponentials of the row turn it up again.
    """
    bits = row.view(np.int32)
    largest = LOWEST
    for j in range(bits.size):
        largest = max(largest, key(bits[j]))
    return np.int32(key(largest)).view(np.float32)


@inline
def maximum64(row):
    """Largest of a float64 row, which may overlook NaN."""
    largest = -np.inf
    for j in range(row.size):
        largest = row[j] if row[j] > largest else largest
    return largest


def maximum(row: Any) -> Any:
    """Largest of a row, -inf if there is none; NaN may be overlooked."""
    return maximum32(row) if row.dtype == np.float32 else maximum64(row)


@overload(maximum, jit_options=FAST)
def maximum_for_dtype(row):
    """The `maximum` that a kernel of this dtype calls."""
    return maximum32 if row.dtype == types.float32 else maximum64


@inline
def exponentials(row, shift):
    """Turn `row` into e^(row - shift), in place, and return the sum."""
    total = row.dtype.type(0)
    for j in range(row.size):
        e = exp(row[j] - shift)
        row[j] = e
        total += e
    return total


@inline_in_order
def surprisal(x, largest, log_total):
    """-log p of a logit; x - largest comes first, so that large logits lose no digits."""
    return log_total - (x - largest)
