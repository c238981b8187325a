"""Why one pool owns the cores: the same work divided in three ways, on a quiet machine and beside a busy process.

    python benchmarks/threads.py
    python benchmarks/threads.py --quick    # within 45 s

The work is a feed-forward part, over and over: a product, GELU, a product. `tinyllm` divides both as `tinyllm.threads`
does: pieces of rows, one-thread BLAS and a serial kernel in each. It is held against BLAS's own threads with Numba's
own threads between (two pools that wait for each other on the same cores), and against BLAS's own threads with a
serial kernel. Then the other way round: what PyTorch, and a pool of Python threads that call NumPy, lose by tinyllm's
sleeping threads.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from harness import OURS, Absent, Case, Step, compare, in_process, options_of, peer, say, work

import tinyllm as tl
from tinyllm import threads as pool
from tinyllm.profile import Limits
from tinyllm.profile.limits import median_time

TWO_POOLS, BLAS_POOL = "BLAS's threads, Numba's threads", "BLAS's threads, serial kernel"
SIZES = {"small": {"rows": 768, "channels": 128}, "large": {"rows": 2048, "channels": 384}}


def _gelu(x: np.ndarray, out: np.ndarray, begin: int, end: int) -> None:
    """GELU of some rows, by tanh (F-ACT), as a loop that a compiler understands."""
    for i in range(begin, end):
        for j in range(x.shape[1]):
            a = x[i, j]
            out[i, j] = 0.5 * a * (1 + np.tanh(np.float32(0.7978846) * (a + np.float32(0.044715) * a * a * a)))


def arrays(rows: int, channels: int) -> tuple[np.ndarray, ...]:
    """Input (R, C), both matrices, and room for the three results."""
    rng = np.random.default_rng(0)
    shapes = [(rows, channels), (channels, 4 * channels), (4 * channels, channels)]
    inputs = [rng.standard_normal(shape, np.float32) for shape in shapes]
    return *inputs, *(np.empty(shape, np.float32) for shape in [(rows, 4 * channels)] * 2 + [(rows, channels)])


def ours(threads: int, **size: int) -> Step:
    """Everything divided by one pool."""
    import numba

    x, w1, w2, h, a, y = arrays(**size)
    gelu = numba.njit(nogil=True, fastmath=True, error_model="numpy")(_gelu)

    def step() -> None:
        pool.matmul(x, w1, out=h)
        pool.parallel(lambda begin, end: gelu(h, a, begin, end), len(x))
        pool.matmul(a, w2, out=y)

    return step


def two_pools(threads: int, **size: int) -> Step:
    """BLAS divides its products, Numba the rows between them."""
    import numba

    gelu = numba.njit(nogil=True, fastmath=True, error_model="numpy")(_gelu)

    @numba.njit(parallel=True)
    def all_rows(h: np.ndarray, a: np.ndarray) -> None:
        for i in numba.prange(len(h)):
            gelu(h, a, i, i + 1)

    return _blas_pool(all_rows, **size)


def blas_pool(threads: int, **size: int) -> Step:
    """BLAS divides its products; between them one thread works."""
    import numba

    gelu = numba.njit(nogil=True, fastmath=True, error_model="numpy")(_gelu)
    return _blas_pool(lambda h, a: gelu(h, a, 0, len(h)), **size)


def _blas_pool(gelu: Any, **size: int) -> Step:
    x, w1, w2, h, a, y = arrays(**size)

    def step() -> None:
        np.matmul(x, w1, out=h)
        gelu(h, a)
        np.matmul(a, w2, out=y)

    return step


SIDES = {OURS: ours, TWO_POOLS: two_pools, BLAS_POOL: blas_pool}


def cases_of(seconds: float) -> dict[str, Case]:
    """The two sizes."""
    found = {}
    for name, size in SIZES.items():
        rows, channels = size["rows"], size["channels"]
        about = f"feed-forward part, {rows} rows, C={channels}"
        found[name] = Case(about, size, 16.0 * rows * channels**2, 0.0, (TWO_POOLS, BLAS_POOL), seconds)
    return found


def neighbours(seconds: float, threads: int) -> None:
    """Print how long others' products take before and after tinyllm's threads have worked, and sleep."""
    a = np.random.default_rng(0).standard_normal((768, 768), np.float32)

    def in_python_threads() -> Any:
        with ThreadPoolExecutor(threads) as others:
            return list(others.map(lambda _: a @ a, range(8)))

    steps: dict[str, Step] = {"a pool of Python threads": in_python_threads}
    try:
        torch = peer("torch")
    except Absent:
        pass
    else:
        torch.set_num_threads(threads)
        b = torch.tensor(a)
        steps["PyTorch"] = lambda: b @ b
    times = {name: [median_time(step, seconds)] for name, step in steps.items()}
    tl.set_num_threads(threads)
    for _ in range(100):
        pool.matmul(a, a)
    for name, step in steps.items():
        times[name].append(median_time(step, seconds))
    print(json.dumps(times))


def main() -> None:
    """Measure, and print a table or an object."""
    options = options_of(__doc__).parse_args()
    cases = cases_of(0.5 if options.quick else 2.0)
    if options.worker:
        if options.worker[0] == "neighbours":
            neighbours(0.5 if options.quick else 1.5, options.threads)
        else:
            work(SIDES, cases, options)
        return
    if options.quick:
        options.rounds = 1
    tl.set_num_threads(options.threads)
    report = compare(__file__, cases, options, Limits.measure(), together=True)
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        say("the same beside a process that keeps a core busy")
        beside = compare(__file__, cases, options, report.limits, together=True)
    finally:
        busy.kill()
        busy.wait()
    for row in beside.rows:
        report.rows.append(row | {"work": f"{row['work']}, a core busy", "limit_share": None})
    say("the neighbours")
    found = [
        in_process(__file__, "neighbours", threads=options.threads, quick=options.quick) for _ in range(options.rounds)
    ]
    for name in found[0]:
        before, after = ([times[name][i] for times in found] for i in (0, 1))
        report.add(f"{name}: products while tinyllm's threads sleep", "the same before there were any", after, before)
        report.note(f"{name}: {statistics.median(after) / statistics.median(before) - 1:+.1%} with tinyllm's threads")
    report.print(options.json)


if __name__ == "__main__":
    main()
