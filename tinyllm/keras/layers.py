"""Layers that learn the size of their input when they first see it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyllm import nn
from tinyllm.autograd.tensor import Tensor
from tinyllm.errors import ConfigError


class Layer(nn.Module):
    """A layer that is built at the first call: `module` is None before.

    Attributes
    ----------
    module : Module
        The one of tinyllm that computes it.
    """

    module: Any = None

    def build(self, inputs: int, rng: np.random.Generator) -> Any:
        """The module for inputs with so many channels."""
        raise NotImplementedError(f"{type(self).__name__} defines no build")

    def forward(self, x: Any) -> Tensor:
        """What the module gives."""
        return self.module(x)

    def _positive(self, **sizes: int) -> None:
        for name, value in sizes.items():
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ConfigError(f"{type(self).__name__}: {name} must be a whole number of at least 1, got {value!r}")


class Embedding(Layer):
    """Integers (B, T) -> (B, T, output_dim)."""

    def __init__(self, input_dim: int, output_dim: int) -> None:
        self._positive(input_dim=input_dim, output_dim=output_dim)
        self.input_dim, self.output_dim = input_dim, output_dim

    def build(self, inputs: int, rng: np.random.Generator) -> nn.Embedding:
        """A table; the input has no channels."""
        return nn.Embedding(self.input_dim, self.output_dim, rng=rng)


class _Recurrent(Layer):
    """(B, T, C) -> the last state (B, units), or with `return_sequences` all of them, (B, T, units)."""

    def __init__(self, units: int, return_sequences: bool = False) -> None:
        self._positive(units=units)
        self.units, self.return_sequences = units, return_sequences

    def forward(self, x: Any) -> Tensor:
        """The state after each position, or after the last one."""
        y, _ = self.module(x)
        return y if self.return_sequences else y[:, -1]


class LSTM(_Recurrent):
    """`tinyllm.nn.LSTM`, its forget gates with a bias of 1 at first, as in Keras."""

    def build(self, inputs: int, rng: np.random.Generator) -> nn.LSTM:
        """One layer, in one direction."""
        module = nn.LSTM(inputs, self.units, rng=rng)
        bias = module.parameter("bias_ih", 0)
        values = bias.numpy()
        values[self.units : 2 * self.units] = 1
        bias.assign_(values)
        return module


class GRU(_Recurrent):
    """`tinyllm.nn.GRU`."""

    def build(self, inputs: int, rng: np.random.Generator) -> nn.GRU:
        """One layer, in one direction."""
        return nn.GRU(inputs, self.units, rng=rng)


class SimpleRNN(_Recurrent):
    """`tinyllm.nn.RNN`."""

    def build(self, inputs: int, rng: np.random.Generator) -> nn.RNN:
        """One layer, in one direction."""
        return nn.RNN(inputs, self.units, rng=rng)


class Dense(Layer):
    """``activation(x W + b)`` on the last axis.

    Parameters
    ----------
    units : int
    activation : str, optional
        "softmax", or a name that :func:`tinyllm.nn.activation` knows.
    """

    def __init__(self, units: int, activation: str | None = None) -> None:
        self._positive(units=units)
        if activation not in (None, "linear", "softmax"):
            nn.activation(activation)
        self.units, self.activation = units, activation

    def build(self, inputs: int, rng: np.random.Generator) -> nn.Linear:
        """The affine map."""
        return nn.Linear(inputs, self.units, rng=rng)

    def forward(self, x: Any) -> Tensor:
        """(..., C) -> (..., units); the softmax is left to the model, which may not need it."""
        y: Tensor = self.module(x)
        return y if self.activation in (None, "linear", "softmax") else nn.activation(self.activation)(y)


class Dropout(Layer):
    """In training, each element is 0 with probability `rate`."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def build(self, inputs: int, rng: np.random.Generator) -> nn.Dropout:
        """The module."""
        return nn.Dropout(self.rate, rng)
