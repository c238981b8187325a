"""Layers one after the other, and how they are trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinyllm import nn
from tinyllm.autograd import Tensor, no_grad
from tinyllm.autograd.fused import softmax
from tinyllm.errors import ConfigError, DataError, nearest
from tinyllm.keras import losses, optimizers
from tinyllm.keras.layers import Dense, Layer
from tinyllm.train import Console, Plan, Trainer

METRICS = ("accuracy",)


@dataclass
class History:
    """What `fit` has measured.

    Attributes
    ----------
    history : dict of str to list of float
        A number for each epoch: ``loss`` and ``accuracy``, and ``val_loss`` and ``val_accuracy``.
    """

    history: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **measured: float) -> None:
        """The figures of one more epoch."""
        for name, value in measured.items():
            self.history.setdefault(name, []).append(value)


class Sequential(nn.Module):
    """``Sequential([Embedding(V, C), LSTM(H, return_sequences=True), Dense(V, activation="softmax")])``.

    Parameters
    ----------
    layers : sequence of Layer
        From `tinyllm.keras.layers`. They are built when the first data come.
    seed : int
        Of the first weights, the order of the samples, and dropout.

    Raises
    ------
    ConfigError
        If something else than a layer is among them, or there are none.
    """

    def __init__(self, layers: Sequence[Layer], seed: int = 0) -> None:
        for layer in layers:
            if not isinstance(layer, Layer):
                raise ConfigError(f"a Sequential is made of layers of tinyllm.keras.layers, got {layer!r}")
        if not layers:
            raise ConfigError("a Sequential needs at least one layer")
        self.layers, self.seed = list(layers), seed
        self._loss: losses.Loss | None = None
        self._optimizer: Any = None
        self._accuracy = False
        self._steps = 0

    # -- what it computes ----------------------------------------------------------------------------------------------

    def build(self, x: np.ndarray) -> None:
        """Make the weights, of the sizes that these data lead to."""
        rng = np.random.default_rng(self.seed)
        y: Any = x[:1]
        with no_grad():
            for layer in self.layers:
                if layer.module is None:
                    layer.module = layer.build(y.shape[-1], rng)
                y = layer(y)

    def scores(self, x: ArrayLike) -> Tensor:
        """What the last layer gives before its softmax, if it has one."""
        y: Any = np.asarray(x)
        if any(layer.module is None for layer in self.layers):
            self.build(y)
        for layer in self.layers:
            y = layer(y)
        return y

    @property
    def _ends_in_softmax(self) -> bool:
        last = self.layers[-1]
        return isinstance(last, Dense) and last.activation == "softmax"

    def forward(self, x: ArrayLike) -> Tensor:
        """What the last layer gives."""
        y = self.scores(x)
        return softmax(y) if self._ends_in_softmax else y

    # -- training ------------------------------------------------------------------------------------------------------

    def compile(
        self,
        optimizer: str | optimizers.Adam | optimizers.SGD = "adam",
        loss: str | losses.Loss = "sparse_categorical_crossentropy",
        metrics: Sequence[str] = (),
    ) -> None:
        """Choose optimiser, loss and metrics, by name or as objects.

        Raises
        ------
        ConfigError
            For a name that does not exist.
        """
        for name in metrics:
            if name not in METRICS:
                raise ConfigError(f"unknown metric {name!r}{nearest(str(name), METRICS)}")
        self._loss, self._accuracy = losses.get(loss), "accuracy" in metrics
        self._maker, self._optimizer = optimizers.get(optimizer), None

    def fit(
        self,
        x: ArrayLike,
        y: ArrayLike,
        batch_size: int = 32,
        epochs: int = 1,
        verbose: int = 1,
        validation_split: float = 0.0,
        validation_data: tuple[ArrayLike, ArrayLike] | None = None,
        shuffle: bool = True,
    ) -> History:
        """Train for some passes over the data.

        Parameters
        ----------
        x, y : arrays (N, ...)
            Samples and targets.
        batch_size, epochs : int
        verbose : int
            1 prints a line for each epoch, and progress in between; 0 prints nothing.
        validation_split : float
            This share of the samples, the last ones, is held out and evaluated after each epoch.
        validation_data : pair of arrays, optional
            Other data to be evaluated.
        shuffle : bool
            Whether the samples come in another order in each epoch.

        Returns
        -------
        History

        Raises
        ------
        ConfigError
            If the model was not compiled, or a setting is impossible.
        DataError
            For data that do not fit together.
        DivergedError
            If the loss is no longer finite.
        """
        x, y = self._data(x, y, batch_size)
        if epochs < 1 or not 0 <= validation_split < 1:
            raise ConfigError(f"epochs must be at least 1 and validation_split below 1: {epochs}, {validation_split}")
        if validation_split:
            cut = len(x) - max(1, int(len(x) * validation_split))
            if cut < 1:
                raise DataError(f"{len(x)} samples are too few for a validation_split of {validation_split}")
            (x, y), validation_data = (x[:cut], y[:cut]), (x[cut:], y[cut:])
        self.scores(x[:1])  # builds
        self._optimizer = self._optimizer or self._maker.over(self.parameters())
        order = _Order(x, y, batch_size, self.seed + self._steps, shuffle)
        task = _Task(self)
        plan = Plan(
            order.per_epoch * epochs, rate=lambda t: self._maker.learning_rate, seed=self.seed, count=task.count
        )
        console = Console() if verbose else None
        trainer = Trainer(task, order, self._optimizer, plan, console=console)
        history = History()
        self.train()
        for epoch in range(epochs):
            task.forget()
            for _ in range(order.per_epoch):
                trainer.step()
            measured = task.means()
            if validation_data is not None:
                found = self._measure(*self._data(*validation_data, batch_size), batch_size)
                measured |= {f"val_{name}": value for name, value in found.items()}
            history.add(**measured)
            if verbose:
                print(f"Epoch {epoch + 1}/{epochs} - " + " - ".join(f"{n}: {v:.4f}" for n, v in measured.items()))
        self._steps += plan.steps
        return history

    def evaluate(self, x: ArrayLike, y: ArrayLike, batch_size: int = 32, verbose: int = 0) -> Any:
        """The loss on these data, or a list of the loss and the metrics.

        Raises
        ------
        ConfigError, DataError
            As in `fit`.
        """
        measured = self._measure(*self._data(x, y, batch_size), batch_size)
        if verbose:
            print(" - ".join(f"{name}: {value:.4f}" for name, value in measured.items()))
        values = list(measured.values())
        return values if len(values) > 1 else values[0]

    def predict(self, x: ArrayLike, batch_size: int = 32) -> np.ndarray:
        """What the model gives for each sample, (N, ...), without dropout."""
        x = np.asarray(x)
        training = self.training
        self.eval()
        with no_grad():
            parts = [self(x[i : i + batch_size]).numpy() for i in range(0, len(x), batch_size)]
        self.train(training)
        if not parts:
            raise DataError("there are no samples to predict from")
        return np.concatenate(parts)

    def summary(self) -> None:
        """Print the layers and how many parameters each has."""
        print(self)

    def _measure(self, x: np.ndarray, y: np.ndarray, batch_size: int) -> dict[str, float]:
        task = _Task(self)
        training = self.training
        self.eval()
        with no_grad():
            for i in range(0, len(x), batch_size):
                task.loss({"x": x[i : i + batch_size], "y": y[i : i + batch_size]})
        self.train(training)
        return task.means()

    def _data(self, x: ArrayLike, y: ArrayLike, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples and targets, if they belong together and the model knows what to do with them."""
        if self._loss is None:
            raise ConfigError("the model has no loss yet: call compile(optimizer, loss, metrics) first")
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
        x, y = np.asarray(x), np.asarray(y)
        if len(x) != len(y) or len(x) == 0:
            raise DataError(f"every sample needs its target: {len(x)} samples, {len(y)} targets")
        return x, y


