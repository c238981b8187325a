"""Hiding tokens: equal to the loops, in the shares that are asked for, the same for the same step and no other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.data.masking import IGNORED, MaskedBatches, Masking, masked_windows
from tinyllm.errors import ConfigError, DataError
from tinyllm.formulas.masked_lm import mask_tokens

V, MASK = 40, 4
SPECIAL = frozenset(range(5))


def masking(**settings):
    return Masking(MASK, V, SPECIAL, **settings)


def chi_square(counts, expected):
    """The statistic; with k classes it is about k - 1, and above k + 6 sqrt(2 k) once in many thousand draws."""
    counts, expected = np.asarray(counts, float), np.asarray(expected, float)
    return ((counts - expected) ** 2 / expected).sum()


def bound(k):
    return k + 6 * np.sqrt(2 * k)


@given(st.integers(0, 2**32), st.integers(1, 9), st.sampled_from([0.15, 0.5, 1.0]))
def test_given_the_draws_it_is_the_loops(seed, T, rate):
    rng = np.random.default_rng(seed)
    ids, random_ids = rng.integers(5, V, size=(2, T)), rng.integers(V, size=(2, T))
    u_choose, u_action = rng.random((2, T)), rng.random((2, T))
    inputs, labels = masking(rate=rate)(ids, u_choose, u_action, random_ids)
    for row in range(2):
        hidden, chosen = mask_tokens(ids[row], u_choose[row], u_action[row], random_ids[row], MASK, rate)
        assert inputs[row].tolist() == hidden
        assert (labels[row] != IGNORED).tolist() == chosen
        assert (labels[row] == np.where(chosen, ids[row], IGNORED)).all()


def test_the_shares_are_those_of_berts_paper():
    ids = np.full((400, 250), 7)
    inputs, labels = masking().draw(ids, seed=1, step=2)
    chosen = labels != IGNORED
    n = chosen.sum()
    assert chi_square([n, ids.size - n], [0.15 * ids.size, 0.85 * ids.size]) < bound(2)
    # a random token is the true one, or [MASK], once in V times
    masked, same = (inputs[chosen] == MASK).sum(), (inputs[chosen] == 7).sum()
    expected = np.array([0.8 + 0.1 / V, 0.1 + 0.1 / V, 0.1 * (V - 2) / V]) * n
    assert chi_square([masked, same, n - masked - same], expected) < bound(3)
    others = inputs[chosen & (inputs != MASK) & (inputs != 7)]
    counts = np.bincount(others, minlength=V)[[i for i in range(V) if i not in (MASK, 7)]]
    assert chi_square(counts, np.full(V - 2, len(others) / (V - 2))) < bound(V - 2)
    assert (inputs[~chosen] == 7).all()


def test_places_are_chosen_independently():
    _, labels = masking(rate=0.3).draw(np.full((2000, 30), 7), seed=3, step=0)
    chosen = labels != IGNORED
    both = (chosen[:, 1:] & chosen[:, :-1]).sum()
    pairs = 2000 * 29
    # neighbours overlap, so the pairs themselves are not quite independent
    assert abs(both / pairs - 0.09) < 6 * np.sqrt(0.09 * 0.91 * 1.5 / pairs)
    assert chi_square(chosen.sum(axis=0), np.full(30, 600)) < bound(30)


def test_every_step_hides_other_tokens_and_the_same_step_the_same_ones():
    tokens = np.random.default_rng(0).integers(5, V, size=500).astype(np.uint16)
    batches = MaskedBatches(tokens, 4, 12, masking(), around=(2, 3), seed=9)
    first = batches.at(0)
    assert first["input_ids"].shape == first["labels"].shape == (4, 12)
    again = MaskedBatches(tokens, 4, 12, masking(), around=(2, 3), seed=9).at(0)
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    ids = np.tile(tokens[:50], (8, 1))
    draws = [masking().draw(ids, seed=9, step=step)[1] != IGNORED for step in range(3)]
    assert not (draws[0] == draws[1]).all()
    # no more places in common than two independent draws have
    assert (draws[0] & draws[1]).mean() < 0.06
    assert not (masking().draw(ids, seed=8, step=0)[1] == masking().draw(ids, seed=9, step=0)[1]).all()


def test_special_tokens_are_never_hidden():
    ids = np.random.default_rng(0).integers(V, size=(50, 40))
    inputs, labels = masking(rate=1.0).draw(ids, seed=0, step=0)
    special = np.isin(ids, list(SPECIAL))
    assert (labels[special] == IGNORED).all()
    assert (inputs[special] == ids[special]).all()
    assert (labels[~special] == ids[~special]).all()


def test_the_pieces_of_a_word_are_chosen_together():
    goes_on = np.zeros(V, bool)
    goes_on[20:] = True
    ids = np.random.default_rng(0).integers(5, V, size=(200, 30))
    _, labels = masking(goes_on=goes_on).draw(ids, seed=0, step=0)
    chosen = labels != IGNORED
    together = goes_on[ids][:, 1:]
    assert (chosen[:, 1:] == chosen[:, :-1])[together].all()
    assert 0.1 < chosen.mean() < 0.2
    alone = ~together
    assert (chosen[:, 1:] != chosen[:, :-1])[alone].any()


def test_a_word_does_not_go_on_over_a_special_token():
    goes_on = np.ones(V, bool)
    ids = np.array([[7, 8, 3, 9, 9]])
    u = np.array([[0.1, 0.9, 0.1, 0.9, 0.1]])
    _, labels = masking(goes_on=goes_on)(ids, u, np.zeros((1, 5)), np.zeros((1, 5), int))
    # the special token begins anew, and its own draw is that of what follows
    assert (labels[0] != IGNORED).tolist() == [True, True, False, True, True]


def test_something_is_always_asked():
    for step in range(50):
        inputs, labels = masking().draw(np.array([[7, 3]]), seed=0, step=step)
        assert labels.tolist() == [[7, IGNORED]]
        assert inputs[0, 1] == 3
    with pytest.raises(DataError, match="special tokens only"):
        masking().draw(np.array([[2, 3]]), seed=0, step=0)


def test_windows_cover_a_text_once_and_are_hidden_the_same_way_each_time():
    tokens = np.arange(5, 5 + 23).astype(np.uint16)
    read = list(masked_windows(tokens, 7, 2, masking(), around=(2, 3)))
    again = list(masked_windows(tokens, 7, 2, masking(), around=(2, 3)))
    seen = []
    for batch, other in zip(read, again, strict=True):
        np.testing.assert_array_equal(batch["input_ids"], other["input_ids"])
        assert (batch["input_ids"][:, 0] == 2).all()
        assert (batch["input_ids"][:, -1] == 3).all()
        asked = np.where(batch["labels"] != IGNORED, batch["labels"], batch["input_ids"])
        seen += asked[:, 1:-1].ravel().tolist()
    assert seen == tokens.tolist()
    assert len(list(masked_windows(tokens, 7, 1, masking(), around=(2, 3), limit=2))) == 2


@pytest.mark.parametrize("settings", [{"rate": 0.0}, {"rate": 1.1}, {"masked": 0.9, "random": 0.2}, {"random": -0.1}])
def test_shares_that_are_none_are_refused(settings):
    with pytest.raises(ConfigError, match="rate"):
        masking(**settings)


def test_a_text_without_tokens_is_refused():
    with pytest.raises(DataError, match="no tokens"):
        next(masked_windows(np.empty(0, np.uint16), 7, 2, masking()))
