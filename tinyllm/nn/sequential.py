"""One module after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tinyllm.nn.module import Module


class Sequential(Module):
    """``Sequential(f, g, h)(x)`` is ``h(g(f(x)))``; its parameters are named ``0.weight``, ``1.weight``, ...

    Parameters
    ----------
    *layers : Module or function
        Each takes what the one before gives.
    """

    def __init__(self, *layers: Callable[[Any], Any]) -> None:
        for i, layer in enumerate(layers):
            setattr(self, str(i), layer)
        self._length = len(layers)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, i: int) -> Callable[[Any], Any]:
        if not -self._length <= i < self._length:
            raise IndexError(f"layer {i} of a Sequential of {self._length}")
        return getattr(self, str(i % self._length))

    def __iter__(self) -> Iterator[Callable[[Any], Any]]:
        return (self[i] for i in range(self._length))

    def forward(self, x: Any) -> Any:
        """What the last layer gives."""
        for layer in self:
            x = layer(x)
        return x
