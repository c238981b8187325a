"""F-LM and F-MLM: perplexity, counting, and the two ways to question a text."""

import math

import numpy as np
import pytest

from tinyllm.formulas.language_model import (
    ngram_probability,
    perplexity,
    sequence_log_probability,
    show_what_is_maximised,
)
from tinyllm.formulas.losses import cross_entropy_of_logits
from tinyllm.formulas.masked_lm import autoregressive_loss, mask_tokens, masked_lm_loss


def test_perplexity_closed_forms():
    assert perplexity([math.log(65)] * 10) == pytest.approx(65)
    assert perplexity([0.0, 0.0]) == 1.0
    assert perplexity([math.log(2), math.log(8)]) == pytest.approx(4.0)  # the geometric mean


def test_log_probability_is_minus_the_summed_loss(rng):
    logits, ids = rng.normal(size=(5, 7)), rng.integers(0, 7, size=5)
    P = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    assert sequence_log_probability(P, ids) == pytest.approx(-5 * cross_entropy_of_logits(logits, ids))


def test_ngram_probability_by_hand():
    ids = [ord(c) for c in "abracadabra"]
    a, b, c, d, r = (ord(letter) for letter in "abcdr")
    assert ngram_probability(ids, [], a, 5) == 5 / 11
    assert ngram_probability(ids, [a], b, 5) == 2 / 4  # ab, ac, ad, ab; the last a has no follower
    assert ngram_probability(ids, [a, b], r, 5) == 1.0
    assert ngram_probability(ids, [a], r, 5) == 0.0
    assert ngram_probability(ids, [a], r, 5, add_k=1) == 1 / 9
    assert math.isnan(ngram_probability(ids, [d, d], a, 5))
    for history in ([], [a], [b, r]):
        for k in (0, 0.5):
            assert sum(ngram_probability(ids, history, x, 5, k) for x in (a, b, c, d, r)) == pytest.approx(1)


def test_what_is_maximised():
    guessing, better = [[0.5, 0.5]] * 2, [[0.9, 0.1], [0.2, 0.8]]
    ids = [0, 1]
    assert sequence_log_probability(better, ids) > sequence_log_probability(guessing, ids)
    nll = [[-math.log(P[t][ids[t]]) for t in range(2)] for P in (guessing, better)]
    assert sum(nll[1]) < sum(nll[0])
    assert perplexity(nll[1]) < perplexity(nll[0])
    assert "0.72" in show_what_is_maximised()


def test_masked_and_autoregressive_by_hand():
    P = [[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4]]
    ids = [0, 1, 2]
    # autoregressive: row 0 is asked for token 1, row 1 for token 2; row 2 is asked nothing
    assert autoregressive_loss(P, ids) == pytest.approx(-(math.log(0.25) + math.log(0.7)) / 2)
    # masked: a row is asked for its own token, and only where one was hidden
    assert masked_lm_loss(P, ids, [True, False, True]) == pytest.approx(-(math.log(0.5) + math.log(0.4)) / 2)
    assert masked_lm_loss(P, ids, [False, True, False]) == pytest.approx(-math.log(0.2))


def test_mask_tokens_shares(rng):
    T, mask_id = 20000, 999
    ids = rng.integers(0, 100, size=T)
    hidden, chosen = mask_tokens(ids, rng.random(T), rng.random(T), rng.integers(100, 200, size=T), mask_id)
    hidden, chosen = np.array(hidden), np.array(chosen)
    assert (hidden[~chosen] == ids[~chosen]).all()
    n = chosen.sum()
    for share, expected, total in (
        (chosen.mean(), 0.15, T),
        ((hidden[chosen] == mask_id).mean(), 0.8, n),
        (((hidden[chosen] >= 100) & (hidden[chosen] < 200)).mean(), 0.1, n),
        ((hidden[chosen] == ids[chosen]).mean(), 0.1, n),
    ):
        assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / total)
    assert mask_tokens([5, 5, 5], [0.1] * 3, [0.79, 0.8, 0.9], [7] * 3, mask_id) == ([999, 7, 5], [True] * 3)
