"""The claims that do not hold, each refuted by numbers or by its own words."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.formulas import get
from tinyllm.formulas.attention import attention
from tinyllm.formulas.claims import (
    BERT_MEANT,
    BERT_PRINTED,
    PARTS,
    TRANSFORMER_PRINTED,
    anthology,
    descend,
    hoffmann_loss,
    kaplan_loss,
    may_see,
    next_token_pairs,
    order_defect,
    parts,
    proportional,
    two_valleys,
)
from tinyllm.formulas.positions import sinusoidal_positions
from tinyllm.formulas.procedures import can_end, meant_chart, printed_chart


def test_targets_come_from_the_text():
    text = [5, 3, 8, 3]
    assert next_token_pairs(text) == [([5], 3), ([5, 3], 8), ([5, 3, 8], 3)]
    assert [target for _, target in next_token_pairs(text)] == text[1:]
    assert len({doc for e in (get("E-SUPERVISED"),) for doc, _ in e.where}) == 3  # three documents, three names


def test_scaling_is_a_power_law():
    assert proportional(2.0, 1e8, 1e9) == 20.0
    # each doubling takes the same share off, about 5%, and less in absolute terms each time
    sizes = [1e6 * 2**k for k in range(12)]
    losses = [kaplan_loss(n) for n in sizes]
    shares = [b / a for a, b in itertools.pairwise(losses)]
    assert shares == pytest.approx([2**-0.076] * 11)
    assert 0.94 < shares[0] < 0.96
    gains = [a - b for a, b in itertools.pairwise(losses)]
    assert all(later < earlier for earlier, later in itertools.pairwise(gains))
    # with 10^9 tokens no size comes below the floor; and at that size more data does
    floor = 1.69 + 410.7 / 1e9**0.28
    assert hoffmann_loss(1e30, 1e9) == pytest.approx(floor, rel=1e-6)
    assert hoffmann_loss(1e30, 1e11) < floor
    # Hoffmann's own model, 70 billion parameters and 1.4 trillion tokens
    assert hoffmann_loss(70e9, 1.4e12) == pytest.approx(1.94, abs=0.01)


def test_flow_chart_has_no_exit():
    assert not can_end(printed_chart(), "preprocess")
    assert can_end(meant_chart(), "preprocess")


def test_bert_doi_contradicts_its_own_reference():
    # The reference says: North American Chapter, 2019, volume 1.
    venue, year, volume = anthology(BERT_PRINTED)
    assert (year, volume) == (2019, 2)
    assert not venue.startswith("North American")
    venue, year, volume = anthology(BERT_MEANT)
    assert venue.startswith("North American")
    assert (year, volume) == (2019, 1)
    assert get("E-BERT-DOI").printed.endswith(BERT_PRINTED)
    assert get("E-BERT-DOI").latex.endswith(BERT_MEANT)


def test_transformer_reference_is_too_young():
    assert anthology(TRANSFORMER_PRINTED)[1] == 2019 > 2017


@given(T=st.integers(2, 6), C=st.sampled_from([2, 4]), seed=st.integers(0, 99))
def test_order_leaves_no_trace_without_positions(T, C, seed):
    rng = np.random.default_rng(seed)
    X, order = rng.normal(size=(T, C)), np.roll(rng.permutation(T), 1)
    assert order_defect(X, order) < 1e-14
    moved = (order != np.arange(T)).any()
    with_positions = order_defect(X, order, sinusoidal_positions(T, C))
    causal = order_defect(X, order, causal=True)
    assert (with_positions > 1e-6) == moved
    assert (causal > 1e-6) == moved


def test_stacks_differ_in_what_they_see(rng):
    assert parts("GPT") == ("decoder",)
    assert parts("BERT") == ("encoder",)
    assert sum(len(p) == 2 for p in PARTS.values()) == 1
    X = rng.normal(size=(4, 3))
    later = X.copy()
    later[3] += 1.0
    for model, changes in (("GPT", False), ("BERT", True)):
        mask = [[may_see(parts(model)[0], t, s) for s in range(4)] for t in range(4)]
        before, after = attention(X, X, X, mask=mask), attention(later, later, later, mask=mask)
        assert (before[0] != after[0]) == changes
    assert attention(X, X, X, causal=True) == attention(
        X, X, X, mask=[[may_see("decoder", t, s) for s in range(4)] for t in range(4)]
    )


def test_adam_rests_in_the_shallow_valley():
    sgd, adam, deeper = descend(2.0, "sgd"), descend(2.0, "adam"), descend(-2.0, "adam")
    assert sgd == pytest.approx(adam, abs=1e-3)
    for x in (sgd, adam, deeper):
        assert 4 * x**3 - 4 * x + 0.5 == pytest.approx(0.0, abs=1e-3)  # at rest
    assert two_valleys(adam) > two_valleys(deeper) + 0.9
    assert math.copysign(1.0, adam) != math.copysign(1.0, deeper)
