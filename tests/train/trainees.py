"""Small things to train, for tests of the loop alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import tinyllm as tl
from tinyllm.data import Batches, eval_windows
from tinyllm.train import Plan, Trainer, checkpoint

V, B, T = 6, 4, 8
TOKENS = np.random.default_rng(1).integers(0, V, 400)


class Bigram:
    """A table of logits with dropout: enough to show every property of the loop."""

    def __init__(self, dtype: str = "float32") -> None:
        self.table = tl.tensor(np.random.default_rng(0).normal(size=(V, V)), dtype=dtype, requires_grad=True)
        self.training = True
        self.poison_at: int | None = None
        self.calls = 0

    def named_parameters(self) -> Iterator[tuple[str, tl.Tensor]]:
        yield "table", self.table

    def train(self) -> None:
        self.training = True

    def eval(self) -> None:
        self.training = False

    def loss(self, batch: dict[str, np.ndarray]) -> tl.Tensor:
        ids = batch["input_ids"]
        logits = tl.dropout(tl.embedding(ids[:, :-1], self.table), 0.2, self.training)
        if self.training:
            self.calls += 1
            if self.calls == self.poison_at:
                logits = tl.log(logits * 0.0 - 1.0)
        return tl.cross_entropy(logits, ids[:, 1:])


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Within it, `n` threads share the work."""
    before = tl.get_num_threads()
    tl.set_num_threads(n)
    try:
        yield
    finally:
        tl.set_num_threads(before)


def make_trainer(folder: Path | None, steps: int = 12, model: Any = None, **options: Any) -> Trainer:
    """A trainer of a fresh Bigram; the same each time."""
    model = model or Bigram()
    optimizer = tl.optim.AdamW([p for _, p in model.named_parameters()], lr=0.05)
    plan = Plan(**{"steps": steps, "rate": lambda t: 0.05 / (1 + t), "clip": 1.0, "eval_every": 4, "seed": 3} | options)
    batches = Batches(TOKENS, B, T, seed=3)
    return Trainer(model, batches, optimizer, plan, folder, held_out=lambda: eval_windows(TOKENS[:100], T, B))


def resumed(folder: Path, steps: int = 12, **options: Any) -> Trainer:
    """A fresh trainer that takes up the checkpoint in a folder."""
    trainer = make_trainer(folder, steps, **options)
    trainer.resume(checkpoint.load(folder / checkpoint.FILE))
    return trainer
