"""What a model of one text is trained for. Most tell the next token at every one of their positions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from tinyllm.autograd import Tensor
from tinyllm.data import Batches, eval_windows
from tinyllm.generation import generate
from tinyllm.models.ngram import baselines
from tinyllm.text import Tokenizer
from tinyllm.train.trainer import Batch, BatchSource, next_tokens


class Objective(Protocol):
    """A model with a loss over windows of a text, which is what `Trainer` trains, and the lines it is held against."""

    model: Any

    def loss(self, batch: Batch) -> Tensor:
        """The mean loss over the batch's predictions."""

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The model's."""

    def train(self) -> None:
        """Dropout works."""

    def eval(self) -> None:
        """Dropout does nothing."""

    def count(self, batch: Batch) -> int:
        """Number of predictions in a batch."""

    def batches(self, tokens: np.ndarray, batch_size: int, seed: int) -> BatchSource:
        """Random windows for training."""

    def windows(self, tokens: np.ndarray, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        """Windows over a whole text for evaluation, the same ones each time; at most `limit`, spread evenly."""

    def baselines(self, train: np.ndarray, held_out: np.ndarray, vocab_size: int) -> dict[str, float]:
        """Held-out losses of simpler models of the same predictions, by their names."""

    def also(self, train: np.ndarray, held_out: np.ndarray) -> dict[str, Any]:
        """What else the result of a run tells, over what all language models tell."""

    def sample(self, tokenizer: Tokenizer, n: int, seed: tuple[int, int]) -> str:
        """Something of about n tokens that shows what the model has learnt."""


class Wrapped:
    """What every objective does alike with its model.

    Parameters
    ----------
    model : Module
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The model's."""
        return self.model.named_parameters()

    def train(self) -> None:
        """Dropout works."""
        self.model.train()

    def eval(self) -> None:
        """Dropout does nothing."""
        self.model.eval()

    def also(self, train: np.ndarray, held_out: np.ndarray) -> dict[str, Any]:
        """Nothing else."""
        return {}


class NextToken(Wrapped):
    """A model with the loss of windows that are one token longer than its context (F-LM).

    ``model.loss`` predicts the tokens of a window from the ones before them, so that the last of its T positions never
    learns to predict. When a text outgrows the context, each token is predicted from just that position.

    Parameters
    ----------
    model : GPT, or another causal model
        With ``next_token_loss(ids, targets)``, both (B, T).
    context : int, optional
        T: the tokens that it sees in a window; by default, all that it can.
    """

    def __init__(self, model: Any, context: int | None = None) -> None:
        super().__init__(model)
        self.context: int = context or model.context_length

    def loss(self, batch: Batch) -> Tensor:
        """Mean over all predictions; ``input_ids`` are (B, T + 1)."""
        ids = batch["input_ids"]
        return self.model.next_token_loss(ids[:, :-1], ids[:, 1:])

    def logits(self, batch: Batch) -> tuple[Tensor, np.ndarray]:
        """The scores (B, T, V) and the tokens (B, T) that they are held against."""
        ids = batch["input_ids"]
        return self.model(ids[:, :-1]).logits, ids[:, 1:]

    def count(self, batch: Batch) -> int:
        """Every token but the first of each window."""
        return next_tokens(batch)

    def batches(self, tokens: np.ndarray, batch_size: int, seed: int) -> BatchSource:
        """Random windows of T + 1 tokens."""
        return Batches(tokens, batch_size, self.context + 1, seed)

    def windows(self, tokens: np.ndarray, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        """Windows in which every token but the first is predicted once; at most `limit` of them, spread evenly."""
        return eval_windows(tokens, self.context + 1, batch_size, limit)

    def baselines(self, train: np.ndarray, held_out: np.ndarray, vocab_size: int) -> dict[str, float]:
        """N-gram models, counted on the training text."""
        return dict(baselines(train, held_out, vocab_size))

    def sample(self, tokenizer: Tokenizer, n: int, seed: tuple[int, int]) -> str:
        """A text of n tokens after a new line, or after the end of another text."""
        start = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else tokenizer.encode("\n")
        prompt = np.array([start], dtype=np.int64)  # (1, T)
        ids = generate(self.model, prompt, max_new_tokens=n, temperature=0.8, rng=np.random.default_rng(seed))
        return tokenizer.decode(np.asarray(ids)[0, len(start) :])
