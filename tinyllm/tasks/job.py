"""The job of a task with pairs: from pairs to an encoder-decoder, judged by what it writes about held-out sources."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyllm.safetensors import replacing
from tinyllm.tasks import task
from tinyllm.tasks.batches import Ids, PairBatches, all_batches
from tinyllm.tasks.pairs import split_pairs
from tinyllm.tasks.scripts import scripts
from tinyllm.tasks.tokens import encode_pairs, train_tokenizer
from tinyllm.tasks.write import write
from tinyllm.text import Tokenizer
from tinyllm.train.console import Console
from tinyllm.train.distill import fingerprint, taught, tokenizer_for
from tinyllm.train.families import TWO_TEXTS, make_model, make_objective, refuse_others
from tinyllm.train.job import TASK_FILE, Job
from tinyllm.train.settings import Settings
from tinyllm.train.source_target import SourceTarget
from tinyllm.train.trainer import Batch, mean_loss

_VALIDATION = 0.05  # share of the training pairs set aside where training stops early
_EXAMPLES = 5


def prepare_job(settings: Settings, folder: Path | None = None, console: Console | None = None) -> PairJob:
    """Read and divide the pairs, train a tokenizer unless the folder has one, make the model."""
    refuse_others(settings, TWO_TEXTS)
    if console:
        console.progress("reading the pairs")
    return PairJob(settings, tokenizer_for(settings, folder))


class PairJob(Job):
    """A new encoder-decoder, and the pairs that it is trained on.

    Parameters
    ----------
    settings : Settings
    tokenizer : Tokenizer, optional
        Of an earlier run; without it one is trained, on the training pairs alone.

    Raises
    ------
    DataError
        For pairs that cannot be used.
    """

    def __init__(self, settings: Settings, tokenizer: Tokenizer | None = None) -> None:
        self.settings, self.task = settings, task(settings.task)
        self.pairs = self.task.read(settings)
        train, held_out = split_pairs(self.pairs.pairs, settings.held_out, settings.seed)
        watched = held_out
        if settings.patience:
            train, watched = split_pairs(train, _VALIDATION, settings.seed + 1)  # by hashes of their own
            self.watched = "validation"
        self.tokenizer = tokenizer or train_tokenizer(train, settings)
        limit, n = settings.block_size, len(train) + len(held_out)
        self.train, self.train_pairs = encode_pairs(self.tokenizer, train, limit, "training")
        self.held_out, self.held_out_pairs = encode_pairs(self.tokenizer, held_out, limit, "held-out")
        self.validation = self.held_out
        if settings.patience:
            self.validation, _ = encode_pairs(self.tokenizer, watched, limit, "validation")
        self.left_out = n - len(self.train) - len(self.held_out)
        self.model = make_model(settings, self.tokenizer)
        self.own: SourceTarget = make_objective(self.model, self.tokenizer, settings)
        self.objective = taught(self.own, settings, self.tokenizer)
        self.fingerprint = fingerprint(settings, _hash(self.train, self.validation, self.held_out))
        self._pad = self.model.config.pad_token_id

    def about(self) -> str:
        """The pairs and their parts."""
        lines = [str(self.pairs), f"training: {len(self.train):,} pairs; held out: {len(self.held_out):,}"]
        if self.left_out:
            limit = self.settings.block_size
            lines.append(f"{self.left_out:,} pairs are left out: a side is longer than the model's {limit} tokens")
        return "\n".join(lines)

    def count(self, batch: Batch) -> int:
        """Tokens of the targets."""
        return self.own.count(batch)

    def batches(self) -> PairBatches:
        """Random pairs of similar length."""
        return PairBatches(self.train, self.settings.batch_size, self.settings.seed, self._pad)

    def watched_batches(self) -> Iterator[Batch]:
        """Some of the pairs that are watched."""
        return all_batches(self.validation, self.settings.batch_size, self._pad, self.settings.eval_windows)

    def header(self, console: Console | None) -> dict[str, Any]:
        """The data, the model, and what simpler methods make of the held-out sources."""
        if console:
            console.progress("asking simpler methods")
        sources, references = self.questions()
        baselines = {
            name: self.task.measure(hypotheses, references, self.settings)
            for name, hypotheses in self.task.baselines(self.train_pairs, sources).items()
        }
        lines = {"unigram": _unigram(self.train, self.validation, self.tokenizer.vocab_size)}
        return {
            "data": self.pairs.name,
            "notes": list(self.pairs.notes),
            "model": type(self.model).__name__,
            "parameters": self.model.num_parameters(),
            "vocab_size": self.tokenizer.vocab_size,
            "baselines": baselines,
            "watched": self.watched,
            "watched_baselines": lines,
            "pairs": {"training": len(self.train), "held out": len(self.held_out), "left out": self.left_out},
        }

    def save(self, folder: Path) -> None:
        """Write the tokenizer, and what using the run needs to know of its task."""
        self.tokenizer.save(folder)
        about = {
            "task": self.settings.task,
            "scripts": sorted(scripts("".join(pair.source for pair in self.train_pairs))),
        }
        with replacing(folder / TASK_FILE) as file:
            file.write((json.dumps(about, indent=2) + "\n").encode())

    def sample(self, step: int) -> str:
        """A few held-out sources, and what the model makes of them."""
        sources, references = self.questions(_EXAMPLES)
        return _examples(sources, references, self.write(sources))

    def judge(self, baselines: dict[str, Any]) -> dict[str, Any]:
        """The loss of all held-out pairs, and the metrics of what the model writes about some of their sources."""
        loss = mean_loss(self.own, all_batches(self.held_out, self.settings.batch_size, self._pad), self.count)
        sources, references = self.questions()
        hypotheses = self.write(sources)
        return {
            "data": self.pairs.name,
            "loss": loss,
            "sources": len(sources),
            "metrics": self.task.measure(hypotheses, references, self.settings),
            "lowest_is_best": self.task.lowest_is_best,
            "sample": _examples(sources, references, hypotheses, _EXAMPLES),
        }

    def questions(self, limit: int | None = None) -> tuple[list[str], list[list[str]]]:
        """Different held-out sources, spread evenly, each with all its targets."""
        targets: dict[str, list[str]] = {}
        for pair in self.held_out_pairs:
            targets.setdefault(pair.source, []).append(pair.target)
        sources = list(targets)
        limit = min(limit or self.settings.eval_windows, len(sources))
        chosen = [sources[i * len(sources) // limit] for i in range(limit)]
        return chosen, [targets[source] for source in chosen]

    def write(self, sources: Sequence[str], num_beams: int = 1) -> list[str]:
        """What the model makes of sources, at most as long as the model's context."""
        limit, size = self.settings.block_size, self.settings.batch_size
        return write(self.model, self.tokenizer, sources, limit, size, num_beams)


def _examples(sources: Sequence[str], references: Sequence[Sequence[str]], written: Sequence[str], n: int = 0) -> str:
    """Sources, what was written, and what was expected, as text."""
    rows = list(zip(sources, written, references, strict=True))
    rows = rows[:: max(1, len(rows) // n)][:n] if n else rows
    return "\n".join(f"{source}\n  -> {hypothesis}\n  == {known[0]}" for source, hypothesis, known in rows)


def _unigram(train: Sequence[Ids], held_out: Sequence[Ids], vocab_size: int) -> float:
    """Held-out loss per target token of the tokens' frequencies, one added to each."""
    counts = np.ones(vocab_size)
    np.add.at(counts, np.concatenate([ids for _, ids in train]), 1)
    return float(-np.log(counts / counts.sum())[np.concatenate([ids for _, ids in held_out])].mean())


def _hash(*parts: Sequence[Ids]) -> str:
    """A hash of all tokens."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps(part).encode())
    return digest.hexdigest()
