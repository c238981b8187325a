"""Batches of token windows: random ones for training, all of them in turn for evaluation.

A batch is `{"input_ids": ids, "labels": ids}` with ids (B, T) int64: labels are not shifted, the model does that. A
window of T tokens thus has T - 1 predictions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinyllm.errors import ConfigError, DataError

Batch = dict[str, np.ndarray]


class Batches:
    """Random windows of `tokens`; batch number `step` is a function of (seed, step) alone.

    Resuming at a step therefore needs no state of a generator.

    Parameters
    ----------
    tokens : np.ndarray
        (N,) integers, in memory or mapped.
    batch_size, block_size : int
        B and T: windows in a batch, tokens in a window.
    seed : int
        Not negative.

    Raises
    ------
    DataError
        For fewer tokens than a window has.
    ConfigError
        For a size or a seed that is out of range.
    """

    def __init__(self, tokens: np.ndarray, batch_size: int, block_size: int, seed: int = 0) -> None:
        _check_sizes(batch_size, block_size)
        if not 0 <= seed < 2**64:
            raise ConfigError(f"seed must be in [0, 2**64), got {seed}")
        if len(tokens) < block_size:
            raise DataError(
                f"the training text is {len(tokens)} tokens long, shorter than one block of {block_size}: "
                f"lower the block size to at most {len(tokens)} or give more text"
            )
        self.tokens, self.batch_size, self.block_size, self.seed = tokens, batch_size, block_size, seed

    def at(self, step: int) -> Batch:
        """Batch number `step`: B windows, each start equally likely."""
        # Raw Philox words: NumPy promises that they never change, which it does not for Generator.integers. The
        # remainder favours no start by more than 2**-30 as long as there are fewer than 2**34.
        words = np.random.Philox(key=np.array([self.seed, step], dtype=np.uint64)).random_raw(self.batch_size)
        starts = words % np.uint64(len(self.tokens) - self.block_size + 1)
        return _batch(self.tokens, starts.astype(np.int64), self.block_size)


def eval_windows(tokens: np.ndarray, block_size: int, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
    """Windows over `tokens` that predict every token but the first exactly once: neighbours overlap by one token.

    Parameters
    ----------
    tokens : np.ndarray
        (N,) integers, at least two.
    block_size, batch_size : int
        Tokens in a window, windows in a batch. The last window may be shorter; it is then a batch of its own, so a mean
        over the text weights each batch by its B * (T - 1) predictions.
    limit : int, optional
        At most so many windows, spread evenly over the text, always the same ones.

    Returns
    -------
    iterator of dict

    Raises
    ------
    DataError
        For fewer than two tokens.
    ConfigError
        For a size that is out of range.
    """
    _check_sizes(batch_size, block_size)
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be at least 1 window, got {limit}")
    if len(tokens) < 2:
        raise DataError(
            f"the held-out text is {len(tokens)} tokens long, and at least 2 are needed: "
            "hold out a larger share or give more text"
        )
    starts = np.arange(0, len(tokens) - 1, block_size - 1)
    if limit is not None and limit < len(starts):
        starts = starts[np.arange(limit) * len(starts) // limit]
    return _windows(tokens, starts, block_size, batch_size)


def _windows(tokens: np.ndarray, starts: np.ndarray, block_size: int, batch_size: int) -> Iterator[Batch]:
    """Batches of the windows at `starts`, whole ones first."""
    whole = starts[starts + block_size <= len(tokens)]
    for i in range(0, len(whole), batch_size):
        yield _batch(tokens, whole[i : i + batch_size], block_size)
    for start in starts[len(whole) :]:
        yield _batch(tokens, np.array([start]), len(tokens) - start)


def _batch(tokens: np.ndarray, starts: np.ndarray, length: int) -> Batch:
    """The windows of `length` tokens at `starts` (B,)."""
    ids = tokens[starts[:, None] + np.arange(length)].astype(np.int64)  # (B, T)
    return {"input_ids": ids, "labels": ids}


def _check_sizes(batch_size: int, block_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    if block_size < 2:
        raise ConfigError(f"block_size must be at least 2 (a token and the one it predicts), got {block_size}")
