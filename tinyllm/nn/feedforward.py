"""The two-layer network that follows attention."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from tinyllm.autograd.fused import linear
from tinyllm.autograd.tensor import Tensor
from tinyllm.nn.activations import activation as function_named
from tinyllm.nn.dropout import Dropout
from tinyllm.nn.linear import Linear
from tinyllm.nn.module import Module


class FeedForward(Module):
    """``down(dropout(activation(up(x))))``, at every position alone (F-MLP-004 as meant; Vaswani 2017, section 3.3).

    Parameters
    ----------
    embed_dim, hidden_dim : int
    activation : str
        A name known to :func:`tinyllm.nn.activation`.
    dropout : float
        Probability for the hidden layer.
    bias : bool
    rng : numpy Generator
        For the weights, and for dropout outside a `random_scope`.
    dtype : dtype

    Attributes
    ----------
    up : Linear (embed_dim -> hidden_dim)
    down : Linear (hidden_dim -> embed_dim)
    """

    def __init__(
        self,
        embed_dim: int,
        hidden_dim: int,
        activation: str = "relu",
        dropout: float = 0.0,
        bias: bool = True,
        *,
        rng: np.random.Generator,
        dtype: DTypeLike = np.float32,
    ) -> None:
        function_named(activation)  # a wrong name is refused here, not in the first forward
        self.activation = activation
        self.up = Linear(embed_dim, hidden_dim, bias, rng=rng, dtype=dtype)
        self.drop = Dropout(dropout, rng)
        self.down = Linear(hidden_dim, embed_dim, bias, rng=rng, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(..., embed_dim) -> (..., embed_dim)."""
        hidden = function_named(self.activation)(linear(x, self.up.weight), bias=self.up.bias)  # (..., hidden_dim)
        return self.down(self.drop(hidden))
