"""Documents as one compact array of token ids."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np

from tinyllm.data.corpus import Document
from tinyllm.errors import DataError


class Tokenizer(Protocol):
    """What a tokenizer must be able to do here."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text, each in [0, vocab_size)."""


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest of uint8, uint16, uint32 that holds every id below `vocab_size`."""
    for dtype in (np.uint8, np.uint16, np.uint32):
        if vocab_size - 1 <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    raise ValueError(f"vocab_size must be at most 2**32, got {vocab_size}")


def tokenize_corpus(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    separator: int | None = None,
    path: str | os.PathLike[str] | None = None,
    threshold: int = 2**26,
) -> np.ndarray:
    """Ids of all documents in order, as one array.

    Parameters
    ----------
    documents : iterable of Document
        Each is encoded alone.
    tokenizer : Tokenizer
        An object with `encode(text)` and `vocab_size`.
    separator : int, optional
        Id put after every document.
    path : path, optional
        A `.npy` file to keep the array in when it is large; without it the array stays in memory.
    threshold : int
        Bytes above which the array is written to `path` and mapped from there.

    Returns
    -------
    np.ndarray
        (N,) unsigned integers of `token_dtype(vocab_size)`; a read-only memory map when it was written.

    Raises
    ------
    ValueError
        For a separator or an id of the tokenizer outside the vocabulary.
    DataError
        For a file that cannot be written.
    """
    vocab_size = tokenizer.vocab_size
    dtype = token_dtype(vocab_size)
    end = _checked([] if separator is None else [separator], vocab_size, "separator").astype(dtype)
    pieces = [np.empty(0, dtype)]
    for document in documents:
        pieces += [_checked(tokenizer.encode(document.text), vocab_size, document.source).astype(dtype), end]
    size = sum(map(len, pieces))
    if path is None or size * dtype.itemsize <= threshold:
        return np.concatenate(pieces)
    return _map(pieces, size, Path(path))


def _checked(ids: list[int], vocab_size: int, source: str) -> np.ndarray:
    """`ids` as an array, or an error where one is no id."""
    array = np.asarray(ids, dtype=np.int64)
    if array.size and not (array.min() >= 0 and array.max() < vocab_size):
        raise ValueError(f"{source}: ids must be in [0, {vocab_size}), got {array.min()} to {array.max()}")
    return array


def _map(pieces: list[np.ndarray], size: int, path: Path) -> np.ndarray:
    """The pieces written to a `.npy` file one by one, and the file mapped."""
    try:
        written = np.lib.format.open_memmap(path, mode="w+", dtype=pieces[0].dtype, shape=(size,))
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error
    start = 0
    for piece in pieces:
        written[start : start + len(piece)] = piece
        start += len(piece)
    written.flush()
    return np.load(path, mmap_mode="r", allow_pickle=False)
