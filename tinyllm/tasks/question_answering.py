"""The job of answering questions about a text: BERT marks the first and the last token of the answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyllm.autograd import Tensor
from tinyllm.errors import ConfigError, DataError, nearest
from tinyllm.metrics import exact_match, token_f1
from tinyllm.models import BERTConfig, BERTForQuestionAnswering
from tinyllm.safetensors import replacing
from tinyllm.tasks.pairs import split_units
from tinyllm.tasks.questions import Question, from_squad, from_stdlib
from tinyllm.tasks.sentences import sentences
from tinyllm.tasks.spans import Window, collate, mark, windows
from tinyllm.text import load_tokenizer, word_tokenize
from tinyllm.text.wordpiece import WordPiece
from tinyllm.train.console import Console
from tinyllm.train.job import TASK_FILE, Job
from tinyllm.train.settings import Settings
from tinyllm.train.task import Wrapped
from tinyllm.train.trainer import Batch, mean_loss

_EMBEDDED: dict[str, Callable[[], list[Question]]] = {"stdlib-questions": from_stdlib}
_EXAMPLES = 5

#: A window that holds the answer, and the places of its first and last token.
Marked = tuple[Window, int, int]


def prepare_job(settings: Settings, folder: Path | None = None, console: Console | None = None) -> QuestionJob:
    """Read and divide the questions, train a tokenizer unless the folder has one, make the model."""
    if settings.model != "bert":
        raise ConfigError(f"answers are marked in a text by model 'bert', not {settings.model!r}")
    if settings.teacher or settings.patience:
        raise ConfigError("question-answering knows neither a teacher nor patience")
    if console:
        console.progress("reading the questions")
    return QuestionJob(settings, folder)


class SpanObjective(Wrapped):
    """BERT with the mean cross-entropy of an answer's first and last place (Devlin et al. 2019, section 4.2)."""

    def loss(self, batch: Batch) -> Tensor:
        """Mean over questions, and over both places."""
        return self.model(**batch).loss


class SpanBatches:
    """Random windows that hold an answer; batch number `step` is a function of (seed, step) alone."""

    def __init__(self, rows: Sequence[Marked], batch_size: int, seed: int, pad: int) -> None:
        self.rows, self.batch_size, self.seed, self.pad = rows, batch_size, seed, pad

    def at(self, step: int) -> Batch:
        """Batch number `step`."""
        words = np.random.Philox(key=np.array([self.seed, step], dtype=np.uint64)).random_raw(self.batch_size)
        return together([self.rows[i] for i in words % np.uint64(len(self.rows))], self.pad)


def together(rows: Sequence[Marked], pad: int) -> Batch:
    """A batch with ``start_positions`` and ``end_positions`` (B,)."""
    places = np.array([(start, end) for _, start, end in rows], dtype=np.int64)
    return {**collate([row for row, _, _ in rows], pad), "start_positions": places[:, 0], "end_positions": places[:, 1]}


