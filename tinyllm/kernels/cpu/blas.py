"""The matrix product of NumPy's own BLAS, as an address that compiled kernels can call."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

# {} is s or d, the letter of float32 or float64; and the bits of the integers that the function takes.
_NAMES = {
    "scipy_cblas_{}gemm64_": 64,
    "scipy_cblas_{}gemm": 32,
    "cblas_{}gemm$NEWLAPACK$ILP64": 64,
    "cblas_{}gemm$NEWLAPACK": 32,
    "cblas_{}gemm64_": 64,
    "cblas_{}gemm_64": 64,
    "cblas_{}gemm": 32,
}


# OpenBLAS's kernels, by the processors they are written for, that multiply small matrices where these lie.
_UNPACKED_CORES = (b"skylakex", b"cooperlake", b"sapphirerapids")


class Gemm(NamedTuple):
    """Where sgemm and dgemm begin, and the bits of their integers; 0 bits where there is none.

    Large matrices are copied into blocks that suit the innermost loop before they are multiplied. `unpacked` says that
    products of at most some 10^6 multiply-adds are done without.
    """

    sgemm: int
    dgemm: int
    bits: int
    unpacked: bool


def _libraries() -> Iterator[ctypes.CDLL]:
    """What may hold NumPy's BLAS: the extension module linked to it, then the libraries that came with NumPy."""
    package = Path(np.__file__).parent
    for folder, pattern in (
        (package / "_core", "_multiarray_umath*"),
        (package.with_name("numpy.libs"), "*blas*"),
        (package / ".dylibs", "*blas*"),
    ):
        for path in sorted(folder.glob(pattern)):
            try:
                yield ctypes.CDLL(str(path))  # it is in the process already: this only finds it
            except OSError:
                continue


def find() -> Gemm:
    """The product that NumPy itself calls."""
    for library in _libraries():
        for name, bits in _NAMES.items():
            if hasattr(library, name.format("s")) and hasattr(library, name.format("d")):
                sgemm, dgemm = (
                    ctypes.cast(getattr(library, name.format(letter)), ctypes.c_void_p).value for letter in "sd"
                )
                if sgemm and dgemm:
                    return Gemm(sgemm, dgemm, bits, _core(library) in _UNPACKED_CORES)
    return Gemm(0, 0, 0, False)


def _core(library: ctypes.CDLL) -> bytes:
    """The processor that OpenBLAS has chosen its kernels for; empty for another BLAS."""
    for name in ("scipy_openblas_get_corename64_", "scipy_openblas_get_corename", "openblas_get_corename"):
        if hasattr(library, name):
            function = getattr(library, name)
            function.restype = ctypes.c_char_p
            return bytes(function()).lower()
    return b""


FOUND = find()
