"""Distillation: a small model learns what a large one thinks of every token, not the right token alone.

The student's loss is (1 - w) times its cross-entropy with the labels, plus w tau^2 times that with the teacher's
probabilities, both sides' logits divided by the temperature tau. A high temperature shows which wrong tokens the
teacher finds nearly right; tau^2 keeps the gradient's size, which falls with 1 / tau^2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tinyllm.autograd import Tensor, no_grad
from tinyllm.autograd.fused import cross_entropy
from tinyllm.errors import ConfigError
from tinyllm.models import from_pretrained
from tinyllm.models.folder import WEIGHTS
from tinyllm.text import Tokenizer, load_tokenizer
from tinyllm.train import checkpoint
from tinyllm.train.families import make_objective
from tinyllm.train.settings import Settings
from tinyllm.train.trainer import Batch

_IGNORED = -100


class Scoring(Protocol):
    """An objective whose scores can be had."""

    model: Any

    def loss(self, batch: Batch) -> Tensor:
        """The mean cross-entropy with the labels."""

    def logits(self, batch: Batch) -> tuple[Tensor, np.ndarray]:
        """The scores (B, T, V) and the labels (B, T)."""

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The model's."""

    def train(self) -> None:
        """Dropout works."""

    def eval(self) -> None:
        """Dropout does nothing."""


class Distilled:
    """An objective that also learns from a teacher; evaluated, it is the objective alone, so that losses compare.

    Parameters
    ----------
    student, teacher : Scoring
        The same objective of two models with one vocabulary; the teacher's parameters stay as they are.
    temperature : float
        tau, above 0.
    weight : float
        w, from 0 to 1: how much the teacher counts against the labels.

    Raises
    ------
    ConfigError
        For models with different vocabularies.

    Notes
    -----
    Source: Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", section 2.
    """

    def __init__(self, student: Scoring, teacher: Scoring, temperature: float, weight: float) -> None:
        sizes = [vocabulary(one.model) for one in (student, teacher)]
        if sizes[0] != sizes[1]:
            raise ConfigError(
                f"the student has {sizes[0]} tokens and the teacher {sizes[1]}: a student needs the teacher's tokenizer"
            )
        self.student, self.teacher, self.model = student, teacher, student.model
        self.temperature, self.weight = temperature, weight
        self._training = True
        teacher.eval()

    def loss(self, batch: Batch) -> Tensor:
        """The mixture of both losses in training, the labels' alone in evaluation."""
        if not self._training:
            return self.student.loss(batch)
        logits, labels = self.student.logits(batch)
        with no_grad():
            thoughts, _ = self.teacher.logits(batch)
        predicted = labels != _IGNORED  # (B, T)
        tau = self.temperature
        soft = softmax(thoughts.numpy()[predicted] / tau)  # (N, V)
        told = cross_entropy(logits, labels, ignore_index=_IGNORED)
        shown = cross_entropy(logits[predicted] / tau, soft) * tau**2
        return (1 - self.weight) * told + self.weight * shown

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The student's: the teacher does not learn."""
        return self.student.named_parameters()

    def train(self) -> None:
        """The student's dropout works, and the teacher is asked."""
        self._training = True
        self.student.train()

    def eval(self) -> None:
        """The student alone, without dropout."""
        self._training = False
        self.student.eval()


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def vocabulary(model: Any) -> int:
    """The number of tokens that a model scores."""
    config = model.config
    return getattr(config, "vocab_size", None) or config.tgt_vocab_size


def taught(student: Scoring, settings: Settings, tokenizer: Tokenizer) -> Scoring | Distilled:
    """What the settings train: the student's objective, with the teacher's beside it where they name one.

    Raises
    ------
    ConfigError
        For a student whose loss is not that of its next tokens alone, and a teacher that cannot read as much.
    """
    if not settings.teacher:
        return student
    if settings.model == "mixtral" or not hasattr(student, "logits"):
        raise ConfigError(
            f"a {settings.model} cannot be taught: its loss is not the cross-entropy of next tokens alone, and what "
            "else is in it would be lost"
        )
    model = from_pretrained(settings.teacher)
    context = getattr(model, "context_length", None)
    if context is not None and context < settings.block_size:
        raise ConfigError(
            f"the teacher reads {context} tokens at most, and the student would read {settings.block_size}: lower "
            "block_size"
        )
    teacher = make_objective(model, tokenizer, settings)
    return Distilled(student, teacher, settings.distill_temperature, settings.distill_weight)


def tokenizer_for(settings: Settings, folder: Path | None) -> Tokenizer | None:
    """That of the run folder or of the teacher; None where a new one is to be trained."""
    place = folder or settings.teacher
    return load_tokenizer(place) if place else None


def fingerprint(settings: Settings, data: str) -> str:
    """The hash of the data, with that of the teacher's weights where there is one: another would make another run."""
    if not settings.teacher:
        return data
    weights = (Path(settings.teacher) / WEIGHTS).read_bytes()
    return f"{data} {hashlib.sha256(weights).hexdigest()}"


def student_settings(folder: str | Path, changed: Mapping[str, Any]) -> Settings:
    """The settings of a run's student: its own, with half the channels and half the layers, and what is changed.

    Raises
    ------
    CheckpointError
        For a folder that holds no run.
    """
    settings = checkpoint.load(Path(folder) / checkpoint.FILE)["extra"]["settings"]
    n_embd = max(settings["n_head"], settings["n_embd"] // 2 // settings["n_head"] * settings["n_head"])
    smaller = {"n_embd": n_embd, "n_layer": max(1, settings["n_layer"] // 2), "teacher": str(folder)}
    return Settings.make(settings, smaller, changed)