class QuestionJob(Job):
    """A new BERT with a head that marks answers, and the questions that it is trained on.

    Parameters
    ----------
    settings : Settings
    folder : Path, optional
        Of an earlier run, whose tokenizer is used.

    Raises
    ------
    DataError
        For questions that cannot be used.
    """

    def __init__(self, settings: Settings, folder: Path | None = None) -> None:
        self.settings = settings
        self.questions = read(settings)
        self.train, self.held_out = split_units(
            self.questions, lambda question: question.group, settings.held_out, settings.seed
        )
        texts = dict.fromkeys(text for question in self.train for text in (question.question, question.text))
        found = load_tokenizer(folder) if folder else WordPiece.train(texts, vocab_size=settings.vocab_size)
        if not isinstance(found, WordPiece):
            raise ConfigError(f"{folder}: question-answering needs a WordPiece tokenizer, got {type(found).__name__}")
        self.tokenizer = found
        self._train_rows = self._marked(self.train)
        self._held_out_rows = self._marked(self.held_out)
        if not self._train_rows or not self._held_out_rows:
            raise DataError(f"no answer fits into a window of {settings.block_size} tokens: raise block_size")
        config = BERTConfig(
            vocab_size=self.tokenizer.vocab_size,
            hidden_size=settings.n_embd,
            num_hidden_layers=settings.n_layer,
            num_attention_heads=settings.n_head,
            intermediate_size=4 * settings.n_embd,
            hidden_dropout_prob=settings.dropout,
            attention_probs_dropout_prob=settings.dropout,
            max_position_embeddings=settings.block_size,
            initializer_range=settings.init_std,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        self.model = BERTForQuestionAnswering(config, rng=np.random.default_rng(settings.seed))
        self.model.to(settings.device)
        self.objective = SpanObjective(self.model)
        parts = [
            [(row.ids, start, end) for row, start, end in rows] for rows in (self._train_rows, self._held_out_rows)
        ]
        self.fingerprint = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        self._pad = self.model.config.pad_token_id

    def about(self) -> str:
        """The questions and their parts."""
        return (
            f"{self.settings.data}: {len(self.questions):,} questions\n"
            f"training: {len(self.train):,} in {len(self._train_rows):,} windows; held out: {len(self.held_out):,}"
        )

    def count(self, batch: Batch) -> int:
        """Questions."""
        return len(batch["input_ids"])

    def batches(self) -> SpanBatches:
        """Random windows with an answer."""
        return SpanBatches(self._train_rows, self.settings.batch_size, self.settings.seed, self._pad)

    def watched_batches(self) -> Iterator[Batch]:
        """Some of the held-out windows, spread evenly."""
        n = min(self.settings.eval_windows, len(self._held_out_rows))
        yield from self._all([self._held_out_rows[i * len(self._held_out_rows) // n] for i in range(n)])

    def header(self, console: Console | None) -> dict[str, Any]:
        """The data, the model, and what simpler methods answer."""
        asked = self.asked()
        return {
            "data": self.settings.data,
            "model": type(self.model).__name__,
            "parameters": self.model.num_parameters(),
            "vocab_size": self.tokenizer.vocab_size,
            "baselines": {
                "first line": measure([_lines(q.text)[0] for q in asked], asked),
                "line with most words of the question": measure([nearest_line(q) for q in asked], asked),
            },
            "watched": self.watched,
            "watched_baselines": {"uniform": float(np.log([len(row.ids) for row, _, _ in self._held_out_rows]).mean())},
        }

    def save(self, folder: Path) -> None:
        """Write the tokenizer and the task."""
        self.tokenizer.save(folder)
        with replacing(folder / TASK_FILE) as file:
            file.write((json.dumps({"task": self.settings.task}) + "\n").encode())

    def sample(self, step: int) -> str:
        """A few held-out questions with their answers."""
        return self._examples(self.asked(_EXAMPLES))

    def judge(self, baselines: dict[str, Any]) -> dict[str, Any]:
        """The loss of all held-out windows, and how well the answers to some of the questions agree."""
        asked = self.asked()
        answers = [mark(self.model, self.tokenizer, q.question, q.text)[0] for q in asked]
        return {
            "data": self.settings.data,
            "loss": mean_loss(self.objective, self._all(self._held_out_rows), self.count),
            "sources": len(asked),
            "metrics": measure(answers, asked),
            "lowest_is_best": False,
            "sample": self._examples(asked[:: max(1, len(asked) // _EXAMPLES)][:_EXAMPLES]),
        }

    def asked(self, limit: int | None = None) -> list[Question]:
        """Held-out questions, spread evenly."""
        n = min(limit or self.settings.eval_windows, len(self.held_out))
        return [self.held_out[i * len(self.held_out) // n] for i in range(n)]

    def _examples(self, asked: Sequence[Question]) -> str:
        lines = []
        for q in asked:
            answer, _ = mark(self.model, self.tokenizer, q.question, q.text)
            lines.append(f"{q.question}\n  -> {answer}\n  == {q.answers[0]}")
        return "\n".join(lines)

    def _marked(self, questions: Sequence[Question]) -> list[Marked]:
        """The first window of each question that holds its first answer."""
        rows = []
        for q in questions:
            for window in windows(self.tokenizer, q.question, q.text, self.settings.block_size):
                place = window.place(q.starts[0], q.starts[0] + len(q.answers[0]))
                if place:
                    rows.append((window, *place))
                    break
        return rows

    def _all(self, rows: Sequence[Marked]) -> Iterator[Batch]:
        size = self.settings.batch_size
        ordered = sorted(rows, key=lambda row: len(row[0].ids))
        for i in range(0, len(ordered), size):
            yield together(ordered[i : i + size], self._pad)


def read(settings: Settings) -> list[Question]:
    """The questions that the settings name: embedded ones, or a file of SQuAD's form."""
    if settings.data in _EMBEDDED:
        return _EMBEDDED[settings.data]()
    if not Path(settings.data).is_file():
        raise DataError(f"no file and no embedded data are called {settings.data!r}{nearest(settings.data, _EMBEDDED)}")
    return from_squad(Path(settings.data))


def measure(answers: Sequence[str], asked: Sequence[Question]) -> dict[str, float]:
    """Exact match and token F1 by SQuAD's rules, in percent."""
    known = [q.answers for q in asked]
    return {"exact %": 100 * exact_match(answers, known), "F1 %": 100 * token_f1(answers, known)}


def nearest_line(question: Question) -> str:
    """The line (or sentence) of the text that shares most words with the question."""
    words = set(word_tokenize(question.question.lower()))
    return max(_lines(question.text), key=lambda line: len(words & set(word_tokenize(line.lower()))))


def _lines(text: str) -> list[str]:
    return text.split("\n") if "\n" in text else sentences(text)
