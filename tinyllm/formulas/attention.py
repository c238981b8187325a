"""Attention: every position asks (Q) and answers (K), and what they say (V) is mixed by how well the two match."""

from __future__ import annotations

import math

from tinyllm.formulas.entry import Erratum, Formula, Matrix, Vector, literal, where
from tinyllm.formulas.linear import dot, linear


@literal
def softmax(x: Vector) -> list[float]:
    """Component j is exp(x_j) / sum_k exp(x_k): positive numbers that sum to 1.

    The largest x is subtracted first. It cancels in the quotient, and without it exp(1000) overflows.

    Parameters
    ----------
    x : (n,) floats
        Scores.

    Returns
    -------
    (n,) floats; NaN everywhere when every x is -inf, for there is nothing to share out
    """
    largest = max(x)
    total = 0.0
    for k in range(len(x)):
        total += math.exp(x[k] - largest)
    return [math.exp(x[j] - largest) / total for j in range(len(x))]


@literal
def attention_weights(Q: Matrix, K: Matrix, mask: Matrix | None = None, causal: bool = False) -> list[list[float]]:
    """The left factor of F-ATTN, softmax(Q K^T / sqrt(d_k)), one row per query.

    Parameters
    ----------
    Q : (T, d_k) floats
        Queries.
    K : (S, d_k) floats
        Keys.
    mask : (T, S), optional
        Booleans, True where attention is allowed; or numbers, added to the scores.
    causal : bool
        Query t sees keys 0..t only.

    Returns
    -------
    (T, S) floats; a row in which nothing is allowed is zero
    """
    d_k = len(K[0])
    weights = []
    for t in range(len(Q)):
        scores = []
        for s in range(len(K)):
            score = 0.0
            for i in range(d_k):
                score += Q[t][i] * K[s][i]
            score = score / math.sqrt(d_k)
            if mask is not None:
                m = mask[t][s]
                score = (score if m else -math.inf) if isinstance(m, bool) else score + m
            if causal and s > t:
                score = -math.inf
            scores.append(score)
        nothing_allowed = max(scores) == -math.inf
        weights.append([0.0] * len(K) if nothing_allowed else softmax(scores))
    return weights


@literal
def attention(Q: Matrix, K: Matrix, V: Matrix, mask: Matrix | None = None, causal: bool = False) -> list[list[float]]:
    """F-ATTN: Attention(Q, K, V) = softmax(Q K^T / sqrt(d_k)) V.

    Parameters
    ----------
    Q : (T, d_k) floats
        Queries.
    K : (S, d_k) floats
        Keys.
    V : (S, d_v) floats
        Values.
    mask, causal
        As in `attention_weights`.

    Returns
    -------
    (T, d_v) floats

    Notes
    -----
    Source: Vaswani et al. 2017, section 3.2.1, equation 1.
    """
    weights = attention_weights(Q, K, mask, causal)
    out = []
    for t in range(len(Q)):
        row = []
        for j in range(len(V[0])):
            total = 0.0
            for s in range(len(K)):
                total += weights[t][s] * V[s][j]
            row.append(total)
        out.append(row)
    return out


@literal
def multi_head_attention(
    X: Matrix, W_q: Matrix, W_k: Matrix, W_v: Matrix, W_o: Matrix, n_head: int, causal: bool = False
) -> list[list[float]]:
    """F-ATTN in several subspaces at once: concat(head_1, ..., head_h) W_o^T, head_h on its own slice of q, k and v.

    Parameters
    ----------
    X : (T, C) floats
        The text, one vector per position.
    W_q, W_k, W_v, W_o : (C, C) floats, stored (out, in)
        Weights of query, key, value and output.
    n_head : int
        Divides C; head h owns the rows h D .. (h + 1) D of W_q, W_k and W_v, D = C / n_head.
    causal : bool
        Query t sees keys 0..t only.

    Returns
    -------
    (T, C) floats

    Notes
    -----
    Source: Vaswani et al. 2017, section 3.2.2.
    """
    T, C = len(X), len(W_q)
    D = C // n_head
    joined: list[list[float]] = [[] for _ in range(T)]
    for h in range(n_head):
        rows = range(h * D, (h + 1) * D)
        Q = [[dot(W_q[o], X[t]) for o in rows] for t in range(T)]
        K = [[dot(W_k[o], X[t]) for o in rows] for t in range(T)]
        V = [[dot(W_v[o], X[t]) for o in rows] for t in range(T)]
        head = attention(Q, K, V, causal=causal)
        for t in range(T):
            joined[t].extend(head[t])
    return [linear(joined[t], W_o) for t in range(T)]


