"""Every CUDA kernel compiles for the GPUs it is meant for, without one, and stays within its budget."""

import json
import re
import shutil

import pytest

pytest.importorskip("numba_cuda", reason="the package numba-cuda compiles kernels: pip install 'tinyllm[cuda]'")

import ptx
from numba.cuda.cudadrv.nvvm import NvvmSupportError

# Sums of squares are taken in float64, so that they neither overflow nor lose digits.
IN_DOUBLE = {"adamw.sum_of_squares_kernel", "adamw.sum_kernel"}
SHARED_MEMORY = 48 * 1024
# Another version of ptxas may colour registers a little differently.
SLACK = 4


@pytest.fixture(scope="module", params=ptx.ARCHITECTURES, ids=lambda a: "sm_{}{}".format(*a))
def compiled(request: pytest.FixtureRequest) -> tuple[str, dict[str, tuple[str, ptx.Use | None]]]:
    try:
        return "sm_{}{}".format(*request.param), {name: (text, use) for name, text, use in ptx.uses(request.param)}
    except (NvvmSupportError, FileNotFoundError, ImportError) as error:
        pytest.skip(f"no NVVM to compile with: {error}")


def test_compiles_to_single_precision(compiled: tuple[str, dict]) -> None:
    _, kernels = compiled
    for name, (text, _) in kernels.items():
        assert ".entry" in text, name
        assert (".f64" in text) == (name in IN_DOUBLE), f"{name}: a Python number in a kernel is a float64"


def test_instructions_are_there(compiled: tuple[str, dict]) -> None:
    _, kernels = compiled
    for name, instruction, at_least in (
        ("matmul.vectorised_kernel", r"ld\.shared\.v4\.f32", 4),
        ("matmul.vectorised_kernel", r"ld\.global\.v4\.f32", 2),
        ("matmul.tf32_kernel", r"mma\.sync\.aligned\.m16n8k8\S*tf32", 16),
        ("matmul.bf16_kernel", r"mma\.sync\.aligned\.m16n8k16\S*bf16", 16),
        ("attention.forward_64_plain", r"ld\.shared\.v4\.f32", 16),
        ("attention.forward_64_plain", r"ex2\.approx", 16),
        ("softmax.softmax_kernel", r"shfl\.sync\.bfly", 10),
        ("adamw.step_kernel", r"ld\.global\.v4\.f32", 4),
        ("adamw.step_kernel", r"st\.global\.v4\.f32", 3),
        ("embedding.add_atomic_kernel", r"(atom|red)\S*add\.f32", 1),
    ):
        assert len(re.findall(instruction, kernels[name][0])) >= at_least, f"{name}: {instruction}"


def test_sums_stay_in_registers(compiled: tuple[str, dict]) -> None:
    _, kernels = compiled
    for name, (text, _) in kernels.items():
        assert ".local" not in text, f"{name}: a local array with an index that is not a constant lies in memory"


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="ptxas, of the CUDA toolkit, is not on the path")
def test_budget(compiled: tuple[str, dict]) -> None:
    architecture, kernels = compiled
    budget = {name: ptx.Use(*use) for name, use in json.loads(ptx.BUDGET.read_text("utf-8"))[architecture].items()}
    assert budget.keys() == kernels.keys(), "python tests/cuda/ptx.py --write makes the budget anew"
    over = [
        f"{name}: {use}, the budget is {budget[name]}"
        for name, (_, use) in kernels.items()
        if use.registers > budget[name].registers + SLACK or use[1:] > budget[name][1:]
    ]
    assert not over, "\n".join(over)
    assert all(use.shared <= SHARED_MEMORY for _, use in kernels.values())
    assert all(use.spilled == 0 for _, use in kernels.values())
