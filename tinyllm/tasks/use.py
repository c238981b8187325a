"""What is done with the run of a task afterwards: asking it, and judging it anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyllm.errors import ConfigError
from tinyllm.generation import Generation, generate
from tinyllm.models import BERTForQuestionAnswering, from_pretrained
from tinyllm.tasks.scripts import scripts
from tinyllm.tasks.spans import mark
from tinyllm.tasks.tokens import encode_source
from tinyllm.tasks.write import until_end
from tinyllm.text import Tokenizer, load_tokenizer
from tinyllm.text.wordpiece import WordPiece
from tinyllm.train import checkpoint
from tinyllm.train.console import Console
from tinyllm.train.job import prepare_job, task_of
from tinyllm.train.settings import Settings


@dataclass(frozen=True)
class Candidate:
    """A text that was written about a source, its tokens, and its log-probability per token."""

    text: str
    ids: list[int]
    score: float


@dataclass(frozen=True)
class Reader:
    """A model of two texts with its tokenizer, and what its folder says of its task.

    Attributes
    ----------
    task : str
        "" for a model that was not trained here.
    known : set of str
        The scripts of the sources that it was trained on; empty where the folder does not tell.
    """

    model: Any
    tokenizer: Tokenizer
    task: str
    known: frozenset[str]

    @classmethod
    def open(cls, folder: str | Path) -> Reader:
        """Read a run folder, or a folder with an encoder-decoder from elsewhere.

        Raises
        ------
        CheckpointError, ConfigError, TokenizerError
            For a folder that is missing or damaged, or holds a model of another kind.
        """
        model, about = from_pretrained(folder).eval(), task_of(folder)
        if not hasattr(model, "encode"):
            raise ConfigError(
                f"{folder} holds a {type(model).__name__}, which does not turn one text into another: "
                f"try `tinyllm generate {folder}`"
            )
        return cls(model, load_tokenizer(folder), about.get("task", ""), frozenset(about.get("scripts", ())))

    def ids(self, text: str) -> np.ndarray:
        """The source in tokens (1, S).

        Raises
        ------
        ConfigError
            For a text that is empty, longer than the model, or in a script that it has never seen.
        """
        if not text.strip():
            raise ConfigError("the text is empty: there is nothing to turn into another one")
        foreign = scripts(text) - self.known
        if self.known and foreign and not scripts(text) & self.known:
            raise ConfigError(
                f"the text is in a script that this model has never seen ({', '.join(sorted(foreign))}); it knows "
                f"{', '.join(sorted(self.known))}"
            )
        ids, limit = encode_source(self.tokenizer, text), self.model.context_length
        if limit is not None and len(ids) > limit:
            raise ConfigError(f"the text has {len(ids)} tokens, and the model reads {limit} at most: cut it")
        return np.array([ids], dtype=np.int64)

    def most(self, wanted: int) -> int:
        """So many new tokens, or as many as the model has positions for after the start token."""
        limit = self.model.context_length
        return wanted if limit is None else min(wanted, limit - 1)

    def candidates(self, text: str, num_beams: int = 5, n_best: int = 1, most: int = 64) -> list[Candidate]:
        """The best texts that a beam search finds about a source, the best first.

        Parameters
        ----------
        text : str
        num_beams : int
            1 takes the likeliest token at each step.
        n_best : int
            At most `num_beams`.
        most : int
            The most tokens of each.
        """
        if not 1 <= n_best <= num_beams:
            raise ConfigError(f"n_best is from 1 to the number of beams, {num_beams}; got {n_best}")
        found: Generation = generate(
            self.model,
            self.ids(text),
            max_new_tokens=self.most(most),
            num_beams=num_beams,
            num_return_sequences=n_best,
            details=True,
        )
        candidates = []
        for row, logprobs in zip(found.ids.tolist(), found.logprobs, strict=True):
            ids = until_end(row[1:], self.model.config.eos_token_id)  # without the start token
            n = min(len(ids) + 1, len(logprobs))  # and the end token's probability counts
            candidates.append(Candidate(self.tokenizer.decode(ids), ids, float(logprobs[:n].mean())))
        return candidates


def answer(folder: str | Path, question: str, text: str) -> tuple[str, float]:
    """The part of a text that answers a question, and its score, by a model that marks answers.

    Raises
    ------
    ConfigError
        For a model of another kind, or an empty text or question.
    """
    model, tokenizer = from_pretrained(folder), load_tokenizer(folder)
    if not isinstance(model, BERTForQuestionAnswering) or not isinstance(tokenizer, WordPiece):
        raise ConfigError(
            f"{folder} holds a {type(model).__name__} with a {type(tokenizer).__name__}: answers are marked by a "
            "BERTForQuestionAnswering with a WordPiece, such as `tinyllm train --task question-answering` leaves"
        )
    if not question.strip() or not text.strip():
        raise ConfigError("neither the question nor the text may be empty")
    return mark(model.eval(), tokenizer, question, text)


def evaluate(folder: str | Path, data: str | None = None, console: Console | None = None) -> dict[str, Any]:
    """The loss and the metrics of a run on its held-out pairs, or on those held out of other data.

    Returns
    -------
    dict
        ``loss``, ``metrics``, ``baselines``, ``sources``, ``data``, ``sample``.
    """
    folder = Path(folder)
    state = checkpoint.load(folder / checkpoint.FILE)
    settings = Settings.make(state["extra"]["settings"], {} if data is None else {"data": data, "target": ""})
    job = prepare_job(settings, folder, console)
    job.load(folder)
    if console:
        console.say(job.about())
    baselines = job.header(console)["baselines"]
    return {"run": str(folder), "task": settings.task, **job.judge(baselines), "baselines": baselines}
