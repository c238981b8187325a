"""Counting from both sides: which token stands between two others. What a masked language model has to beat."""

from __future__ import annotations

import numpy as np

_CHUNK = 1 << 22  # probabilities that are held at once


class BetweenNeighbours:
    """P(w | l, r): the token between a left and a right neighbour, by counts.

    With the bigram model of Witten and Bell, Bayes' rule gives P(w | l) P(r | w), normalised over w; where the triple
    (l, ., r) was seen, its own counts c are interpolated with that, with T different tokens seen between the two:
    (c(l, w, r) + T P(w)) / (c(l, ., r) + T). A neighbour that is hidden itself drops out.

    Parameters
    ----------
    vocab_size : int
        V; ids are in [0, V).
    hidden : int
        The id of ``[MASK]``, which stands where a neighbour is hidden.
    triples : bool
        Whether triples are counted too; without them this is the bigram model asked from both sides.
    """

    def __init__(self, vocab_size: int, hidden: int, triples: bool = True) -> None:
        self.vocab_size, self.hidden, self.triples = vocab_size, hidden, triples

    def fit(self, tokens: np.ndarray) -> BetweenNeighbours:
        """Count a text, (N,) integers."""
        V, ids = self.vocab_size, np.asarray(tokens, np.int64)
        counts = np.bincount(ids, minlength=V)
        seen = np.count_nonzero(counts)
        self.unigram = (counts + seen / V) / (len(ids) + seen)  # (V,)
        self._after = _Sparse(ids[:-1], ids[1:], V)  # left -> (token, count)
        self._before = _Sparse(ids[1:], ids[:-1], V)  # right -> (token, count)
        self._between = _Sparse(ids[:-2] * V + ids[2:], ids[1:-1], V) if self.triples else None
        totals, distinct = self._after.totals(np.arange(V))
        self._total, self._share = totals, distinct  # of each token as a left neighbour
        return self

    def probs(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """The distributions (n, V) between neighbours (n,) and (n,)."""
        left, right = np.asarray(left, np.int64), np.asarray(right, np.int64)
        forward = self._rows(left)
        backward = self._columns(right)
        p = forward * backward
        p /= p.sum(axis=1, keepdims=True)
        if self._between is None:
            return p
        pair = np.where((left == self.hidden) | (right == self.hidden), -1, left * self.vocab_size + right)
        total, distinct = self._between.totals(pair)
        p *= np.where(total > 0, distinct / np.maximum(total + distinct, 1), 1.0)[:, None]
        self._between.add_to(p, pair, 1 / np.maximum(total + distinct, 1))
        return p

    def judge(self, left: np.ndarray, right: np.ndarray, tokens: np.ndarray) -> tuple[float, float]:
        """Mean loss in nats, and share of tokens (n,) that are the likeliest between their neighbours."""
        loss = right_ones = 0.0
        rows = max(1, _CHUNK // self.vocab_size)
        for i in range(0, len(tokens), rows):
            p, true = self.probs(left[i : i + rows], right[i : i + rows]), tokens[i : i + rows]
            loss -= float(np.log(p[np.arange(len(true)), true]).sum())
            right_ones += float((p.argmax(axis=1) == true).sum())
        return loss / len(tokens), right_ones / len(tokens)

    def _rows(self, left: np.ndarray) -> np.ndarray:
        """P(w | left), (n, V); P(w) where the neighbour is hidden or was never followed."""
        total, distinct = self._after.totals(left)
        known = (total > 0) & (left != self.hidden)
        scale = np.where(known, 1 / np.maximum(total + distinct, 1), 0.0)
        p = self.unigram * np.where(known, distinct * scale, 1.0)[:, None]
        self._after.add_to(p, left, scale)
        return p

    def _columns(self, right: np.ndarray) -> np.ndarray:
        """P(right | w), (n, V); 1 where the neighbour is hidden."""
        scale = np.where(self._total > 0, 1 / np.maximum(self._total + self._share, 1), 0.0)  # (V,)
        kept = np.where(self._total > 0, self._share * scale, 1.0)
        p = self.unigram[right][:, None] * kept
        self._before.add_to(p, right, np.ones(len(right)), scale)
        p[right == self.hidden] = 1.0
        return p


class _Sparse:
    """For each key, the tokens seen with it and their counts."""

    def __init__(self, keys: np.ndarray, tokens: np.ndarray, vocab_size: int) -> None:
        pairs, self._counts = np.unique(np.stack([keys, tokens]), axis=1, return_counts=True)
        self._keys, self._tokens = pairs
        self._sums = np.concatenate([[0], self._counts.cumsum()])

    def _range(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.searchsorted(self._keys, keys, "left"), np.searchsorted(self._keys, keys, "right")

    def totals(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How often each key was seen, and with how many tokens."""
        first, last = self._range(keys)
        return self._sums[last] - self._sums[first], last - first

    def add_to(self, p: np.ndarray, keys: np.ndarray, scale: np.ndarray, of_token: np.ndarray | None = None) -> None:
        """Add to row i of p (n, V) the counts of keys[i], times scale[i], and times `of_token` where it is given."""
        for row, (first, last, factor) in enumerate(zip(*self._range(keys), scale, strict=True)):
            tokens = self._tokens[first:last]
            added = self._counts[first:last] * factor
            p[row, tokens] += added if of_token is None else added * of_token[tokens]
