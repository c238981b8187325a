"""Learning byte pairs: merge the most frequent pair of neighbouring tokens, and again, and again.

Two versions that give the same merges: `train_naive` is the algorithm as it reads, `train_merges` the one to use.

Of equally frequent pairs the one with the smallest ids is merged, left id first. For this the bytes are numbered as in
GPT-2's byte alphabet (printable ones first), and each merged token comes after all earlier ones. It is the rule of the
trainer in Hugging Face's ``tokenizers``, so both learn the same merges.

Source: Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units" (2016), algorithm 1;
on bytes: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), section 2.2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import islice, pairwise

from tinyllm.text.bytes_alphabet import BYTE_ORDER

Pair = tuple[int, int]

_PLACE = [BYTE_ORDER.index(byte) for byte in range(256)]


def train_naive(words: Mapping[bytes, int], n_merges: int, min_frequency: int = 1) -> list[Pair]:
    """`train_merges`, counting every pair of every word anew for every merge."""
    spelt = [(list(word), count) for word, count in words.items()]
    merges: list[Pair] = []
    while len(merges) < n_merges:
        counts: Counter[Pair] = Counter()
        for ids, count in spelt:
            for pair in pairwise(ids):
                counts[pair] += count
        if not counts or max(counts.values()) < min_frequency:
            break
        best = min(counts, key=lambda pair: (-counts[pair], _order(pair[0]), _order(pair[1])))
        spelt = [(_replace(ids, best, 256 + len(merges)), count) for ids, count in spelt]
        merges.append(best)
    return merges


def _order(token: int) -> int:
    return _PLACE[token] if token < 256 else token


def _replace(ids: list[int], pair: Pair, merged: int) -> list[int]:
    """`ids` with each occurrence of `pair`, from left to right, replaced by `merged`."""
    out: list[int] = []
    i = 0
    while i < len(ids):
        if (*ids[i : i + 2],) == pair:
            out.append(merged)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def train_merges(words: Mapping[bytes, int], n_merges: int, min_frequency: int = 1) -> list[Pair]:
    """Learn the merges of a corpus, given as its words with their counts.

    Parameters
    ----------
    words : mapping of bytes to int
        The words of the corpus, no merge crosses from one to the next, and how often each occurs.
    n_merges : int
        How many merges to learn; fewer where no pair is left.
    min_frequency : int
        A pair that occurs less often is not merged.

    Returns
    -------
    list of (int, int)
        The merged pairs in order. Ids below 256 are bytes; ``256 + k`` is what merge number k made.
    """
    spelt = [([_PLACE[byte] for byte in word], count) for word, count in words.items()]
    learned = islice(learn_pairs(spelt, 256, min_frequency), n_merges)
    return [(_byte_or_token(a), _byte_or_token(b)) for a, b in learned]


def learn_pairs(words: Iterable[tuple[Sequence[int], int]], symbols: int, min_frequency: int = 1) -> Iterator[Pair]:
    """The merges of a corpus, one after the other, until no pair is left.

    All words lie in one long array, as a doubly linked list of tokens. Of each pair we keep its count and the places
    where it was seen; a merge touches only these places and their neighbours. The next pair comes from a heap whose
    counts may be out of date: a merge only ever lowers the count of an old pair, so an outdated entry comes up too
    early, never too late, and is put back with its true count.

    Parameters
    ----------
    words : iterable of (sequence of int, int)
        Each word of the corpus, spelt in symbols ``0 .. symbols - 1``, and how often it occurs.
    symbols : int
        How many there are; ``symbols + k`` is what merge number k made.
    min_frequency : int
        A pair that occurs less often is not merged.

    Yields
    ------
    (int, int)
        The most frequent pair of the tokens as they are then; of equally frequent ones the one with the smallest ids.
    """
    tokens, weight = _lay_out(words)
    left, right = list(range(-1, len(tokens) - 1)), list(range(1, len(tokens) + 1))
    counts: dict[Pair, int] = {}
    places: dict[Pair, list[int]] = {}
    for i in range(len(tokens) - 1):
        if tokens[i] >= 0 and tokens[i + 1] >= 0:
            pair = (tokens[i], tokens[i + 1])
            counts[pair] = counts.get(pair, 0) + weight[i]
            places.setdefault(pair, []).append(i)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapify(heap)

    merged = symbols - 1
    while heap:
        count, best = heappop(heap)
        true_count = counts[best]
        if true_count != -count:
            heappush(heap, (-true_count, best))
            continue
        if true_count < max(min_frequency, 1):
            break
        merged += 1
        yield best
        born: set[Pair] = set()
        for i in places.pop(best):
            j = right[i]
            if tokens[i] != best[0] or tokens[j] != best[1]:
                continue  # taken meanwhile by an overlapping merge, now or earlier
            before, after, times = left[i], right[j], weight[i]
            tokens[i], tokens[j] = merged, _GONE
            right[i], left[after] = after, i
            if tokens[before] >= 0:
                counts[tokens[before], best[0]] -= times
                pair = (tokens[before], merged)
                counts[pair] = counts.get(pair, 0) + times
                places.setdefault(pair, []).append(before)
                born.add(pair)
            if tokens[after] >= 0:
                counts[best[1], tokens[after]] -= times
                pair = (merged, tokens[after])
                counts[pair] = counts.get(pair, 0) + times
                places.setdefault(pair, []).append(i)
                born.add(pair)
        for pair in born:
            heappush(heap, (-counts[pair], pair))


_BORDER, _GONE = -1, -2  # no token: the border between two words; the right half of a merged pair


def _lay_out(words: Iterable[tuple[Sequence[int], int]]) -> tuple[list[int], list[int]]:
    """The words' symbols with a border before, between and after them; the counts."""
    tokens, weight = [_BORDER], [0]
    for word, count in words:
        tokens += word
        tokens.append(_BORDER)
        weight += [count] * (len(word) + 1)
    return tokens, weight


def _byte_or_token(token: int) -> int:
    return BYTE_ORDER[token] if token < 256 else token
