"""Sentences as numbers: the vocabulary that word vectors are made for, and the text in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tinyllm.errors import DataError


class CountedText(NamedTuple):
    """The V words that are frequent enough, the most frequent first; how often each occurs, (V,) int64; the text in
    their numbers, (N,) int32, without the other words; and where each sentence begins in it, (S + 1,) int64.
    """

    words: list[str]
    counts: np.ndarray
    ids: np.ndarray
    bounds: np.ndarray


def count_words(sentences: Iterable[Sequence[str]], min_count: int, max_words: int | None = None) -> CountedText:
    """Count the words of a text, and write it in the numbers of those that are frequent enough.

    Parameters
    ----------
    sentences : iterable of sequences of str
        The text.
    min_count : int
        Words that are rarer are left out.
    max_words : int, optional
        At most so many words.

    Returns
    -------
    CountedText

    Raises
    ------
    DataError
        If fewer than two words are left.
    """
    text = [list(sentence) for sentence in sentences]
    counts = Counter(word for sentence in text for word in sentence)
    words = sorted((w for w, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w))[:max_words]
    if len(words) < 2:
        raise DataError(
            f"word vectors need at least two words: the text has {len(counts):,} different ones, of which "
            f"{sum(n >= min_count for n in counts.values()):,} occur {min_count} times or more (min_count)"
        )
    number = {word: i for i, word in enumerate(words)}
    rows = [[number[word] for word in sentence if word in number] for sentence in text]
    return CountedText(
        words,
        np.array([counts[word] for word in words], np.int64),
        np.array([i for row in rows for i in row], np.int32),
        np.cumsum([0, *map(len, rows)]).astype(np.int64),
    )
