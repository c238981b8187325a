"""word2vec: a pass over sentences that moves the vectors of words towards those of their neighbours.

Every pair of words costs 1 + K scalar products of C numbers and as many rows added to rows; the rows lie all over two
tables of V rows, so that memory, not arithmetic, sets the pace. An input row is read once for all the output rows that
it meets, and written once. Nothing is allocated and nothing is locked: threads that train the same tables at the same
time overwrite each other's additions now and then, which costs some of them and nothing else (Hogwild).

Source: Mikolov et al. 2013, Distributed Representations of Words and Phrases, section 2; their program word2vec.c
for the order of things; Irsoy, Benton, Stratos 2021, Corrected CBOW, for the gradient of a mean; Recht et al. 2011,
Hogwild.
"""

from __future__ import annotations

import numpy as np

from tinyllm.kernels.cpu.compile import Array, inline, jit

LOSS_EVERY = 16  # the loss is computed for one centre in so many


@inline
def next_random(state: int) -> int:
    """The next state of a linear congruential generator modulo 2^48 (drand48's); the upper 32 bits are used."""
    return (state * 25214903917 + 11) & 0xFFFFFFFFFFFF


@inline
def draw(state: int, threshold: Array, alias: Array) -> int:
    """A word by the alias method: a cell of equal width, then which of the two words that share it."""
    product = (state >> 16) * threshold.size
    cell = product >> 32
    return cell if (product & 0xFFFFFFFF) < threshold[cell] else alias[cell]


@inline
def logistic_unit(h: Array, e: Array, outputs: Array, row: int, label: float, rate: float) -> float:
    """One step on -log sigmoid(x) (label 1) or -log sigmoid(-x) (label 0) with x = u . h, u being a row of `outputs`.

    Moves u, adds h's step to `e`, and gives x.
    """
    x = h[0] * outputs[row, 0]
    for j in range(1, h.size):
        x += h[j] * outputs[row, j]
    g = h.dtype.type((label - 1.0 / (1.0 + np.exp(-x))) * rate)
    for j in range(h.size):
        e[j] += g * outputs[row, j]
        outputs[row, j] += g * h[j]
    return x


@jit
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
    """Train on sentences `first` to `last` - 1, in place.

    Sentence s is ids[bounds[s] : bounds[s + 1]] (int32 words). `vectors` and `outputs` (V or more, C) are moved.
    `keep` (V,) int64: a word stays if 32 random bits are below it. `threshold`, `alias` (V,) int64 define the
    negatives; with `negative` 0 the rows tree_node[tree_start[w] : tree_start[w + 1]] of `outputs` with their labels
    stand for word w instead. The rate is `rate` at the first word and falls by `slope` with every word. `kept` (longest
    sentence,) int32, `h` and `e` (C,) are scratch. `loss` (2,) float64: sum and number of losses, added to.
    """
    size = vectors.shape[1]
    done = 0
    for sentence in range(first, last):
        length = 0
        for t in range(bounds[sentence], bounds[sentence + 1]):
            state = next_random(state)
            if (state >> 16) < keep[ids[t]]:
                kept[length] = ids[t]
                length += 1
        here = rate - slope * done
        done += bounds[sentence + 1] - bounds[sentence]
        for t in range(length):
            state = next_random(state)
            reach = 1 + (((state >> 16) * window) >> 32)  # 1..window, all equally likely
            begin, end = max(0, t - reach), min(length, t + reach + 1)
            if end - begin < 2:
                continue
            centre = kept[t]
            if cbow:  # the mean of the neighbours' vectors is to tell the centre
                share = vectors.dtype.type(1.0 / (end - begin - 1))
                h[:] = 0
                for s in range(begin, end):
                    if s != t:
                        for j in range(size):
                            h[j] += share * vectors[kept[s], j]
            else:  # the centre's vector is to tell each neighbour
                for j in range(size):
                    h[j] = vectors[centre, j]
            for s in range(begin, end):
                if (s == t) != cbow:  # skip-gram: all but the centre; CBOW: the centre alone
                    continue
                word = kept[s]
                e[:] = 0
                total = 0.0
                units = 1 + negative if negative > 0 else tree_start[word + 1] - tree_start[word]
                for k in range(units):
                    label = 1.0
                    row = word
                    if negative == 0:
                        row, label = tree_node[tree_start[word] + k], tree_label[tree_start[word] + k]
                    elif k > 0:
                        state = next_random(state)
                        row, label = draw(state, threshold, alias), 0.0
                        if row == word:
                            continue
                    x = logistic_unit(h, e, outputs, row, label, here)
                    if t % LOSS_EVERY == 0:
                        total += np.log1p(np.exp(x if label == 0 else -x))
                if t % LOSS_EVERY == 0:
                    loss[0] += total
                    loss[1] += 1
                if cbow:
                    for r in range(begin, end):
                        if r != t:
                            for j in range(size):
                                vectors[kept[r], j] += share * e[j]
                else:  # in skip-gram, h is the row itself as it goes from neighbour to neighbour
                    for j in range(size):
                        h[j] += e[j]
            if not cbow:
                for j in range(size):
                    vectors[centre, j] = h[j]
