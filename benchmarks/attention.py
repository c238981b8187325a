"""Causal attention, forward and backward, against PyTorch's scaled_dot_product_attention; and the memory it takes.

    python benchmarks/attention.py
    python benchmarks/attention.py --quick    # the shortest case, within 45 s

The limit is the seven products of the tiled algorithm (two forward, five backward) over the pairs that a causal
attention sees, at the rate of sgemm.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from harness import OURS, Case, Step, compare, in_process, options_of, peak_growth, peer, say, work

import tinyllm as tl
from tinyllm.autograd.tape import gradients
from tinyllm.profile import Limits

SDPA = "PyTorch SDPA"
SIZES = {
    "T=1024": {"heads": 12, "time": 1024, "dim": 64},
    "T=4096": {"heads": 12, "time": 4096, "dim": 64},
    "D=128": {"heads": 8, "time": 2048, "dim": 128},
}


def case(size: dict[str, int], quick: bool) -> Case:
    """A size as a piece of work."""
    pairs = size["heads"] * size["time"] * (size["time"] + 1) / 2
    about = f"causal attention, forward and backward, H={size['heads']}, T={size['time']}, D={size['dim']}"
    return Case(about, size, 7 * 2 * pairs * size["dim"], 0.0, (SDPA,), 1.0 if quick else 3.0)


def arrays(heads: int, time: int, dim: int) -> list[np.ndarray]:
    """q, k, v and the gradient that arrives: (1, H, T, D) each."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal((1, heads, time, dim), np.float32) for _ in range(4)]


def ours(threads: int, **size: int) -> Step:
    """Forward and backward on the tape."""
    *qkv, g = (tl.tensor(a) for a in arrays(**size))
    leaves = [tl.tensor(t, requires_grad=True) for t in qkv]

    def step() -> Any:
        return gradients(tl.scaled_dot_product_attention(*leaves, is_causal=True), leaves, g)

    return step


def pytorch(threads: int, **size: int) -> Step:
    """The same in PyTorch, which has its flash kernel for this."""
    torch = peer("torch")
    torch.set_num_threads(threads)
    *qkv, g = (torch.tensor(a) for a in arrays(**size))
    leaves = [t.requires_grad_() for t in qkv]

    def step() -> Any:
        return torch.autograd.grad(torch.nn.functional.scaled_dot_product_attention(*leaves, is_causal=True), leaves, g)

    return step


SIDES = {OURS: ours, SDPA: pytorch}


def memory(side: str, time: int, threads: int) -> None:
    """Print how many bytes the inputs and a forward and backward pass add to the process's memory at its peak."""
    tl.set_num_threads(threads)
    SIDES[side](threads, heads=12, time=64, dim=64)()  # loads and compiles what is needed
    print(json.dumps({"bytes": peak_growth(lambda: SIDES[side](threads, heads=12, time=time, dim=64)())}))


def main() -> None:
    """Measure, and print a table or an object."""
    options = options_of(__doc__).parse_args()
    cases = {name: case(size, options.quick) for name, size in SIZES.items()}
    if options.worker:
        if options.worker[1] == "memory":
            memory(options.worker[0], int(options.worker[2]), options.threads)
        else:
            work(SIDES, cases, options)
        return
    if options.quick:
        cases, options.rounds = {"T=1024": cases["T=1024"]}, 1
    tl.set_num_threads(options.threads)
    report = compare(__file__, cases, options, Limits.measure())
    for time in (1024, 2048) if options.quick else (1024, 2048, 4096, 8192):
        say(f"memory: T={time}")
        sides = (OURS, SDPA) if any(row["peer"] == SDPA for row in report.rows) else (OURS,)
        taken = [in_process(__file__, side, "memory", str(time), threads=options.threads)["bytes"] for side in sides]
        scores = 12 * time * time * 4 / 2**20
        report.add_bytes(
            f"memory of the same, H=12, T={time}, D=64 (the scores alone: {scores:,.0f} MiB)", SDPA, *taken
        )
    report.print(options.json)


if __name__ == "__main__":
    main()
