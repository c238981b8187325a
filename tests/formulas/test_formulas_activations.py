"""F-ACT: each activation against its formula in NumPy, and at the points where the answer is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.formulas.activations import gelu, gelu_tanh, relu, sigmoid, tanh


@given(x=st.floats(-30, 30))
def test_activations_equal_plain_numpy(x):
    assert relu(x) == np.maximum(0.0, x)
    assert sigmoid(x) == pytest.approx(1 / (1 + np.exp(-x)), rel=1e-14)
    assert tanh(x) == pytest.approx(np.tanh(x), rel=1e-14, abs=0)
    assert gelu(x) == pytest.approx(0.5 * x * (1 + math.erf(x / math.sqrt(2))), rel=1e-12, abs=1e-13)
    assert abs(gelu(x) - gelu_tanh(x)) < 5e-4


def test_activations_closed_forms():
    assert (relu(-1.0), relu(0.0), relu(2.5)) == (0.0, 0.0, 2.5)
    assert sigmoid(0.0) == 0.5
    assert sigmoid(math.log(3.0)) == pytest.approx(0.75, rel=1e-15)
    assert sigmoid(-1000.0) == 0.0
    assert sigmoid(1000.0) == 1.0
    assert tanh(0.5 * math.log(3.0)) == pytest.approx(0.5, rel=1e-15)
    assert (tanh(-1000.0), tanh(0.0), tanh(1000.0)) == (-1.0, 0.0, 1.0)
    assert gelu(0.0) == 0.0
    assert gelu(1.0) == pytest.approx(0.8413447460685429, rel=1e-15)
    assert gelu_tanh(1.0) == pytest.approx(0.5 * (1 + math.tanh(1.044715 * math.sqrt(2 / math.pi))), rel=1e-15)
    assert gelu(1.0) != pytest.approx(gelu_tanh(1.0), rel=1e-5)


@given(x=st.floats(-20, 20))
def test_sigmoid_and_tanh_are_one_curve(x):
    assert tanh(x) == pytest.approx(2 * sigmoid(2 * x) - 1, abs=1e-15)
