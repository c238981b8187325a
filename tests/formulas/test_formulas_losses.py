"""F-CE and F-MSE: closed forms, plain NumPy, and what the printed legend of F-CE leads to."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.formulas.losses import (
    cross_entropy,
    cross_entropy_of_logits,
    cross_entropy_over_samples,
    mean_cross_entropy,
    mse,
)


def test_cross_entropy_closed_forms():
    assert cross_entropy([0.0, 1.0, 0.0], [0.2, 0.5, 0.3]) == math.log(2.0)
    assert cross_entropy([0.0, 1.0], [0.0, 1.0]) == 0.0
    assert cross_entropy([1.0, 0.0], [0.0, 1.0]) == math.inf
    for V in (2, 3, 65):
        assert cross_entropy([1.0] + [0.0] * (V - 1), [1 / V] * V) == pytest.approx(math.log(V), rel=1e-15)
    # with a soft target it is at least the target's own entropy
    y = [0.25, 0.75]
    entropy = -sum(p * math.log(p) for p in y)
    assert cross_entropy(y, y) == pytest.approx(entropy)
    assert cross_entropy(y, [0.5, 0.5]) > entropy


@given(N=st.integers(1, 6), V=st.integers(1, 7), seed=st.integers(0, 99))
def test_cross_entropy_equals_plain_numpy(N, V, seed):
    rng = np.random.default_rng(seed)
    logits, targets = 3 * rng.normal(size=(N, V)), rng.integers(0, V, size=N)
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    expected = -np.log(p[np.arange(N), targets]).mean()
    one_hot = np.eye(V)[targets]
    assert cross_entropy_of_logits(logits, targets) == pytest.approx(expected, rel=1e-12, abs=1e-14)
    assert mean_cross_entropy(one_hot, p) == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_printed_sum_over_samples_ignores_label_zero():
    # Two samples of label 0, predicted with 1 in a thousand: the legend's reading finds nothing wrong ...
    assert cross_entropy_over_samples([0, 0], [0.001, 0.001]) == 0.0
    # ... and charges label 2 twice what it charges label 1 for the same prediction.
    assert cross_entropy_over_samples([2], [0.5]) == 2 * cross_entropy_over_samples([1], [0.5])
    # Over classes, with one-hot rows, the classes cost alike.
    costs = [cross_entropy(np.eye(3)[label], [0.001 if j == label else 0.4995 for j in range(3)]) for label in range(3)]
    assert costs == pytest.approx([-math.log(0.001)] * 3)


def test_printed_sum_over_samples_grows_with_n():
    label, predicted = [1, 1, 1], [0.5, 0.25, 0.5]
    once, ten_times = (
        cross_entropy_over_samples(label, predicted),
        cross_entropy_over_samples(label * 10, predicted * 10),
    )
    assert ten_times == pytest.approx(10 * once)
    Y, Yhat = [[0.0, 1.0]] * 3, [[1 - p, p] for p in predicted]
    assert mean_cross_entropy(Y * 10, Yhat * 10) == pytest.approx(mean_cross_entropy(Y, Yhat))
    assert once == pytest.approx(3 * mean_cross_entropy(Y, Yhat))  # with labels of 1 alone, they differ by N


def test_logarithm_of_a_predicted_label_is_no_loss():
    # Predicted label 1 costs nothing whatever the truth is, and predicted label 0 has no logarithm at all.
    assert cross_entropy_over_samples([1, 2], [1, 1]) == 0.0
    with pytest.raises(ValueError, match=r"math domain|positive"):
        cross_entropy_over_samples([1], [0])


@given(N=st.integers(1, 9), seed=st.integers(0, 99))
def test_mse_equals_plain_numpy(N, seed):
    y, yhat = np.random.default_rng(seed).normal(size=(2, N))
    assert mse(y, yhat) == pytest.approx(np.mean((y - yhat) ** 2), rel=1e-13)
    assert mse(y, y) == 0.0
