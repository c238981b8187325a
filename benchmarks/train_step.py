"""One training step of a GPT (forward, backward, clipping, AdamW) against PyTorch eager, in alternating processes.

    python benchmarks/train_step.py            # a table
    python benchmarks/train_step.py --json     # one object
    python benchmarks/train_step.py --quick    # the small model only, within 45 s

Both sides compute the same model on the same batch shape in float32: learned positions, pre-norm blocks, tanh GELU,
tied head, no dropout, gradients clipped to norm 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

import numpy as np
from harness import alternate, copy_bandwidth, machine, median_time, sgemm_rate, spread

from tinyllm.train.threads import one_blas_thread

SIZES = {
    "small": {"layers": 4, "heads": 4, "channels": 128, "time": 64, "batch": 12, "vocab": 65},
    "medium": {"layers": 6, "heads": 6, "channels": 384, "time": 256, "batch": 8, "vocab": 65},
}


def flops(size: dict[str, int]) -> float:
    """Floating-point operations of the matrix products of a step: 2 per multiply-add, backward twice forward."""
    c, t, b = size["channels"], size["time"], size["batch"]
    per_token = 2 * (size["layers"] * (12 * c * c + 2 * t * c) + size["vocab"] * c)
    return 3.0 * per_token * b * t


def ours(size: dict[str, int], threads: int) -> Any:
    """A step of tinyllm's Trainer: the way `tinyllm train` takes."""
    import tinyllm as tl

    rng = np.random.default_rng(0)
    config = tl.models.GPTConfig(
        n_layer=size["layers"],
        n_head=size["heads"],
        n_embd=size["channels"],
        n_positions=size["time"],
        vocab_size=size["vocab"],
    )
    model = tl.models.GPT(config, rng=rng)
    model.train()
    optimizer = tl.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    batches = tl.data.Batches(rng.integers(0, size["vocab"], 100_000), size["batch"], size["time"])
    plan = tl.train.Plan(steps=10**9, rate=lambda t: 1e-3, clip=1.0, threads=threads)
    return tl.train.Trainer(model, batches, optimizer, plan).step


def torch_eager(size: dict[str, int], threads: int) -> Any:
    """The same step in PyTorch."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    channels, heads = size["channels"], size["heads"]

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
            self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
            self.up, self.down = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            b, t, c = x.shape
            q, k, v = (a.view(b, t, heads, c // heads).transpose(1, 2) for a in self.qkv(self.norm1(x)).split(c, dim=2))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(b, t, c))
            return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(size["vocab"], channels)
            self.positions = nn.Embedding(size["time"], channels)
            self.blocks = nn.ModuleList(Block() for _ in range(size["layers"]))
            self.norm = nn.LayerNorm(channels)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
            for block in self.blocks:
                x = block(x)
            logits = self.norm(x) @ self.tokens.weight.T
            return F.cross_entropy(logits[:, :-1].reshape(-1, size["vocab"]), ids[:, 1:].reshape(-1))

    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    ids = torch.randint(0, size["vocab"], (size["batch"], size["time"]))

    def step() -> None:
        loss = model(ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    """Measure, and print a table or an object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", nargs=3, metavar=("SIDE", "SIZE", "SECONDS"), help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="processes of each side")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.worker:
        side, name, seconds = options.worker
        step = {"ours": ours, "torch": torch_eager}[side](SIZES[name], options.threads)
        with one_blas_thread():  # as Trainer.run does; PyTorch has a BLAS of its own
            print(json.dumps({"seconds": median_time(step, float(seconds), warm=5)}))
        return
    names = ["small"] if options.quick else list(SIZES)
    rounds, seconds = (2, "2") if options.quick else (options.rounds, "6")
    rate, bandwidth = sgemm_rate(), copy_bandwidth()
    rows = []
    for name in names:
        sides = {side: (side, name, seconds, "--threads", str(options.threads)) for side in ("ours", "torch")}
        found = alternate(__file__, sides, rounds, options.threads)
        times = {side: [r["seconds"] for r in runs] for side, runs in found.items()}
        mine, peer = (statistics.median(times[side]) for side in ("ours", "torch"))
        rows.append(
            {
                "work": f"train step, {name} {SIZES[name]}",
                "peer": "PyTorch eager",
                "ours_s": mine,
                "peer_s": peer,
                "ratio": peer / mine,
                "limit_share": flops(SIZES[name]) / mine / rate,
                "ours": spread(times["ours"]),
                "theirs": spread(times["torch"]),
            }
        )
    result = {
        "machine": machine(),
        "threads": options.threads,
        "sgemm_flops": rate,
        "copy_bytes": bandwidth,
        "rows": rows,
    }
    if options.json:
        print(json.dumps(result))
        return
    about = result["machine"]
    print(f"{about['processor']}, {about['cores']} cores, {options.threads} threads; {about['versions']}")
    print(f"limits measured now: sgemm {rate / 1e9:.0f} GFLOP/s, copy {bandwidth / 1e9:.1f} GB/s")
    for row in rows:
        print(f"\n{row['work']}")
        print(f"  tinyllm       {row['ours']}   {row['limit_share']:.0%} of the sgemm rate")
        print(f"  PyTorch eager {row['theirs']}")
        print(f"  ratio         {row['ratio']:.2f} (above 1: tinyllm is faster)")


if __name__ == "__main__":
    main()
