"""The one import of numba.cuda, and what it says when there is no GPU to compute on."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba", reason="the CUDA kernels are written for Numba")

import tinyllm
from tinyllm.errors import DeviceError
from tinyllm.kernels.cuda import compile as seam

PACKAGE = Path(tinyllm.__file__).parent
WORKING = {"kernels": True, "arrays": 13, "driver": 13, "toolkit": 13}


def test_there_is_one_seam() -> None:
    importing = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(words in path.read_text("utf-8") for words in ("from numba import cuda", "import numba.cuda"))
        or "from numba.cuda" in path.read_text("utf-8")
    ]
    assert sorted(importing) == ["kernels/cuda/compile.py", "kernels/cuda/simulator.py"]


def test_importing_tinyllm_imports_neither_numba_nor_cupy() -> None:
    program = "import sys, tinyllm; sys.exit(bool({'numba', 'cupy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], env={**os.environ}, check=False).returncode == 0


def test_no_problem() -> None:
    assert seam.problem(**WORKING) is None


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ({"kernels": False}, ("numba-cuda is not installed", "pip install 'tinyllm[cuda]'")),
        ({"arrays": None}, ("CuPy is not installed", "pip install 'tinyllm[cuda]'")),
        ({"driver": None}, ("no driver was found", "nvidia-smi")),
        ({"driver": None, "driver_error": "Error at\n\n init:  3"}, ("(Error at init: 3)", "nvidia-smi")),
        ({"toolkit": None}, ("NVVM", "pip install 'tinyllm[cuda]'")),
        ({"arrays": 12}, ("CuPy was built for CUDA 12", "compiled by CUDA 13", "cupy-cuda13x", "numba-cuda[cu13]")),
        ({"driver": 12}, ("driver works up to CUDA 12", "need CUDA 13", "numba-cuda[cu12]", "cupy-cuda12x")),
    ],
)
def test_each_problem_has_a_sentence(missing: dict, words: tuple[str, ...]) -> None:
    said = seam.problem(**(WORKING | missing))
    assert said is not None
    assert "\n" not in said
    for word in words:
        assert word in said


@pytest.mark.skipif(seam.problem(**seam._found()) is None, reason="this machine has a GPU")
@pytest.mark.skipif(seam.SIMULATED, reason="the simulator needs no GPU")
def test_without_a_gpu_a_launch_says_so() -> None:
    from tinyllm.kernels.cuda import softmax

    x = np.zeros((2, 3), np.float32)
    with pytest.raises(DeviceError, match=r"numba-cuda|CuPy|no CUDA device"):
        softmax.softmax(x, x.copy())


class Device:
    """An array as libraries of GPU arrays describe theirs."""

    def __init__(self, pointer: int, strides: tuple[int, ...] | None = None) -> None:
        self.__cuda_array_interface__ = {"data": (pointer, False), "shape": (4,), "typestr": "<f4", "strides": strides}


@pytest.mark.parametrize("array", [Device(4), Device(16, (8,))], ids=["misaligned", "strided"])
def test_arrays_are_contiguous_and_aligned(array: Device) -> None:
    with pytest.raises(ValueError, match="contiguous arrays that begin at a multiple of 16 bytes"):
        seam.view(array)
