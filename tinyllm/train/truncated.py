"""Truncated backpropagation through time: from window to window the state goes on, and the gradient does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tinyllm.autograd import Tensor, no_grad
from tinyllm.data import Strands, consecutive_windows
from tinyllm.models.lstm import LSTMLanguageModel
from tinyllm.train.task import NextToken
from tinyllm.train.trainer import Batch, BatchSource

_READ_AT_ONCE = 1024  # tokens, where no gradient is wanted


class Truncated(NextToken):
    """An LSTM trained on windows that follow each other, each begun with the state that the one before has left.

    The state is among the parameters, as one that needs no gradient: so it lies in the checkpoint, and a run that was
    resumed repeats the one that was not. Windows of an evaluation begin without a state, as those of other models.

    Parameters
    ----------
    model : LSTMLanguageModel
    context : int
        T: the tokens of a window, and so the steps that a gradient goes back.
    strands : int
        B: how many places of the text are read at the same time.

    Notes
    -----
    Source: Williams and Peng 1990.
    """

    def __init__(self, model: LSTMLanguageModel, context: int, strands: int) -> None:
        super().__init__(model, context)
        weight, shape = model.head(), (model.config.num_layers, strands, model.config.hidden_size)
        self.state = tuple(Tensor(np.zeros(shape, weight.dtype)).to(weight.device) for _ in range(2))

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The model's, and the state."""
        yield from super().named_parameters()
        yield from zip(("state.h", "state.c"), self.state, strict=True)

    def batches(self, tokens: np.ndarray, batch_size: int, seed: int) -> BatchSource:
        """The text in its order, in as many strands as a batch has rows."""
        return Strands(tokens, batch_size, self.context)

    def loss(self, batch: Batch) -> Tensor:
        """The mean over a window; one of a strand begins with the state that is kept, and leaves another."""
        if "strand" not in batch:
            return super().loss(batch)
        rows = slice(batch["strand"][0], batch["strand"][-1] + 1)
        goes_on = (~batch["begins"])[:, None].astype(self.state[0].dtype)
        ids = batch["input_ids"]
        loss, left = self.model.window_loss(ids[:, :-1], ids[:, 1:], tuple(s[:, rows] * goes_on for s in self.state))
        for kept, new in zip(self.state, left, strict=True):
            kept[:, rows].assign_(new)
        return loss

    def also(self, train: np.ndarray, held_out: np.ndarray) -> dict[str, Any]:
        """``loss_in_order``: of the held-out text read from its beginning, with all of it behind each token."""
        windows = consecutive_windows(held_out, 1, min(_READ_AT_ONCE, len(held_out) - 1))
        with no_grad():
            losses = [loss.item() for loss in self.model.truncated_losses(windows)]
        return {"loss_in_order": float(np.mean(losses))}
