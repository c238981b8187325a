"""F-SGD, F-ADAM, F-INIT and F-DROP."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.formulas.dropout import dropout, l2_penalised
from tinyllm.formulas.init import he_std, he_uniform_bound, xavier_std, xavier_uniform_bound
from tinyllm.formulas.optimisers import adam_step, sgd_momentum_step, sgd_step


def test_sgd_on_a_parabola():
    # f = a x^2 / 2: each step multiplies x by (1 - lr a)
    x = [3.0, -2.0]
    for _ in range(10):
        x = sgd_step(x, [2.0 * x[0], 2.0 * x[1]], lr=0.1)
    assert x == pytest.approx([3.0 * 0.8**10, -2.0 * 0.8**10], rel=1e-14)


def test_momentum_remembers():
    theta, velocity = [0.0], [0.0]
    for _ in range(3):
        theta, velocity = sgd_momentum_step(theta, [1.0], velocity, lr=1.0, momentum=0.5)
    assert velocity == [1.75]
    assert theta == [-(1 + 1.5 + 1.75)]
    assert sgd_momentum_step([1.0], [2.0], [9.0], lr=0.1, momentum=0.0)[0] == sgd_step([1.0], [2.0], lr=0.1)


def test_first_adam_step_is_the_learning_rate():
    """Whatever the gradient's size, the first step is lr in each parameter, up to eps / |g|."""
    for size in (1e-3, 1.0, 1e6):
        theta, _, _ = adam_step([0.0, 0.0], [size, -size], [0.0, 0.0], [0.0, 0.0], 1, lr=0.01)
        assert theta == pytest.approx([-0.01, 0.01], rel=1e-4)
    # eps stands outside the root: with g = eps the step is half of lr
    assert adam_step([0.0], [1e-8], [0.0], [0.0], 1, lr=1.0)[0] == pytest.approx([-0.5])


@given(seed=st.integers(0, 99))
def test_adam_equals_plain_numpy(seed):
    rng = np.random.default_rng(seed)
    theta, m, v = rng.normal(size=4), np.zeros(4), np.zeros(4)
    loops = (theta, m, v)
    for t in range(1, 6):
        g = rng.normal(size=4)
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
        theta = theta - 0.1 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-6)
        loops = adam_step(loops[0], g, loops[1], loops[2], t, lr=0.1, beta_1=0.8, beta_2=0.95, eps=1e-6)
    np.testing.assert_allclose(loops, (theta, m, v), rtol=1e-12)


def test_initialisation_keeps_the_signal(rng):
    assert xavier_uniform_bound(3, 3) == 1.0
    assert he_std(2) == 1.0
    for fan_in, fan_out in ((7, 13), (100, 1)):
        assert xavier_uniform_bound(fan_in, fan_out) == pytest.approx(math.sqrt(3) * xavier_std(fan_in, fan_out))
        assert he_uniform_bound(fan_in) == pytest.approx(math.sqrt(3) * he_std(fan_in))
    # Twenty square layers of 256: He holds the size of ReLU's signals; weights half as large let it die.
    for scale, low, high in ((1.0, 0.3, 3.0), (0.5, 0.0, 1e-5)):
        x = rng.normal(size=(256, 32))
        size = np.sqrt(np.mean(x**2))
        for _ in range(20):
            x = np.maximum(0, scale * he_std(256) * rng.normal(size=(256, 256)) @ x)
        assert low <= np.sqrt(np.mean(x**2)) / size <= high


def test_dropout_keeps_the_mean(rng):
    assert dropout([1.0, 2.0, 3.0], [True, False, True], 0.5) == [2.0, 0.0, 6.0]
    assert dropout([1.0, 2.0], [True, True], 0.0) == [1.0, 2.0]
    p, n = 0.3, 20000
    kept = dropout(np.ones(n), rng.random(n) >= p, p)
    assert abs(np.mean(kept) - 1.0) < 4 * math.sqrt(p / (1 - p) / n)


def test_penalty_charges_for_large_weights():
    assert l2_penalised(1.0, [3.0, 4.0], 0.1) == pytest.approx(1.0 + 0.05 * 25)
    assert l2_penalised(1.0, [3.0, 4.0], 0.0) == 1.0
