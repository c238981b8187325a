"""Reading text: what is taken, what is refused, and how the refusal reads."""

import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.data import load
from tinyllm.data.files import decode
from tinyllm.errors import ConfigError, DataError

# Any text without NUL, a mark of its own or the line ends that reading changes.
TEXTS = st.text(st.characters(exclude_characters="\0\r\ufeff", exclude_categories=["Cs"]), max_size=40)


@given(TEXTS, st.sampled_from(["utf-8-sig", "utf-16", "utf-32"]))
def test_a_byte_order_mark_names_the_encoding(text, encoding):
    assert decode(text.encode(encoding), "x") == text


@given(TEXTS)
def test_utf8_is_the_default(text):
    assert decode(text.encode(), "x") == text


@given(TEXTS, st.sampled_from(["utf-8", "utf-16-be", "utf-32-le", "utf-16"]))
def test_a_named_encoding_is_obeyed(text, encoding):
    assert decode(text.encode(encoding), "x", encoding) == text


def test_line_ends_become_newlines():
    assert decode(b"a\r\nb\rc\n", "x") == "a\nb\nc\n"


@given(TEXTS)
def test_what_is_not_utf8_is_refused_with_its_byte(text):
    data = text.encode()
    with pytest.raises(DataError, match=f"notes.txt is not utf-8: byte {len(data)} is 0xff .*--encoding"):
        decode(data + b"\xff more", "notes.txt")


def test_offset_counts_the_mark():
    with pytest.raises(DataError, match="byte 4 is 0xe9"):
        decode(b"\xef\xbb\xbfa\xe9", "x")


def test_latin1_is_read_when_named(tmp_path):
    path = tmp_path / "cafe.txt"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"cafe\.txt is not utf-8: byte 3"):
        load(path)
    assert load(path, encoding="latin-1").documents[0].text == "café"


@pytest.mark.parametrize("encoding", ["latin-eins", "base64", "a\0b"])
def test_an_encoding_that_does_not_exist_is_named(tmp_path, encoding):
    path = tmp_path / "a.txt"
    path.write_text("abc")
    with pytest.raises(ConfigError, match="unknown encoding"):
        load(path, encoding=encoding)


def test_binary_empty_missing_and_constant_files_are_refused(tmp_path):
    cases = {
        "picture.png": (b"\x89PNG\0", r"picture\.png is not text: NUL at byte 4"),
        "empty.txt": (b"", r"empty\.txt is empty"),
    }
    cases["same.txt"] = (b"aaaa", "no character but 'a'")
    cases["mark.txt"] = (b"\xef\xbb\xbf", r"mark\.txt is empty")
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=message):
            load(tmp_path / name)
    with pytest.raises(DataError, match="is called 'stdlib-pros'; did you mean 'stdlib-prose'"):
        load("stdlib-pros")
    for name in ("", "x" * 5000, "a\0b"):
        with pytest.raises(DataError, match="no file, folder or corpus"):
            load(name)


def test_gzip_is_unpacked_and_damage_is_named(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress("hällo".encode()))
    assert load(path).documents[0].text == "hällo"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="damaged gzip"):
        load(path)


def test_a_folder_gives_its_text_files_in_order_and_counts_the_rest(tmp_path):
    files = {
        "b.txt": b"second",
        "a/z.md": b"first",
        "c.txt": b"second",
        "x.bin": b"\0\1",
        "none.txt": b"",
        ".hidden": b"secret",
        ".git/config": b"secret too",
        "a.txt": b"between",
    }
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    calls = []
    corpus = load(tmp_path, progress=lambda *call: calls.append(call))
    assert [(d.source, d.text) for d in corpus.documents] == [
        ("a.txt", "between"),
        ("a/z.md", "first"),
        ("b.txt", "second"),
    ]
    assert corpus.left_out == {"hidden": 2, "binary": 1, "empty": 1, "duplicate": 1}
    assert "18 characters, 3 documents (left out: 2 hidden, 1 binary, 1 empty, 1 duplicate)" in str(corpus)
    assert calls == [(done, 6, "files") for done in range(1, 7)]


def test_a_folder_with_text_of_another_encoding_is_refused_by_file(tmp_path):
    (tmp_path / "a.txt").write_text("fine")
    (tmp_path / "b.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"b\.txt is not utf-8: byte 3"):
        load(tmp_path)


def test_a_folder_without_text_says_what_it_saw(tmp_path):
    with pytest.raises(DataError, match=r"holds no text file$"):
        load(tmp_path)
    (tmp_path / "x.bin").write_bytes(b"\0")
    with pytest.raises(DataError, match=r"holds no text file \(1 binary\)"):
        load(tmp_path)


def test_standard_input(monkeypatch):
    def typed(data):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    typed("größer\n".encode())
    corpus = load("-")
    assert (corpus.characters, corpus.bytes) == (7, 9)
    typed(b"")
    with pytest.raises(DataError, match="standard input is empty"):
        load("-")
    typed(b"\xff")
    with pytest.raises(DataError, match="standard input is not utf-8: byte 0"):
        load("-")
