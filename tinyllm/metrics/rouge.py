"""ROUGE: how much of a reference summary a summary repeats, in n-grams or as a common subsequence."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tinyllm.metrics.ngram_counts import ngram_counts

Tokens = list[str]


class RougeScore(NamedTuple):
    """Shares from 0 to 1 of what the summary says, of what the reference says, and their harmonic mean."""

    precision: float
    recall: float
    fmeasure: float


def rouge_n(
    hypotheses: str | Sequence[str],
    references: str | Sequence[str | Sequence[str]],
    n: int = 1,
    use_stemmer: bool = False,
    tokenizer: Callable[[str], Tokens] | None = None,
) -> RougeScore:
    """ROUGE-N: the share of n-grams in common, each counted no more often than in the other text.

    Parameters
    ----------
    hypotheses : str, or sequence of str
        A summary; or several, of whose scores the means are taken.
    references : str, or sequence of str or of lists of str
        The right summary of each; of several the one with the best F-measure counts.
    n : int
        Length of the n-grams.
    use_stemmer : bool
        Take the endings off words of more than three letters, by Porter's rules as NLTK extended them.
    tokenizer : callable, optional
        From a text to its tokens, for texts that are not English: the default keeps runs of a-z and 0-9 in lower case.

    Returns
    -------
    RougeScore

    Raises
    ------
    ValueError
        For no summary, different numbers of summaries and references, or n below 1.

    Notes
    -----
    Source: Lin 2004, section 2; conventions: the rouge-score package.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")

    def shared(a: Tokens, b: Tokens) -> tuple[int, int, int]:
        ours, theirs = ngram_counts(a, n), ngram_counts(b, n)
        return (ours & theirs).total(), ours.total(), theirs.total()

    return _mean(shared, hypotheses, references, use_stemmer, tokenizer)


def rouge_l(
    hypotheses: str | Sequence[str],
    references: str | Sequence[str | Sequence[str]],
    use_stemmer: bool = False,
    tokenizer: Callable[[str], Tokens] | None = None,
) -> RougeScore:
    """ROUGE-L: the longest common subsequence of words, as a share of each text.

    Parameters
    ----------
    hypotheses, references, use_stemmer, tokenizer
        As for `rouge_n`.

    Returns
    -------
    RougeScore

    Notes
    -----
    Source: Lin 2004, section 3.1; conventions: the rouge-score package.
    """

    def shared(a: Tokens, b: Tokens) -> tuple[int, int, int]:
        return _common_subsequence(a, b), len(a), len(b)

    return _mean(shared, hypotheses, references, use_stemmer, tokenizer)


def _mean(
    shared: Callable[[Tokens, Tokens], tuple[int, int, int]],
    hypotheses: str | Sequence[str],
    references: str | Sequence[str | Sequence[str]],
    use_stemmer: bool,
    tokenizer: Callable[[str], Tokens] | None,
) -> RougeScore:
    if isinstance(hypotheses, str):
        hypotheses, references = [hypotheses], [references]  # type: ignore[list-item]
    if isinstance(references, str) or len(hypotheses) != len(references) or not hypotheses:
        raise ValueError(
            "hypotheses and references must be two texts, or two lists with as many elements, at least one"
        )
    cut = tokenizer or _tokenizer(use_stemmer)
    scores = []
    for hypothesis, known in zip(hypotheses, references, strict=True):
        ours = cut(hypothesis)
        alternatives = [known] if isinstance(known, str) else known
        if not alternatives:
            raise ValueError("a summary has no reference")
        each = [_score(*shared(ours, cut(reference))) for reference in alternatives]
        scores.append(max(each, key=lambda score: score.fmeasure))
    return RougeScore(*np.mean(scores, axis=0).tolist()) if len(scores) > 1 else scores[0]


def _score(shared: int, ours: int, theirs: int) -> RougeScore:
    p, r = shared / max(ours, 1), shared / max(theirs, 1)
    return RougeScore(p, r, 2 * p * r / (p + r) if p + r > 0 else 0.0)


def _tokenizer(use_stemmer: bool) -> Callable[[str], Tokens]:
    def words(text: str) -> Tokens:
        return re.findall("[a-z0-9]+", text.lower())

    if not use_stemmer:
        return words
    from tinyllm.text.porter import PorterStemmer

    stem = PorterStemmer("nltk").stem
    return lambda text: [stem(word) if len(word) > 3 else word for word in words(text)]


def _common_subsequence(a: Tokens, b: Tokens) -> int:
    """Length of the longest common subsequence, one row of the table at a time.

    A cell is one more than its upper left neighbour where the words agree, and never less than its neighbours: with
    rows that only grow to the right, a running maximum.
    """
    place = {word: i for i, word in enumerate({*a, *b})}
    ids = np.array([place[word] for word in b], np.int64)
    row = np.zeros(len(b) + 1, np.int64)
    for word in a:
        new = row.copy()
        new[1:] = np.maximum(row[1:], row[:-1] + (ids == place[word]))
        row = np.maximum.accumulate(new)
    return int(row[-1])
