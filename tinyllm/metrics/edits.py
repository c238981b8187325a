"""Edit distance, and the error rates of words and phonemes that are made of it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np


def edit_distance(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """The fewest insertions, deletions and substitutions that turn `a` into `b`.

    Parameters
    ----------
    a, b : sequences
        Texts, lists of words, ...

    Returns
    -------
    int

    Notes
    -----
    One row of the table at a time. A row is first filled as if nothing were inserted; each insertion then costs one
    more than the cell to the left, so that the row is a running minimum of itself less its place.
    Source: Wagner and Fischer 1974, section 3.
    """
    place = {symbol: i for i, symbol in enumerate({*a, *b})}
    ids = np.array([place[symbol] for symbol in b], np.int64)
    steps = np.arange(len(b) + 1)
    row = steps
    for i, symbol in enumerate(a, 1):
        new = np.empty_like(row)
        new[0] = i
        new[1:] = np.minimum(row[:-1] + (ids != place[symbol]), row[1:] + 1)
        row = np.minimum.accumulate(new - steps) + steps
    return int(row[-1])


def word_error_rate(hypotheses: Sequence[str], references: Sequence[str | Sequence[str]]) -> float:
    """Edits of words that turn the hypotheses into the references, over the number of words of the references.

    Parameters
    ----------
    hypotheses : sequence of N str
        Texts, cut at white space.
    references : sequence of N str, or of N lists of str
        What was meant; of several the nearest counts.

    Returns
    -------
    float
        At least 0; above 1 where more is wrong than there is.

    Raises
    ------
    ValueError
        For arguments of another form, or references without any word.
    """
    if isinstance(hypotheses, str) or isinstance(references, str):
        raise ValueError("hypotheses and references are lists of texts, got one text")
    alternatives = [[r] if isinstance(r, str) else r for r in references]
    return _error_rate([h.split() for h in hypotheses], [[text.split() for text in each] for each in alternatives])


def phoneme_error_rate(hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Any]]) -> float:
    """Edits of phonemes that turn the hypotheses into the references, over the number of phonemes of the references.

    Parameters
    ----------
    hypotheses : sequence of N sequences of str
        A list of phonemes for each word.
    references : sequence of N sequences of str, or of N lists of such sequences
        How the word is pronounced; of several ways the nearest counts.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For arguments of another form, or references without any phoneme.
    """
    alternatives = [[each] if not each or isinstance(each[0], str) else each for each in references]
    return _error_rate(hypotheses, alternatives)


def _error_rate(hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> float:
    if len(hypotheses) != len(references) or len(hypotheses) == 0:
        raise ValueError(f"{len(hypotheses)} hypotheses for {len(references)} references")
    edits = length = 0
    for hypothesis, known in zip(hypotheses, references, strict=True):
        if not known:
            raise ValueError("a hypothesis has no reference")
        distance, size = min((edit_distance(hypothesis, reference), len(reference)) for reference in known)
        edits, length = edits + distance, length + size
    if length == 0:
        raise ValueError("the references are empty: there is no rate")
    return edits / length
