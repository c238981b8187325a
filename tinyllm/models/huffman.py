"""The tree of hierarchical softmax: frequent words by short paths."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np


def huffman(counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The paths from the root of Huffman's tree to every word.

    Parameters
    ----------
    counts : sequence of V numbers
        How often each word occurs; V >= 2.

    Returns
    -------
    start : (V + 1,) int64
        The path of word w is at start[w] to start[w + 1] - 1 of the next two.
    node : (L,) int64
        Inner nodes, 0 to V - 2, from the root down.
    label : (L,) float64
        1 where the path goes left, 0 where it goes right.

    Notes
    -----
    Source: Huffman 1952; Morin and Bengio 2005 for the softmax; Mikolov et al. 2013b, section 2.1.
    """
    size = len(counts)
    heap = [(count, word) for word, count in enumerate(counts)]
    heapq.heapify(heap)
    parent = np.zeros(2 * size - 1, np.int64)
    left = np.zeros(2 * size - 1)
    for inner in range(size, 2 * size - 1):
        (a, first), (b, second) = heapq.heappop(heap), heapq.heappop(heap)
        parent[first] = parent[second] = inner
        left[first] = 1.0
        heapq.heappush(heap, (a + b, inner))
    start, node, label = [0], [], []
    for word in range(size):
        path = []
        here = word
        while here != 2 * size - 2:
            path.append((parent[here] - size, left[here]))
            here = parent[here]
        node += [inner for inner, _ in reversed(path)]
        label += [side for _, side in reversed(path)]
        start.append(len(node))
    return np.array(start, np.int64), np.array(node, np.int64), np.array(label)
