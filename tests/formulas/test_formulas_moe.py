"""F-MOE: the gate, the layer and the balance loss."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.formulas.attention import softmax
from tinyllm.formulas.moe import balance_loss, moe, moe_gate


def test_gate_by_hand():
    W_g = [[0.0], [2.0], [1.0], [2.0]]  # scores of x = 1
    assert moe_gate([1.0], W_g, 1) == [0.0, 1.0, 0.0, 0.0]  # of equals, the first
    assert moe_gate([1.0], W_g, 2) == [0.0, 0.5, 0.0, 0.5]
    three = moe_gate([1.0], W_g, 3)
    assert three[0] == 0.0
    assert three[1:] == pytest.approx(softmax([2.0, 1.0, 2.0]))


def test_all_experts_equal_the_soft_mixture(rng):
    x, W_g, W = rng.normal(size=3), rng.normal(size=(4, 3)), rng.normal(size=(4, 3, 3))
    experts = [lambda v, e=e: (W[e] @ np.array(v)).tolist() for e in range(4)]
    gate = np.exp(W_g @ x) / np.exp(W_g @ x).sum()
    np.testing.assert_allclose(moe(x.tolist(), W_g, experts, 4), np.einsum("e,eij,j->i", gate, W, x), rtol=1e-12)


def test_experts_without_a_gate_are_not_called():
    called = []
    experts = [lambda v, e=e: called.append(e) or v for e in range(3)]
    assert moe([2.0], [[0.0], [1.0], [5.0]], experts, 1) == [2.0]
    assert called == [2]


def test_balance_loss_is_least_when_even():
    E, alpha = 4, 0.01
    even = 0.97 * np.eye(E) + 0.01 * (1 - np.eye(E))  # each expert is the first choice of one token
    assert balance_loss(even, alpha) == pytest.approx(alpha)
    collapsed = np.tile([0.97, 0.01, 0.01, 0.01], (E, 1))
    assert balance_loss(collapsed, alpha) == pytest.approx(alpha * E * 0.97)


@given(T=st.integers(1, 6), E=st.integers(1, 5), seed=st.integers(0, 99))
def test_balance_loss_equals_plain_numpy(T, E, seed):
    p = np.random.default_rng(seed).dirichlet(np.ones(E), size=T)
    f = np.bincount(p.argmax(axis=1), minlength=E) / T
    assert balance_loss(p, 0.1) == pytest.approx(0.1 * E * (f * p.mean(axis=0)).sum(), rel=1e-12)
