"""Perplexity and bits per byte."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.metrics import bits_per_byte, perplexity

COUNTS = st.integers(1, 10**9)


@given(st.integers(1, 10**6), COUNTS)
def test_uniform_guess_among_n_has_perplexity_n_and_log2_n_bits(choices, tokens):
    nll = tokens * math.log(choices)
    assert perplexity(nll, tokens) == pytest.approx(choices, rel=1e-9)
    assert bits_per_byte(nll, tokens) == pytest.approx(math.log2(choices), rel=1e-9)


@given(st.lists(st.floats(0, 20), min_size=1, max_size=30))
def test_perplexity_is_the_geometric_mean_of_inverse_probabilities(nlls):
    assert perplexity(sum(nlls), len(nlls)) == pytest.approx(float(np.prod(np.exp(nlls)) ** (1 / len(nlls))), rel=1e-9)


def test_the_impossible_is_infinite():
    assert perplexity(math.inf, 3) == perplexity(1e6, 1) == bits_per_byte(math.inf, 3) == math.inf


@pytest.mark.parametrize("metric", [perplexity, bits_per_byte])
@pytest.mark.parametrize(("nll", "count"), [(-0.1, 3), (math.nan, 3), (1.0, 0), (1.0, -2)])
def test_undefined_values_are_refused(metric, nll, count):
    with pytest.raises(ValueError, match=r"nll|positive"):
        metric(nll, count)
