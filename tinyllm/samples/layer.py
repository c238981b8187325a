"""The encoder layer that the samples take from PyTorch, in tinyllm's modules."""

from __future__ import annotations

import numpy as np

from tinyllm import nn
from tinyllm.autograd import Tensor


class EncoderLayer(nn.Module):
    """F-BLOCK, the post-norm Transformer layer; what ``nn.TransformerEncoderLayer(batch_first=True)`` is in PyTorch.

    Parameters
    ----------
    channels, num_heads, hidden_dim : int
        C, H, and the inner size of the feed-forward.
    dropout : float
        Probability for the attention weights, the hidden layer, and what each half adds.
    rng : numpy Generator
        For the weights (Xavier) and for dropout.

    Notes
    -----
    Source: Vaswani et al. 2017, sections 3.1 and 5.4.
    """

    def __init__(
        self, channels: int, num_heads: int, hidden_dim: int, dropout: float = 0.1, *, rng: np.random.Generator
    ) -> None:
        self.attention = nn.MultiHeadAttention(channels, num_heads, dropout, rng=rng)
        self.feed_forward = nn.FeedForward(channels, hidden_dim, dropout=dropout, rng=rng)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout, rng)

    def forward(self, x: Tensor, is_causal: bool = False) -> Tensor:
        """(B, T, C) -> (B, T, C); if causal, position t sees positions 0..t only."""
        x = self.norm1(x + self.dropout(self.attention(x, is_causal=is_causal)))
        return self.norm2(x + self.dropout(self.feed_forward(x)))
