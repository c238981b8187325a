"""Count models: an n-gram predicts a token from the n - 1 tokens before it.

All n-grams of length 1 to n seen in training form a trie. Level j holds the (j + 1)-grams: a gram is the pair (parent,
token), its parent the gram without its last token, written as one integer parent * V + token. The keys of a level are
sorted, so a gram's number is its rank, the continuations of one context lie side by side, and a whole text is looked up
by one binary search per level.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from tinyllm.errors import ConfigError, nearest

SMOOTHINGS = ("witten-bell", "add-k", "mle")

_UNSEEN = np.iinfo(np.int64).max

Tokens = np.ndarray | Sequence[int]


@dataclass(frozen=True)
class _Level:
    """The grams of one length, and what is known of the contexts they continue (the grams one shorter).

    A gram that was never seen has the number -1: every array ends with an entry for it, whose count is 0. No key has it
    as parent, because such a key would be negative.
    """

    keys: np.ndarray  # (grams + 1,) parent * V + token, sorted
    counts: np.ndarray  # (grams + 1,) how often a gram was predicted
    totals: np.ndarray  # (parents + 1,) sum of the counts of a context's continuations
    distinct: np.ndarray  # (parents + 1,) number of a context's continuations with a count

    def find(self, key: np.ndarray | int) -> np.ndarray:
        """Rank of each key, -1 where it is absent."""
        rank = np.searchsorted(self.keys, key)
        return np.where(self.keys[rank] == key, rank, -1)


class NGram:
    """An n-gram language model: fitted by counting, evaluated and sampled.

    With c(h, w) the count of token w after context h, c(h) its sum over w, T(h) the number of different w seen, and h'
    the context h without its oldest token:

    * "witten-bell": P(w | h) = (c(h, w) + T(h) P(w | h')) / (c(h) + T(h)), down to P = 1 / V: all orders
      interpolated; where h was never continued, P(w | h').
    * "add-k": P(w | h) = (c(h, w) + k) / (c(h) + k V); uniform where h was never continued.
    * "mle": P(w | h) = c(h, w) / c(h), the maximum of the likelihood; where h was never continued, P(w | h').

    Near the start of a sequence h is as long as what precedes.

    Parameters
    ----------
    order : int
        n: 0 is uniform, 1 counts tokens, 2 pairs, ...
    vocab_size : int
        V; ids are in [0, V).
    smoothing : {"witten-bell", "add-k", "mle"}
        Which of the above.
    k : float, optional
        For "add-k": what is added to every count, above 0 (default 1).
    given : int
        Tokens at the start of every sequence that are context alone, neither counted nor predicted. The default, 1,
        predicts what a neural model predicts, which has no distribution for a first token. For sequences padded with
        n - 1 start symbols, n - 1.

    Raises
    ------
    ConfigError
        For a setting that is out of range or does not exist.

    References
    ----------
    Witten and Bell, "The zero-frequency problem", IEEE Trans. Information Theory 37, 1991, method C; as interpolation:
    Chen and Goodman, "An empirical study of smoothing techniques for language modeling", 1998, section 2.4.
    """

    def __init__(
        self, order: int, vocab_size: int, smoothing: str = "witten-bell", k: float | None = None, given: int = 1
    ) -> None:
        if order < 0 or vocab_size < 1 or given < 0:
            raise ConfigError(
                "order and given must be at least 0, vocab_size at least 1; "
                f"got order={order}, given={given}, vocab_size={vocab_size}"
            )
        if smoothing not in SMOOTHINGS:
            raise ConfigError(f"unknown smoothing {smoothing!r}{nearest(smoothing, SMOOTHINGS)}")
        if k is not None and smoothing != "add-k":
            raise ConfigError(f"k belongs to smoothing 'add-k', not to {smoothing!r}")
        if k is not None and not k > 0:
            raise ConfigError(f"k must be above 0, got {k}; for no smoothing use 'mle'")
        self.order, self.vocab_size, self.smoothing, self.given = order, vocab_size, smoothing, given
        self.k = 1.0 if k is None else k
        self._levels: list[_Level] | None = None

    def fit(self, tokens: Tokens | Sequence[Tokens]) -> NGram:
        """Count the n-grams of a sequence, or of several; none reaches from one sequence into the next.

        Parameters
        ----------
        tokens : (T,) integers, (B, T) integers, or a list of sequences
            Ids in [0, V).

        Returns
        -------
        NGram
            Itself.

        Raises
        ------
        ValueError
            For ids outside the vocabulary, or sequences with no token after the `given` ones.
        """
        ids, position = self._join(tokens)
        counted = position >= self.given
        levels: list[_Level] = []
        node = np.zeros(len(ids), np.int64)  # the parent of every 1-gram is the empty gram, number 0
        parents = 1
        for j in range(self.order):
            here = position >= j  # a (j + 1)-gram ends here
            key = node[here] * self.vocab_size + ids[here]
            keys, rank = _distinct(key, parents * self.vocab_size)
            counts = np.bincount(rank[counted[here]], minlength=len(keys))
            parent = keys // self.vocab_size
            totals = np.bincount(parent, weights=counts, minlength=parents + 1)
            distinct = np.bincount(parent[counts > 0], minlength=parents + 1)
            levels.append(_Level(np.append(keys, _UNSEEN), np.append(counts, 0), totals, distinct))
            node, parents = _shift(_scatter(rank, here)), len(keys)
        self._levels = levels
        return self

    def log_prob(self, tokens: Tokens | Sequence[Tokens]) -> np.ndarray:
        """Log-probability in nats of each token after the `given` ones, sequence after sequence.

        Parameters
        ----------
        tokens : (T,) integers, (B, T) integers, or a list of sequences
            Ids in [0, V).

        Returns
        -------
        np.ndarray
            (T - given,) float64, for one sequence; -inf is possible under "mle".
        """
        *_, last = self._rungs(tokens)
        return last

    def loss(self, tokens: Tokens | Sequence[Tokens]) -> float:
        """Mean negative log-likelihood in nats per predicted token."""
        return self.ladder(tokens)[-1]

    def ladder(self, tokens: Tokens | Sequence[Tokens]) -> list[float]:
        """Losses of the models of order 0, 1, ..., `order`: the tables of each contain those of the one before."""
        return [float(-rung.mean()) for rung in self._rungs(tokens)]

    def probs(self, context: Tokens) -> np.ndarray:
        """Distribution of the token after `context`, of which only the last order - 1 tokens matter.

        Parameters
        ----------
        context : (T,) integers
            May be empty.

        Returns
        -------
        np.ndarray
            (V,) float64, sum 1.
        """
        context = self._ids(context)
        p = np.full(self.vocab_size, 1 / self.vocab_size)
        for j, level in enumerate(self._fitted()[: len(context) + 1]):
            parent = self._gram(context[len(context) - j :])
            first, last = np.searchsorted(level.keys, [parent * self.vocab_size, (parent + 1) * self.vocab_size])
            counts = np.zeros(self.vocab_size)
            counts[level.keys[first:last] - parent * self.vocab_size] = level.counts[first:last]
            p = self._refine(p, counts, level.totals[[parent]], level.distinct[[parent]])
        return p

    def generate(self, n: int, rng: np.random.Generator, prompt: Tokens = ()) -> np.ndarray:
        """Draw `n` tokens, one after the other.

        Parameters
        ----------
        n : int
            How many.
        rng : np.random.Generator
            Where the draws come from.
        prompt : (T,) integers
            What they continue.

        Returns
        -------
        np.ndarray
            (T + n,) int64: the prompt and what follows it.
        """
        ids = self._ids(prompt).tolist()
        for _ in range(n):
            p = self.probs(ids[max(0, len(ids) - self.order + 1) :])
            ids.append(int(rng.choice(self.vocab_size, p=p)))
        return np.array(ids, dtype=np.int64)

    def _rungs(self, tokens: Tokens | Sequence[Tokens]) -> Iterator[np.ndarray]:
        """Log-probabilities of the predicted tokens under order 0, 1, ..., `order`."""
        levels = self._fitted()
        ids, position = self._join(tokens)
        predicted = position >= self.given
        p = np.full(len(ids), 1 / self.vocab_size)
        node = np.zeros(len(ids), np.int64)
        yield np.log(p[predicted])
        for j, level in enumerate(levels):
            inside = position >= j  # the context does not reach into another sequence
            parent = np.where(inside, node, -1)
            gram = level.find(parent * self.vocab_size + ids)
            refined = self._refine(p, level.counts[gram], level.totals[parent], level.distinct[parent])
            p = np.where(inside, refined, p)
            with np.errstate(divide="ignore"):
                yield np.log(p[predicted])
            node = _shift(gram)

    def _refine(self, lower: np.ndarray, counts: np.ndarray, total: np.ndarray, distinct: np.ndarray) -> np.ndarray:
        """P(w | h) from P(w | h') and the counts of h."""
        if self.smoothing == "add-k":
            return (counts + self.k) / (total + self.k * self.vocab_size)
        if self.smoothing == "witten-bell":
            numerator, denominator = counts + distinct * lower, total + distinct
        else:
            numerator, denominator = counts, total
        return np.where(total > 0, numerator / np.maximum(denominator, 1), lower)

    def _gram(self, ids: np.ndarray) -> int:
        """Number of the gram `ids` in its level, -1 where it was never seen; the empty gram is 0."""
        node = 0
        for level, i in zip(self._fitted(), ids, strict=False):
            node = int(level.find(node * self.vocab_size + i))
        return node

    def _fitted(self) -> list[_Level]:
        if self._levels is None:
            raise ValueError("this NGram has counted nothing yet: call fit(tokens) first")
        return self._levels

    def _join(self, tokens: Tokens | Sequence[Tokens]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all sequences end to end (N,), and each one's position within its sequence (N,)."""
        several = len(tokens) > 0 and np.ndim(tokens[0]) > 0
        sequences = [self._ids(sequence) for sequence in cast(Sequence[Tokens], tokens if several else [tokens])]
        if not any(len(sequence) > self.given for sequence in sequences):
            raise ValueError(f"there is no token to predict: no sequence is longer than the {self.given} given")
        return np.concatenate(sequences), np.concatenate([np.arange(len(sequence)) for sequence in sequences])

    def _ids(self, tokens: Tokens) -> np.ndarray:
        ids = np.asarray(tokens)
        if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
            raise ValueError(f"tokens must be a sequence of integers, got shape {ids.shape} of {ids.dtype}")
        if ids.size and not (ids.min() >= 0 and ids.max() < self.vocab_size):
            raise ValueError(f"tokens must be in [0, {self.vocab_size}), got {ids.min()} to {ids.max()}")
        return ids.astype(np.int64)


def _distinct(key: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct keys, sorted, and the rank of every key among them; `size` is above every key."""
    if size > 4 * len(key):
        return np.unique(key, return_inverse=True)
    # A table of all possible keys, where it is not much larger than the text, is some thirty times faster than sorting.
    present = np.zeros(size, bool)
    present[key] = True
    rank = np.cumsum(present, dtype=np.int32) - 1
    return np.flatnonzero(present), rank[key]


def _shift(node: np.ndarray) -> np.ndarray:
    """The gram that ends one token earlier: the context of each token. The first has none."""
    return np.concatenate([[-1], node[:-1]])


def _scatter(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """`values` at the True places of `where`, -1 elsewhere."""
    full = np.full(len(where), -1, np.int64)
    full[where] = values
    return full


def baselines(train: Tokens, held_out: Tokens, vocab_size: int) -> list[tuple[str, float]]:
    """Held-out loss of the count models that a neural model has to beat, all counted on the same training text.

    All are Witten-Bell, each order interpolated with the ones below: one rule and nothing to tune, where add-k needs
    another k for every order.

    Parameters
    ----------
    train : (T,) integers
        Tokens to count.
    held_out : (S,) integers
        Tokens to predict.
    vocab_size : int
        V.

    Returns
    -------
    list of (str, float)
        Name and nats per token.
    """
    losses = NGram(5, vocab_size).fit(train).ladder(held_out)
    names = {0: "uniform", 1: "unigram", 2: "bigram", 3: "trigram", 5: "Witten-Bell 5-gram"}
    return [(name, losses[order]) for order, name in names.items()]
