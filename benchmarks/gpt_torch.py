"""The training step of `benchmarks/train_step.py` in PyTorch, as one would write it there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """Attention and feed-forward part, each after a norm and added to the stream."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.up, self.down = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add both parts to x (B, T, C)."""
        b, t, c = x.shape
        q, k, v = (a.view(b, t, self.heads, -1).transpose(1, 2) for a in self.qkv(self.norm1(x)).split(c, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, c))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Model(nn.Module):
    """GPT-2 with a tied head."""

    def __init__(self, size: dict[str, int]) -> None:
        super().__init__()
        self.tokens = nn.Embedding(size["vocab"], size["channels"])
        self.positions = nn.Embedding(size["time"], size["channels"])
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(size["channels"], size["heads"]) for _ in range(size["layers"]))
        self.norm = nn.LayerNorm(size["channels"])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Mean loss of ids (B, T): each token is predicted from those before it."""
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits = self.norm(x) @ self.tokens.weight.T
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def training_step(size: dict[str, int], threads: int, compiled: bool, checkpoint: bool = False) -> Callable[[], Any]:
    """Forward, backward, clipping to norm 1, fused AdamW."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    model = Model(size)
    loss_of = torch.compile(model) if compiled else model
    if checkpoint:
        from torch.utils.checkpoint import checkpoint as recomputed

        for block in model.blocks:
            block.forward = lambda x, whole=block.forward: recomputed(whole, x, use_reentrant=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    ids = torch.randint(0, size["vocab"], (size["batch"], size["time"]))

    def step() -> None:
        loss_of(ids).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step
