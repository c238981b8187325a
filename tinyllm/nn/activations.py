"""Activation functions by the names that model configurations use."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from tinyllm.autograd import fused, ops
from tinyllm.autograd.tensor import Tensor
from tinyllm.errors import ConfigError, nearest


class Activation(Protocol):
    """A function of each element; the bias (C,) of the linear map before it may be left to it, to be added first."""

    def __call__(self, x: Tensor, *, bias: Tensor | None = None) -> Tensor:
        """(..., C) -> (..., C)."""


def _after_bias(f: Callable[[Tensor], Tensor]) -> Activation:
    return lambda x, *, bias=None: f(x if bias is None else x + bias)


ACTIVATIONS: dict[str, Activation] = {
    "relu": _after_bias(ops.relu),
    "gelu": fused.gelu,
    "gelu_new": partial(fused.gelu, approximate="tanh"),  # the name in GPT-2's configuration
    "gelu_pytorch_tanh": partial(fused.gelu, approximate="tanh"),
    "silu": _after_bias(fused.silu),
    "swish": _after_bias(fused.silu),
    "sigmoid": _after_bias(ops.sigmoid),
    "tanh": _after_bias(ops.tanh),
}


def activation(name: str) -> Activation:
    """The function with this name.

    Raises
    ------
    ConfigError
        If there is none; the nearest name is given.
    """
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ConfigError(f"unknown activation function {name!r}{nearest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]
