"""The CUDA kernels as plain Python threads: right numbers, no races, no barrier too many or too few.

Numba decides at its first import whether it simulates, so this takes processes of its own; `in_simulator.py` and
`in_simulator_device.py` are what they run.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="the simulator is Numba's")

HERE = Path(__file__).parent
FILES = [str(HERE / name) for name in ("in_simulator.py", "in_simulator_device.py")]
PARTS = {
    "rows": "test_kernels and not matmul and not attention",
    "products": "(test_kernels and matmul) or (barrier and product)",
    "attention": "test_kernels and attention",
    "barriers of attention": "barrier and attention",
    "simulator": "in_simulator.py and not test_kernels and not needs_every_barrier",
    "device": "in_simulator_device.py",
}


@pytest.fixture(scope="module")
def processes() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """One for each part, all begun together."""
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "OPENBLAS_NUM_THREADS": "1"}
    begun = {
        name: subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *FILES, "-k", selected],
            cwd=HERE.parents[1],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, selected in PARTS.items()
    }
    yield begun
    for process in begun.values():
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("part", PARTS)
def test_in_the_simulator(part: str, processes: dict[str, subprocess.Popen[str]]) -> None:
    output, _ = processes[part].communicate()
    assert processes[part].returncode == 0, output
    assert " passed" in output
    assert "skipped" not in output
