"""Compile every kernel to PTX, where no GPU is, and ask `ptxas` what it takes.

As a script, ``python tests/cuda/ptx.py`` prints the table; with ``--write`` it becomes the budget that
`test_cuda_ptx.py` holds the kernels to.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import cuda_cases
import numba
import numpy as np
from numba import cuda
from numba.cuda import dispatcher

from tinyllm.kernels.cuda.compile import Kernel

BUDGET = Path(__file__).with_name("budget.json")
ARCHITECTURES = ((8, 0), (9, 0))


class Use(NamedTuple):
    """What a kernel takes: registers of a thread, bytes of shared memory of a block, bytes spilled to memory."""

    registers: int
    shared: int
    spilled: int


def launched() -> dict[str, tuple[Kernel, tuple[Any, ...]]]:
    """Every kernel with the types of its arguments, by name: from the cases, and attention's other sizes."""
    found: dict[str, tuple[Kernel, tuple[Any, ...]]] = {}

    def note(self: Kernel, blocks: Any, threads: Any, shared_bytes: int, *arguments: Any) -> None:
        given = (np.float32(a) if isinstance(a, float) else a for a in arguments)
        found[self.name] = self, tuple(numba.typeof(a) for a in given)

    draw = cuda_cases.Draw(0)
    shapes = [cuda_cases.Attention(2, 1, 2, 3, D) for D in (32, 64, 128)]
    shapes += [cuda_cases.Attention(2, 1, 2, 3, 64, mask=kind) for kind in ("boolean", "added")]
    with mock.patch.object(Kernel, "launch", note):
        for group in cuda_cases.TINY:
            for case in cuda_cases.all_cases(group) if group != "attention" else ():
                _call(case)
        for shape in shapes:
            for case in cuda_cases.attention_cases(draw, shape):
                _call(case)
    return found


def _call(case: cuda_cases.Case) -> None:
    given = [a.start() if isinstance(a, cuda_cases.Out) else a for a in case.arguments]
    case.function(*given, **case.options)


def ptx(kernel: Kernel, types: tuple[Any, ...], architecture: tuple[int, int]) -> str:
    """The kernel's PTX."""

    class Device:
        compute_capability = architecture

    # Functions that kernels call are compiled for the current device, and there is none.
    with mock.patch.object(dispatcher, "get_current_device", Device):
        return cuda.compile_ptx(kernel.function, types, cc=architecture)[0]


def assemble(text: str, architecture: tuple[int, int]) -> Use:
    """What ptxas says of it."""
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(text)
        file.flush()
        name = "sm_{}{}".format(*architecture)
        command = ["ptxas", "-v", f"-arch={name}", file.name, "-o", "/dev/null"]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
    if said.returncode:
        raise RuntimeError(said.stderr)
    numbers = [re.search(p, said.stderr) for p in (r"Used (\d+) reg", r"(\d+) bytes smem", r"(\d+) bytes spill stores")]
    return Use(*(int(n[1]) if n else 0 for n in numbers))


def uses(architecture: tuple[int, int]) -> Iterator[tuple[str, str, Use | None]]:
    """Name, PTX and, where ptxas is present, use of every kernel."""
    present = shutil.which("ptxas") is not None
    for name, (kernel, types) in launched().items():
        text = ptx(kernel, types, architecture)
        yield name, text, assemble(text, architecture) if present else None


if __name__ == "__main__":
    table = {}
    for architecture in ARCHITECTURES:
        column = table["sm_{}{}".format(*architecture)] = {}
        for name, _, use in uses(architecture):
            column[name] = use
            print(architecture, f"{name:45}", use, flush=True)
    if "--write" in sys.argv:
        lines = [
            f' "{arch}": {{\n'
            + ",\n".join(f'  "{name}": {json.dumps(use)}' for name, use in sorted(column.items()))
            + "\n }"
            for arch, column in table.items()
        ]
        BUDGET.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
