"""Encoding one word by byte pairs: the merges that training learned, replayed in the order they were learned.

Source: Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units" (2016), section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise

#: For a pair of token ids that merges: its rank (the smallest is merged first) and the id of the merged token.
Merges = Mapping[tuple[int, int], tuple[float, int]]

_GONE = -1  # in the place of the right half of a merged pair
_NO_MERGE = (-1, -1)


def merge_word_naive(ids: Sequence[int], merges: Merges) -> list[int]:
    """As long as a neighbouring pair can merge, merge the one of lowest rank, the leftmost where it occurs twice.

    The definition as it reads, quadratic in the length of the word; `merge_word` is what `encode` uses.
    """
    ids = list(ids)
    while True:
        found = [(merges[pair][0], i) for i, pair in enumerate(pairwise(ids)) if pair in merges]
        if not found:
            return ids
        _, i = min(found)
        ids[i : i + 2] = [merges[ids[i], ids[i + 1]][1]]


def merge_word(ids: Sequence[int], merges: Merges) -> list[int]:
    """The same ids as `merge_word_naive` in O(n log n): a heap of the pairs over a doubly linked list of the tokens.

    Parameters
    ----------
    ids : sequence of int
        The ids of the word's bytes.
    merges : mapping
        ``(left id, right id) -> (rank, merged id)``.

    Returns
    -------
    list of int
        The ids of the word's tokens.
    """
    tokens = list(ids)
    end = len(tokens)
    left, right = list(range(-1, end - 1)), list(range(1, end + 1))
    heap = [(merges[pair][0], i) for i, pair in enumerate(pairwise(ids)) if pair in merges]
    heapify(heap)

    while heap:
        rank, i = heappop(heap)
        j = right[i]
        if j == end or merges.get((tokens[i], tokens[j]), _NO_MERGE)[0] != rank:
            continue  # the pair that was pushed is gone: one of its tokens has merged with another neighbour
        tokens[i] = merges[tokens[i], tokens[j]][1]
        tokens[j] = _GONE
        right[i] = right[j]
        if right[i] < end:
            left[right[i]] = i
        for a, b in ((left[i], i), (i, right[i])):
            if a >= 0 and b < end and (tokens[a], tokens[b]) in merges:
                heappush(heap, (merges[tokens[a], tokens[b]][0], a))

    return [token for token in tokens if token != _GONE]
