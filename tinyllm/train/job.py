"""What a run is about: its data, its model, what that is trained for, and how it is judged.

`tinyllm.train.run` does what all jobs have in common: the run folder, checkpoints, Ctrl-C, resuming, the log, the
picture of the loss. A job is made anew from the settings when a run is resumed: what it draws comes from their seed.
"""

from __future__ import annotations

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tinyllm.autograd.tensor import Tensor
from tinyllm.errors import CheckpointError, ConfigError
from tinyllm.models import from_pretrained
from tinyllm.nn import Module
from tinyllm.optim import AdamW, Muon, Together
from tinyllm.train.console import Console
from tinyllm.train.settings import Settings
from tinyllm.train.trainer import Batch, BatchSource, Model, Optimizer

#: What a run folder says of its task where that is not language modelling: ``task``, and what else the task needs.
TASK_FILE = "task.json"

# Where the job of each task is prepared: a module with ``prepare_job(settings, folder, console)``.
_HOMES = {
    "language-model": "tinyllm.train.language_model",
    **dict.fromkeys(
        (
            "translation",
            "summarisation",
            "word-problems",
            "sort",
            "copy",
            "reverse",
            "addition",
            "pronunciation",
            "dialogue",
        ),
        "tinyllm.tasks.job",
    ),
    "question-answering": "tinyllm.tasks.question_answering",
    "classification": "tinyllm.tasks.classification",
}


class Job(ABC):
    """Data, model, objective and judgement of one run.

    Attributes
    ----------
    settings : Settings
    model : Module
        What is saved: it has ``save_pretrained(folder)``, ``parameters()`` and ``num_parameters()``.
    objective : Model
        What is trained: ``loss(batch)`` over the model's parameters.
    fingerprint : str
        A hash of the data as the model meets them: resuming on other data would not be resuming.
    watched : str
        What the data of the evaluations during training are called.
    """

    settings: Settings
    model: Any
    objective: Model
    fingerprint: str
    watched: str = "held out"

    @abstractmethod
    def about(self) -> str:
        """The data in a line or a few, for the console."""

    @abstractmethod
    def count(self, batch: Batch) -> int:
        """Number of predictions in a batch, the weight of its loss in a mean."""

    @abstractmethod
    def batches(self) -> BatchSource:
        """What the model is trained on."""

    @abstractmethod
    def watched_batches(self) -> Iterable[Batch]:
        """What it is evaluated on while it is trained."""

    @abstractmethod
    def header(self, console: Console | None) -> dict[str, Any]:
        """The first record of the log.

        ``data``, ``model``, ``parameters``, ``baselines`` (name to what is to be beaten), ``watched`` and
        ``watched_baselines`` (name to loss: the lines of the picture) are there for every job.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what using the model needs beside its weights, such as the tokenizer; an OSError is the caller's."""

    def optimizer(self) -> Optimizer:
        """AdamW over all parameters, or Muon over the matrices of the blocks and AdamW over the rest.

        Biases and norms do not decay. Muon's steps are made as large as AdamW's, so that one rate serves both.
        """
        settings = self.settings
        matrices = matrices_of_blocks(self.model) if settings.optimizer == "muon" else []
        if settings.optimizer == "muon" and not matrices:
            raise ConfigError(f"muon moves the matrices of blocks, and {settings.model} has none: --optimizer adamw")
        moved = {id(p) for p in matrices}
        rest = [p for p in self.model.parameters() if id(p) not in moved]
        groups = [
            {"params": [p for p in rest if p.ndim >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ]
        adamw = AdamW([g for g in groups if g["params"]], lr=settings.lr, betas=(settings.beta1, settings.beta2))
        if not matrices:
            return adamw
        decay = settings.weight_decay
        return Together([adamw, Muon(matrices, settings.lr, decay, adjust_lr_fn="match_rms_adamw")])

    def begin(self, step: int) -> None:  # noqa: B027 - most jobs have nothing to do
        """Told of each step before it is made; a job may let other parameters learn from here on."""

    def load(self, folder: Path) -> None:
        """Take up the parameters of the model in a run folder."""
        saved = dict(from_pretrained(folder).named_parameters())
        for name, parameter in self.model.named_parameters():
            parameter.assign_(saved[name].numpy())
        self.model.eval()

    def pictures(self, folder: Path, result: dict[str, Any]) -> None:  # noqa: B027
        """Draw what the result shows besides the loss."""

    @abstractmethod
    def sample(self, step: int) -> str:
        """What the model writes after so many steps, for the log."""

    @abstractmethod
    def judge(self, baselines: dict[str, Any]) -> dict[str, Any]:
        """The model on the whole of the held-out data: ``data``, ``loss``, ``sample`` and whatever else is measured.

        `baselines` are those of the header.
        """


def matrices_of_blocks(model: Module) -> list[Tensor]:
    """The matrices in a row of like blocks, whose parameters have numbers in their names: no embeddings, no head."""
    named = model.named_parameters()
    return [p for name, p in named if p.ndim == 2 and any(part.isdigit() for part in name.split("."))]


def prepare_job(settings: Settings, folder: Path | None = None, console: Console | None = None) -> Job:
    """Read the data that the settings name, and make a new model for them.

    Parameters
    ----------
    settings : Settings
    folder : Path, optional
        The run folder of an earlier run, whose tokenizer is used; without it one is trained.
    console : Console, optional
        Where progress is shown.

    Raises
    ------
    TinyLLMError
        For data that cannot be used, and settings that do not fit them.
    """
    return importlib.import_module(_HOMES[settings.task]).prepare_job(settings, folder, console)


def task_of(folder: str | Path) -> dict[str, Any]:
    """What a run folder says of its task; nothing where it holds a language model, or one that was made elsewhere."""
    path = Path(folder) / TASK_FILE
    if not path.exists():
        return {}
    try:
        about = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if not isinstance(about, dict):
        raise CheckpointError(f"{path} is damaged: it should hold a JSON object")
    return about
