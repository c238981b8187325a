"""Clipping: the norm that is returned, and what becomes of the gradients."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyllm as tl
from tinyllm.optim import clip_factor, clip_grad_norm_, clip_grad_value_


def with_grads(*grads) -> list[tl.Tensor]:
    params = []
    for g in grads:
        p = tl.tensor(np.zeros_like(g), requires_grad=True)
        p.grad = tl.tensor(g)
        params.append(p)
    return params


def joined(params: list[tl.Tensor]) -> np.ndarray:
    return np.concatenate([p.grad.numpy().ravel() for p in params])


@given(
    seed=st.integers(0, 100),
    norm_type=st.sampled_from([1.0, 2.0, 3.5, math.inf]),
    max_norm=st.floats(0.01, 10),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_norm_before_and_after(seed, norm_type, max_norm, dtype):
    rng = np.random.default_rng(seed)
    params = with_grads(*(rng.normal(size=s).astype(dtype) for s in ((3, 4), (), (5,), (0,))))
    before = joined(params)
    norm = clip_grad_norm_(params, max_norm, norm_type)
    after = joined(params)
    assert type(norm) is float
    assert norm == pytest.approx(np.linalg.norm(before.astype(float), norm_type), rel=1e-6)
    assert after.dtype == dtype
    if norm < max_norm:
        np.testing.assert_array_equal(after, before)
    else:
        np.testing.assert_allclose(after, before * (max_norm / (norm + 1e-6)), rtol=1e-6)
        assert np.linalg.norm(after, norm_type) <= max_norm * (1 + 1e-6)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_large_gradients_do_not_overflow_and_order_does_not_matter(backend, order, rng):
    pytest.importorskip("numba", reason="Numba is not installed")
    g = np.asarray(rng.normal(size=(70, 80)).astype(np.float32) * np.float32(1e25), order=order)
    params = with_grads(g)
    with tl.backend(backend):
        assert clip_grad_norm_(params, 1.0) == pytest.approx(np.linalg.norm(g.astype(float)), rel=1e-12)
    assert np.linalg.norm(joined(params)) == pytest.approx(1, rel=1e-5)


def test_parameters_without_gradient_and_repeated_ones():
    [p] = with_grads(np.array([3.0, 4.0]))
    without = tl.tensor([1.0], requires_grad=True)
    assert clip_grad_norm_([without], 1.0) == 0.0
    assert clip_grad_norm_([], 1.0, math.inf) == 0.0
    assert clip_grad_norm_(iter([p, without, p]), 1.0) == 5.0
    np.testing.assert_allclose(p.grad.data, [0.6, 0.8], rtol=1e-6)
    assert clip_grad_norm_(p, 0.5) == pytest.approx(1)
    assert without.grad is None


def test_a_gradient_from_backward_can_be_clipped():
    p, q = tl.tensor([2.0], requires_grad=True), tl.tensor(np.ones((2, 3)), requires_grad=True)
    (p.sum() + q.sum() + p.reshape(1, 1).sum()).backward()
    assert clip_grad_norm_([p, q], 1.0) == pytest.approx(math.sqrt(10))
    clip_grad_value_([p, q], 0.1)
    np.testing.assert_array_equal(joined([p, q]), [0.1] * 7)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_shows_in_the_norm(bad):
    params = with_grads(np.array([1.0, bad]), np.array([2.0]))
    assert not math.isfinite(clip_grad_norm_(params, 1.0))


def test_clipping_by_value(rng):
    g = rng.normal(size=(3, 4)).astype(np.float32)
    params = with_grads(g, g[0])
    assert clip_grad_value_(params, 0.5) is None
    np.testing.assert_array_equal(params[0].grad.data, np.clip(g, -0.5, 0.5))
    np.testing.assert_array_equal(params[1].grad.data, np.clip(g[0], -0.5, 0.5))
    assert params[0].grad.dtype == np.float32


def test_the_tape_notices_a_clipped_gradient():
    x = tl.tensor([3.0], requires_grad=True)
    (x * x * x).sum().backward(create_graph=True)
    second = (x.grad * x.grad).sum()
    clip_grad_norm_([x], 1.0)
    with pytest.raises(RuntimeError, match="overwritten"):
        second.backward()


def test_impossible_settings_are_refused():
    for arguments in ((-1.0,), (math.nan,), (1.0, 0.0), (1.0, -2.0)):
        with pytest.raises(ValueError, match="max_norm"):
            clip_grad_norm_([], *arguments)
    with pytest.raises(ValueError, match="clip_value"):
        clip_grad_value_([], -1.0)


@pytest.mark.peers
@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.3, 1e3, 0.0])
def test_clipping_equals_torch(norm_type, max_norm, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    grads = [rng.normal(size=s) for s in ((3, 4), (5,))]
    ours, theirs = with_grads(*grads), [torch.zeros(g.shape, dtype=torch.float64) for g in grads]
    for q, g in zip(theirs, grads, strict=True):
        q.requires_grad = True
        q.grad = torch.tensor(g)
    norm = clip_grad_norm_(ours, max_norm, norm_type)
    assert norm == pytest.approx(torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type).item(), rel=1e-14)
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.grad.data, q.grad.numpy(), rtol=1e-14)
    clip_grad_value_(ours, 0.1)
    torch.nn.utils.clip_grad_value_(theirs, 0.1)
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.grad.data, q.grad.numpy(), rtol=1e-14)


def test_many_arrays_have_the_norm_of_one(rng):
    parts = [rng.normal(size=size).astype(np.float32) for size in (3, 200_000, 0, 50, 300_000)]
    whole = np.linalg.norm(np.concatenate(parts).astype(float))
    before = tl.get_num_threads()
    try:
        for threads in (1, 2, 3):
            tl.set_num_threads(threads)
            params = with_grads(*parts)
            assert clip_grad_norm_(params, 1.0) == pytest.approx(whole, rel=1e-12)
            np.testing.assert_allclose(joined(params), np.concatenate(parts) / whole, rtol=1e-5, atol=1e-12)
    finally:
        tl.set_num_threads(before)


def test_clipping_within_the_step_is_clipping_before_it(rng):
    g = rng.normal(size=20) * 5
    moved = []
    for within in (True, False):
        (p,) = with_grads(g)
        opt = tl.optim.AdamW([p], lr=0.1)
        if within:
            opt.step(clip_factor(float(np.linalg.norm(g)), 0.5))
        else:
            clip_grad_norm_([p], 0.5)
            opt.step()
        moved.append(p.numpy())
    np.testing.assert_allclose(moved[0], moved[1], rtol=1e-12)
    assert clip_factor(2.0, 3.0) == 1.0
    assert math.isnan(clip_factor(math.nan, 1.0))
