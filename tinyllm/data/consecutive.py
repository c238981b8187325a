"""Windows of a text in its order, for models that carry a state from one window to the next."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinyllm.errors import DataError


class Strands:
    """A text cut into B strands, which are walked along side by side; after their ends, again from their beginnings.

    Row b of a window continues row b of the window before: what a model remembers of the one belongs to the other.
    Window number `step` is a function of the step alone.

    Parameters
    ----------
    tokens : integers (N,)
    batch_size, block_size : int
        B strands, and T tokens read in a window. What is left over at the end of a strand is left out.

    Attributes
    ----------
    windows : int
        How many there are before the text begins anew.

    Raises
    ------
    DataError
        If a strand is shorter than a window.
    """

    def __init__(self, tokens: np.ndarray, batch_size: int, block_size: int) -> None:
        if min(batch_size, block_size) < 1:
            raise DataError(f"batch_size and block_size must be at least 1, got {batch_size} and {block_size}")
        length = (len(tokens) - 1) // batch_size  # tokens of a strand that have a successor
        if length < block_size:
            raise DataError(
                f"{len(tokens)} tokens in {batch_size} strands give no window of {block_size} and its successor: "
                "lower batch_size or block_size"
            )
        self.tokens, self.batch_size, self.block_size = tokens, batch_size, block_size
        self.windows = length // block_size
        self._starts = np.arange(batch_size) * length

    def at(self, step: int) -> dict[str, np.ndarray]:
        """``input_ids`` and ``labels`` (B, T + 1): T tokens, each with its successor; ``strand`` (B,) with its number.

        ``begins`` (B,) says of each whether it has just begun.
        """
        window = step % self.windows
        places = self._starts[:, None] + window * self.block_size + np.arange(self.block_size + 1)
        ids = np.asarray(self.tokens)[places].astype(np.int64)
        strands = np.arange(self.batch_size)
        return {"input_ids": ids, "labels": ids, "strand": strands, "begins": np.full(len(strands), window == 0)}


def consecutive_windows(tokens: np.ndarray, batch_size: int, block_size: int) -> Iterator[dict[str, np.ndarray]]:
    """All windows of a text's `Strands`, once."""
    strands = Strands(tokens, batch_size, block_size)
    return (strands.at(step) for step in range(strands.windows))
