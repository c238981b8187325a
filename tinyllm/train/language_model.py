"""The job of a language model: from a corpus to a model of one text, judged by its loss on held-out text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinyllm.errors import DataError
from tinyllm.metrics import perplexity
from tinyllm.train.console import Console
from tinyllm.train.distill import fingerprint, taught, tokenizer_for
from tinyllm.train.families import ONE_TEXT, make_model, make_objective, refuse_others
from tinyllm.train.job import Job
from tinyllm.train.prepare import Prepared, prepare
from tinyllm.train.report import bits_per_character
from tinyllm.train.settings import Settings
from tinyllm.train.task import Objective
from tinyllm.train.trainer import Batch, BatchSource, mean_loss


def prepare_job(settings: Settings, folder: Path | None = None, console: Console | None = None) -> LanguageModel:
    """Read the corpus, train a tokenizer unless the folder has one, make the model."""
    refuse_others(settings, ONE_TEXT)
    return LanguageModel(settings, prepare(settings, tokenizer_for(settings, folder), console))


class LanguageModel(Job):
    """A new model of one of the families, and the corpus that it is trained on.

    Parameters
    ----------
    settings : Settings
    prepared : Prepared
        The corpus in tokens.

    Raises
    ------
    DataError
        For a training text that is shorter than a block.
    """

    def __init__(self, settings: Settings, prepared: Prepared) -> None:
        n, T = len(prepared.train.tokens), settings.block_size
        if n <= T:
            raise DataError(
                f"the training text has {n} tokens: too few for one block of {T} and the token after it; "
                f"lower block_size to at most {max(2, n - 1)}, or give more text"
            )
        self.settings, self.prepared = settings, prepared
        self.model = make_model(settings, prepared.tokenizer)
        self.own: Objective = make_objective(self.model, prepared.tokenizer, settings)
        self.objective = taught(self.own, settings, prepared.tokenizer)
        self.fingerprint = fingerprint(settings, prepared.fingerprint)
        self.watched = prepared.watched.name

    def about(self) -> str:
        """The corpus and its two parts."""
        return f"{self.prepared.corpus}\n{self.prepared.train}\n{self.prepared.held_out}"

    def count(self, batch: Batch) -> int:
        """As the objective counts."""
        return self.own.count(batch)

    def batches(self) -> BatchSource:
        """Random windows of the training text."""
        return self.own.batches(self.prepared.train.tokens, self.settings.batch_size, self.settings.seed)

    def watched_batches(self) -> Iterator[Batch]:
        """Some windows of the text that is watched."""
        tokens = self.prepared.watched.tokens
        return self.own.windows(tokens, self.settings.batch_size, self.settings.eval_windows)

    def header(self, console: Console | None) -> dict[str, Any]:
        """The data, the model, and the losses to beat."""
        if console:
            console.progress("counting n-grams")
        prepared, vocab_size = self.prepared, self.prepared.tokenizer.vocab_size
        lines = self.own.baselines(prepared.train.tokens, prepared.held_out.tokens, vocab_size)
        watched = lines
        if prepared.watched is not prepared.held_out:
            watched = self.own.baselines(prepared.train.tokens, prepared.watched.tokens, vocab_size)
        return {
            "data": prepared.corpus.name,
            "model": type(self.model).__name__,
            "python": prepared.corpus.python,
            "parameters": self.model.num_parameters(),
            "vocab_size": vocab_size,
            "baselines": lines,
            "watched": prepared.watched.name,
            "watched_baselines": watched,
            **{
                part.name: {"tokens": len(part.tokens), "characters": part.characters, "replaced": part.replaced}
                for part in (prepared.train, prepared.watched, prepared.held_out)
            },
        }

    def save(self, folder: Path) -> None:
        """Write the tokenizer."""
        self.prepared.tokenizer.save(folder)

    def sample(self, step: int) -> str:
        """A text of the model's own."""
        return self._sample(self.settings.sample_tokens, step)

    def judge(self, baselines: dict[str, Any]) -> dict[str, Any]:
        """The loss on the whole held-out text."""
        held_out = self.prepared.held_out
        windows = self.own.windows(held_out.tokens, self.settings.batch_size)
        loss = mean_loss(self.own, windows, self.own.count)
        return {
            "data": self.prepared.held_out_corpus,
            "characters": held_out.characters,
            "loss": loss,
            "bits_per_char": bits_per_character(loss, held_out.tokens_per_character),
            "perplexity": perplexity(loss, 1),
            "tokens_per_char": held_out.tokens_per_character,
            "sample": self._sample(300, self.settings.steps),
            **self.own.also(self.prepared.train.tokens, held_out.tokens),
        }

    def _sample(self, tokens: int, step: int) -> str:
        return self.own.sample(self.prepared.tokenizer, tokens, seed=(self.settings.seed, step))
