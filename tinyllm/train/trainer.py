"""The training loop, over anything that has `loss(batch)` and `named_parameters()`.

What happens in step t depends on the parameters, the optimiser's state and t alone: batches and dropout are functions
of (seed, t). So a checkpoint needs no generator's state, and a run that was killed and resumed repeats, bit by bit,
the one that was not.
"""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from tinyllm.autograd import Tensor, backward_steps, no_grad, random_scope
from tinyllm.autograd.ops import isfinite, zeros_like
from tinyllm.autograd.tape import gradients
from tinyllm.autograd.tensor import Array, Storage
from tinyllm.autograd.trace import first_nonfinite
from tinyllm.errors import CheckpointError, ConfigError, TinyLLMError
from tinyllm.optim.average import EMA
from tinyllm.optim.clip import clip_factor
from tinyllm.threads import blas_on_caller, each, get_num_threads
from tinyllm.train import checkpoint
from tinyllm.train.console import Console, clock
from tinyllm.train.sums import GradientSum

Batch = dict[str, np.ndarray]


class Model(Protocol):
    """What can be trained. Where it has `train()` and `eval()`, they are called around evaluations."""

    def loss(self, batch: Batch) -> Tensor:
        """The mean loss over the batch's predictions."""

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter with its name."""


class BatchSource(Protocol):
    """Where batches come from; `tinyllm.data.Batches` is one."""

    def at(self, step: int) -> Batch:
        """The batch of a step, the same one each time it is asked for. Axis 0 of each array is the sample."""


class Optimizer(Protocol):
    """What moves the parameters."""

    lr: float

    def step(self, scale: float = 1.0) -> None:
        """Move every parameter by its gradient times `scale`."""

    def zero_grad(self) -> None:
        """Forget all gradients."""

    def state_dict(self) -> dict[str, Any]:
        """All that it remembers."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember it again."""


class DivergedError(TinyLLMError, ArithmeticError):
    """The loss or its gradient became NaN or infinite."""


def next_tokens(batch: Batch) -> int:
    """Number of predictions in a batch of a language model: labels after the first that are not -100."""
    return int((batch["labels"][:, 1:] != -100).sum())


@dataclass
class Plan:
    """How to train: the part of the settings that the loop needs.

    Parameters
    ----------
    steps : int
        Optimiser steps in all.
    rate : callable
        From the step's number 0, 1, ... to its learning rate.
    clip : float
        Largest norm of the gradient; 0 for no limit.
    accumulate : int
        Pieces that each batch is cut into to save memory. Their gradients are added up to that of the whole batch.
    seed : int
        Of dropout.
    eval_every : int
        Steps between two evaluations. After each a checkpoint is written.
    patience : int
        Stop after so many evaluations without a new best one; 0 for never. The best parameters are then kept.
    count : callable
        Number of predictions in a batch, the weight of its loss in a mean.
    begin : callable
        Told of each step before it is made; it may change which parameters require a gradient.
    """

    steps: int
    rate: Callable[[int], float]
    clip: float = 0.0
    accumulate: int = 1
    seed: int = 0
    eval_every: int = 200
    patience: int = 0
    count: Callable[[Batch], int] = next_tokens
    begin: Callable[[int], None] = lambda step: None


