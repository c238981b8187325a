"""Logit filters: each against its definition spelled out over a sorted list, and against transformers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinyllm import generation as g
from tinyllm.errors import ConfigError
from tinyllm.generation.choice import draw
from tinyllm.generation.filters import softmax

# Few distinct values, so that ties are common.
rows = hnp.arrays(float, st.integers(1, 8), elements=st.sampled_from([-3.0, -1.0, 0.0, 0.5, 2.0]))
shares = st.sampled_from([0.05, 0.3, 0.5, 0.9, 0.999, 1.0])


def kept(filtered, x):
    """The ids that a filter kept; those it kept are unchanged."""
    ids = [i for i in range(len(x)) if filtered[i] != -np.inf]
    assert [filtered[i] for i in ids] == [x[i] for i in ids]
    return ids


def first_until(order, p, mass):
    """The ids in `order` up to the one with which their probability reaches `mass`."""
    chosen, total = [], 0.0
    for i in order:
        chosen.append(i)
        total += p[i]
        if total >= mass:
            break
    return chosen


@given(rows, st.integers(1, 9))
def test_top_k_keeps_the_k_best_the_lower_id_first(x, k):
    best = sorted(range(len(x)), key=lambda i: (-x[i], i))[:k]
    assert kept(g.top_k(x, k), x) == sorted(best)


@given(rows, shares)
def test_top_p_keeps_the_smallest_set_that_reaches_p(x, p):
    order = sorted(range(len(x)), key=lambda i: (-x[i], i))
    expected = sorted(first_until(order, softmax(x), p)) if p < 1 else list(range(len(x)))
    assert kept(g.top_p(x, p), x) == expected


@given(rows, st.sampled_from([0.0, 0.01, 0.5, 1.0]))
def test_min_p_keeps_what_is_near_the_best(x, p):
    probs = softmax(x)
    assert kept(g.min_p(x, p), x) == [i for i in range(len(x)) if probs[i] >= p * probs.max() * (1 - 1e-12)]


@given(rows, shares)
def test_typical_keeps_what_is_near_the_entropy(x, mass):
    p = softmax(x)
    entropy = -sum(q * math.log(q) for q in p)
    distance = np.abs(-np.log(p) - entropy).round(12)
    order = sorted(range(len(x)), key=lambda i: (distance[i], i))
    result = kept(g.typical(x, mass), x)
    if mass == 1:
        assert result == list(range(len(x)))
    else:  # rounding decides between tokens at the same distance
        assert sorted(distance[result]) == sorted(distance[first_until(order, p, mass)])


@given(rows, st.lists(st.integers(-1, 0), max_size=4), st.sampled_from([0.5, 1.0, 1.3]))
def test_repetition_penalty_moves_seen_logits_away_from_likely(x, seen, penalty):
    expected = x.copy()
    if 0 in seen:
        expected[0] = x[0] / penalty if x[0] > 0 else x[0] * penalty
    np.testing.assert_array_equal(g.repetition_penalty(x, np.array(seen, int), penalty), expected)


@given(st.lists(st.integers(0, 2), max_size=9), st.integers(1, 4), st.integers(0, 3))
def test_no_repeat_ngram_forbids_exactly_what_would_repeat(seen, n, padding):
    x = np.zeros(3)
    grams = {tuple(seen[i : i + n]) for i in range(len(seen) - n + 1)}
    allowed = [t for t in range(3) if tuple([*seen, t][-n:]) not in grams or len(seen) + 1 < n]
    assert kept(g.no_repeat_ngram(x, np.array([-1] * padding + seen, int), n), x) == allowed


@given(st.lists(st.integers(-1, 2), max_size=9), st.sampled_from([-0.5, 0.0, 1.5]))
def test_frequency_and_presence_count_what_has_come(seen, penalty):
    x, counts = np.array([0.5, -1.0, 2.0]), np.array([seen.count(token) for token in range(3)])
    ids = np.array(seen, int)
    np.testing.assert_allclose(g.frequency_penalty(x, ids, penalty), x - penalty * counts, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(g.presence_penalty(x, ids, penalty), x - penalty * (counts > 0))


def test_logit_bias_is_added():
    x = np.array([[0.5, -1.0, 2.0], [1.0, 1.0, 1.0]])
    np.testing.assert_array_equal(g.logit_bias(x, {2: -np.inf, 0: 1.5}), x + np.array([1.5, 0.0, -np.inf]))
    np.testing.assert_array_equal(g.logit_bias(x, {}), x)


FILTERS = {
    "temperature": lambda x, ids: g.temperature(x, 0.7),
    "top_k": lambda x, ids: g.top_k(x, 2),
    "top_p": lambda x, ids: g.top_p(x, 0.6),
    "min_p": lambda x, ids: g.min_p(x, 0.2),
    "typical": lambda x, ids: g.typical(x, 0.6),
    "repetition_penalty": lambda x, ids: g.repetition_penalty(x, ids, 1.5),
    "frequency_penalty": lambda x, ids: g.frequency_penalty(x, ids, 1.1),
    "presence_penalty": lambda x, ids: g.presence_penalty(x, ids, 1.1),
    "logit_bias": lambda x, ids: g.logit_bias(x, {0: 1.0, 2: -np.inf}),
    "no_repeat_ngram": lambda x, ids: g.no_repeat_ngram(x, ids, 1),
}


@pytest.mark.parametrize("name", FILTERS)
def test_rows_are_filtered_alone_and_the_input_is_kept(name, rng):
    x, ids = rng.normal(size=(4, 7)).astype("f4"), rng.integers(-1, 7, size=(4, 3))
    before = x.copy()
    together = FILTERS[name](x, ids)
    assert together.dtype == np.float64
    np.testing.assert_array_equal(x, before)
    for row in range(4):
        np.testing.assert_array_equal(together[row], FILTERS[name](x[row], ids[row]))


@pytest.mark.parametrize("name", FILTERS)
def test_what_is_forbidden_stays_forbidden_and_something_is_left(name, rng):
    x = rng.normal(size=(50, 7)) * 5
    x[:, 3] = -np.inf
    filtered = FILTERS[name](x, np.full((50, 1), 2))
    assert (filtered[:, 3] == -np.inf).all()
    assert (filtered.max(axis=-1) > -np.inf).all()


def test_extreme_logits_do_not_overflow():
    for x in ([1e4, -1e4, 0.0], [-1e300, -1e300, -1e300], [1e-320, 0.0, 0.0]):
        for name, f in FILTERS.items():
            if name != "temperature":
                assert np.isfinite(f(np.array(x), np.array([0]))).any()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: g.temperature([0.0], 0), "temperature"),
        (lambda: g.temperature([0.0], float("nan")), "temperature"),
        (lambda: g.top_k([0.0], 0), "top_k"),
        (lambda: g.top_k([0.0], 1.5), "top_k"),
        (lambda: g.top_k([0.0], True), "top_k"),
        (lambda: g.top_p([0.0], 0.0), "top_p"),
        (lambda: g.top_p([0.0], 1.1), "top_p"),
        (lambda: g.min_p([0.0], -0.1), "min_p"),
        (lambda: g.typical([0.0], 0), "typical"),
        (lambda: g.repetition_penalty([0.0], [0], 0.0), "repetition_penalty"),
        (lambda: g.no_repeat_ngram([0.0], [0], 0), "no_repeat_ngram"),
        (lambda: g.frequency_penalty([0.0], [0], float("nan")), "frequency_penalty"),
        (lambda: g.presence_penalty([0.0], [0], float("inf")), "presence_penalty"),
        (lambda: g.logit_bias([0.0], {0: float("inf")}), "logit_bias"),
        (lambda: g.logit_bias([0.0], {1: 0.0}), "logit_bias"),
    ],
)
def test_impossible_settings_are_refused_by_name(call, said):
    with pytest.raises(ConfigError, match=said):
        call()


def test_ids_must_fit_the_logits():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 1\)"):
        g.repetition_penalty(np.zeros((2, 3)), np.zeros((3, 1), int), 1.1)
    with pytest.raises(TypeError, match="integers"):
        g.no_repeat_ngram(np.zeros(3), [0.5], 1)
    with pytest.raises(IndexError, match=r"3.*0\.\.2"):
        g.repetition_penalty(np.zeros(3), [3], 1.1)


# -- drawing -----------------------------------------------------------------------------------------------------------


def chi_square(counts, p):
    """Pearson's statistic and its number of degrees of freedom."""
    expected = counts.sum() * p[p > 0]
    return ((counts[p > 0] - expected) ** 2 / expected).sum(), len(expected) - 1


