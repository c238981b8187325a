"""Labelled texts: each form is read alike, and what is wrong is named with its line."""

import csv
import gzip
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.data.labelled import Example, gathered, read_labelled
from tinyllm.errors import ConfigError, DataError

ROWS = [("a fine film", "pos"), ("dull, and long", "neg"), ('"so" it goes', "pos"), ("好看", "pos")]
EXPECTED = tuple(Example(text, label) for text, label in ROWS)


def write(folder, kind):
    """The rows in one of the forms."""
    path = folder / f"data.{kind}"
    if kind == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("label", "text"), *((label, text) for text, label in ROWS)])
    elif kind == "tsv":
        path.write_text("text\tlabel\r\n" + "\r\n".join("\t".join(row) for row in ROWS), encoding="utf-8")
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps({"text": t, "label": c}) for t, c in ROWS) + "\n", encoding="utf-8")
    else:
        path = folder / "classes"
        for i, (text, label) in enumerate(ROWS):
            (path / label).mkdir(parents=True, exist_ok=True)
            (path / label / f"{i}.txt").write_text(text + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "folder"])
def test_every_form_gives_the_same_examples(tmp_path, kind):
    found = read_labelled(write(tmp_path, kind))
    assert set(found.examples) == set(EXPECTED)
    assert found.labels == ["neg", "pos"]
    assert found.notes == ()


def test_packed_files_and_byte_order_marks_are_read(tmp_path):
    path = tmp_path / "data.csv.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + write(tmp_path, "csv").read_bytes()))
    assert read_labelled(path).examples == EXPECTED


def test_a_file_for_each_class_has_a_text_on_each_line(tmp_path):
    (tmp_path / "pos.txt").write_text("good\nfine\n")
    (tmp_path / "neg.txt").write_text("bad\n\n")
    assert {(e.text, e.label) for e in read_labelled(tmp_path).examples} == {
        ("good", "pos"),
        ("fine", "pos"),
        ("bad", "neg"),
    }


@given(st.lists(st.tuples(st.text("ab \n,\"'é中", min_size=1), st.sampled_from(["x", "y"])), min_size=1, max_size=12))
def test_a_table_loses_nothing_but_empty_texts_and_repetitions(tmp_path_factory, rows):
    rows = [*rows, ("one", "x"), ("two", "y")]
    path = tmp_path_factory.mktemp("table") / "t.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    wanted = dict.fromkeys(Example(text.strip(), label) for text, label in rows if text.strip())
    assert read_labelled(path).examples == tuple(wanted)


def test_what_is_left_out_is_said():
    rows = [("line 2", "a", "x"), ("line 3", " ", "x"), ("line 4", "a", "x"), ("line 5", "b", "y")]
    found = gathered("texts", rows)
    assert "1 empty texts are left out, the first at line 3" in found.notes[0]
    assert "1 repetitions" in found.notes[1]
    assert "2 texts, 2 labels (x 1, y 1)" in str(found)


SEVERAL = 'text,rude,sad,wet\n"rain, again",0,1,1\nsun,0.0,false,0\nget out,1,True,0\n'


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_labels_in_a_column_each_are_named_together(tmp_path, kind):
    path = tmp_path / f"t.{kind}"
    header, *rows = csv.reader(SEVERAL.splitlines())
    objects = [dict(zip(header, row, strict=True)) for row in rows]
    objects[0] |= {"rude": 0, "sad": True, "wet": 1.0}  # not everything in JSON is a string
    path.write_text(SEVERAL if kind == "csv" else "\n".join(map(json.dumps, objects)))
    labels = [e.label for e in read_labelled(path, label_column="rude, sad,wet").examples]
    assert labels == ["sad|wet", "", "rude|sad"]
    assert [e.label for e in read_labelled(path, label_column="wet,wet,rude").examples] == ["wet", "", "rude"]
    with pytest.raises(DataError, match="no column 'grim'; it has text, rude, sad, wet"):
        read_labelled(path, label_column="rude,grim")


def test_a_column_whose_name_has_a_comma_is_one_column(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('text,"a,b",a,b\none,x,0,1\ntwo,y,0,1\n')
    assert [e.label for e in read_labelled(path, label_column="a,b").examples] == ["x", "y"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", SEVERAL + "fog,0,2,0\n", "line 5: one of several label columns, 'sad' must hold 0 or 1, not '2'"),
        ("t.csv", SEVERAL + "fog,0,0,\n", "line 5: .*'wet' must hold 0 or 1, not ''"),
        ("t.csv", SEVERAL + "fog,0\n", "line 5: 2 columns, but 'wet' is column 4"),
        ("t.jsonl", '{"text": "a", "rude": 0, "sad": null, "wet": 1}', "'text' must be a text and 'rude', 'sad'"),
        ("t.jsonl", '{"text": "a", "rude": 0, "sad": 1}', "line 1: no column 'wet'; it has text, rude, sad"),
    ],
)
def test_a_wrong_mark_is_named_with_its_line(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=said) as error:
        read_labelled(path, label_column="rude,sad,wet")
    assert str(path) in str(error.value)


@pytest.mark.slow
def test_a_million_rows_are_read_one_by_one(tmp_path):
    """Repetitions are left out, so what stays is small: the reading itself must not hold the file."""
    path = tmp_path / "t.csv"
    with path.open("w") as file:
        file.write("text,label\n")
        for i in range(1_000_000):
            file.write(f"{'a sentence that is said again and again ' * 2}{i % 100},{'xy'[i % 2]}\n")
    tracemalloc.start()
    found = read_labelled(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 80e6
    assert len(found.examples) == 100
    assert "999,900 repetitions" in found.notes[0]
    assert peak < 3e6


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", "text,label\nfine,pos\nshort\n", "line 3: 1 columns"),
        ("t.csv", "words,label\na,b\n", "no column called text"),
        ("t.tsv", "", "is empty"),
        ("t.csv", "text,label\na,x\nb,x\n", "one label, 'x'"),
        ("t.csv", "text,label\n", "has no text"),
        ("t.jsonl", '{"text": "a", "label": "x"}\n{"text": "b"}\n', "line 2: no column called label"),
        ("t.jsonl", '{"text": "a", "label": "x"}\n[1]\n', "line 2: a JSON object was expected"),
        ("t.jsonl", '{"text": "a", "label": "x"\n', "line 1: not JSON"),
        ("t.jsonl", '{"text": 3, "label": "x"}\n', "line 1: 'text' must be a text"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        read_labelled(path)


def test_wrong_bytes_kinds_and_names_are_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("text,label\ngut,x\nschön,y\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not utf-8: byte 20 is 0xf6"):
        read_labelled(path)
    assert read_labelled(path, encoding="latin-1").examples[1].text == "schön"
    with pytest.raises(DataError, match="no column 'title'; it has text, label"):
        read_labelled(path, text_column="title", encoding="latin-1")
    with pytest.raises(ConfigError, match=r"\.csv, \.tsv or \.jsonl"):
        read_labelled(__file__)
    with pytest.raises(DataError, match="no file or folder"):
        read_labelled(tmp_path / "nothing.csv")
    (tmp_path / "broken.csv.gz").write_bytes(gzip.compress(b"text,label\na,x\nb,y\n")[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        read_labelled(tmp_path / "broken.csv.gz")
