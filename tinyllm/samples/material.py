"""What several samples need: some real text, and a loader of its tokens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tinyllm.data import Corpus, load
from tinyllm.text import clean

Source = str | os.PathLike[str] | Corpus


def excerpt(data: Source, characters: int) -> Corpus:
    """The first documents of a corpus, cleaned, up to a number of characters.

    Parameters
    ----------
    data : str, path or Corpus
        A name or path as for `tinyllm.data.load`, or a corpus that is loaded already.
    characters : int
        The last document is cut there.

    Returns
    -------
    Corpus
    """
    corpus = data if isinstance(data, Corpus) else load(os.fspath(data))
    kept, left = [], characters
    for document in corpus.documents:
        text = clean(document.text)[:left]
        if text:
            kept.append(replace(document, text=text))
            left -= len(text)
        if not left:
            break
    return replace(corpus, documents=tuple(kept))


def next_token_loader(
    ids: np.ndarray, batch_size: int, block_size: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """One pass over a text: each token but the first is the target of one position, in windows of random order.

    Parameters
    ----------
    ids : integers (N,)
        The text; a rest that fills no window is left out.
    batch_size, block_size : int
        B, or fewer in the last batch, and T.
    rng : numpy Generator
        For the order.

    Yields
    ------
    src, tgt : integers (B, T)
        `tgt` is `src` one place further.
    """
    starts = rng.permutation(np.arange(0, len(ids) - block_size, block_size))
    for i in range(0, len(starts), batch_size):
        windows = ids[starts[i : i + batch_size, None] + np.arange(block_size + 1)].astype(np.int64)  # (B, T + 1)
        yield windows[:, :-1], windows[:, 1:]
