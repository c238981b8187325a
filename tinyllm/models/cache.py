"""The keys and values of tokens that a causal model has seen: they do not change when more tokens come."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from tinyllm.autograd import is_recording, ops
from tinyllm.autograd.tensor import Array, Storage, Tensor, namespace

# A full buffer is replaced by one that is larger by half, at least by so many positions: then each position is copied
# about twice over a whole text, however long that becomes.
_LEAST_ROOM = 64
# So many positions behind the window are kept as well, so that as many tokens can be taken back.
_BEHIND = 64


class _Layer:
    """Keys and values in buffers (B, H, room, D), of which the first `end` positions are in use."""

    __slots__ = ("end", "k", "own", "v")

    def __init__(self, k: Tensor, v: Tensor, end: int, own: bool) -> None:
        self.k, self.v = k, v
        self.end = end
        self.own = own  # nobody else has these buffers, so that they may be written to

    def last(self, count: int) -> tuple[Tensor, Tensor]:
        """The newest `count` positions, as views of the buffers."""
        part = (slice(None), slice(None), slice(self.end - count, self.end))
        if self.own:
            return _wrapped(self.k._storage.array[part]), _wrapped(self.v._storage.array[part])
        return self.k[part], self.v[part]


class KVCache:
    """A pair (keys, values) per layer; empty at first.

    ``model(ids, cache=cache)`` takes `ids` as the continuation of what the cache holds, and appends them to it.

    Outside the tape (`no_grad`), positions are written into buffers with room for more, so that a step does not copy
    what earlier ones have computed. Where operations are recorded every step has arrays of its own.

    Parameters
    ----------
    n_layer : int
    window : int, optional
        A position is seen by itself and the `window` - 1 after it: what lies further back may be dropped.
    """

    def __init__(self, n_layer: int, window: int | None = None) -> None:
        if window is not None and window < 1:
            raise ValueError(f"a window has at least 1 position, got {window}")
        self.window = window
        self._layers: list[_Layer | None] = [None] * n_layer
        self._seen = [0] * n_layer
        self._of_source: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def length(self) -> int:
        """How many positions have been seen; those behind the window count too, though they are dropped."""
        return self._seen[-1]

    @property
    def batch(self) -> int | None:
        """B, the number of sequences held; None while it is empty."""
        last = self._layers[-1]
        return None if last is None else last.k.shape[0]

    @property
    def nbytes(self) -> int:
        """Memory of the buffers, their room included."""
        pairs = [(layer.k, layer.v) for layer in self._layers if layer is not None]
        return sum(t._storage.array.nbytes for pair in [*pairs, *self._of_source.values()] for t in pair)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values of new positions, and return those that the new positions may see.

        Parameters
        ----------
        layer : int
        k, v : Tensor (B, H, T, D)

        Returns
        -------
        k, v : Tensor (B, H, S, D)
            Of all positions so far; with a window, of the last `window` - 1 + T. The last T are the new ones. Outside
            the tape these are views, good until the cache is reordered, cropped or dropped.

        Raises
        ------
        ValueError
            If the sequences or heads are not those that the cache holds.
        """
        new = k.shape[-2]
        if not is_recording():
            keys, values, _, end = self.reserve(layer, k.shape, v.shape, k._storage.array)
            keys[:, :, end : end + new] = k._storage.array
            values[:, :, end : end + new] = v._storage.array
        else:
            held = self._held(layer, k.shape)
            if held is not None:
                k, v = (ops.concatenate(pair, axis=-2) for pair in zip(held.last(held.end), (k, v), strict=True))
            self._layers[layer] = _Layer(k, v, end=k.shape[-2], own=False)
            self._seen[layer] += new
        held = self._layers[layer]
        assert held is not None
        return held.last(held.end if self.window is None else min(held.end, self.window - 1 + new))

    def reserve(
        self, layer: int, keys: tuple[int, ...], values: tuple[int, ...], like: Array
    ) -> tuple[Array, Array, int, int]:
        """The buffers of a layer, with room for new positions that count from now on: the caller writes them.

        For kernels, outside the tape; everybody else calls `append`.

        Parameters
        ----------
        layer : int
        keys, values : shapes (B, H, T, D)
            Of what is new.
        like : array
            Of the dtype and the library.

        Returns
        -------
        keys, values : arrays (B, H, room, D)
        begin, end : int
            New positions may see those from `begin` on, and are to be written from `end` on.
        """
        new = keys[2]
        held = self._held(layer, keys)
        if held is None or not held.own or held.end + new > held.k.shape[2]:
            held = self._layers[layer] = self._with_room(held, keys, values, like)
        end = held.end
        held.end += new
        self._seen[layer] += new
        begin = 0 if self.window is None else max(0, end - (self.window - 1))
        return held.k._storage.array, held.v._storage.array, begin, end

    def _held(self, layer: int, keys: tuple[int, ...]) -> _Layer | None:
        """What there is of a layer, which keys of this shape must continue."""
        held = self._layers[layer]
        if held is not None and (held.k.shape[:2], held.k.shape[3]) != (keys[:2], keys[3]):
            raise ValueError(
                f"the cache holds keys (B, H, S, D) = {held.k.shape[:2]} x {held.k.shape[3]} of layer {layer}, "
                f"which {keys} do not continue; another batch needs another cache, or reorder()"
            )
        return held

    def _with_room(self, held: _Layer | None, keys: tuple[int, ...], values: tuple[int, ...], like: Array) -> _Layer:
        """A layer in larger buffers, without what is far behind the window; room for more than what is new."""
        kept = 0 if held is None else held.end
        if self.window is not None:
            kept = min(kept, self.window - 1 + _BEHIND)
        need = kept + keys[2]
        room = need + max(_LEAST_ROOM, need // 2)
        buffers = []
        for shape, old in zip((keys, values), held.last(kept) if held else (None, None), strict=True):
            buffer = namespace(like).empty((*shape[:2], room, shape[3]), dtype=like.dtype)
            if old is not None:
                buffer[:, :, :kept] = old._storage.array
            buffers.append(_wrapped(buffer))
        return _Layer(buffers[0], buffers[1], end=kept, own=True)

    def of_source(self, layer: int, project: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """The keys and values that a decoder's layer makes of the encoder's output: ``project()``, called once."""
        if layer not in self._of_source:
            self._of_source[layer] = project()
        return self._of_source[layer]

    def reorder(self, indices: ArrayLike) -> None:
        """Hold, as sequence i, what sequence ``indices[i]`` was: for beams, of which some end and others divide.

        Parameters
        ----------
        indices : integers (B',)
            From 0 to B - 1; B' need not be B.

        Raises
        ------
        IndexError
            If there is no such sequence.
        """
        rows = np.asarray(indices)
        for layer in self._layers:
            if layer is not None:
                layer.k, layer.v = layer.k[rows], layer.v[rows]
        self._of_source = {i: (k[rows], v[rows]) for i, (k, v) in self._of_source.items()}

    def crop(self, length: int) -> None:
        """Forget the newest positions, so that `length` are left.

        Raises
        ------
        ValueError
            If fewer have been seen, or if what their successors may see has been dropped (with a window, at most 64
            positions can surely be taken back).
        """
        needed = length if self.window is None else min(length, self.window - 1)
        for i, (layer, seen) in enumerate(zip(self._layers, self._seen, strict=True)):
            if not 0 <= length <= seen:
                raise ValueError(f"the cache holds {seen} positions, it cannot be cropped to {length}")
            if layer is not None:
                end = layer.end - (seen - length)
                if end < needed:
                    raise ValueError(f"the cache cannot go back from {seen} to {length} positions: dropped already")
                layer.end = end
            self._seen[i] = length


def _wrapped(array: np.ndarray) -> Tensor:
    return Tensor._wrap(Storage(array))
