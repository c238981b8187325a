"""What every benchmark shares: alternating processes, medians with spread, the machine, and its physical limits."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def machine() -> dict[str, Any]:
    """The processor, the system and the versions that a figure belongs to."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:
            model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    versions = {"python": platform.python_version()}
    for package in ("numpy", "numba", "torch", "tinyllm"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {"processor": model, "cores": os.cpu_count(), "system": platform.platform(), "versions": versions}


def median_time(step: Callable[[], Any], seconds: float, warm: int = 3) -> float:
    """The median duration of `step` in seconds, over as many calls as fit."""
    for _ in range(warm):
        step()
    durations = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(durations) < 3:
        start = time.perf_counter()
        step()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)


def sgemm_rate(seconds: float = 1.0, n: int = 1024) -> float:
    """Float32 operations per second of NumPy's matrix product: the limit of everything made of matrix products."""
    a, b = np.ones((n, n), np.float32), np.ones((n, n), np.float32)
    out = np.empty_like(a)
    return 2 * n**3 / median_time(lambda: np.matmul(a, b, out=out), seconds)


def copy_bandwidth(seconds: float = 0.5, megabytes: int = 256) -> float:
    """Bytes per second read and written by a copy that does not fit into any cache."""
    a = np.ones(megabytes * 2**18, np.float32)
    b = np.empty_like(a)
    return 2 * a.nbytes / median_time(lambda: np.copyto(b, a), seconds)


def worker(script: str, arguments: Sequence[str], threads: int) -> dict[str, Any]:
    """Run ``script --worker arguments`` in a process of its own with so many threads; the object it printed last."""
    limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = {**os.environ, **{name: str(threads) for name in limits}}
    done = subprocess.run(
        [sys.executable, script, "--worker", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def alternate(script: str, sides: dict[str, Sequence[str]], rounds: int, threads: int) -> dict[str, list[dict]]:
    """Run the sides in turn, `rounds` times each, every run in a process of its own."""
    results: dict[str, list[dict]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, arguments in sides.items():
            results[name].append(worker(script, arguments, threads))
    return results


def spread(values: Sequence[float]) -> str:
    """The median, and the range it came from, in milliseconds."""
    ms = sorted(1e3 * v for v in values)
    return f"{statistics.median(ms):.1f} ms [{ms[0]:.1f}, {ms[-1]:.1f}]"
