"""Windows of a text in its order, for models that carry a state from one window to the next."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinyllm.errors import DataError


def consecutive_windows(tokens: np.ndarray, batch_size: int, block_size: int) -> Iterator[dict[str, np.ndarray]]:
    """Cut a text into `batch_size` strands, and walk along all of them side by side.

    Row b of a window continues row b of the window before: what a model remembers of the one belongs to the other.

    Parameters
    ----------
    tokens : integers (N,)
    batch_size, block_size : int
        B strands, and T tokens read in a window. What is left over at the end of a strand is left out.

    Yields
    ------
    dict
        ``input_ids`` (B, T + 1): T tokens, each with its successor.

    Raises
    ------
    DataError
        If a strand is shorter than a window.
    """
    if min(batch_size, block_size) < 1:
        raise DataError(f"batch_size and block_size must be at least 1, got {batch_size} and {block_size}")
    length = (len(tokens) - 1) // batch_size  # tokens of a strand that have a successor
    if length < block_size:
        raise DataError(
            f"{len(tokens)} tokens in {batch_size} strands give no window of {block_size} and its successor: "
            "lower batch_size or block_size"
        )
    starts = np.arange(batch_size) * length
    for begin in range(0, length - block_size + 1, block_size):
        places = starts[:, None] + begin + np.arange(block_size + 1)
        yield {"input_ids": np.asarray(tokens)[places].astype(np.int64)}
