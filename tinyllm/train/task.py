"""What a language model is trained for: to tell the next token at every one of its positions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinyllm.autograd import Tensor
from tinyllm.data import eval_windows
from tinyllm.models import GPT
from tinyllm.train.trainer import Batch


class NextToken:
    """A model with the loss of windows that are one token longer than its context (F-LM).

    ``model.loss`` predicts the tokens of a window from the ones before them, so that the last of its T positions never
    learns to predict. When a text outgrows the context, each token is predicted from just that position.

    Parameters
    ----------
    model : GPT
    """

    def __init__(self, model: GPT) -> None:
        self.model = model

    def loss(self, batch: Batch) -> Tensor:
        """Mean over all predictions; ``input_ids`` are (B, T + 1)."""
        ids = batch["input_ids"]
        return self.model.next_token_loss(ids[:, :-1], ids[:, 1:])

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The model's."""
        return self.model.named_parameters()

    def train(self) -> None:
        """Dropout works."""
        self.model.train()

    def eval(self) -> None:
        """Dropout does nothing."""
        self.model.eval()

    def windows(self, tokens: np.ndarray, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        """Windows in which every token but the first is predicted once; at most `limit` of them, spread evenly."""
        return eval_windows(tokens, self.model.config.n_positions + 1, batch_size, limit)
