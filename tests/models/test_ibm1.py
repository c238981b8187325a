"""IBM model 1: against the formula written with loops, the likelihood that EM must not lower, and what it learns."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.models.ibm1 import IBM1

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=4)
PAIRS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=6).filter(lambda pairs: any(t for _, t in pairs))


def by_loops(pairs, iterations):
    """Expectation-maximisation as Brown and others write it; None is the empty word."""
    targets = {word for _, target in pairs for word in target}
    met = {(s, t) for source, target in pairs for s in (None, *source) for t in target}
    table = dict.fromkeys(met, 1 / len(targets))
    likelihoods = []
    for _ in range(iterations):
        counts, totals, logs = dict.fromkeys(met, 0.0), {}, []
        for source, target in pairs:
            words = [None, *source]
            for t in target:
                total = sum(table[s, t] for s in words)
                logs.append(np.log(total / len(words)))
                for s in words:
                    counts[s, t] += table[s, t] / total
                    totals[s] = totals.get(s, 0.0) + table[s, t] / total
        table = {(s, t): counts[s, t] / totals[s] for s, t in met}
        likelihoods.append(np.mean(logs))
    return table, likelihoods


@settings(max_examples=60, deadline=None)
@given(pairs=PAIRS, iterations=st.integers(1, 5))
def test_the_table_is_that_of_the_loops(pairs, iterations):
    model = IBM1().fit(*zip(*pairs, strict=True), iterations=iterations)
    table, likelihoods = by_loops(pairs, iterations)
    for (source, target), p in table.items():
        assert model.probability(target, source) == pytest.approx(p, abs=1e-12)
    assert model.log_likelihood == pytest.approx(likelihoods)
    for source in {s for s, _ in table}:
        assert sum(model.probability(t, source) for t in {t for _, t in table}) == pytest.approx(1)


@settings(max_examples=60, deadline=None)
@given(pairs=PAIRS)
def test_no_iteration_lowers_the_likelihood(pairs):
    found = IBM1().fit(*zip(*pairs, strict=True), iterations=8).log_likelihood
    assert np.diff(found).min() >= -1e-12


def test_words_that_are_met_together_translate_each_other():
    sources = ["the house", "the book", "a book", "a house", "the garden"]
    targets = ["das Haus", "das Buch", "ein Buch", "ein Haus", "das Garten"]
    model = IBM1().fit([s.split() for s in sources], [t.split() for t in targets], iterations=30)
    assert model.best(["a", "garden", "unknown"]) == ["ein", "Garten", "unknown"]
    assert model.align(["the", "house"], ["Haus", "das"]) == [1, 0]
    assert model.probability("Buch", "garden") == 0.0
    assert model.probability("never", "the") == model.probability("das", "never") == 0.0


def test_what_cannot_be_learnt_from_is_refused():
    with pytest.raises(ValueError, match="2 sources, but 1 targets"):
        IBM1().fit([["a"], ["b"]], [["c"]])
    with pytest.raises(ValueError, match="no target word"):
        IBM1().fit([["a"]], [[]])
