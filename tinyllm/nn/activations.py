"""Activation functions by the names that model configurations use."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tinyllm.autograd import fused, ops
from tinyllm.autograd.tensor import Tensor
from tinyllm.errors import ConfigError, nearest

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Activation] = {
    "relu": ops.relu,
    "gelu": fused.gelu,
    "gelu_new": partial(fused.gelu, approximate="tanh"),  # the name in GPT-2's configuration
    "gelu_pytorch_tanh": partial(fused.gelu, approximate="tanh"),
    "silu": ops.silu,
    "swish": ops.silu,
    "sigmoid": ops.sigmoid,
    "tanh": ops.tanh,
}


def activation(name: str) -> Activation:
    """The function with this name.

    Raises
    ------
    ConfigError
        If there is none; the nearest name is given.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(f"unknown activation function {name!r}{nearest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]
