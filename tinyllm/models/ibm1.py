"""IBM model 1: how likely each word is as the translation of each other one, learnt from sentence pairs by counting.

A target word comes from one of the source's words, or from none of them (the empty word), every place being as likely
as another: P(t | s) = product over places j of sum over i of t(t_j | s_i) / (l + 1). Which word it came from is not
known: expectation-maximisation shares each target word out among the source's words by the present table, and counts
anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_EMPTY = 0  # the id of the empty word


class IBM1:
    """A table of translation probabilities of words, t(target | source), and what can be done with it.

    Attributes
    ----------
    log_likelihood : list of float
        Of the training pairs before each iteration, in nats per target word; EM never lets it fall.

    Notes
    -----
    Source: Brown, Della Pietra, Della Pietra and Mercer 1993, "The mathematics of statistical machine translation",
    section 4.1. Each table entry is one pair of words that occur in some sentence pair together, so that an iteration
    is three sums over all such occurrences.

    Examples
    --------
    >>> english, german = [["the", "house"], ["the", "book"]], [["das", "Haus"], ["das", "Buch"]]
    >>> model = IBM1().fit(english, german)
    >>> model.best(["the", "house"])
    ['das', 'Haus']
    """

    def __init__(self) -> None:
        self.log_likelihood: list[float] = []
        self._sources: dict[str, int] = {}
        self._targets: dict[str, int] = {}
        self._words: list[str] = []
        self._keys = np.empty(0, np.int64)  # source id * number of targets + target id, sorted
        self._table = np.empty(0)  # t(target | source) of each key

    def fit(self, sources: Sequence[Sequence[str]], targets: Sequence[Sequence[str]], iterations: int = 10) -> IBM1:
        """Learn the table from sentence pairs, from the uniform one on.

        Parameters
        ----------
        sources, targets : sequences of N sequences of words
        iterations : int
            Of expectation-maximisation.

        Returns
        -------
        IBM1
            Itself.

        Raises
        ------
        ValueError
            For different numbers of sentences, or no target word at all.
        """
        if len(sources) != len(targets):
            raise ValueError(f"{len(sources)} sources, but {len(targets)} targets")
        self._sources = {word: i for i, word in enumerate(dict.fromkeys(w for s in sources for w in s), start=1)}
        self._targets = {word: i for i, word in enumerate(dict.fromkeys(w for t in targets for w in t))}
        self._words = list(self._targets)
        n = len(self._words)
        if n == 0:
            raise ValueError("there is no target word to learn from")
        keys, places, length = [], [], []  # of every occurrence: the pair of words; which target word it explains
        place = 0
        for source, target in zip(sources, targets, strict=True):
            s = np.array([_EMPTY, *(self._sources[word] for word in source)], dtype=np.int64)
            t = np.array([self._targets[word] for word in target], dtype=np.int64)
            keys.append((s * n + t[:, None]).ravel())  # (T, S + 1)
            places.append(np.repeat(np.arange(place, place + len(t)), len(s)))
            length.append(np.full(len(t), len(s)))
            place += len(t)
        self._keys, entry = np.unique(np.concatenate(keys), return_inverse=True)
        place_of, lengths = np.concatenate(places), np.concatenate(length)
        source_of = self._keys // n
        self._table = np.full(len(self._keys), 1 / n)
        self.log_likelihood = []
        for _ in range(iterations):
            p = self._table[entry]
            total = np.bincount(place_of, p)  # over the source's words, for each target word
            self.log_likelihood.append(float(np.log(total / lengths).mean()))
            counts = np.bincount(entry, p / total[place_of])
            self._table = counts / np.bincount(source_of, counts)[source_of]
        return self

    def probability(self, target: str, source: str | None = None) -> float:
        """t(target | source), or of a target word from the empty word; 0 for words that never met."""
        s = _EMPTY if source is None else self._sources.get(source)
        if s is None or target not in self._targets:
            return 0.0
        key = s * len(self._words) + self._targets[target]
        at = int(np.searchsorted(self._keys, key))
        return float(self._table[at]) if at < len(self._keys) and self._keys[at] == key else 0.0

    def best(self, source: Sequence[str]) -> list[str]:
        """The likeliest translation of each word; an unknown word stays as it is."""
        n = len(self._words)
        words = []
        for word in source:
            s = self._sources.get(word)
            if s is None:
                words.append(word)
                continue
            low, high = np.searchsorted(self._keys, [s * n, (s + 1) * n])
            words.append(self._words[int(self._keys[low + int(self._table[low:high].argmax())] % n)])
        return words

    def align(self, source: Sequence[str], target: Sequence[str]) -> list[int | None]:
        """For each target word the place of the source word that it most likely came from; None for the empty word."""
        places: list[int | None] = []
        for word in target:
            p = [self.probability(word), *(self.probability(word, s) for s in source)]
            best = int(np.argmax(p))
            places.append(best - 1 if best else None)
        return places
