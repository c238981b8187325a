"""The one place that imports `numba.cuda`: how every CUDA kernel is compiled, launched, simulated.

Kernels live in the package `numba-cuda`, which takes the place of the deprecated `numba.cuda` inside Numba;
``pip install tinyllm[cuda]`` brings it together with CuPy, both for CUDA 13. Under ``NUMBA_ENABLE_CUDASIM=1``, set
before Python starts, kernels run as plain Python on NumPy arrays; for that, Numba alone is enough.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import config, float32, float64, int32  # noqa: F401, for kernels, from here as everything of Numba's
from numba import cuda as _numba_cuda

from tinyllm.device import namespace
from tinyllm.errors import DeviceError

Array = Any  # an array on the device; in the simulator NumPy's
numba_cuda: Any = _numba_cuda

SIMULATED = bool(config.ENABLE_CUDASIM)  # type: ignore[attr-defined]
CUDA_MAJOR = 13  # of the packages that the extra tinyllm[cuda] names
INSTALL = "pip install 'tinyllm[cuda]'"

if SIMULATED:
    from tinyllm.kernels.cuda import simulator

    cuda: Any = simulator.Cuda()
else:
    cuda = numba_cuda


class Kernel:
    """A function that many threads run: ``kernel[blocks, threads](...)`` or ``kernel[blocks, threads,
    shared_bytes](...)``.

    Arrays are contiguous and begin at a multiple of 16 bytes. A Python float goes in as float32: one that Numba took
    for a float64 would have everything it touches computed in double precision.
    """

    def __init__(self, function: Callable[..., None], name: str) -> None:
        functools.update_wrapper(self, function)  # type: ignore[arg-type]
        self.function, self.name = function, name

    def __getitem__(self, shape: tuple[Any, ...]) -> Callable[..., None]:
        blocks, threads, *rest = shape
        return functools.partial(self.launch, blocks, threads, rest[0] if rest else 0)

    def launch(self, blocks: Any, threads: Any, shared_bytes: int, *arguments: Any) -> None:
        """Run `blocks` times `threads` threads; nothing happens for an empty grid."""
        if np.prod(blocks) == 0:
            return
        given = tuple(np.float32(a) if isinstance(a, float) else view(a) for a in arguments)
        if SIMULATED:
            simulator.launch(self.function, blocks, threads, shared_bytes, given)
        else:
            require_gpu()
            self.compiled[blocks, threads, 0, shared_bytes](*given)

    @functools.cached_property
    def compiled(self) -> Any:
        """Numba's dispatcher, which compiles at the first launch with each set of types."""
        return numba_cuda.jit(self.function)


def kernel(function: Callable[..., None], name: str | None = None) -> Kernel:
    """Mark a kernel; one that is made within a function needs a name of its own."""
    return Kernel(function, f"{function.__module__.rpartition('.')[2]}.{name or function.__name__}")


def inline(function: Callable[..., Any]) -> Any:
    """Mark a helper that kernels call, compiled into each of them."""
    return function if SIMULATED else numba_cuda.jit(device=True, forceinline=True)(function)


def view(a: Any) -> Any:
    """An argument as Numba takes it, without a copy, without a wait."""
    if isinstance(a, np.ndarray) or not hasattr(a, "__cuda_array_interface__"):
        return a
    description = a.__cuda_array_interface__
    if description["data"][0] % 16 or description.get("strides") is not None:
        raise ValueError("a kernel needs contiguous arrays that begin at a multiple of 16 bytes")
    if SIMULATED:  # "device" memory is the host's
        return np.asarray(_Described(description))
    # CuPy and Numba both work on the default stream: what CuPy has begun comes first without waiting for it here.
    return numba_cuda.from_cuda_array_interface(description, owner=a, sync=False)


def empty(like: Array, *shape: int, dtype: Any = np.float32) -> Array:
    """Scratch memory where `like` is."""
    return namespace(like).empty(shape, dtype=dtype)


class _Described:
    """Memory that NumPy can look at."""

    def __init__(self, description: dict[str, Any]) -> None:
        self.__array_interface__ = description


# -- is there a GPU, and does everything fit together? -----------------------------------------------------------------


def problem(
    *, kernels: bool, arrays: int | None, driver: int | None, driver_error: str = "", toolkit: int | None = CUDA_MAJOR
) -> str | None:
    """What stands in the way of computing on a GPU, in a sentence that says what to do; None if nothing does.

    Parameters
    ----------
    kernels : bool
        Whether the package numba-cuda is installed.
    arrays, toolkit, driver : int or None
        The CUDA version (its major number) that CuPy was built for, that kernels are compiled with, and up to which
        the driver works; None where there is none.
    driver_error : str
        What went wrong in asking the driver.
    """
    if not kernels:
        return f"the package numba-cuda is not installed: {INSTALL}"
    if arrays is None:
        return f"the package CuPy is not installed: {INSTALL}"
    if driver is None:
        reason = " ".join(driver_error.split()) or "no driver was found"
        return f"no CUDA device can be used ({reason}); is there a GPU, and does nvidia-smi list it?"
    if toolkit is None:
        return f"the CUDA toolkit that compiles kernels (NVVM) was not found: {INSTALL}"
    if arrays != toolkit:
        return (
            f"CuPy was built for CUDA {arrays} and kernels are compiled by CUDA {toolkit}: install both for the same, "
            f"such as cupy-cuda{toolkit}x with numba-cuda[cu{toolkit}]"
        )
    if driver < toolkit:
        return (
            f"the driver works up to CUDA {driver}, the installed packages need CUDA {toolkit}: update the driver, or "
            f"install numba-cuda[cu{driver}] and cupy-cuda{driver}x"
        )
    return None


@functools.cache
def require_gpu() -> None:
    """Raise `DeviceError` unless this machine can compute on a GPU."""
    said = problem(**_found())
    if said:
        raise DeviceError(said)


def _found() -> dict[str, Any]:
    found: dict[str, Any] = {"kernels": importlib.util.find_spec("numba_cuda") is not None, "arrays": None}
    found["driver"] = None
    try:
        import cupy

        found["arrays"] = cupy.cuda.runtime.runtimeGetVersion() // 1000
    except ImportError:
        return found
    try:
        numba_cuda.current_context()
        found["driver"] = cupy.cuda.runtime.driverGetVersion() // 1000
    except Exception as error:  # each layer has classes of its own
        found["driver_error"] = str(error)
        return found
    try:
        found["toolkit"] = numba_cuda.runtime.get_version()[0]
    except Exception:
        found["toolkit"] = None
    return found
