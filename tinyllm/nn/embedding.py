"""A vector for each id."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinyllm.autograd import fused
from tinyllm.autograd.tensor import Tensor
from tinyllm.nn import init
from tinyllm.nn.module import Module


class Embedding(Module):
    """Row ``ids`` of a table that is learned.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
    padding_idx : int, optional
        This row starts at 0 and gets no gradient. Negative counts from the end.
    rng : numpy Generator
        For the table: normal with variance 1.
    dtype : dtype

    Attributes
    ----------
    weight : Tensor (num_embeddings, embedding_dim)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        rng: np.random.Generator,
        dtype: DTypeLike = np.float32,
    ) -> None:
        weight = init.normal((num_embeddings, embedding_dim), rng, dtype=dtype)
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ValueError(f"padding_idx {padding_idx} is outside the table of {num_embeddings} rows")
            padding_idx %= num_embeddings
            weight[padding_idx] = 0
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.weight = Tensor(weight, requires_grad=True)

    def forward(self, ids: Tensor | ArrayLike) -> Tensor:
        """Integers (...) -> (..., embedding_dim)."""
        return fused.embedding(ids, self.weight, self.padding_idx)
