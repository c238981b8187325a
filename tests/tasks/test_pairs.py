"""Pairs of texts: how they are read, what is wrong with files, and that no source is in both parts."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.errors import DataError
from tinyllm.tasks.pairs import Pair, clean_pairs, load_pairs, read_files, read_table, split_pairs


def write(path, data):
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def sides(pairs):
    return [(pair.source, pair.target) for pair in pairs.pairs]


def test_a_table_has_a_pair_on_each_line_and_more_columns_do_not_matter(tmp_path):
    text = "Go.\tVa !\tCC-BY\r\nStop.\tArrête.\rRun.\tCours.\n\nGo.\tVa !\n"  # three kinds of line ends
    for data in (text.encode(), gzip.compress(text.encode()), ("\ufeff" + text).encode()):
        found = read_table(write(tmp_path / "t.tsv", data))
        assert sides(found) == [("Go.", "Va !"), ("Stop.", "Arrête."), ("Run.", "Cours.")]


def test_a_line_without_a_tab_is_named(tmp_path):
    with pytest.raises(DataError, match="line 2: a source, a tab and a target were expected, got 'alone'"):
        read_table(write(tmp_path / "t.tsv", "a\tb\nalone\n"))


def test_two_files_belong_together_line_by_line(tmp_path):
    en, fr = write(tmp_path / "en", "one\r\ntwo\rthree\n"), write(tmp_path / "fr", "un\ndeux\ntrois")
    assert sides(read_files(en, fr)) == [("one", "un"), ("two", "deux"), ("three", "trois")]


def test_files_of_different_length_name_the_first_line_without_a_partner(tmp_path):
    en, fr = write(tmp_path / "en", "one\ntwo\nthree\nfour\n"), write(tmp_path / "fr", "un\ndeux\n")
    for files in ((en, fr), (fr, en)):
        with pytest.raises(DataError, match=r"line 3 of .*en \('three'\) is the first without a partner"):
            read_files(*files)


def test_empty_sides_are_left_out_and_counted(tmp_path):
    found = read_table(write(tmp_path / "t.tsv", "a\tb\n\tc\nd\t \ne\tf\n"))
    assert sides(found) == [("a", "b"), ("e", "f")]
    assert "2 pairs with an empty side are left out, the first at line 2" in str(found)
    with pytest.raises(DataError, match="no pair of texts: a side of line 1 is empty"):
        read_table(write(tmp_path / "t.tsv", "\tb\n"))


def test_equal_sides_warn(tmp_path):
    found = read_table(write(tmp_path / "t.tsv", "a\ta\nb\tb\nc\td\n"))
    assert "in 2 of 3 pairs both sides are equal" in str(found)
    assert read_table(write(tmp_path / "t.tsv", "a\ta\nb\tc\nc\td\n")).notes == ()


def test_what_is_no_file_of_text_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        read_table(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is empty"):
        read_table(write(tmp_path / "t", ""))
    with pytest.raises(DataError, match="byte 3 is 0xe9"):
        read_table(write(tmp_path / "t", b"a\tb\xe9"))
    with pytest.raises(DataError, match="did you mean 'embedded'"):
        load_pairs("embeded", "", "", {"embedded": lambda: clean_pairs("x", [])})


@given(
    sources=st.lists(st.text(max_size=6), min_size=40, max_size=80),
    share=st.sampled_from([0.2, 0.5]),
    seed=st.integers(0, 9),
)
def test_no_source_is_in_both_parts(sources, share, seed):
    spelt = [Pair(form(source), str(i)) for i, source in enumerate(sources) for form in (str, str.upper, " {} ".format)]
    pairs = [*spelt, *(Pair(f"more {i}", "x") for i in range(60))]
    train, held_out = split_pairs(pairs, share, seed)
    assert len(train) + len(held_out) == len(pairs)
    assert not {pair.unit for pair in train} & {pair.unit for pair in held_out}
    # A pair that comes or goes moves no other.
    fewer = split_pairs(pairs[1:], share, seed)
    assert fewer == tuple([p for p in part if p is not pairs[0]] for part in (train, held_out))


def test_groups_are_not_divided():
    pairs = [Pair(str(i), "x", group=str(i % 20)) for i in range(200)]
    parts = split_pairs(pairs, 0.3, 0)
    groups = [{pair.group for pair in part} for part in parts]
    assert not groups[0] & groups[1]
    with pytest.raises(DataError, match="too few to hold out"):
        split_pairs(pairs[:1], 0.3, 0)
