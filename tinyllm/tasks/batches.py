"""Batches of pairs in tokens, padded at the end to the longest of the batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tinyllm.train.trainer import Batch

IGNORED = -100  # a label that is not predicted

#: A source and its target in ids, each ending with the end token.
Ids = tuple[list[int], list[int]]


def collate(rows: Sequence[Ids], pad: int) -> Batch:
    """``input_ids`` and ``attention_mask`` (B, S), ``labels`` (B, T): what an encoder-decoder's loss takes."""
    sources, targets = [row[0] for row in rows], [row[1] for row in rows]
    return {
        "input_ids": padded(sources, pad),
        "attention_mask": padded([[1] * len(ids) for ids in sources], 0),
        "labels": padded(targets, IGNORED),
    }


def padded(rows: Sequence[Sequence[float]], fill: int) -> np.ndarray:
    """Rows of different length as one array (B, longest), whole numbers unless the first one is not."""
    kind = np.float64 if isinstance(rows[0][0], float) else np.int64
    array = np.full((len(rows), max(map(len, rows))), fill, dtype=kind)
    for row, ids in zip(array, rows, strict=True):
        row[: len(ids)] = ids
    return array


class PairBatches:
    """Random batches of pairs of similar length; batch number `step` is a function of (seed, step) alone.

    Each is drawn from neighbours in the order of length, so that little of it is padding.

    Parameters
    ----------
    pairs : sequence of Ids
    batch_size : int
    seed : int
    pad : int
        The id that fills up sources.
    """

    _POOL = 4  # a batch is drawn from so many times its size

    def __init__(self, pairs: Sequence[Ids], batch_size: int, seed: int, pad: int) -> None:
        self.pairs, self.batch_size, self.seed, self.pad = pairs, batch_size, seed, pad
        self._order = by_length(pairs)

    def at(self, step: int) -> Batch:
        """Batch number `step`; a batch from fewer pairs than its size has them all."""
        n = len(self.pairs)
        size = min(n, self._POOL * self.batch_size)
        words = np.random.Philox(key=np.array([self.seed, step], dtype=np.uint64)).random_raw(1 + size)
        pool = self._order[(int(words[0] % np.uint64(n)) + np.arange(size)) % n]
        chosen = pool[np.argsort(words[1:], kind="stable")[: self.batch_size]]
        return collate([self.pairs[i] for i in chosen], self.pad)


def all_batches(pairs: Sequence[Ids], batch_size: int, pad: int, limit: int | None = None) -> Iterator[Batch]:
    """Every pair once, those of similar length together; at most `limit` of them, spread evenly, always the same."""
    order = by_length(pairs)
    if limit is not None and limit < len(order):
        order = order[np.arange(limit) * len(order) // limit]
    for i in range(0, len(order), batch_size):
        yield collate([pairs[j] for j in order[i : i + batch_size]], pad)


def by_length(pairs: Sequence[Ids]) -> np.ndarray:
    """The indices of pairs, the shortest first (N,)."""
    return np.array(sorted(range(len(pairs)), key=lambda i: (sum(map(len, pairs[i])), i)), dtype=np.int64)
