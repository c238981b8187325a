"""F-BLOCK and F-MLP-004: the layer against plain NumPy, and the printed feed-forward's faults by numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.formulas.attention import attention
from tinyllm.formulas.block import block_post_norm, feed_forward, feed_forward_004_as_printed, layer_norm


def numpy_layer_norm(x, weight, bias, eps=1e-5):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias


def test_layer_norm_closed_form():
    # mean 1/4, variance 3/16: (3/4) / sqrt(3/16) = sqrt 3. With the unbiased variance, 1/4, it would be 1.5.
    y = layer_norm([1.0, 0.0, 0.0, 0.0], eps=0.0)
    assert y == pytest.approx([math.sqrt(3)] + [-1 / math.sqrt(3)] * 3, rel=1e-15)
    # eps under the root: with variance 3/16 and eps 1/16, (3/4) / (1/2); outside the root it would be 1.51.
    assert layer_norm([1.0, 0.0, 0.0, 0.0], eps=1 / 16)[0] == pytest.approx(1.5, rel=1e-15)
    assert layer_norm([7.0], [3.0], [2.0]) == [2.0]


@given(T=st.integers(1, 4), C=st.integers(1, 5), F=st.integers(1, 6), seed=st.integers(0, 99))
def test_block_equals_plain_numpy(T, C, F, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(T, C))
    W_1, b_1, W_2, b_2 = rng.normal(size=(F, C)), rng.normal(size=F), rng.normal(size=(C, F)), rng.normal(size=C)
    (g1, g2), (n1, n2) = rng.normal(size=(2, C)), rng.normal(size=(2, C))

    A = np.array(attention(X, X, X))
    X1 = numpy_layer_norm(X + A, g1, n1)
    X2 = numpy_layer_norm(X1 + np.maximum(0, X1 @ W_1.T + b_1) @ W_2.T + b_2, g2, n2)

    loops = block_post_norm(
        X.tolist(),
        lambda x: attention(x, x, x),
        lambda x: feed_forward(x, W_1, b_1, W_2, b_2),
        lambda x: layer_norm(x, g1, n1),
        lambda x: layer_norm(x, g2, n2),
    )
    np.testing.assert_allclose(loops, X2, rtol=1e-10, atol=1e-12)


def test_block_keeps_the_residual():
    """With sublayers that give zeros, only the two normalisations are left."""
    X = [[1.0, 2.0, 4.0]]
    zeros = [0.0, 0.0, 0.0]
    assert block_post_norm(X, lambda x: [zeros], lambda x: zeros) == [layer_norm(layer_norm(X[0]))]


@given(C=st.integers(1, 5), F=st.integers(1, 6), seed=st.integers(0, 99))
def test_feed_forward_equals_plain_numpy(C, F, seed):
    rng = np.random.default_rng(seed)
    x, W_1, b_1 = rng.normal(size=C), rng.normal(size=(F, C)), rng.normal(size=F)
    W_2, b_2 = rng.normal(size=(C, F)), rng.normal(size=C)
    expected = W_2 @ np.maximum(0, W_1 @ x + b_1) + b_2
    np.testing.assert_allclose(feed_forward(x, W_1, b_1, W_2, b_2), expected, rtol=1e-12, atol=1e-13)


def test_printed_004_cannot_move_the_bend():
    W_1, W_2 = [[1.0]], [[1.0]]
    # Meant, with b_1 = -1: ReLU(x - 1), which bends at 1.
    meant = [feed_forward([x], W_1, [-1.0], W_2, [0.0])[0] for x in (0.5, 1.0, 2.0, 3.0)]
    assert meant == [0.0, 0.0, 1.0, 2.0]
    # Printed: whatever the bias (here 10, so that the outer ReLU cuts nothing), the inner bend stays at 0.
    printed = [feed_forward_004_as_printed([x], W_1, W_2, [10.0])[0] for x in (-1.0, 0.0, 1.0, 2.0)]
    assert printed == [10.0, 10.0, 11.0, 12.0]
    # Without an inner bias the hidden layer scales with its input; with one it does not.
    rng = np.random.default_rng(0)
    x, W_1, W_2 = rng.normal(size=3), rng.normal(size=(4, 3)), rng.normal(size=(2, 4))
    b = [100.0, 100.0]
    one, two = (np.array(feed_forward_004_as_printed(c * x, W_1, W_2, b)) - 100 for c in (1, 2))
    np.testing.assert_allclose(two, 2 * one, rtol=1e-10)
    one, two = (np.array(feed_forward(c * x, W_1, [1.0] * 4, W_2, b)) - 100 for c in (1, 2))
    assert np.abs(two - 2 * one).max() > 0.1


def test_printed_004_is_never_negative():
    rng = np.random.default_rng(1)
    W_1, W_2, b = rng.normal(size=(8, 3)), rng.normal(size=(3, 8)), rng.normal(size=3)
    X = rng.normal(size=(50, 3))
    printed = np.array([feed_forward_004_as_printed(x, W_1, W_2, b) for x in X])
    meant = np.array([feed_forward(x, W_1, [0.0] * 8, W_2, b) for x in X])
    assert printed.min() == 0.0
    assert meant.min() < -1.0
    np.testing.assert_array_equal(printed, np.maximum(0, meant))  # with b_1 = 0 the outer ReLU is all that differs
