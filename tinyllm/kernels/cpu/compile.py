"""How every CPU kernel is compiled: one set of options, and a cache on disk that notices every edit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy.typing as npt
from numba.extending import register_jitable

from tinyllm.kernels.cpu.blas import FOUND

Array = npt.NDArray[Any]
F = TypeVar("F", bound=Callable[..., Any])

# "reassoc" lets a sum run in vector lanes. "nnan" and "ninf" are left out, so that -inf masks and NaN mean what they
# say. error_model="numpy" drops Python's check for division by zero, which keeps a loop scalar.
FAST: Any = {"fastmath": {"nsz", "arcp", "contract", "afn", "reassoc"}, "error_model": "numpy"}
# For functions whose rounding errors depend on the order of their operations.
IN_ORDER: Any = {"fastmath": {"nsz", "contract"}, "error_model": "numpy"}

# Numba's cache looks at the file that defines a kernel, not at functions inlined from others, nor at the BLAS that it
# calls: this stamp is of all.
SOURCES = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))) + bytes([FOUND.bits])
).hexdigest()


def jit(function: F) -> F:
    """Compile a kernel at its first call with each set of types; later processes load it from disk.

    Under ``NUMBA_DISABLE_JIT=1`` Numba gives the function back as it is. Where no cache folder is writable, every
    process compiles for itself.
    """
    try:
        kernel = numba.njit(cache=True, nogil=True, **FAST)(function)
    except RuntimeError:  # "cannot cache function: no locator available"
        return numba.njit(nogil=True, **FAST)(function)
    if kernel is not function:
        index = kernel._cache._cache_file
        index._source_stamp = (index._source_stamp, SOURCES)
    return kernel


def inline(function: F) -> F:
    """Mark a helper that kernels call, compiled into each of them (a loop that calls is not vectorised)."""
    return register_jitable(forceinline=True, **FAST)(function)


def inline_in_order(function: F) -> F:
    """Like `inline`, for a helper whose operations must be rounded in the order written."""
    return register_jitable(forceinline=True, **IN_ORDER)(function)
