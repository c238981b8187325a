"""What is paid before any arithmetic: an operation on the tape, an import, the first training step.

python benchmarks/overhead.py
python benchmarks/overhead.py --quick    # without the cold start, within 45 s
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from harness import OURS, Absent, Case, Report, Step, compare, in_process, options_of, peer, say, work

import tinyllm as tl
from tinyllm.autograd.tape import gradients
from tinyllm.profile import Limits

TORCH = "PyTorch eager"
LENGTH = 400  # operations in a chain
CHAINS: dict[str, Callable[[Any, Any], Any]] = {
    "negative": lambda y, x: -y,
    "multiply": lambda y, x: y * x,
    "add": lambda y, x: y + x,
}


def chain(operation: str, x: Any) -> Any:
    """An operation applied to its own result, again and again."""
    y = x
    for _ in range(LENGTH):
        y = CHAINS[operation](y, x)
    return y


def ours(threads: int, operation: str) -> tuple[Step, float]:
    """Forward and backward of a chain; the share of one operation."""
    x = tl.tensor(np.ones(1, np.float32), requires_grad=True)
    g = tl.tensor(np.ones(1, np.float32))
    return lambda: gradients(chain(operation, x), [x], g), 1 / LENGTH


def pytorch(threads: int, operation: str) -> tuple[Step, float]:
    """The same in PyTorch."""
    torch = peer("torch")
    torch.set_num_threads(threads)
    x = torch.ones(1, requires_grad=True)
    return lambda: torch.autograd.grad(chain(operation, x), x), 1 / LENGTH


SIDES = {OURS: ours, TORCH: pytorch}


def import_time(package: str) -> float:
    """Seconds that a new process takes to import a package."""
    program = f"import time; begin = time.perf_counter(); import {package}; print(time.perf_counter() - begin)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Absent(f"{package} is not installed")
    return float(done.stdout)


def imports(report: Report, rounds: int) -> None:
    """`import tinyllm` beside the imports of its peers."""
    times: dict[str, list[float]] = {}
    for package in ("tinyllm", "numpy", "torch") * rounds:
        try:
            times.setdefault(package, []).append(import_time(package))
        except Absent as reason:
            report.note(f"import torch: skipped, {reason}")
    for package in ("numpy", "torch"):
        if times.get(package):
            report.add("import tinyllm", f"import {package}", times["tinyllm"], times[package])


def first_step(began: float) -> None:
    """Print the seconds since the process was started, after one step of a small model."""
    from train_step import SIZES, trainer

    trainer(SIZES["small"]).step()
    print(json.dumps({"seconds": time.time() - began}))


def first_steps(report: Report, rounds: int, cold_rounds: int, threads: int) -> None:
    """From the start of a process to the end of its first step, kernels compiled or loaded."""
    warm, cold = [], []
    for i in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for times in (cold, warm) if i < cold_rounds else (warm,):
                say(f"first step, {'cold' if times is cold else 'warm'} (process {len(times) + 1})")
                cache = {"NUMBA_CACHE_DIR": folder} if cold_rounds else None
                began = repr(time.time())
                times.append(in_process(__file__, "first", began, threads=threads, environment=cache)["seconds"])
    name = "first training step (4 layers, C=128), from the start of the process"
    if cold:
        report.add(f"{name}: kernels compiled", None, cold)
    report.add(f"{name}: kernels in the cache", None, warm[:cold_rounds] or warm)


def main() -> None:
    """Measure, and print a table or an object."""
    options = options_of(__doc__, rounds=5, threads=1).parse_args()
    cases = {
        name: Case(
            f"{name} of 1 element, forward and backward, per operation", {"operation": name}, 0, 0, (TORCH,), 1.0
        )
        for name in CHAINS
    }
    if options.worker:
        if options.worker[0] == "first":
            tl.set_num_threads(options.threads)
            first_step(float(options.worker[1]))
        else:
            work(SIDES, cases, options)
        return
    rounds = 1 if options.quick else options.rounds
    options.rounds = min(3, rounds)
    tl.set_num_threads(options.threads)
    report = compare(__file__, cases, options, Limits.measure(), together=True)
    imports(report, max(3, rounds))
    first_steps(report, 1 if options.quick else 2, 0 if options.quick else 2, options.threads)
    report.print(options.json)


if __name__ == "__main__":
    main()
