"""The loss that never holds all logits: its chunks, its memory, and its gradients, which it gives away."""

import importlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyllm as tl

module = importlib.import_module("tinyllm.autograd.fused.linear_cross_entropy")
BACKENDS = ["numpy", "numba"]


def drawn(rows, channels, classes, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, rows)
    target[rows // 2 :: 3] = -100
    return rng.normal(size=(rows, channels)), rng.normal(size=(classes, channels)), target


def loss_and_gradients(f, x, weight, cotangent=1.0):
    x, weight = tl.tensor(x, requires_grad=True), tl.tensor(weight, requires_grad=True)
    y = f(x, weight)
    y.backward(cotangent)
    return y.numpy(), x.grad.numpy(), weight.grad.numpy()


@pytest.mark.parametrize("backend", BACKENDS)
@given(
    rows=st.integers(2, 20),
    classes=st.integers(2, 30),
    chunk=st.integers(1, 60),
    least=st.integers(1, 5),
    smoothing=st.sampled_from([0.0, 0.2]),
    reduction=st.sampled_from(["mean", "sum"]),
)
def test_chunks_make_no_difference(backend, rows, classes, chunk, least, smoothing, reduction):
    x, weight, target = drawn(rows, 3, classes)
    settings = (-100, reduction, smoothing)
    with pytest.MonkeyPatch.context() as patch, tl.backend(backend):
        patch.setattr(module, "_CHUNK", chunk)
        patch.setattr(module, "_ROWS", least)
        patch.setattr(module, "_BLOCK", 4)
        found = loss_and_gradients(lambda x, w: tl.linear_cross_entropy(x, w, target, *settings), x, weight, 0.7)
    expected = loss_and_gradients(lambda x, w: tl.cross_entropy(x @ w.mT, target, None, *settings), x, weight, 0.7)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_logits_are_never_there_at_once(backend, peak_of):
    x, weight, target = drawn(4096, 4, 500)
    with pytest.MonkeyPatch.context() as patch, tl.backend(backend):
        patch.setattr(module, "_CHUNK", 1)
        tl.linear_cross_entropy(x[:256], weight, target[:256])  # compiled, if need be
        peak = peak_of(lambda: loss_and_gradients(lambda x, w: tl.linear_cross_entropy(x, w, target), x, weight))
    assert peak < 4096 * 500 * 8 / 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tape_that_is_kept_gives_its_gradients_again(backend):
    x, weight, target = drawn(7, 3, 5)
    with tl.backend(backend):
        x, weight = tl.tensor(x, requires_grad=True), tl.tensor(weight, requires_grad=True)
        y = tl.linear_cross_entropy(x, weight, target)
        y.backward(retain_graph=True)
        first = [x.grad.numpy(), weight.grad.numpy()]
        x.grad.assign_(np.zeros(x.shape))  # what was given away is not looked at again
        y.backward(2.0)
    np.testing.assert_allclose(x.grad.data, 2 * first[0], rtol=1e-12)
    np.testing.assert_allclose(weight.grad.data, 3 * first[1], rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_mean_of_nothing_is_nan_and_has_no_gradient(backend):
    x, weight, target = drawn(4, 3, 5)
    with tl.backend(backend):
        found = loss_and_gradients(lambda x, w: tl.linear_cross_entropy(x, w, target * 0 - 100), x, weight)
    assert np.isnan(found[0])
    assert not found[1].any()
    assert not found[2].any()


@pytest.mark.parametrize("classes", [-1, 5])
def test_a_class_that_does_not_exist_is_named(classes):
    x, weight, _ = drawn(2, 3, 5)
    with pytest.raises(IndexError, match=f"target {classes} is outside the classes 0..4"):
        tl.linear_cross_entropy(x, weight, np.array([0, classes]))


def test_shapes_that_do_not_fit_are_refused():
    x, weight, target = drawn(4, 3, 5)
    with pytest.raises(ValueError, match="weight of shape"):
        tl.linear_cross_entropy(x, weight[:, :2], target)
    with pytest.raises(ValueError, match="targets of shape"):
        tl.linear_cross_entropy(x, weight, target[:3])