@pytest.mark.parametrize("name", ["plain", *FILTERS])
def test_draws_follow_the_filtered_distribution(name, rng):
    x = np.array([0.3, -1.0, 1.2, 0.0, 1.1, -2.0, 0.5])
    filtered = x if name == "plain" else FILTERS[name](x, np.array([2, 4]))
    p = softmax(filtered)
    drawn = draw(np.tile(p, (40_000, 1)), rng)
    counts = np.bincount(drawn, minlength=7)
    assert not counts[p == 0].any()
    statistic, freedom = chi_square(counts, p)
    # Above mean + 5 deviations a chi-square variable comes about once in 10^4 seeds; the seed is fixed.
    assert statistic < freedom + 5 * math.sqrt(2 * freedom)
    if name != "plain":  # and the test can tell another distribution
        assert chi_square(counts, softmax(x))[0] > 100


def test_a_draw_at_the_very_end_takes_a_possible_token():
    class Last:
        def random(self, shape):
            return np.full(shape, 1 - 2**-53)

    p = np.array([[0.1, 0.2, 0.7, 0.0], [1 / 3, 1 / 3, 1 / 3, 0.0], [1.0, 0.0, 0.0, 0.0], [1e-9, 1e-9, 1e-9, 0]])
    assert (p[range(4), draw(p, Last())] > 0).all()


def test_a_draw_at_zero_takes_the_first_possible_token():
    class First:
        def random(self, shape):
            return np.zeros(shape)

    assert draw(np.array([[0.0, 0.0, 0.5, 0.5]]), First()).tolist() == [2]


# -- transformers ------------------------------------------------------------------------------------------------------


@pytest.mark.peers
@pytest.mark.parametrize(
    ("ours", "theirs", "value"),
    [
        ("temperature", "TemperatureLogitsWarper", 0.7),
        ("top_k", "TopKLogitsWarper", 3),
        ("top_p", "TopPLogitsWarper", 0.8),
        ("min_p", "MinPLogitsWarper", 0.1),
        ("typical", "TypicalLogitsWarper", 0.7),
        ("repetition_penalty", "RepetitionPenaltyLogitsProcessor", 1.3),
        ("no_repeat_ngram", "NoRepeatNGramLogitsProcessor", 2),
    ],
)
def test_transformers_filters_alike(ours, theirs, value, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    peers = pytest.importorskip("transformers", reason="transformers is not installed")
    x, ids = rng.normal(size=(500, 11)) * 2, rng.integers(11, size=(500, 20))
    expected = getattr(peers, theirs)(value)(torch.tensor(ids), torch.tensor(x)).numpy()
    needs_ids = ours in ("repetition_penalty", "no_repeat_ngram")
    found = getattr(g, ours)(x, ids, value) if needs_ids else getattr(g, ours)(x, value)
    np.testing.assert_allclose(found, expected, rtol=1e-14)