@dataclass
class Progress:
    """Where a run stands: the part of a checkpoint that is neither parameters nor the optimiser's state."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_loss: float = math.inf
    best_step: int = 0
    stale: int = 0  # evaluations since the best one
    log_bytes: int = 0
    best: dict[str, np.ndarray] = field(default_factory=dict)


class Trainer:
    """Trains a model and keeps its checkpoint and log in a folder.

    The threads of `tinyllm.set_num_threads` share the work, and results are the same from run to run for the same
    number of them.

    Parameters
    ----------
    model : Model
    batches : BatchSource
    optimizer : Optimizer
        Over the model's parameters.
    plan : Plan
    folder : Path, optional
        Where ``checkpoint.safetensors`` and ``metrics.jsonl`` are kept; without it nothing is written.
    held_out : callable, optional
        Gives the batches of an evaluation; without it there is none.
    watched : str
        What those batches are called on the console.
    sample : callable, optional
        From the step's number to a text of the model, logged at each evaluation.
    extra : dict, optional
        What else the checkpoint is to hold; `Trainer.extra` after `resume`.
    saved : callable, optional
        Called with the folder after every checkpoint, to derive other files from it.
    console : Console, optional
        Where progress is shown.
    ema : EMA, optional
        An average of the parameters, which is then what is evaluated, kept as the best one, and left at the end.
    """

    def __init__(
        self,
        model: Model,
        batches: BatchSource,
        optimizer: Optimizer,
        plan: Plan,
        folder: Path | None = None,
        held_out: Callable[[], Iterable[Batch]] | None = None,
        watched: str = "held-out",
        sample: Callable[[int], str] | None = None,
        extra: dict[str, Any] | None = None,
        saved: Callable[[Path], None] | None = None,
        console: Console | None = None,
        ema: EMA | None = None,
    ) -> None:
        if min(plan.steps, plan.accumulate, plan.eval_every) < 1:
            raise ConfigError("steps, accumulate and eval_every must be at least 1")
        self.model, self.batches, self.optimizer, self.plan = model, batches, optimizer, plan
        self.folder, self.held_out, self.watched, self.sample, self.saved = folder, held_out, watched, sample, saved
        self.extra = extra or {}
        self.console = console
        self.ema = ema
        self.at = Progress()
        self.interrupted = False
        self._begun = False  # whether the checkpoint in the folder is this run's
        self._pace = _Pace()

    # -- the loop ------------------------------------------------------------------------------------------------------

    def run(self) -> Progress:
        """Train up to the plan's last step, an early stop, or Ctrl-C (`interrupted` is then true).

        Raises
        ------
        DivergedError
            If the loss or the gradient is no longer finite; the parameters are those before that step, and the last
            checkpoint is kept.
        CheckpointError
            If the folder cannot be written, holds another run, or its log is shorter than at the checkpoint.
        """
        if self.folder:
            if not self._begun and (self.folder / checkpoint.FILE).exists():
                raise CheckpointError(f"{self.folder} holds a run already: resume it, or choose another folder")
            self._cut_log()
        _set_mode(self.model, training=True)
        with self._finish_step_on_interrupt(), blas_on_caller():
            if self.at.step == 0 and math.isinf(self.at.best_loss):
                self._evaluate_and_save()
            while self.at.step < self.plan.steps and not self.stopped_early and not self.interrupted:
                self.step()
                if self.at.step % self.plan.eval_every == 0 or self.at.step == self.plan.steps:
                    self._evaluate_and_save()
                elif self.interrupted:
                    self.save()
        self.interrupted = self.interrupted and not self.finished
        return self.at

    @property
    def stopped_early(self) -> bool:
        """Whether patience ran out."""
        return 0 < self.plan.patience <= self.at.stale

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self.at.step >= self.plan.steps or self.stopped_early

    def step(self) -> None:
        """One optimiser step: the batch, its gradient, the clip, the move of the parameters, the log."""
        begin = time.perf_counter()
        self.plan.begin(self.at.step)
        batch = self.batches.at(self.at.step)
        rate = self.plan.rate(self.at.step)
        loss, norm = self._gradient(batch)
        self.optimizer.lr = rate
        self.optimizer.step(clip_factor(norm, self.plan.clip or math.inf))
        self.optimizer.zero_grad()  # memory for the next step
        if self.ema:
            self.ema.update()
        tokens = self.plan.count(batch)
        seconds = time.perf_counter() - begin
        self.at.step += 1
        self.at.tokens += tokens
        self.at.seconds += seconds
        self._pace.add(tokens, seconds)
        so_far = round(self.at.seconds, 3)
        self._log({"step": self.at.step, "loss": loss, "lr": rate, "grad_norm": norm, "seconds": so_far})
        if self.console:
            left = clock((self.plan.steps - self.at.step) * self._pace.seconds_per_step)
            self.console.progress(
                f"step {self.at.step:,}/{self.plan.steps:,}  loss {loss:.4f}  "
                f"{self._pace.tokens_per_second:,.0f} tokens/s  {left} left"
            )

    def _gradient(self, batch: Batch) -> tuple[float, float]:
        """Leave the gradient of the batch's mean loss in the parameters; return the loss and the gradient's norm."""
        parameters = [p for _, p in self.model.named_parameters() if p.requires_grad]
        predictions = self.plan.count(batch)
        threads = get_num_threads() if all(p.device == "cpu" for p in parameters) else 1
        shares = shards(predictions, sum(p.size for p in parameters), threads)

        def of_piece(piece: tuple[int, Batch]) -> tuple[float, list[Array | None]]:
            with np.errstate(all="ignore"):  # what is not finite is noticed, and named better than NumPy would
                loss = self._loss(*piece)
                value = loss.item()
                if not math.isfinite(value):
                    raise DivergedError(self._report("loss", value, _first_bad_value(loss)))
                share = self.plan.count(piece[1]) / predictions
                found = gradients(loss, parameters, zeros_like(loss) + share, release=True)
                return share * value, [None if g is None else g._storage.array for g in found]

        self.optimizer.zero_grad()
        total, gradient = 0.0, GradientSum()
        for chunk in self._pieces(0, batch, self.plan.accumulate):
            for value, found in each(of_piece, self._pieces(*chunk, shares)):  # in order, whoever is done first
                total += value
                gradient.add(found)
        norm = gradient.norm()
        if not math.isfinite(norm):
            # The same step once more, one node at a time, finds the culprit.
            raise DivergedError(self._report("gradient's norm", norm, self._first_bad_gradient(batch)))
        for p, g in zip(parameters, gradient.total, strict=True):
            p.grad = None if g is None else Tensor._wrap(Storage(g))
        return total, norm

    def _pieces(self, place: int, batch: Batch, n: int) -> Iterator[tuple[int, Batch]]:
        """The batch cut along axis 0: each piece that predicts anything, with the place of its first sample.

        `place` is that of the batch's own first sample.
        """
        rows = len(next(iter(batch.values())))
        for part in np.array_split(np.arange(rows), min(rows, n)):
            piece = {name: array[part[0] : part[-1] + 1] for name, array in batch.items()}
            if self.plan.count(piece):
                yield place + int(part[0]), piece

    def _loss(self, place: int, piece: Batch) -> Tensor:
        # Keys by the sample's place in the whole batch: dropout is the same however the batch is cut.
        with random_scope(self.plan.seed, self.at.step, place):
            return self.model.loss(piece)

    def _first_bad_gradient(self, batch: Batch) -> str:
        with np.errstate(all="ignore"):
            for place, piece in self._pieces(0, batch, self.plan.accumulate):
                for step in backward_steps(self._loss(place, piece)):
                    if any(g is not None and not isfinite(g).data.all() for g in step.in_grads):
                        return f"the derivative of {step.node.op.name!r} (node {step.node.seq}) first made it"
        return "each derivative is finite, but not their sum of squares"

    def _report(self, what: str, value: float, culprit: str) -> str:
        kept = f"; the last good checkpoint is {self.folder / checkpoint.FILE}" if self.folder else ""
        return (
            f"the {what} became {value} at step {self.at.step + 1}: {culprit}{kept}; "
            f"a lower lr, a longer warmup or a smaller clip usually helps"
        )

    # -- evaluation ----------------------------------------------------------------------------------------------------

    def _evaluate_and_save(self) -> None:
        if self.held_out:
            with self._averaged():
                self._evaluate(self.held_out())
        self.save()

    def _evaluate(self, batches: Iterable[Batch]) -> None:
        loss = mean_loss(self.model, batches, self.plan.count)
        if not math.isfinite(loss):
            raise DivergedError(
                self._report(f"{self.watched} loss", loss, "the update before it spoilt the parameters")
            )
        if loss < self.at.best_loss:
            self.at.best_loss, self.at.best_step, self.at.stale = loss, self.at.step, 0
            if self.plan.patience:
                self.at.best = self._parameters()
        else:
            self.at.stale += 1
        record: dict[str, Any] = {"step": self.at.step, "held_out": loss}
        if self.sample:
            _set_mode(self.model, training=False)
            record["sample"] = self.sample(self.at.step)
            _set_mode(self.model, training=True)
        self._log(record)
        if self.console:
            self.console.say(f"step {self.at.step:,}  {self.watched} loss {loss:.4f}")

    def _averaged(self) -> AbstractContextManager[None]:
        """Within it, the parameters are their average, where one is kept."""
        return self.ema.applied() if self.ema else nullcontext()

    def use_best(self) -> None:
        """Put the best parameters in place, if early stopping kept any; else the averaged ones, if there are such."""
        if self.ema:
            self.ema.apply()
        for name, p in self.model.named_parameters():
            if name in self.at.best:
                p.assign_(self.at.best[name])

    # -- saving and resuming -------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the checkpoint, if there is a folder."""
        if self.folder:
            state = {
                "parameters": self._parameters(),
                "optimizer": self.optimizer.state_dict(),
                "progress": vars(self.at),
                "extra": self.extra,
            }
            if self.ema:
                state["ema"] = self.ema.state_dict()
            with _log_file(self.folder) as log:
                os.fsync(log.fileno())  # a checkpoint never knows more than the log
            checkpoint.save(self.folder / checkpoint.FILE, state)
            self._begun = True
            if self.saved:
                with self._averaged():
                    self.saved(self.folder)

    def resume(self, state: dict[str, Any]) -> None:
        """Take up a state read by `checkpoint.load`; `run` then cuts off what was logged after it.

        Raises
        ------
        CheckpointError
            If the state is another model's.
        """
        parameters = dict(self.model.named_parameters())
        saved = state["parameters"]
        here = {name: p.shape for name, p in parameters.items()}
        there = {name: array.shape for name, array in saved.items()}
        different = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
        if different:
            raise CheckpointError(f"the checkpoint is another model's: {', '.join(different[:5])} differ")
        if self.ema and "ema" not in state:
            raise CheckpointError("the checkpoint has no averaged parameters: the run that wrote it kept none")
        self.at = Progress(**state["progress"])
        self.extra = state["extra"]
        for name, p in parameters.items():
            p.assign_(saved[name])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        self._begun = True

    def _parameters(self) -> dict[str, np.ndarray]:
        return {name: p.numpy() for name, p in self.model.named_parameters()}

    def _cut_log(self) -> None:
        """Bring the log back to the length it had at the checkpoint."""
        assert self.folder
        log = self.folder / LOG
        size = log.stat().st_size if log.exists() else 0
        if size < self.at.log_bytes:
            raise CheckpointError(
                f"{log} has {size:,} bytes, and had {self.at.log_bytes:,} when the checkpoint was written: put it back"
            )
        with _log_file(self.folder) as file:
            file.truncate(self.at.log_bytes)

    def _log(self, record: dict[str, Any]) -> None:
        if self.folder:
            self.at.log_bytes += append_log(self.folder, record)

    @contextmanager
    def _finish_step_on_interrupt(self) -> Iterator[None]:
        """Within it, the first Ctrl-C asks the loop to stop after the step; a second one is a KeyboardInterrupt."""
        if threading.current_thread() is not threading.main_thread():
            yield  # signals arrive in the main thread alone
            return

        def ask(number: int, frame: Any) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True
            if self.console:
                self.console.say("finishing this step, then saving; Ctrl-C again leaves at once")

        before = signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def shards(predictions: int, parameters: int, threads: int) -> int:
    """Into how many pieces a batch is cut, each computed by a thread of its own: one for each thread, or a single one.

    Pieces meet once in a step, but each brings a gradient of all parameters, which is written and added (some 4 ns per
    parameter). Within a single piece the threads share every operation, and meet some 30 us at each. Measured on two
    threads: pieces are 1.0 to 1.1 times as fast for 0.8 M parameters and 756 predictions, and for 11 M and 2,040; a
    single piece is 1.5 times as fast for 0.1 M and 248, 1.4 times for 11 M and 126, 1.15 times for 53 M and 252.
    """
    return threads if predictions >= 256 * threads and parameters <= 16_384 * predictions else 1


