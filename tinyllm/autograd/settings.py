"""What holds for the thread: whether operations are recorded, and which kernels compute fused operations."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import threading
from collections.abc import Container, Iterator
from typing import Any

import numpy as np

from tinyllm.autograd.tensor import Array


class Settings(threading.local):
    """`recording`: whether operations go to the tape; `backend`: the one asked for, if any."""

    recording = True
    backend: str | None = None


settings = Settings()


@contextlib.contextmanager
def set_for_now(**values: Any) -> Iterator[None]:
    """Within it, these settings hold."""
    before = {name: getattr(settings, name) for name in values}
    for name, value in values.items():
        setattr(settings, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(settings, name, value)


def no_grad() -> contextlib.AbstractContextManager[None]:
    """Within ``with no_grad():`` nothing is recorded."""
    return set_for_now(recording=False)


def enable_grad() -> contextlib.AbstractContextManager[None]:
    """Within ``with enable_grad():`` operations are recorded, also inside a `no_grad`."""
    return set_for_now(recording=True)


def is_recording() -> bool:
    """Whether operations on tensors that require a gradient are written to the tape."""
    return settings.recording


def backend(name: str) -> contextlib.AbstractContextManager[None]:
    """Within ``with backend("numpy"):`` (or ``"numba"``) fused operations use that implementation.

    Raises
    ------
    ValueError
        If there is no such backend.
    """
    if name not in ("numpy", "numba"):
        raise ValueError(f"unknown backend {name!r}; known: 'numpy', 'numba'")
    return set_for_now(backend=name)


# Elements from which compiled kernels are used. Forward and backward on float32, one thread, in microseconds, NumPy's
# and Numba's, 4096 and 16384 elements:
#
#     softmax        42  51     87  71        gelu (erf)     1823  29   6965  52
#     log_softmax    48  50     96  77        gelu (tanh)      52  29    109  53
#     layer_norm     89  44    169  63        silu             51  28    116  49
#     rms_norm       65  35    115  56        cross_entropy   126  78    297 212
#     embedding      64  35    183  44        dropout         271  35    452  65
#
# Most would win on a single element, too, but not the half second that loading Numba takes.
COMPILED_FROM = 4096


def choose_kernel(impls: Container[str], array: Array, compiled_from: int = COMPILED_FROM) -> str:
    """The implementation of a fused operation: a fixed function of the operation and the array, never of a timing."""
    if hasattr(type(array), "__cuda_array_interface__"):
        suits = "cuda" in impls and array.dtype == np.float32 and array.size > 0 and settings.backend != "numpy"
        return "cuda" if suits else "numpy"
    if (
        "numba" not in impls
        or type(array) is not np.ndarray
        or array.dtype not in (np.float32, np.float64)
        or array.size == 0
    ):
        return "numpy"
    if settings.backend is not None:
        return settings.backend
    return "numba" if array.size >= compiled_from and _has_numba() else "numpy"


def compiles(array: Array) -> bool:
    """Whether a kernel of Numba may be used on this array, where an operation is large enough for one."""
    return settings.backend != "numpy" and array.dtype in (np.float32, np.float64) and _has_numba()


@functools.cache
def _has_numba() -> bool:
    try:
        return importlib.util.find_spec("numba") is not None
    except (ImportError, ValueError):  # something in the process forbids it
        return False
