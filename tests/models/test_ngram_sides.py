"""The token between two neighbours, by counts: distributions, Bayes' rule by hand, hidden neighbours."""

import numpy as np
import pytest

from tinyllm.models.ngram import NGram
from tinyllm.models.ngram_sides import BetweenNeighbours

V, HIDDEN = 7, 0


@pytest.fixture
def text(rng):
    return rng.integers(1, V - 1, size=300)  # V - 1 is never seen


@pytest.mark.parametrize("triples", [False, True])
def test_every_distribution_sums_to_one(text, triples):
    model = BetweenNeighbours(V, HIDDEN, triples).fit(text)
    left, right = (x.ravel() for x in np.meshgrid(np.arange(V), np.arange(V)))
    p = model.probs(left, right)
    assert p.shape == (V * V, V)
    assert (p > 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-12)


def test_without_triples_it_is_the_bigram_model_and_bayes_rule(text):
    model = BetweenNeighbours(V, HIDDEN, triples=False).fit(text)
    bigrams = NGram(2, V, given=0).fit(text)
    after = np.array([bigrams.probs([w]) for w in range(V)])  # (left, token)
    for left, right in [(1, 2), (3, 3), (5, 1)]:
        joint = after[left] * after[:, right]
        np.testing.assert_allclose(model.probs([left], [right])[0], joint / joint.sum(), rtol=1e-9)


def test_a_hidden_neighbour_drops_out(text):
    model = BetweenNeighbours(V, HIDDEN).fit(text)
    bigrams = NGram(2, V, given=0).fit(text)
    np.testing.assert_allclose(model.probs([HIDDEN], [HIDDEN])[0], model.unigram, rtol=1e-12)
    np.testing.assert_allclose(model.probs([2], [HIDDEN])[0], bigrams.probs([2]), rtol=1e-9)


def test_triples_that_were_seen_pull_towards_their_counts():
    text = np.array([1, 2, 3] * 50 + [1, 4, 3])
    p = BetweenNeighbours(V, HIDDEN).fit(text).probs([1], [3])[0]
    base = BetweenNeighbours(V, HIDDEN, triples=False).fit(text).probs([1], [3])[0]
    np.testing.assert_allclose(p, (np.eye(V)[2] * 50 + np.eye(V)[4] + 2 * base) / 53, rtol=1e-12)


def test_the_judgement_is_that_of_the_distributions(text):
    model = BetweenNeighbours(V, HIDDEN).fit(text)
    left, true, right = text[:-2], text[1:-1], text[2:]
    loss, accuracy = model.judge(left, right, true)
    p = model.probs(left, right)
    np.testing.assert_allclose(loss, -np.log(p[np.arange(len(true)), true]).mean(), rtol=1e-12)
    assert accuracy == (p.argmax(axis=1) == true).mean()
