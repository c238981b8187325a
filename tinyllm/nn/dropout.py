"""Dropout."""

from __future__ import annotations

import numpy as np

from tinyllm.autograd import ops
from tinyllm.autograd.tensor import Tensor
from tinyllm.nn.module import Module


class Dropout(Module):
    """In training, each element is 0 with probability `p` and else divided by 1 - `p` (F-DROP).

    Parameters
    ----------
    p : float
    rng : numpy Generator, optional
        Where masks come from outside a `random_scope`; inside one they come from the scope, and can be drawn again.
    """

    def __init__(self, p: float = 0.5, rng: np.random.Generator | None = None) -> None:
        self.p, self.rng = checked_probability(p), rng

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return ops.dropout(x, self.p, self.training, self.rng)


def checked_probability(p: float) -> float:
    """`p`, if dropout can use it."""
    if not 0 <= p <= 1:
        raise ValueError(f"the probability of dropout is between 0 and 1, got {p}")
    return p