@literal
def attention_004_as_printed(Q: Matrix, v: Matrix) -> list[list[float]]:
    """F-ATTN-004 to the letter: a_i = softmax(Q v_i / sqrt(d_k)), with Q a matrix of queries.

    Q v_i holds one number per *query*, so the softmax runs over the queries; v_i stands where the key
    belongs; and V, named under the formula, never enters, so that a_i is no representation of a word.

    Parameters
    ----------
    Q : (T, d_k) floats
        Queries.
    v : (S, d_k) floats
        Vectors of the words.

    Returns
    -------
    (S, T) floats, one distribution over queries per word i
    """
    d_k = len(v[0])
    a = []
    for i in range(len(v)):
        scores = []
        for t in range(len(Q)):
            scores.append(dot(Q[t], v[i]) / math.sqrt(d_k))
        a.append(softmax(scores))
    return a


@literal
def attention_004_one_query(q: Vector, v: Matrix) -> list[float]:
    """F-ATTN-004 to the letter, with Q one query *vector* as its legend says: a softmax over a single number.

    Parameters
    ----------
    q : (d_k,) floats
        The query.
    v : (S, d_k) floats
        Vectors of the words.

    Returns
    -------
    (S,) floats: all of them 1, whatever the words are
    """
    return [softmax([dot(q, v[i]) / math.sqrt(len(q))])[0] for i in range(len(v))]


TESTS = "tests/formulas/test_formulas_attention.py::"
LIBRARY_TESTS = "tests/formulas/test_library_equals_formulas.py::"

ENTRIES = (
    Formula(
        id="F-ATTN",
        kind="formula",
        title="Scaled dot-product attention",
        latex=r"\mathrm{Attention}(Q, K, V) = \mathrm{softmax}\left(\frac{Q K^\top}{\sqrt{d_k}}\right) V",
        meaning=(
            "Each position compares its query with the key of every position. The scores, divided by the root of the "
            "key's size so that they do not grow with it, become weights that sum to 1, and the position's new "
            "representation is the mean of all values under these weights."
        ),
        where=where("000 4.2", "001 4.2", "002 4.1", "003 4.1"),
        axes="Q (T, d_k), K (S, d_k), V (S, d_v) -> (T, d_v); T queries, S keys; the softmax runs over S",
        loops=(attention, attention_weights, softmax, multi_head_attention),
        library=("tinyllm.scaled_dot_product_attention", "tinyllm.softmax", "tinyllm.nn.MultiHeadAttention"),
        kernels=(
            "tinyllm.kernels.cpu.attention.attention",
            "tinyllm.kernels.cpu.attention.attention_vjp",
            "tinyllm.kernels.cpu.softmax.softmax",
            "tinyllm.kernels.cpu.softmax.softmax_vjp",
        ),
        tests=(
            TESTS + "test_attention_equals_plain_numpy",
            TESTS + "test_softmax_closed_forms",
            TESTS + "test_causal_attention_never_looks_ahead",
            LIBRARY_TESTS + "test_scaled_dot_product_attention",
            LIBRARY_TESTS + "test_softmax",
            LIBRARY_TESTS + "test_multi_head_attention",
        ),
        chapter="05",
        source="Vaswani et al. 2017, Attention Is All You Need, section 3.2",
    ),
    Formula(
        id="F-ATTN-004",
        kind="formula",
        title="Attention as document 004 prints it",
        latex=r"o_i = \sum_j \mathrm{softmax}_j\left(\frac{q_i \cdot k_j}{\sqrt{d_k}}\right) v_j",
        printed=r"a_i = \text{softmax}\left(\frac{Qv_i}{\sqrt{d_k}}\right)",
        meaning="Meant is F-ATTN, word by word: the weights of word i over all words j, and the values mixed by them.",
        where=where("004 4.2.2"),
        axes="q_i (d_k,), k_j (d_k,), v_j (d_v,) -> o_i (d_v,)",
        loops=(attention,),
        as_printed=(attention_004_as_printed, attention_004_one_query),
        library=("tinyllm.scaled_dot_product_attention",),
        kernels=(
            "tinyllm.kernels.cpu.attention.attention",
            "tinyllm.kernels.cpu.attention.attention_vjp",
        ),
        tests=(
            TESTS + "test_attention_equals_plain_numpy",
            LIBRARY_TESTS + "test_scaled_dot_product_attention",
        ),
        chapter="05",
        errata=(
            Erratum(
                fault="The score multiplies the query with v_i where the key k_j belongs.",
                remedy="q_i . k_j, one score per pair of words.",
                test=TESTS + "test_printed_004_scores_values_not_keys",
            ),
            Erratum(
                fault="V is named under the formula and never enters: the result is weights, not a representation.",
                remedy="The weights multiply V.",
                test=TESTS + "test_printed_004_ignores_the_values",
            ),
            Erratum(
                fault="Q v_i has no index over keys: with Q a matrix the softmax normalises over the queries, "
                "with Q one vector (as the legend says) every weight is 1.",
                remedy="The softmax runs over the keys j.",
                test=TESTS + "test_printed_004_normalises_the_wrong_axis",
            ),
        ),
        source="Vaswani et al. 2017, section 3.2.1, equation 1",
    ),
)
