"""word2vec: vectors that tell the words near a word from words drawn at random (F-EMB)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tinyllm.errors import ConfigError, nearest
from tinyllm.models.huffman import huffman
from tinyllm.models.word_counts import count_words
from tinyllm.models.word_vectors import WordVectors

ARCHITECTURES = ("skip-gram", "cbow")
OBJECTIVES = ("negative", "hierarchical")
JOB = 100_000  # words between two reports; also between two chances to stop

#: Called with words done, words in all, loss per pair, learning rate.
Progress = Callable[[int, int, float, float], None]


class Word2Vec:
    """Word vectors trained on sentences.

    Parameters
    ----------
    size : int
        C, numbers per word.
    architecture : {"skip-gram", "cbow"}
        A word tells each neighbour; or the mean of the neighbours tells the word.
    objective : {"negative", "hierarchical"}
        Tell neighbours from `negative` words drawn with probability count^(3/4); or walk down Huffman's tree.
    window : int
        The farthest neighbour; for each word a distance from 1 to `window` is drawn.
    negative : int
        K, noise words for each neighbour.
    power : float
        The exponent of the counts in the noise.
    sample : float
        Frequent words are left out now and then: of a word with share f of the text, sqrt(sample / f) + sample / f
        stays. 0 keeps all.
    min_count : int
        Words that are rarer are passed over.
    max_words : int, optional
        Size of the vocabulary, the most frequent words.
    epochs : int
        Passes over the text.
    lr, last_lr : float, optional
        The learning rate falls from the first to the second with the words done; 0.025 for skip-gram, 0.075 for CBOW.
    threads : int
        With 1, the same seed gives the same vectors. More train the same tables at the same time without locks.
    seed : int
        Of all draws.

    Raises
    ------
    ConfigError
        For an impossible setting.

    Notes
    -----
    The formula is F-EMB's. Source: Mikolov et al. 2013b, Distributed Representations of Words and Phrases, section 2.
    CBOW's gradient is that of the mean, which word2vec.c leaves undivided (Irsoy et al. 2021, Corrected CBOW).

    Examples
    --------
    >>> model = Word2Vec(size=8, min_count=1, epochs=2)
    >>> model.fit([["a", "cat", "sat"], ["a", "dog", "sat"]]).vectors.vectors.shape
    (4, 8)
    """

    def __init__(
        self,
        size: int = 100,
        architecture: str = "skip-gram",
        objective: str = "negative",
        window: int = 5,
        negative: int = 5,
        power: float = 0.75,
        sample: float = 1e-3,
        min_count: int = 5,
        max_words: int | None = None,
        epochs: int = 5,
        lr: float | None = None,
        last_lr: float = 1e-4,
        threads: int = 1,
        seed: int = 0,
    ) -> None:
        for name, value, known in (
            ("architecture", architecture, ARCHITECTURES),
            ("objective", objective, OBJECTIVES),
        ):
            if value not in known:
                raise ConfigError(f"{name}={value!r}{nearest(str(value), known)}")
        for name, number in (("size", size), ("window", window), ("negative", negative), ("epochs", epochs)):
            if number < 1:
                raise ConfigError(f"{name} must be at least 1, got {number}")
        if threads < 1 or min_count < 1 or sample < 0:
            raise ConfigError(
                f"threads and min_count must be at least 1, sample at least 0: {threads, min_count, sample}"
            )
        self.size, self.architecture, self.objective = size, architecture, objective
        self.window, self.negative, self.power, self.sample = window, negative, power, sample
        self.min_count, self.max_words, self.epochs = min_count, max_words, epochs
        self.lr = (0.025 if architecture == "skip-gram" else 0.075) if lr is None else lr
        self.last_lr, self.threads, self.seed = last_lr, threads, seed
        self.interrupted = False
        self.loss = float("nan")
        self.words_done = 0

    def fit(self, sentences: Iterable[Sequence[str]], progress: Progress | None = None) -> Word2Vec:
        """Count the words, then train; Ctrl-C ends the training and keeps what was learned.

        Parameters
        ----------
        sentences : iterable of sequences of str
            The text; no window reaches from one sentence into the next.
        progress : callable, optional
            Called now and then with words done, words in all, the latest loss per pair, the learning rate.

        Returns
        -------
        Word2Vec
            Itself, with `vectors` (WordVectors), `counts` (V,), `outputs` (V or V - 1, C), `loss`, `words_done` and
            `interrupted`.

        Raises
        ------
        DataError
            If fewer than two words are left.
        """
        self.words, self.counts, ids, bounds = count_words(sentences, self.min_count, self.max_words)
        rng = np.random.default_rng(self.seed)
        start = (rng.random((len(self.words), self.size), np.float32) - np.float32(0.5)) / np.float32(self.size)
        self.outputs = np.zeros_like(start)
        self.vectors = WordVectors(self.words, start)
        try:
            self._train(ids, bounds, progress)
        except KeyboardInterrupt:
            self.interrupted = True
        self.vectors = WordVectors(self.words, self.vectors.vectors)
        return self

    def _train(self, ids: np.ndarray, bounds: np.ndarray, progress: Progress | None) -> None:
        share = self.counts / self.counts.sum()
        stays = np.sqrt(self.sample / share) + self.sample / share if self.sample else np.ones(len(share))
        tree: tuple[np.ndarray, ...] = (np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1))
        if self.objective == "hierarchical":
            tree = huffman(self.counts.tolist())
        tables = (
            *(self.vectors.vectors, self.outputs),
            np.minimum(stays * 2**32, 2**32).astype(np.int64),
            *alias_table(noise(self.counts, self.power)),
            *tree,
            self.architecture == "cbow",
            self.window,
            self.negative if self.objective == "negative" else 0,
        )
        jobs = _jobs(bounds)
        longest = int(np.diff(bounds).max())
        total = self.epochs * len(ids)
        slope = (self.lr - self.last_lr) / total
        kernel = _kernel()

        def work(job: int, epoch: int, loss: np.ndarray) -> None:
            """One job, in this thread."""
            first, last = jobs[job], jobs[job + 1]
            done = epoch * len(ids) + int(bounds[first])
            state = int(np.random.SeedSequence([self.seed, epoch, job]).generate_state(1, np.uint64)[0]) & (2**48 - 1)
            scratch = (np.empty(longest, np.int32), *np.empty((2, self.size), np.float32))
            kernel(ids, bounds, first, last, *tables, state, self.lr - slope * done, slope, *scratch, loss)

        for epoch in range(self.epochs):
            for begin in range(0, len(jobs) - 1, self.threads):
                now = range(begin, min(begin + self.threads, len(jobs) - 1))
                losses = np.zeros((len(now), 2))
                others = [threading.Thread(target=work, args=(j, epoch, losses[i])) for i, j in enumerate(now) if i]
                for other in others:
                    other.start()
                try:
                    work(now[0], epoch, losses[0])
                finally:  # nobody writes to the tables once this is over
                    for other in others:
                        other.join()
                self.words_done = epoch * len(ids) + int(bounds[jobs[now[-1] + 1]])
                pairs = losses[:, 1].sum()
                self.loss = float(losses[:, 0].sum() / pairs) if pairs else self.loss
                if progress:
                    progress(self.words_done, total, self.loss, self.lr - slope * self.words_done)


def noise(counts: Any, power: float = 0.75) -> np.ndarray:
    """The law (V,) that negatives are drawn from: count^(3/4), scaled to sum 1 (F-EMB)."""
    weights = np.asarray(counts, np.float64) ** power
    return weights / weights.sum()


def alias_table(probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tables for drawing from a law in constant time: cells of equal width, each shared by at most two words.

    Parameters
    ----------
    probability : (V,) floats
        Sum 1.

    Returns
    -------
    threshold : (V,) int64
        Of 2^32: how much of the cell is its own word's.
    alias : (V,) int64
        Whose the rest is.

    Notes
    -----
    Source: Walker 1977; Vose 1991 for the order of filling.
    """
    height = probability * len(probability)
    alias = np.arange(len(height))
    small = [i for i in range(len(height)) if height[i] < 1]
    large = [i for i in range(len(height)) if height[i] >= 1]
    while small and large:
        i, j = small.pop(), large[-1]
        alias[i] = j
        height[j] -= 1 - height[i]
        if height[j] < 1:
            small.append(large.pop())
    height[small + large] = 1  # what rounding left over
    return np.round(height * 2**32).astype(np.int64), alias.astype(np.int64)


def _jobs(bounds: np.ndarray) -> list[int]:
    """Numbers of the sentences that begin a job of about JOB words, and that of the last one plus 1."""
    jobs = [0]
    for sentence in range(1, len(bounds)):
        if bounds[sentence] - bounds[jobs[-1]] >= JOB or sentence == len(bounds) - 1:
            jobs.append(sentence)
    return jobs


def _kernel() -> Callable[..., None]:
    """The compiled pass, or where Numba is not installed the same pass in NumPy, some hundred times slower."""
    try:
        from tinyllm.kernels.cpu.word2vec import word2vec
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        from tinyllm.models.word2vec_numpy import word2vec
    return word2vec
