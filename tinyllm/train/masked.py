"""What a BERT is trained for: to tell the tokens that are hidden from it (F-MLM)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tinyllm.autograd import Tensor, no_grad
from tinyllm.data.masking import IGNORED, MaskedBatches, Masking, masked_windows
from tinyllm.errors import TokenizerError
from tinyllm.models.ngram_sides import BetweenNeighbours
from tinyllm.text import Tokenizer, WordPiece
from tinyllm.train.task import Wrapped
from tinyllm.train.trainer import Batch, BatchSource

_BASELINE_PLACES = 20_000  # hidden tokens that the count models are judged on


class HiddenTokens(Wrapped):
    """A model with the loss of windows in which tokens are hidden.

    In training 80% of the chosen tokens become ``[MASK]``, 10% any token and 10% stay. On held-out text all of them are
    hidden, which asks what stood there and nothing else; a window is hidden in the same way each time.

    Parameters
    ----------
    model : BERTForMaskedLM
    tokenizer : Tokenizer
        With a ``[MASK]``; where it has ``[CLS]`` and ``[SEP]``, they stand around every window.
    context : int
        T: the tokens of a window.
    whole_words : bool
        Whether the pieces of a word are hidden together.

    Raises
    ------
    TokenizerError
        If the tokenizer has no mask, or does not know where words begin.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, context: int, whole_words: bool = False) -> None:
        super().__init__(model)
        if tokenizer.mask_token_id is None:
            raise TokenizerError("the tokenizer has no [MASK] to hide tokens behind: train one with --model bert")
        goes_on = None
        if whole_words:
            if not isinstance(tokenizer, WordPiece):
                raise TokenizerError(
                    f"whole words are known to a WordPiece tokenizer, not to a {type(tokenizer).__name__}"
                )
            tokens = [tokenizer.id_to_token(i) or "" for i in range(tokenizer.vocab_size)]
            goes_on = np.array([token.startswith(tokenizer.prefix) for token in tokens])
        special = frozenset(tokenizer.special_tokens.values())
        self.masking = Masking(tokenizer.mask_token_id, tokenizer.vocab_size, special, goes_on=goes_on)
        self.asking = replace(self.masking, masked=1.0, random=0.0)
        cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
        self.around = None if cls is None or sep is None else (cls, sep)
        self.context = context

    def loss(self, batch: Batch) -> Tensor:
        """Mean over the hidden tokens."""
        return self.model.loss(batch)

    def logits(self, batch: Batch) -> tuple[Tensor, np.ndarray]:
        """The scores (B, T, V) and the labels (B, T), -100 where nothing is asked."""
        return self.model(batch["input_ids"]).logits, batch["labels"]

    def count(self, batch: Batch) -> int:
        """The hidden tokens."""
        return int((batch["labels"] != IGNORED).sum())

    def batches(self, tokens: np.ndarray, batch_size: int, seed: int) -> BatchSource:
        """Random windows, hidden anew at every step."""
        return MaskedBatches(tokens, batch_size, self.context, self.masking, self.around, seed)

    def windows(self, tokens: np.ndarray, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        """Windows side by side, hidden in the same way each time; at most `limit` of them, spread evenly."""
        return masked_windows(tokens, self.context, batch_size, self.asking, self.around, limit)

    def baselines(self, train: np.ndarray, held_out: np.ndarray, vocab_size: int) -> dict[str, float]:
        """Losses of count models at the same hidden places."""
        return {name: loss for name, (loss, _) in self.judged_baselines(train, held_out).items()}

    def judged_baselines(self, train: np.ndarray, held_out: np.ndarray) -> dict[str, tuple[float, float]]:
        """Loss and accuracy of count models at the same hidden places, or at the first 20,000 of them."""
        left, right, true = self._places(held_out)
        vocab_size, mask = self.masking.vocab_size, self.masking.mask_id
        bigrams = BetweenNeighbours(vocab_size, mask, triples=False).fit(train)
        unigram = bigrams.unigram
        judged = {
            "uniform": (float(np.log(vocab_size)), 1 / vocab_size),
            "unigram": (float(-np.log(unigram[true]).mean()), float((true == unigram.argmax()).mean())),
        }
        judged["bigrams from both sides"] = bigrams.judge(left, right, true)
        judged["both neighbours"] = BetweenNeighbours(vocab_size, mask).fit(train).judge(left, right, true)
        return judged

    def also(self, train: np.ndarray, held_out: np.ndarray) -> dict[str, Any]:
        """Accuracies beside the losses, which are those of hidden tokens and add up to no text's."""
        others = self.judged_baselines(train, held_out)
        return {
            "bits_per_char": None,
            "accuracy": self.accuracy(held_out, 16),
            "baseline_accuracies": {name: accuracy for name, (_, accuracy) in others.items()},
        }

    def accuracy(self, tokens: np.ndarray, batch_size: int, limit: int | None = None) -> float:
        """The share of hidden tokens of a text that the model finds the likeliest."""
        found = asked = 0
        for batch in self.windows(tokens, batch_size, limit):
            with no_grad():
                guesses = self.model(batch["input_ids"]).logits.data.argmax(axis=-1)
            asked += self.count(batch)
            found += int(((guesses == batch["labels"]) & (batch["labels"] != IGNORED)).sum())
        return found / asked

    def sample(self, tokenizer: Tokenizer, n: int, seed: tuple[int, int]) -> str:
        """A text of n tokens that the model fills in, from the surest place to the least sure."""
        rng = np.random.default_rng(seed)
        before, after = ([], []) if self.around is None else ([self.around[0]], [self.around[1]])
        n = min(n, self.context - len(before) - len(after))
        ids = np.array([[*before, *[self.masking.mask_id] * n, *after]])  # (1, T)
        banned = sorted(self.masking.kept)
        while (hidden := np.flatnonzero(ids[0] == self.masking.mask_id)).size:
            with no_grad():
                logits = np.array(self.model(ids).logits.data[0, hidden], np.float64)  # (hidden, V)
            logits[:, banned] = -np.inf
            p = np.exp((logits - logits.max(axis=1, keepdims=True)) / 0.8)
            p /= p.sum(axis=1, keepdims=True)
            surest = int(p.max(axis=1).argmax())
            ids[0, hidden[surest]] = rng.choice(p.shape[1], p=p[surest])
        return tokenizer.decode(ids[0])

    def _places(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Left neighbour, right neighbour and true token of hidden places."""
        parts: list[np.ndarray] = []
        size = 0
        for batch in self.windows(tokens, 16):
            ids, labels = batch["input_ids"], batch["labels"]
            row, place = np.nonzero(labels != IGNORED)
            inside = (place > 0) & (place < ids.shape[1] - 1)
            row, place = row[inside], place[inside]
            parts.append(np.stack([ids[row, place - 1], ids[row, place + 1], labels[row, place]]))
            size += len(row)
            if size >= _BASELINE_PLACES:
                break
        left, right, true = np.concatenate(parts, axis=1)[:, :_BASELINE_PLACES]
        return left, right, true
