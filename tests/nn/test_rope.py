"""Frequencies of rotary positions and their scalings, against closed forms."""

import math

import numpy as np
import pytest

import tinyllm as tl
from tinyllm.errors import ConfigError
from tinyllm.nn import Rope, rope_parameters


def rope(D=8, length=16, **given):
    return Rope(D, rope_parameters(given, 10000.0, length), length)


PLAIN = 10000.0 ** (-np.arange(4) / 4)


def test_the_default_is_the_papers():
    np.testing.assert_allclose(rope().frequencies(), PLAIN, rtol=1e-15)
    np.testing.assert_allclose(rope(rope_theta=100.0).frequencies(), 100.0 ** (-np.arange(4) / 4), rtol=1e-15)


def test_linear_counts_positions_more_slowly():
    positions = np.arange(5)
    slow = rope(rope_type="linear", factor=2.0).tables(2 * positions, np.float64)
    for found, expected in zip(slow, rope().tables(positions, np.float64), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


def test_dynamic_changes_nothing_within_the_length_of_training():
    dynamic = rope(rope_type="dynamic", factor=2.0)
    np.testing.assert_allclose(dynamic.frequencies(16), PLAIN, rtol=1e-15)
    longer = dynamic.frequencies(48)
    assert longer[0] == 1.0
    # three times as long at factor 2: the last pair is slowed 2 * 3 - 1 = 5 times, in full
    assert longer[-1] == pytest.approx(PLAIN[-1] / 5, rel=1e-12)


def test_llama3_slows_the_slow_pairs_alone():
    given = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 100}
    D = 64
    found = rope(D, rope_type="llama3", **given).frequencies() / rope(D).frequencies()
    turns = 100 * rope(D).frequencies() / (2 * math.pi)
    assert (found[turns > 4] == 1).all()
    np.testing.assert_allclose(found[turns < 1], 1 / 8)
    between = found[(turns >= 1) & (turns <= 4)]
    assert len(between) > 2
    assert (np.diff(between) < 0).all()


def test_yarn_slows_the_slow_pairs_alone_and_sharpens():
    yarn = rope(64, rope_type="yarn", factor=4.0, original_max_position_embeddings=2048)
    found = yarn.frequencies() / rope(64).frequencies()
    turns = 2048 * rope(64).frequencies() / (2 * math.pi)
    assert (found[turns > 40] == 1).all()
    np.testing.assert_allclose(found[turns < 0.5], 1 / 4)
    assert (np.diff(found) <= 0).all()
    assert yarn.scale == pytest.approx(0.1 * math.log(4) + 1)
    assert rope(rope_type="yarn", factor=4.0, attention_factor=1.5).scale == 1.5
    assert rope(rope_type="yarn", factor=4.0, mscale=2.0, mscale_all_dim=2.0).scale == 1.0
    cos, sin = yarn.tables(np.arange(3), np.float64)
    np.testing.assert_allclose(cos**2 + sin**2, yarn.scale**2)


@pytest.mark.parametrize("kind", ["default", "linear", "dynamic", "llama3", "yarn"])
def test_scores_depend_on_the_distance_alone(kind, rng):
    more = {"low_freq_factor": 1.0, "high_freq_factor": 4.0} if kind == "llama3" else {}
    turning = rope(rope_type=kind, **more | ({} if kind == "default" else {"factor": 3.0}))
    q, k = rng.normal(size=(2, 1, 8))

    def score(t, s):
        tables = turning.tables(np.array([t, s, 40]), np.float64)  # 40: the text is as long in every case
        a, b = (tl.nn.rotate(x, *(table[i : i + 1] for table in tables)) for i, x in enumerate((q, k)))
        return (a * b).sum().item()

    assert score(7, 3) == pytest.approx(score(29, 25), abs=1e-10)
    assert abs(score(7, 3) - score(7, 4)) > 1e-6


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rope_type": "longrope"}, "longrope.*cannot be obeyed"),
        ({"rope_type": "yarm"}, "did you mean 'yarn'"),
        ({"rope_type": "linear"}, "needs factor"),
        ({"rope_type": "llama3", "factor": 2.0}, "needs low_freq_factor, high_freq_factor"),
        ({"factor": 2.0}, "'factor' means nothing to rope_type 'default'"),
        ({"rope_type": "linear", "factor": 2.0, "beta_fast": 3}, "beta_fast"),
        ({"rope_type": "linear", "factor": -2.0}, "factor"),
        ({"rope_type": "linear", "factor": "2"}, "factor"),
        ({"rope_theta": 0}, "rope_theta"),
        ({"rope_type": "yarn", "factor": 2.0, "truncate": 1}, "truncate"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
        ({"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0}, "high_freq_factor"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_by_name(given, said):
    with pytest.raises(ConfigError, match=said):
        rope_parameters(given, 10000.0, 16)


def test_old_files_are_understood():
    expected = {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}
    assert rope_parameters({"type": "linear", "factor": 2.0, "rope_theta": None}, 500.0, 16) == expected
    assert rope_parameters({"partial_rotary_factor": 1.0, **expected}, 1.0, 16) == expected
