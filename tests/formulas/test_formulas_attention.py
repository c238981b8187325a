"""F-ATTN, F-ATTN-004, P-SAT: loops against plain NumPy and closed forms; the printed version's faults by numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.formulas.attention import (
    attention,
    attention_004_as_printed,
    attention_004_one_query,
    attention_weights,
    multi_head_attention,
    softmax,
)
from tinyllm.formulas.sat import WORDS, sat_numbers, worked_example


def numpy_attention(Q, K, V, allowed):
    scores = np.where(allowed, Q @ K.T / np.sqrt(K.shape[-1]), -np.inf)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True) @ V


@given(T=st.integers(1, 6), S=st.integers(1, 7), d_k=st.integers(1, 5), d_v=st.integers(1, 5), seed=st.integers(0, 99))
def test_attention_equals_plain_numpy(T, S, d_k, d_v, seed):
    rng = np.random.default_rng(seed)
    Q, K, V = rng.normal(size=(T, d_k)), rng.normal(size=(S, d_k)), rng.normal(size=(S, d_v))
    everything = np.ones((T, S), bool)
    np.testing.assert_allclose(attention(Q, K, V), numpy_attention(Q, K, V, everything), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(
        attention(Q, K, V, causal=True), numpy_attention(Q, K, V, np.tril(everything)), rtol=1e-13, atol=1e-14
    )
    mask = rng.random((T, S)) < 0.6
    mask[:, 0] = True
    np.testing.assert_allclose(attention(Q, K, V, mask=mask), numpy_attention(Q, K, V, mask), rtol=1e-13, atol=1e-14)
    added = np.where(mask, 0.0, -np.inf)
    np.testing.assert_allclose(attention(Q, K, V, mask=added), attention(Q, K, V, mask=mask), rtol=1e-15)


def test_softmax_closed_forms():
    assert softmax([0.0, math.log(3.0)]) == pytest.approx([0.25, 0.75], rel=1e-15)
    assert softmax([5.0]) == [1.0]
    assert softmax([1000.0, 1000.0]) == [0.5, 0.5]
    assert softmax([-math.inf, 2.0]) == [0.0, 1.0]
    assert all(math.isnan(p) for p in softmax([-math.inf, -math.inf]))


def test_a_row_that_allows_nothing_is_zero(rng):
    Q, K, V = rng.normal(size=(2, 3)), rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
    mask = np.array([[False] * 4, [True] * 4])
    out = attention(Q, K, V, mask=mask)
    assert out[0] == [0.0, 0.0]
    assert out[1] == attention(Q, K, V)[1]


def test_causal_attention_never_looks_ahead(rng):
    X = rng.normal(size=(5, 3))
    changed = X.copy()
    changed[3] += 1.0
    before, after = attention(X, X, X, causal=True), attention(changed, changed, changed, causal=True)
    assert before[:3] == after[:3]
    assert before[3] != after[3]
    assert attention(X, X, X)[:3] != attention(changed, changed, changed)[:3]


def test_weights_are_distributions(rng):
    weights = np.array(attention_weights(rng.normal(size=(4, 3)), rng.normal(size=(6, 3))))
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, rtol=1e-14)
    assert (weights > 0).all()


@pytest.mark.parametrize("causal", [False, True])
def test_multi_head_attention_equals_plain_numpy(rng, causal):
    T, C, H = 5, 6, 3
    X, (W_q, W_k, W_v, W_o) = rng.normal(size=(T, C)), rng.normal(size=(4, C, C))
    allowed = np.tril(np.ones((T, T), bool)) if causal else np.ones((T, T), bool)
    q, k, v = (np.split(X @ W.T, H, axis=-1) for W in (W_q, W_k, W_v))
    heads = [numpy_attention(q[h], k[h], v[h], allowed) for h in range(H)]
    expected = np.concatenate(heads, axis=-1) @ W_o.T
    np.testing.assert_allclose(multi_head_attention(X, W_q, W_k, W_v, W_o, H, causal=causal), expected, rtol=1e-12)


def test_float32_is_computed_in_float64(rng):
    x = rng.normal(size=7).astype(np.float32)
    assert softmax(x) == softmax([float(value) for value in x])


# --- F-ATTN-004 -------------------------------------------------------------------------------------------------------


def test_printed_004_scores_values_not_keys(rng):
    Q, K, V = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    by_values = np.array(attention_004_as_printed(Q, V)).T
    # Its scores are those of attention whose keys are the values; with keys in their place they are others.
    scores = Q @ V.T / np.sqrt(3)
    np.testing.assert_allclose(by_values, np.exp(scores) / np.exp(scores).sum(axis=0), rtol=1e-13)
    assert np.abs(by_values - np.array(attention_004_as_printed(Q, K)).T).max() > 0.05


def test_printed_004_ignores_the_values(rng):
    Q, K, V = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
    # Read with keys where it prints v, nothing of V is left: doubling V doubles attention and cannot reach the print.
    np.testing.assert_allclose(attention(Q, K, 2 * V), 2 * np.array(attention(Q, K, V)), rtol=1e-14)
    printed = np.array(attention_004_as_printed(Q, K))
    assert printed.shape == (4, 4)
    assert np.array(attention(Q, K, V)).shape == (4, 2)
    np.testing.assert_allclose(printed.sum(axis=-1), 1.0, rtol=1e-14)  # weights, not a representation


def test_printed_004_normalises_the_wrong_axis(rng):
    Q, K = rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
    printed = np.array(attention_004_as_printed(Q, K))  # (keys, queries)
    meant = np.array(attention_weights(Q, K))  # (queries, keys)
    np.testing.assert_allclose(printed.sum(axis=1), 1.0, rtol=1e-14)  # over the queries
    assert np.abs(printed.sum(axis=0) - 1.0).max() > 0.05  # not over the keys
    np.testing.assert_allclose(meant.sum(axis=1), 1.0, rtol=1e-14)
    assert attention_004_one_query(Q[0], K) == [1.0] * 5


# --- P-SAT ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", range(6))
def test_worked_example_equals_attention(word):
    n = sat_numbers(word)
    assert n["output"] == pytest.approx(attention([n["q"]], n["K"], n["V"])[0], rel=1e-15)
    assert n["weights"] == pytest.approx(attention_weights([n["q"]], n["K"])[0], rel=1e-15)


def test_worked_example_by_hand():
    # q = (2, 0); scores 4 / sqrt 2 for cat and 2 / sqrt 2 for mat, 0 for the other four.
    a, b = math.exp(4 / math.sqrt(2)), math.exp(2 / math.sqrt(2))
    total = 4 + a + b
    assert sat_numbers()["weights"] == pytest.approx([1 / total, a / total, 1 / total, 1 / total, 1 / total, b / total])
    assert sat_numbers()["output"] == pytest.approx([(2 * a + b) / total, (2 * a + 2 + 1 + b) / total])


def test_worked_example_prints_every_number():
    text, n = worked_example(), sat_numbers()
    for word in WORDS:
        assert f"\n   {word} " in text
    for value in (*n["scores"], *n["exponentials"], *n["weights"], *n["output"], sum(n["exponentials"])):
        assert f"{value:.4f}" in text
