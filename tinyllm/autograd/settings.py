"""What holds for the thread: whether operations are recorded, and which kernels compute fused operations."""

from __future__ import annotations

import contextlib
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


# Below this many elements the call of a compiled kernel costs more than it saves.
_COMPILED_FROM = 4096


def choose_kernel(impls: Container[str], array: Array) -> str:
    """The implementation of a fused operation: a fixed function of the operation and the array, never of a timing."""
    if (
        "numba" not in impls
        or type(array) is not np.ndarray
        or array.dtype not in (np.float32, np.float64)
        or array.size == 0
    ):
        return "numpy"
    if settings.backend is not None:
        return settings.backend
    return "numba" if array.size >= _COMPILED_FROM and _has_numba() else "numpy"


def _has_numba() -> bool:
    global _numba_present
    if _numba_present is None:
        import importlib.util

        _numba_present = importlib.util.find_spec("numba") is not None
    return _numba_present


_numba_present: bool | None = None
