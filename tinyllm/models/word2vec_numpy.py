"""The pass of `tinyllm.kernels.cpu.word2vec` in NumPy, for where Numba is not installed: a word at a time."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def word2vec(
    ids: Array,
    bounds: Array,
    first: int,
    last: int,
    vectors: Array,
    outputs: Array,
    keep: Array,
    threshold: Array,
    alias: Array,
    tree_start: Array,
    tree_node: Array,
    tree_label: Array,
    cbow: bool,
    window: int,
    negative: int,
    state: int,
    rate: float,
    slope: float,
    kept: Array,
    h: Array,
    e: Array,
    loss: Array,
) -> None:
    """Train on some sentences, in place; arguments as for the kernel, whose scratch is not used.

    The draws are others, and all neighbours of a word are learned from at once.
    """
    rng = np.random.default_rng(state)
    for sentence in range(first, last):
        text = ids[bounds[sentence] : bounds[sentence + 1]]
        here = rate - slope * int(bounds[sentence] - bounds[first])
        text = text[rng.integers(0, 2**32, len(text)) < keep[text]]
        for t in range(len(text)):
            reach = int(rng.integers(1, window + 1))
            near = np.concatenate([text[max(0, t - reach) : t], text[t + 1 : t + reach + 1]])
            if len(near) == 0:
                continue
            inputs, targets = (near, text[t : t + 1]) if cbow else (text[t : t + 1], near)
            if negative > 0:
                cells = rng.integers(0, len(threshold), (len(targets), negative))
                other = rng.integers(0, 2**32, cells.shape) >= threshold[cells]
                drawn = np.where(other, alias[cells], cells)
                rows = np.concatenate([targets, drawn[drawn != targets[:, None]]])
                labels = np.arange(len(rows)) < len(targets)
            else:
                paths = [np.arange(tree_start[word], tree_start[word + 1]) for word in targets]
                rows, labels = (table[np.concatenate(paths)] for table in (tree_node, tree_label))
            mean = vectors[inputs].mean(axis=0)  # (C,)
            x = outputs[rows] @ mean  # (R,)
            g = (here * (labels - 1 / (1 + np.exp(-np.clip(x, -80, 80))))).astype(mean.dtype)
            step = g @ outputs[rows] / len(inputs)
            np.add.at(outputs, rows, np.outer(g, mean))
            np.add.at(vectors, inputs, np.broadcast_to(step, (len(inputs), len(step))))
            loss += np.logaddexp(0, np.where(labels > 0, -x, x)).sum(), len(targets)