LOG = "metrics.jsonl"


def append_log(folder: Path, record: dict[str, Any]) -> int:
    """Append a line to the log of a run and return its length in bytes."""
    line = (json.dumps(record, ensure_ascii=False) + "\n").encode()
    with _log_file(folder) as file:
        file.write(line)
    return len(line)


@contextmanager
def _log_file(folder: Path) -> Iterator[BinaryIO]:
    """The log, open for appending; a failure of the disk is a CheckpointError."""
    try:
        with (folder / LOG).open("ab") as file:
            yield file
    except OSError as error:
        raise CheckpointError(f"{folder / LOG}: cannot be written: {error.strerror or error}") from error


def mean_loss(model: Model, batches: Iterable[Batch], count: Callable[[Batch], int] = next_tokens) -> float:
    """Mean loss over all predictions, without dropout and without a tape; the model is in training mode afterwards."""

    def summed(batch: Batch) -> tuple[float, int]:
        n = count(batch)
        with no_grad(), np.errstate(all="ignore"):
            return n * model.loss(batch).item(), n

    _set_mode(model, training=False)
    sums = each(summed, batches)
    _set_mode(model, training=True)
    return sum(total for total, _ in sums) / sum(n for _, n in sums)


def _set_mode(model: Model, training: bool) -> None:
    switch = getattr(model, "train" if training else "eval", None)
    if switch:
        switch()


def _first_bad_value(loss: Tensor) -> str:
    node = first_nonfinite(loss)
    if node is None:
        return "a parameter or an input was not finite"
    return f"{node.op.name!r} (node {node.seq} of the tape) first made it"


class _Pace:
    """Speed over the last steps; the first one is left out where there are others, because it compiles kernels."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, float]] = []

    def add(self, tokens: int, seconds: float) -> None:
        if len(self._steps) == 1 and seconds < 0.5 * self._steps[0][1]:
            self._steps.clear()
        self._steps = [*self._steps[-49:], (tokens, seconds)]

    @property
    def seconds_per_step(self) -> float:
        return sum(seconds for _, seconds in self._steps) / len(self._steps)

    @property
    def tokens_per_second(self) -> float:
        return sum(tokens for tokens, _ in self._steps) / sum(seconds for _, seconds in self._steps)
