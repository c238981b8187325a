"""F-EMB and F-PE: the table, word2vec's loss, and the clock of positions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.formulas.positions import sinusoidal_positions
from tinyllm.formulas.words import (
    embedding,
    embedding_by_one_hot,
    noise_distribution,
    skip_gram_negative_sampling,
    skip_gram_pairs,
)


def test_embedding_is_one_hot_times_table(rng):
    ids, table = [3, 0, 3, 1], rng.normal(size=(5, 2))
    assert embedding(ids, table) == table[ids].tolist()
    np.testing.assert_allclose(embedding_by_one_hot(ids, table), table[ids], rtol=1e-15)


def test_negative_sampling_by_hand(rng):
    # all dot products 0: every sigmoid is 1/2, so each of the 1 + K terms costs ln 2
    assert skip_gram_negative_sampling([1.0, 0.0], [0.0, 1.0], [[0.0, 2.0], [0.0, -1.0]]) == pytest.approx(
        3 * math.log(2)
    )
    v, u, negatives = rng.normal(size=4), rng.normal(size=4), rng.normal(size=(5, 4))
    expected = np.log1p(np.exp(-u @ v)) + np.log1p(np.exp(negatives @ v)).sum()
    assert skip_gram_negative_sampling(v, u, negatives) == pytest.approx(expected, rel=1e-13)


def test_skip_gram_pairs_by_hand():
    assert skip_gram_pairs([7, 8, 9], 1) == [(7, 8), (8, 7), (8, 9), (9, 8)]
    assert len(skip_gram_pairs(range(10), 9)) == 90


def test_noise_distribution_is_flatter_than_the_counts():
    law = noise_distribution([81, 16, 1])
    assert law == pytest.approx([27 / 36, 8 / 36, 1 / 36])
    assert sum(law) == pytest.approx(1)


@given(T=st.integers(1, 8), C=st.integers(1, 7))
def test_sinusoids_closed_form(T, C):
    table = np.array(sinusoidal_positions(T, C))
    t = np.arange(T)[:, None]
    frequency = 10000.0 ** (-2 * (np.arange(C) // 2) / C)
    expected = np.where(np.arange(C) % 2 == 0, np.sin(t * frequency), np.cos(t * frequency))
    np.testing.assert_allclose(table, expected, rtol=1e-12, atol=1e-14)
    assert table[0].tolist() == [j % 2 for j in range(C)]


@given(k=st.integers(0, 5), C=st.sampled_from([2, 6]))
def test_a_step_is_a_rotation(k, C):
    """PE(t + k) is PE(t) turned pair by pair by an angle that depends on k alone."""
    table = np.array(sinusoidal_positions(12, C))
    for i in range(0, C, 2):
        angle = k * 10000.0 ** (-i / C)
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        np.testing.assert_allclose(table[k:, i : i + 2], table[: 12 - k, i : i + 2] @ turn.T, atol=1e-14)
