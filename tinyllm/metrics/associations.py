"""WEAT: do the vectors of some words lie nearer to one set of attributes than to another?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

EXACT_UP_TO = 50_000  # partitions


@dataclass(frozen=True)
class WEATResult:
    """What a test of association found.

    Attributes
    ----------
    effect_size : float
        How many standard deviations X's mean association with A rather than B is above Y's; from -2 to 2.
    p_value : float
        How probably words parted at random show as much.
    partitions : int
        Ways of parting that the p-value rests on.
    exact : bool
        Whether these are all there are.
    """

    effect_size: float
    p_value: float
    partitions: int
    exact: bool


def association(words: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean cosine with the attributes A less that with B, of each word.

    Parameters
    ----------
    words : (N, C) floats
    a, b : (K, C) and (L, C) floats

    Returns
    -------
    (N,) float64
    """
    w, a, b = (_unit(np.asarray(vectors, np.float64)) for vectors in (words, a, b))
    return (w @ a.T).mean(axis=1) - (w @ b.T).mean(axis=1)


def weat(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, draws: int = 10_000, seed: int = 0) -> WEATResult:
    """Word embedding association test: are the targets X, more than the targets Y, near A rather than B?

    Parameters
    ----------
    x, y : (N, C) and (M, C) floats
        Vectors of the two sets of target words.
    a, b : (K, C) and (L, C) floats
        Vectors of the two sets of attributes.
    draws : int
        Partitions drawn where there are more than 50,000.
    seed : int
        Of the draws.

    Returns
    -------
    WEATResult

    Raises
    ------
    ValueError
        For empty sets, fewer than two targets of a kind, or vectors of different lengths.

    Notes
    -----
    p is one-sided: the share of partitions of the targets into sets of the same sizes with at least the same difference
    of mean associations. Of drawn partitions the observed one is counted as one more, so that p is never 0.
    Source: Caliskan, Bryson, Narayanan 2017, Semantics derived automatically from language corpora, "Methods".
    """
    x, y, a, b = (np.asarray(vectors, np.float64) for vectors in (x, y, a, b))
    if min(len(x), len(y)) < 2 or min(len(a), len(b)) < 1:
        sizes = ", ".join(str(len(vectors)) for vectors in (x, y, a, b))
        raise ValueError(f"the test needs two targets of each kind and an attribute of each, got {sizes}")
    if len({vectors.shape[1:] for vectors in (x, y, a, b)}) > 1:
        raise ValueError(f"vectors of different lengths: {[v.shape for v in (x, y, a, b)]}")
    s = association(np.concatenate([x, y]), a, b)
    n, total = len(x), len(s)

    exact = comb(total, n) <= EXACT_UP_TO
    if exact:
        means = np.array([s[list(rows)].mean() for rows in combinations(range(total), n)])
    else:
        rng = np.random.default_rng(seed)
        means = np.array([rng.permutation(s)[:n].mean() for _ in range(draws)])
    # X's mean less Y's, from X's mean: the sum of both is fixed
    differences = means - (s.sum() - n * means) / (total - n)
    observed = float(s[:n].mean() - s[n:].mean())
    as_much = int((differences >= observed - 1e-12).sum())
    p = as_much / len(means) if exact else (as_much + 1) / (len(means) + 1)
    spread = s.std(ddof=1)
    return WEATResult(observed / float(spread) if spread > 0 else 0.0, float(p), len(means), exact)


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)
