"""Held-out text shares nothing with training text."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tinyllm.data import Corpus, Document, split
from tinyllm.errors import ConfigError, DataError


def corpus(*documents):
    return Corpus("c", tuple(Document(text, str(i), group) for i, (text, group) in enumerate(documents)))


DOCUMENTS = st.lists(
    st.tuples(st.text("abc", min_size=1, max_size=30), st.sampled_from("xyzuvw")), min_size=1, max_size=20
)


@given(DOCUMENTS, st.floats(0.05, 0.95), st.integers(0, 5))
def test_every_character_is_on_exactly_one_side(documents, share, seed):
    whole = corpus(*documents)
    assume(whole.characters > 1)
    train, held_out = split(whole, share, seed)
    assert train.documents
    assert held_out.documents
    assert train.characters + held_out.characters == whole.characters
    parts = sorted([*train.documents, *held_out.documents], key=lambda d: int(d.source))  # stable: train comes first
    assert "".join(d.text for d in parts) == "".join(d.text for d in whole.documents)
    assert (train, held_out) == split(whole, share, seed)


@given(DOCUMENTS, st.integers(0, 5))
def test_neither_group_nor_text_is_shared_unless_cut_by_position(documents, seed):
    whole = corpus(*documents)
    assume(whole.characters > 1)
    train, held_out = split(whole, 0.3, seed)
    assume("characters)" not in held_out.name)
    if len(whole.groups) > 1:
        assert not set(train.groups) & set(held_out.groups)
    else:
        assert not {d.text for d in train.documents} & {d.text for d in held_out.documents}
    assert 0.15 * whole.characters <= held_out.characters <= 0.3 * whole.characters


def test_one_text_is_cut_at_its_last_tenth():
    train, held_out = split(corpus(("abcdefghij" * 10, "")))
    assert (train.characters, held_out.characters) == (90, 10)
    assert held_out.documents[0].text == "abcdefghij"
    assert (train.name, held_out.name) == ("c (first 90 characters)", "c (last 10 characters)")


def test_few_long_documents_are_cut_too():
    """Holding out one of two halves would leave half of the text unused."""
    train, held_out = split(corpus(("a" * 50, ""), ("b" * 50, "")), 0.2)
    assert [d.text for d in train.documents] == ["a" * 50, "b" * 30]
    assert [d.text for d in held_out.documents] == ["b" * 20]


def test_copies_stay_together():
    for seed in range(20):
        train, held_out = split(corpus(*[(2 * letter, "") for letter in "abcdabcd"]), 0.5, seed)
        assert len(held_out.documents) == len(train.documents) == 4
        assert not {d.text for d in train.documents} & {d.text for d in held_out.documents}


def test_a_new_group_moves_few_others():
    groups = [(chr(97 + i) * 10, f"g{i}") for i in range(26)]
    before = set(split(corpus(*groups), 0.5)[1].groups)
    after = set(split(corpus(*groups, ("new" * 4, "new")), 0.5)[1].groups)
    assert len(before ^ (after - {"new"})) <= 2


@pytest.mark.parametrize("share", [0, 1, -0.1, 10])
def test_an_impossible_share_is_refused(share):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        split(corpus(("abc", "")), share)


def test_a_single_character_cannot_be_divided():
    with pytest.raises(DataError, match="1 characters"):
        split(corpus(("a", "")))
    train, held_out = split(corpus(("ab", "")), 0.01)
    assert (train.documents[0].text, held_out.documents[0].text) == ("a", "b")
