"""Muon: what the iteration does to singular values, and what a step is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyllm as tl
from tinyllm.optim.muon import Muon, orthogonalized

SHAPES = [(4, 4), (3, 8), (8, 3), (1, 6), (6, 1)]


def matrix(shape, rng, values=None):
    """A random matrix with given singular values."""
    n = min(shape)
    u, v = (np.linalg.qr(rng.normal(size=(m, n)))[0] for m in shape)
    return u * (np.linspace(1, 0.05, n) if values is None else values) @ v.T


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_follow_the_polynomial_and_the_vectors_stay(shape, rng):
    g = matrix(shape, rng)
    u, s, v = np.linalg.svd(g, full_matrices=False)
    s = s / np.linalg.norm(s)
    for _ in range(3):
        s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5
    np.testing.assert_allclose(orthogonalized(g, ns_steps=3), u * s @ v, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_end_near_one(shape, dtype, rng):
    x = orthogonalized(matrix(shape, rng).astype(dtype))
    assert x.dtype == dtype
    assert x.shape == shape
    s = np.linalg.svd(x, compute_uv=False)
    assert 0.65 < s.min() <= s.max() < 1.25


@given(scale=st.floats(1e-6, 1e6), transpose=st.booleans())
def test_scale_is_forgotten_and_a_transpose_passes_through(scale, transpose):
    g = np.random.default_rng(1).normal(size=(3, 5))
    expected = orthogonalized(g)
    found = orthogonalized(scale * g.T).T if transpose else orthogonalized(scale * g)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_zero_gradient_moves_nothing():
    assert not orthogonalized(np.zeros((2, 3))).any()


def test_first_step(rng):
    start, g = rng.normal(size=(6, 2)), rng.normal(size=(6, 2))
    p = tl.tensor(start, requires_grad=True)
    p.grad = tl.tensor(g)
    Muon([p], lr=0.1, weight_decay=0.5).step()
    # The mean and its look ahead are both along g; the matrix is three times as high as wide.
    np.testing.assert_allclose(p.data, start * 0.95 - 0.1 * np.sqrt(3) * orthogonalized(g), rtol=1e-12)


def test_state_goes_on_bit_by_bit(rng):
    def steps(p, optimizer, n, gradients):
        for _ in range(n):
            p.grad = tl.tensor(gradients.normal(size=p.shape))
            optimizer.step()

    p = tl.tensor(rng.normal(size=(3, 4)), requires_grad=True)
    a = Muon([p], lr=0.1, adjust_lr_fn="match_rms_adamw")
    steps(p, a, 3, np.random.default_rng(5))
    q = tl.tensor(p, requires_grad=True)
    b = Muon([q])
    b.load_state_dict(a.state_dict())
    for tensor, optimizer in ((p, a), (q, b)):
        steps(tensor, optimizer, 3, np.random.default_rng(6))
    np.testing.assert_array_equal(p.data, q.data)


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({}, (3,), r"moves matrices, got a parameter of shape \(3,\); give it to AdamW"),
        ({"momentum": 1.5}, (2, 2), "from 0 to 1, got 1.5"),
        ({"ns_coefficients": (1, 2)}, (2, 2), "three numbers"),
        ({"adjust_lr_fn": "rms"}, (2, 2), "adjust_lr_fn is one of"),
        ({"lr": -1}, (2, 2), "lr must not be negative"),
    ],
)
def test_impossible_options(options, shape, message):
    with pytest.raises(ValueError, match=message):
        Muon([tl.tensor(np.ones(shape), requires_grad=True)], **options)
