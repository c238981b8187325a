"""chrF: the F-score of shared character n-grams, which needs no tokeniser; chrF++ adds words and pairs of them."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinyllm.metrics.ngram_counts import ngram_counts, segments

EPSILON = 1e-16
Grams = list[Counter[tuple[str, ...]]]


@dataclass(frozen=True)
class ChrFScore:
    """chrF and the settings that belong to its name.

    Attributes
    ----------
    score : float
        0 to 100.
    char_order, word_order, beta : int
        As given to `chrf`.
    """

    score: float
    char_order: int
    word_order: int
    beta: int

    def __str__(self) -> str:
        return f"chrF{self.beta}{'+' * self.word_order} = {self.score:.2f}"


def chrf(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str | None]],
    char_order: int = 6,
    word_order: int = 0,
    beta: int = 2,
    lowercase: bool = False,
    whitespace: bool = False,
    eps_smoothing: bool = False,
) -> ChrFScore:
    """(1 + beta^2) P R / (beta^2 P + R) in percent, P and R averaged over the orders of n-grams.

    Parameters
    ----------
    hypotheses : sequence of str
        What is judged.
    references : sequence of sequences of str or None
        Stream k holds the k-th reference of every hypothesis; the one with the best score counts.
    char_order : int
        Longest run of characters.
    word_order : int
        Longest run of words; 2 makes it chrF++.
    beta : int
        How many times recall weighs more than precision.
    lowercase : bool
        Ignore case.
    whitespace : bool
        Count white space among the characters.
    eps_smoothing : bool
        Average the F-scores of all orders, those without n-grams as 0, instead of P and R over the orders that both
        sides have.

    Returns
    -------
    ChrFScore

    Notes
    -----
    Source: Popovic 2015, chrF, section 2; Popovic 2017, chrF++; conventions: Post 2018.
    """
    if char_order < 0 or word_order < 0 or char_order + word_order == 0 or beta <= 0:
        raise ValueError(f"no n-grams to compare: {char_order=}, {word_order=}, {beta=}")

    def grams(text: str) -> Grams:
        text = text.lower() if lowercase else text
        characters = text if whitespace else "".join(text.split())
        words = _words(text)
        return [ngram_counts(characters, n) for n in range(1, char_order + 1)] + [
            ngram_counts(words, n) for n in range(1, word_order + 1)
        ]

    total = np.zeros((char_order + word_order, 3), np.int64)
    for hypothesis, known in segments(hypotheses, references):
        ours = grams(hypothesis)
        tables = [_counts(ours, grams(text)) for text in known]
        total += max(tables, key=lambda table: _f_score(table, beta, eps_smoothing))  # the first of equals
    return ChrFScore(_f_score(total, beta, eps_smoothing), char_order, word_order, beta)


def _words(text: str) -> list[str]:
    """Words, with the last mark of each cut off, or else the first."""
    words = []
    for word in text.split():
        if len(word) > 1 and word[-1] in string.punctuation:
            words += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in string.punctuation:
            words += [word[0], word[1:]]
        else:
            words.append(word)
    return words


def _counts(hypothesis: Grams, reference: Grams) -> np.ndarray:
    """(orders, 3): n-grams of the hypothesis, of the reference, of both; the first is 0 where the second is."""
    rows = []
    for ours, theirs in zip(hypothesis, reference, strict=True):
        rows.append([ours.total() if theirs else 0, theirs.total(), (ours & theirs).total()])
    return np.array(rows, np.int64)


def _f_score(counts: np.ndarray, beta: int, eps_smoothing: bool) -> float:
    def f(p: float, r: float) -> float:
        return (1 + beta**2) * p * r / (beta**2 * p + r) if p + r > 0 else EPSILON

    table = counts.tolist()
    if eps_smoothing:  # EPSILON instead of 0 decides between references that have nothing in common with the hypothesis
        rates = [
            (both / ours if ours else EPSILON, both / theirs if theirs else EPSILON) for ours, theirs, both in table
        ]
        return 100 * sum(f(p, r) for p, r in rates) / len(table)
    rates = [(both / ours, both / theirs) for ours, theirs, both in table if ours and theirs]
    if not any(p for p, _ in rates):
        return 0.0
    return 100 * f(sum(p for p, _ in rates) / len(rates), sum(r for _, r in rates) / len(rates))
