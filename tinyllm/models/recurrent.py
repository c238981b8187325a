"""What recurrent models share: padding brought behind the texts, and the state as a cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinyllm.autograd.tensor import Tensor


class StateCache:
    """What a recurrent model remembers of the tokens that it has seen: its state, of the same size after any number.

    Attributes
    ----------
    state : tuple of Tensor (L, B, H)
        Empty at first.
    length : int
        How many tokens it has seen.
    """

    def __init__(self) -> None:
        self.state: tuple[Tensor, ...] = ()
        self.length = 0

    @property
    def batch(self) -> int | None:
        """B, the number of sequences held; None while it is empty."""
        return self.state[0].shape[1] if self.state else None

    def update(self, state: tuple[Tensor, ...], new: int) -> None:
        """Hold the state after `new` more tokens."""
        self.state, self.length = state, self.length + new

    def reorder(self, indices: ArrayLike) -> None:
        """Hold, as sequence i, what sequence ``indices[i]`` was."""
        rows = np.asarray(indices)
        self.state = tuple(s[:, rows] for s in self.state)

    def crop(self, length: int) -> None:
        """Forget the newest tokens: only all or none of them, for what was in the state is overwritten.

        Raises
        ------
        ValueError
            For a length in between.
        """
        if length not in (0, self.length):
            raise ValueError(
                f"a recurrent model cannot go back from {self.length} to {length} tokens: its state is overwritten at "
                "every token; it cannot be drafted for"
            )
        if length == 0:
            self.state, self.length = (), 0


class Alignment:
    """Texts with padding anywhere, moved to the left, where recurrent layers want them; and back.

    Parameters
    ----------
    visible : booleans (B, T) or None
        False for padding.

    Attributes
    ----------
    lengths : integers (B,) or None
        How many tokens each text has.

    Raises
    ------
    ValueError
        If a text has no token.
    """

    def __init__(self, visible: np.ndarray | None) -> None:
        self.lengths: np.ndarray | None = None
        self._order: np.ndarray | None = None
        if visible is None or visible.all():
            return
        self.lengths = visible.sum(axis=1)
        if not self.lengths.all():
            raise ValueError(f"attention_mask: row {int(self.lengths.argmin())} has no token, padding alone")
        order = np.argsort(~visible, axis=1, kind="stable")
        if (order != np.arange(visible.shape[1])).any():
            self._order = order

    def to_left(self, x: Any) -> Any:
        """Of a Tensor (B, T, C), the tokens of each text first."""
        return x if self._order is None else x[np.arange(len(self._order))[:, None], self._order]

    def back(self, y: Tensor) -> Tensor:
        """Of a Tensor (B, T, C), each token where it was."""
        if self._order is None:
            return y
        return y[np.arange(len(self._order))[:, None], np.argsort(self._order, axis=1)]


def detached(state: Any) -> Any:
    """A state without what it was computed from: where truncated backpropagation ends."""
    return state.detach() if isinstance(state, Tensor) else tuple(s.detach() for s in state)


def stacked_or_none(states: tuple[Tensor, ...]) -> Any:
    """What a layer with one kind of state, or with two, begins with; None for an empty cache."""
    if not states:
        return None
    return states[0] if len(states) == 1 else states


def last_of(y: Tensor, visible: np.ndarray | None) -> Tensor:
    """Of states (B, S, C), that of each text's last token."""
    if visible is None:
        return y[:, -1]
    return y[np.arange(len(visible)), visible.shape[1] - 1 - visible[:, ::-1].argmax(axis=1)]


def first_of(y: Tensor, visible: np.ndarray | None) -> Tensor:
    """Of states (B, S, C), that of each text's first token."""
    return y[:, 0] if visible is None else y[np.arange(len(visible)), visible.argmax(axis=1)]
