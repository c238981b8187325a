"""One training step of a GPT (forward, backward, clipping, AdamW) against PyTorch, eager and compiled, and JAX.

    python benchmarks/train_step.py                    # three sizes, and what the second thread adds
    python benchmarks/train_step.py --only small --threads 1
    python benchmarks/train_step.py --quick            # the small model, within 45 s

All sides compute the same model on the same batch shape in float32: learned positions, pre-norm blocks, tanh GELU,
tied head, no dropout, gradients clipped to norm 1. The limit is the matrix products alone at the rate of sgemm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from harness import OURS, Case, Step, compare, in_process, options_of, peer, say, work

import tinyllm as tl
from tinyllm.profile import Limits

EAGER, COMPILED, JAX = "PyTorch eager", "torch.compile", "JAX jit"
SIZES = {
    "small": {"layers": 4, "heads": 4, "channels": 128, "time": 64, "batch": 12, "vocab": 65},
    "medium": {"layers": 6, "heads": 6, "channels": 384, "time": 256, "batch": 8, "vocab": 65},
    "gpt2": {"layers": 12, "heads": 12, "channels": 768, "time": 64, "batch": 4, "vocab": 50257},
}


def flops(size: dict[str, int]) -> float:
    """Floating-point operations of the matrix products of a step: 2 per multiply-add, backward twice forward.

    Of the attention's products only those of keys that a query may see are needed: half of them.
    """
    c, t, b = size["channels"], size["time"], size["batch"]
    per_token = 2 * (size["layers"] * (12 * c * c + t * c) + size["vocab"] * c)
    return 3.0 * per_token * b * t


def case(name: str, quick: bool) -> Case:
    """A size as a piece of work."""
    size = SIZES[name]
    about = f"{size['layers']} layers, C={size['channels']}, T={size['time']}, B={size['batch']}, V={size['vocab']}"
    peers = (EAGER,) if quick else (EAGER, JAX) if name == "gpt2" else (EAGER, COMPILED, JAX)
    return Case(f"training step, {about}", {"size": size}, flops(size), 0.0, peers, 2.0 if quick else 5.0)


def ours(threads: int, size: dict[str, int]) -> Step:
    """A step of tinyllm's Trainer: the way `tinyllm train` takes."""
    return trainer(size).step


def trainer(size: dict[str, int]) -> tl.train.Trainer:
    """A trainer of a new model of this size, on random tokens."""
    rng = np.random.default_rng(0)
    config = tl.models.GPTConfig(
        n_layer=size["layers"],
        n_head=size["heads"],
        n_embd=size["channels"],
        n_positions=size["time"],
        vocab_size=size["vocab"],
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
    )
    model = tl.models.GPT(config, rng=rng).train()
    optimizer = tl.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    batches = tl.data.Batches(rng.integers(0, size["vocab"], 100_000), size["batch"], size["time"])
    plan = tl.train.Plan(steps=10**9, rate=lambda t: 1e-3, clip=1.0)
    return tl.train.Trainer(model, batches, optimizer, plan)


def pytorch(compiled: bool) -> Any:
    """The same step in PyTorch."""

    def make(threads: int, size: dict[str, int]) -> Step:
        peer("torch")
        from gpt_torch import training_step

        return training_step(size, threads, compiled)

    return make


def jax_jit(threads: int, size: dict[str, int]) -> Step:
    """The same step in JAX."""
    peer("jax")
    from gpt_jax import training_step

    return training_step(size, threads)


SIDES = {OURS: ours, EAGER: pytorch(False), COMPILED: pytorch(True), JAX: jax_jit}


def main() -> None:
    """Measure, and print a table or an object."""
    parser = options_of(__doc__)
    parser.add_argument("--only", choices=SIZES, help="one size")
    options = parser.parse_args()
    cases = {name: case(name, options.quick) for name in SIZES if options.only in (None, name)}
    if options.worker:
        work(SIDES, cases, options)
        return
    if options.quick:
        cases, options.rounds = {"small": cases["small"]}, 1
    tl.set_num_threads(options.threads)
    report = compare(__file__, cases, options, Limits.measure())
    sizes = {case.work: SIZES[name] for name, case in cases.items()}
    for row in report.rows:
        size = sizes[row["work"]]
        row["tokens_per_second"] = size["batch"] * size["time"] / row["ours_s"]
        report.note(f"{row['work']}: {row['tokens_per_second']:,.0f} tokens/s")
    if "medium" in cases and options.threads > 1:
        times: dict[int, list[float]] = {1: [], options.threads: []}
        for round_ in range(options.rounds):
            for threads, found in times.items():
                say(f"medium: {threads} threads (process {round_ + 1} of {options.rounds})")
                found.append(in_process(__file__, OURS, "medium", threads=threads)["medium"])
        name = f"{cases['medium'].work}: what {options.threads} threads gain"
        report.add(name, "tinyllm, one thread", times[options.threads], times[1], cases["medium"].flops)
    report.print(options.json)


if __name__ == "__main__":
    main()
