"""Optimisers with Keras's argument names; their parameters come later, from the model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tinyllm import optim
from tinyllm.autograd.tensor import Tensor
from tinyllm.errors import ConfigError, nearest


@dataclass(frozen=True)
class Adam:
    """F-ADAM."""

    learning_rate: float = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7

    def over(self, parameters: Iterable[Tensor]) -> Any:
        """`tinyllm.optim.Adam`."""
        return optim.Adam(parameters, lr=self.learning_rate, betas=(self.beta_1, self.beta_2), eps=self.epsilon)


@dataclass(frozen=True)
class SGD:
    """F-SGD."""

    learning_rate: float = 0.01
    momentum: float = 0.0

    def over(self, parameters: Iterable[Tensor]) -> Any:
        """`tinyllm.optim.SGD`."""
        return optim.SGD(parameters, lr=self.learning_rate, momentum=self.momentum)


_NAMED = {"adam": Adam, "sgd": SGD}


def get(optimizer: str | Adam | SGD) -> Adam | SGD:
    """The optimiser of this name, or the one given.

    Raises
    ------
    ConfigError
        If there is none of this name.
    """
    if not isinstance(optimizer, str):
        return optimizer
    if optimizer.lower() not in _NAMED:
        raise ConfigError(f"unknown optimizer {optimizer!r}{nearest(optimizer, _NAMED)}")
    found: Adam | SGD = _NAMED[optimizer.lower()]()
    return found
