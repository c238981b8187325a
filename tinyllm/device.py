"""Where arrays live: in the host's memory, as NumPy's, or on a GPU, as CuPy's.

Values move when the user says so, by `Tensor.to`, `Module.to`, `Tensor.numpy` and `Tensor.item`. Operations move two
things by themselves: ids and masks that are given as NumPy arrays beside tensors on a GPU are brought there, being
inputs; and bare numbers, which travel with the call. Within ``with no_copies():`` any other copy between host and GPU
that an operation would have to make, or Python's own questions (``if x:``, ``float(x)``, ``print(x)``), raises.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from tinyllm.errors import DeviceError, nearest

Array = Any  # numpy.ndarray, cupy.ndarray, or another class with NumPy's functions in its namespace


class _Here(threading.local):
    """Of a thread: whether silent copies are forbidden."""

    strict = False


_here = _Here()


def namespace(array: Array) -> ModuleType:
    """The module whose functions work on this kind of array: NumPy itself, or what the array names as its own."""
    if type(array) is np.ndarray:
        return np
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__()
    return sys.modules[type(array).__module__.partition(".")[0]]  # CuPy's arrays do not say


def device_of(array: Array) -> str:
    """``"cpu"`` or ``"cuda"``."""
    return "cpu" if type(array) is np.ndarray else "cuda"


def move(array: Array, device: str) -> Array:
    """The array where it is asked for; itself if it is there.

    Raises
    ------
    DeviceError
        If there is no such device, or none that can be used.
    """
    if device not in ("cpu", "cuda"):
        raise DeviceError(f"unknown device {device!r}{nearest(device, ('cpu', 'cuda'))}")
    if device_of(array) == device:
        return array
    return array.get() if device == "cpu" else to_gpu(array)


def to_gpu(array: np.ndarray) -> Array:
    """A copy on the GPU."""
    from tinyllm.kernels.cuda.compile import require_gpu

    require_gpu()
    import cupy

    return cupy.asarray(array, order="C")


def to_host(array: Array) -> np.ndarray:
    """A copy as NumPy's."""
    return array.copy() if type(array) is np.ndarray else array.get()


def largest(x: Array, axis: int | tuple[int, ...]) -> Array:
    """The largest elements along `axis`, which stays with length 1; -inf of none (CuPy's `max` has no `initial`)."""
    xp = namespace(x)
    if x.size == 0:
        return xp.sum(x, axis=axis, keepdims=True) - np.inf
    return xp.max(x, axis=axis, keepdims=True)


def upload(x: Any, like: Array) -> Array:
    """An operand that did not come as a Tensor, where `like` is."""
    if type(x) is np.ndarray and x.dtype.kind == "f" and type(like) is not np.ndarray:
        silent(f"an array of shape {x.shape} {x.dtype} would be copied to the GPU: move it with tensor(x).to('cuda')")
    return namespace(like).asarray(x)


def silent(what: str) -> None:
    """Say that a copy between host and GPU is about to be made which nobody asked for; raises if that is forbidden."""
    if _here.strict:
        raise DeviceError(f"a silent copy, within no_copies(): {what}")


@contextlib.contextmanager
def no_copies() -> Iterator[None]:
    """Within it, copies between host and GPU that were not asked for raise `DeviceError`."""
    before, _here.strict = _here.strict, True
    try:
        yield
    finally:
        _here.strict = before