class _Order:
    """Batches in the order of the samples, or in another order in each epoch."""

    def __init__(self, x: np.ndarray, y: np.ndarray, batch_size: int, seed: int, shuffle: bool) -> None:
        self.x, self.y, self.batch_size, self.seed, self.shuffle = x, y, batch_size, seed, shuffle
        self.per_epoch = -(-len(x) // batch_size)

    def at(self, step: int) -> dict[str, np.ndarray]:
        """The batch of a step; the last of an epoch may be smaller."""
        epoch, place = divmod(step, self.per_epoch)
        order = np.arange(len(self.x))
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.x))
        rows = order[place * self.batch_size : (place + 1) * self.batch_size]
        return {"x": self.x[rows], "y": self.y[rows]}


class _Task:
    """The model with its loss, as `Trainer` wants it, and the figures that come along."""

    def __init__(self, model: Sequential) -> None:
        assert model._loss is not None
        self.model, self.criterion = model, model._loss
        self.forget()

    def forget(self) -> None:
        """Begin to measure anew."""
        self._seen: list[tuple[int, float, int]] = []  # predictions, the mean loss, right ones

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The model's."""
        return self.model.named_parameters()

    def count(self, batch: dict[str, np.ndarray]) -> int:
        """Predictions in a batch."""
        return self.criterion.count(batch["y"])

    def loss(self, batch: dict[str, np.ndarray]) -> Tensor:
        """The mean loss of a batch."""
        y = self.model.scores(batch["x"])
        loss = self.criterion(batch["y"], y, self.model._ends_in_softmax)
        right = 0
        if self.model._accuracy:
            target = batch["y"].argmax(axis=-1) if batch["y"].shape == y.shape else batch["y"]
            right = int((y.data.argmax(axis=-1) == target).sum())
        self._seen.append((self.count(batch), loss.item(), right))
        return loss

    def means(self) -> dict[str, float]:
        """Over all predictions since `forget`."""
        total = sum(n for n, _, _ in self._seen)
        figures = {"loss": sum(n * loss for n, loss, _ in self._seen) / total}
        if self.model._accuracy:
            figures["accuracy"] = sum(right for _, _, right in self._seen) / total
        return figures
