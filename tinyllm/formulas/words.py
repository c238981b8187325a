"""Words as vectors: a row of a table, and word2vec's way of filling that table from plain text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinyllm.formulas.activations import sigmoid
from tinyllm.formulas.entry import Formula, Matrix, Vector, literal, where
from tinyllm.formulas.linear import dot


@literal
def embedding(ids: Sequence[int], table: Matrix) -> list[list[float]]:
    """F-EMB: v_i = table[x_i], one row per token.

    Parameters
    ----------
    ids : (T,) ints
        The text.
    table : (V, C) floats
        One row per word.

    Returns
    -------
    (T, C) floats
    """
    return [list(table[i]) for i in ids]


@literal
def embedding_by_one_hot(ids: Sequence[int], table: Matrix) -> list[list[float]]:
    """F-EMB as the sum that it is: v_ij = sum_w [x_i = w] table_wj, a one-hot row times the table.

    Parameters
    ----------
    ids : (T,) ints
        The text.
    table : (V, C) floats
        One row per word.

    Returns
    -------
    (T, C) floats
    """
    out = []
    for x in ids:
        row = []
        for j in range(len(table[0])):
            total = 0.0
            for w in range(len(table)):
                total += (1.0 if x == w else 0.0) * table[w][j]
            row.append(total)
        out.append(row)
    return out


@literal
def skip_gram_pairs(ids: Sequence[int], window: int) -> list[tuple[int, int]]:
    """Every (centre, context) pair at most `window` places apart, in order of the text.

    Parameters
    ----------
    ids : (T,) ints
        The text.
    window : int
        Largest distance of a pair.

    Returns
    -------
    list of (int, int)
    """
    pairs = []
    for t in range(len(ids)):
        for s in range(t - window, t + window + 1):
            if s != t and 0 <= s < len(ids):
                pairs.append((ids[t], ids[s]))
    return pairs


@literal
def noise_distribution(counts: Vector, power: float = 0.75) -> list[float]:
    """The law that negatives are drawn from: count_w^(3/4), scaled to sum 1.

    Parameters
    ----------
    counts : (V,) numbers
        How often each word occurs.
    power : float
        Below 1, it favours rare words.

    Returns
    -------
    (V,) floats

    Notes
    -----
    Source: Mikolov et al. 2013b, section 2.2.
    """
    total = 0.0
    for count in counts:
        total += count**power
    return [count**power / total for count in counts]


@literal
def skip_gram_negative_sampling(v: Vector, u: Vector, negatives: Matrix) -> float:
    """Word2vec's loss for one pair: - log sigmoid(u . v) - sum_k log sigmoid(- u_k . v).

    Parameters
    ----------
    v : (C,) floats
        Input vector of the centre word.
    u : (C,) floats
        Output vector of the context word.
    negatives : (K, C) floats
        Output vectors of K words drawn from `noise_distribution`.

    Returns
    -------
    float, in nats

    Notes
    -----
    Source: Mikolov et al. 2013b, Distributed Representations of Words and Phrases, equation 4.
    """
    loss = -math.log(sigmoid(dot(u, v)))
    for k in range(len(negatives)):
        loss -= math.log(sigmoid(-dot(negatives[k], v)))
    return loss


TESTS = "tests/formulas/test_formulas_words.py::"

ENTRIES = (
    Formula(
        id="F-EMB",
        kind="formula",
        title="Word vectors",
        latex=(
            r"v_i = \mathrm{word2vec}(x_i) = E_{x_i}, \quad "
            r"L = -\log \sigma(u_c \cdot v_w) - \sum_{k=1}^{K} \log \sigma(-u_k \cdot v_w)"
        ),
        printed=r"v_i = \text{word2vec}(x_i)",
        meaning=(
            "Each word is given a row of a table. word2vec fills the table from plain text: the vector of a word must "
            "tell the words that really stand near it from words drawn at random. The documents' models train the "
            "table with everything else instead."
        ),
        where=where("004 4.2.1"),
        axes="T tokens, V vocabulary, C channels, K negatives",
        loops=(
            embedding,
            embedding_by_one_hot,
            skip_gram_negative_sampling,
            skip_gram_pairs,
            noise_distribution,
        ),
        library=("tinyllm.embedding", "tinyllm.models.Word2Vec"),
        kernels=("tinyllm.kernels.cpu.embedding.embedding_vjp", "tinyllm.kernels.cpu.word2vec.word2vec"),
        tests=(
            TESTS + "test_embedding_is_one_hot_times_table",
            TESTS + "test_negative_sampling_by_hand",
            "tests/formulas/test_library_equals_formulas.py::test_embedding",
            "tests/models/test_word2vec.py::test_a_pass_steps_along_the_gradient_of_the_formula",
            "tests/models/test_word2vec.py::test_noise_is_the_formula",
        ),
        chapter="11",
        source="Mikolov et al. 2013b, Distributed Representations of Words and Phrases, section 2.2 and equation 4",
    ),
)
