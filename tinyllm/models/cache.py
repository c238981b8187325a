"""The keys and values of tokens that a causal model has seen: they do not change when more tokens come."""

from __future__ import annotations

from tinyllm.autograd import ops
from tinyllm.autograd.tensor import Tensor


class KVCache:
    """One pair (keys, values) per layer, each (B, H, S, D); empty at first.

    ``model(ids, cache=cache)`` takes `ids` as the continuation of what the cache holds, and appends them to it.

    Parameters
    ----------
    n_layer : int
    """

    def __init__(self, n_layer: int) -> None:
        self.layers: list[tuple[Tensor, Tensor] | None] = [None] * n_layer

    @property
    def length(self) -> int:
        """S, the number of positions held."""
        last = self.layers[-1]
        return 0 if last is None else last[0].shape[-2]

    @property
    def batch(self) -> int | None:
        """B, the number of sequences held; None while it is empty."""
        last = self.layers[-1]
        return None if last is None else last[0].shape[0]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values (B, H, T, D) of new positions and return those of all positions (B, H, S + T, D)."""
        held = self.layers[layer]
        if held is not None:
            k, v = (ops.concatenate([old, new], axis=-2) for old, new in zip(held, (k, v), strict=True))
        self.layers[layer] = k, v
        return k, v
