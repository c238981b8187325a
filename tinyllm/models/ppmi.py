"""Word vectors by counting: how much more often two words meet than chance would have it, and the SVD of that table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from tinyllm.errors import ConfigError
from tinyllm.models.word_counts import count_words
from tinyllm.models.word_vectors import WordVectors


def cooccurrences(ids: np.ndarray, bounds: np.ndarray, vocab_size: int, window: int) -> np.ndarray:
    """How often words stand near each other, nearer ones counting more.

    Parameters
    ----------
    ids : (N,) ints
        All sentences, end to end.
    bounds : (S + 1,) ints
        Where each begins, and N.
    vocab_size : int
        V.
    window : int
        The farthest neighbour. A pair at distance d counts (window + 1 - d) / window, as often as word2vec sees it.

    Returns
    -------
    (V, V) float64, symmetric
    """
    sentence = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    flat = np.zeros(vocab_size * vocab_size)
    for distance in range(1, window + 1):
        same = sentence[distance:] == sentence[:-distance]
        pair = ids[:-distance][same].astype(np.int64) * vocab_size + ids[distance:][same]
        flat += np.bincount(pair, minlength=len(flat)) * ((window + 1 - distance) / window)
    table = flat.reshape(vocab_size, vocab_size)
    return table + table.T


def ppmi(table: np.ndarray, power: float = 0.75, shift: float = 1.0) -> np.ndarray:
    """Positive pointwise mutual information, max(0, log p(w, c) / (p(w) p(c)) - log shift).

    Parameters
    ----------
    table : (V, V) floats
        Counts of pairs.
    power : float
        Of the contexts' counts in p(c), as word2vec's noise has it.
    shift : float
        word2vec with K negatives factorises the table with shift K.

    Returns
    -------
    (V, V) float64

    Notes
    -----
    Source: Levy and Goldberg 2014, Neural Word Embedding as Implicit Matrix Factorization, section 3.2; Levy, Goldberg,
    Dagan 2015, section 3.1 for the power.
    """
    words = table.sum(axis=1, keepdims=True)
    contexts = table.sum(axis=0, keepdims=True) ** power
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.log(table * (contexts.sum() / shift) / (words * contexts))
    return np.maximum(np.nan_to_num(information, nan=0.0, neginf=0.0), 0.0)


def ppmi_svd(
    sentences: Iterable[Sequence[str]],
    size: int = 100,
    window: int = 5,
    min_count: int = 5,
    max_words: int = 5000,
    shift: float = 1.0,
    seed: int = 0,
) -> WordVectors:
    """Word vectors U sqrt(S) of the truncated SVD of the PPMI table: word2vec's oldest rival, without any training.

    Parameters
    ----------
    sentences : iterable of sequences of str
        The text.
    size : int
        C.
    window, min_count
        As for `Word2Vec`.
    max_words : int
        V, the most frequent words; the table has V * V numbers.
    shift : float
        As for `ppmi`.
    seed : int
        Of the random directions from which the singular vectors are found.

    Returns
    -------
    WordVectors

    Notes
    -----
    The singular vectors are found by two rounds of subspace iteration from random ones (Halko, Martinsson, Tropp 2011,
    algorithm 4.4). Source of the square root: Levy, Goldberg, Dagan 2015, section 3.3.
    """
    if size < 1 or window < 1:
        raise ConfigError(f"size and window must be at least 1, got {size} and {window}")
    words, _, ids, bounds = count_words(sentences, min_count, max_words)
    table = ppmi(cooccurrences(ids, bounds, len(words), window), shift=shift)
    rank = min(size, len(words))
    basis = np.random.default_rng(seed).normal(size=(len(words), min(rank + 10, len(words))))
    for _ in range(3):
        basis, _ = np.linalg.qr(table @ (table.T @ basis))
    u, s, _ = np.linalg.svd(basis.T @ table, full_matrices=False)
    return WordVectors(words, (basis @ u[:, :rank] * np.sqrt(s[:rank])).astype(np.float32))
