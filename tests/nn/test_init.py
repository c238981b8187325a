"""Initial values have the distribution that their docstrings state."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.nn import init

SHAPE = (300, 200)  # fan_in 200, fan_out 300; 60,000 draws: the deviation of a sample variance is about 0.6% of it


def close(x: np.ndarray, mean: float, variance: float) -> None:
    """Sample mean and variance within five of their own standard deviations (kurtosis at most a normal's)."""
    n = x.size
    assert abs(x.mean() - mean) < 5 * math.sqrt(variance / n)
    assert abs(x.var() - variance) < 5 * variance * math.sqrt(2 / n)


@pytest.mark.parametrize(
    ("draw", "bound"),
    [
        (init.xavier_uniform, math.sqrt(6 / 500)),
        (lambda s, r: init.xavier_uniform(s, r, gain=3.0), 3 * math.sqrt(6 / 500)),
        (init.he_uniform, math.sqrt(6 / 200)),
        (lambda s, r: init.he_uniform(s, r, mode="fan_out"), math.sqrt(6 / 300)),
        (lambda s, r: init.he_uniform(s, r, gain=1.0), math.sqrt(3 / 200)),
        (lambda s, r: init.uniform(s, r, -0.5, 0.5), 0.5),
    ],
)
def test_uniform_laws_fill_their_range(draw, bound, rng):
    x = draw(SHAPE, rng)
    close(x, 0, bound**2 / 3)
    assert 0.999 * bound < np.abs(x).max() <= np.float32(bound)


@pytest.mark.parametrize(
    ("draw", "std"),
    [
        (init.xavier_normal, math.sqrt(2 / 500)),
        (lambda s, r: init.xavier_normal(s, r, gain=3.0), 3 * math.sqrt(2 / 500)),
        (init.he_normal, math.sqrt(2 / 200)),
        (lambda s, r: init.he_normal(s, r, mode="fan_out"), math.sqrt(2 / 300)),
        (lambda s, r: init.he_normal(s, r, gain=1.0), math.sqrt(1 / 200)),
        (lambda s, r: init.normal(s, r, 0.0, 0.02), 0.02),
    ],
)
def test_normal_laws_have_normal_quantiles(draw, std, rng):
    x = draw(SHAPE, rng)
    close(x, 0, std**2)
    for sigmas, share in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):
        assert abs(np.mean(np.abs(x) < sigmas * std) - share) < 0.01


def test_normal_and_uniform_have_the_mean_asked_for(rng):
    close(init.normal(SHAPE, rng, mean=5.0, std=2.0), 5, 4)
    close(init.uniform(SHAPE, rng), 0.5, 1 / 12)


def test_trunc_normal_is_a_normal_between_its_bounds(rng):
    x = init.trunc_normal(SHAPE, rng, std=0.02, a=-0.04, b=0.04, dtype=np.float64)
    assert np.abs(x).max() <= 0.04
    assert np.abs(x).max() > 0.0399
    close(x, 0, (0.02 * 0.87962566) ** 2)
    one_sided = init.trunc_normal((20000,), rng, a=0.0, b=9.0)
    assert one_sided.min() >= 0
    assert abs(one_sided.mean() - math.sqrt(2 / math.pi)) < 0.03


def test_trunc_normal_refuses_bounds_that_nothing_reaches(rng):
    for a, b in ((5.0, 6.0), (1.0, -1.0)):
        with pytest.raises(ValueError, match="almost nothing"):
            init.trunc_normal((3,), rng, a=a, b=b)


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)), seed=st.integers(0, 1000), gain=st.sampled_from([1.0, 2.5])
)
def test_orthogonal_rows_or_columns(shape, seed, gain):
    w = init.orthogonal(shape, np.random.default_rng(seed), gain, dtype=np.float64)
    gram = w @ w.T if shape[0] <= shape[1] else w.T @ w
    np.testing.assert_allclose(gram, gain**2 * np.eye(min(shape)), atol=1e-12)


def test_orthogonal_has_no_preferred_sign(rng):
    corners = np.array([init.orthogonal((3, 3), rng)[0, 0] for _ in range(400)])
    assert 0.4 < np.mean(corners > 0) < 0.6  # QR alone gives a corner of one sign


def test_orthogonal_flattens_kernels(rng):
    w = init.orthogonal((4, 3, 2), rng, dtype=np.float64).reshape(4, 6)
    np.testing.assert_allclose(w @ w.T, np.eye(4), atol=1e-12)


def test_fans_count_the_receptive_field():
    assert init.fans((5, 3)) == (3, 5)
    assert init.fans((8, 4, 3, 2)) == (24, 48)
    for too_few in ((), (3,)):
        with pytest.raises(ValueError, match="shape"):
            init.fans(too_few)
        with pytest.raises(ValueError, match="shape"):
            init.orthogonal(too_few, np.random.default_rng(0))


def test_an_unknown_mode_is_refused(rng):
    with pytest.raises(ValueError, match="fan_avg"):
        init.he_normal((2, 2), rng, mode="fan_avg")


@pytest.mark.parametrize(
    "draw",
    [
        init.uniform,
        init.normal,
        init.trunc_normal,
        init.xavier_uniform,
        init.xavier_normal,
        init.he_uniform,
        init.he_normal,
        init.orthogonal,
    ],
)
def test_the_dtype_does_not_change_the_draws(draw):
    single = draw((7, 5), np.random.default_rng(3))
    double = draw((7, 5), np.random.default_rng(3), dtype=np.float64)
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    np.testing.assert_array_equal(single, double.astype(np.float32))


def test_zeros_and_ones():
    assert not init.zeros((2, 3)).any()
    assert (init.ones((2, 3), dtype=np.float64) == 1).all()
    assert init.ones((2,)).dtype == np.float32
