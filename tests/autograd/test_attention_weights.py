"""The weights that are read from the tape are those of the formula, in the order of the computation."""

import numpy as np
import pytest

import tinyllm as tl
from tinyllm.autograd.fused import scaled_dot_product_attention, self_attention
from tinyllm.autograd.fused.attention_weights import attention_weights

B, H, T, S, D = 2, 3, 4, 5, 6


def by_hand(q, k, mask, scale):
    scores = np.where(mask, np.einsum("bhtd,bhsd->bhts", q, k) * scale, -np.inf)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("length", [T, 20])  # few queries, and as many as are computed tile by tile
def test_each_attention_behind_a_result_is_found(rng, length):
    q, k, v = (rng.normal(size=(B, H, n, D)) for n in (length, S, S))
    mask = rng.random((B, 1, 1, S)) < 0.7
    mask[..., 0] = True
    first = scaled_dot_product_attention(tl.tensor(q, requires_grad=True), k, v, mask, scale=0.3)
    x = tl.swapaxes(first, 1, 2).reshape(B, length, H * D)
    packed = tl.concatenate([x, x * 2, x * 3], axis=-1)
    result = tl.sum(self_attention(packed, H, is_causal=True))
    found = attention_weights(result)
    assert len(found) == 2
    np.testing.assert_allclose(found[0], by_hand(q, k, mask, 0.3))
    heads = first.data
    np.testing.assert_allclose(found[1], by_hand(heads, 2 * heads, np.tri(length, dtype=bool), D**-0.5))
    for causal, expected in ((False, found[:1]), (True, found[1:])):
        kept = attention_weights(result, causal=causal)
        assert len(kept) == 1
        np.testing.assert_array_equal(kept[0], expected[0])


def test_nothing_is_found_where_nothing_was_recorded(rng):
    x = rng.normal(size=(B, H, T, D))
    assert attention_weights(scaled_dot_product_attention(x, x, x)) == []
