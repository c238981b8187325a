"""Word vectors: asking them, their files, PPMI, the association tests, the commands."""

import gzip
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm import cli
from tinyllm.data.parquet import _hybrid, _unsnap, read_parquet
from tinyllm.errors import DataError
from tinyllm.metrics import weat
from tinyllm.models import WordVectors, ppmi_svd
from tinyllm.models.bias import TESTS, probe
from tinyllm.models.ppmi import cooccurrences, ppmi
from tinyllm.models.word_files import read_analogies, read_similarities

GENDER = WordVectors(
    ["king", "queen", "man", "woman", "apple"],
    np.array([[1, 1, 0], [1, -1, 0], [0.2, 1, 0.1], [0.2, -1, 0.1], [0, 0, 1]], np.float32),
)


def test_neighbours_analogies_and_cosines():
    assert GENDER.analogy("man", "king", "woman")[0][0] == "queen"
    assert [w for w, _ in GENDER.neighbours("king", 1)] == ["man"]
    assert GENDER.neighbours(GENDER["queen"], 1) == [("queen", pytest.approx(1))]
    assert GENDER.similarity("king", "apple") == 0
    assert len(GENDER.neighbours("king", 99)) == 4
    assert "king" in GENDER
    assert len(GENDER.most_frequent(2)) == 2


def test_questions_are_counted():
    asked = [
        ("s", ("man", "king", "woman", "queen")),
        ("s", ("Man", "king", "woman", "apple")),
        ("t", ("x", "y", "z", "w")),
    ]
    assert GENDER.answer_analogies(asked) == {"s": (1, 2, 2), "t": (0, 0, 1), "all": (1, 2, 3)}
    correlation, known, total = GENDER.correlate(
        [("king", "man", 9), ("king", "queen", 5), ("king", "apple", 6), ("x", "y", 1)]
    )
    assert (known, total) == (3, 4)
    assert correlation == pytest.approx(math.sqrt(3) / 2)  # queen and apple are equally far


def test_the_map_keeps_distances_of_a_plane(rng):
    plane = rng.normal(size=(6, 2))
    vectors = np.c_[plane / np.linalg.norm(plane, axis=1, keepdims=True), np.zeros((6, 3))]
    words = [f"w{i}" for i in range(6)]
    places = WordVectors(words, vectors).map(words)
    apart = lambda x: np.linalg.norm(x[:, None] - x[None], axis=-1)  # noqa: E731
    np.testing.assert_allclose(apart(places), apart(vectors), atol=1e-12)
    with pytest.raises(DataError, match="at least two"):
        GENDER.map(["king"])


def test_unknown_words_get_a_hint():
    with pytest.raises(DataError, match="did you mean 'queen'"):
        GENDER["quen"]
    with pytest.raises(DataError, match="lower case"):
        GENDER["King"]
    with pytest.raises(DataError, match="among 5 words"):
        GENDER["zebra"]


@pytest.mark.parametrize("name", ["v.txt", "v.bin"])
@given(
    words=st.lists(st.text("abcß中,'-1", min_size=1, max_size=5), min_size=1, max_size=6, unique=True),
    size=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_what_is_saved_is_loaded(tmp_path_factory, name, words, size, seed):
    vectors = np.random.default_rng(seed).normal(size=(len(words), size)).astype(np.float32)
    path = tmp_path_factory.mktemp("vectors") / name
    WordVectors(words, vectors).save(path)
    found = WordVectors.load(path)
    assert found.words == words
    np.testing.assert_array_equal(found.vectors, vectors)
    (path.parent / "packed.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert WordVectors.load(path.parent / "packed.gz", limit=1).words == words[:1]


def test_glove_files_have_no_head_and_words_with_spaces(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("the 1 2 3\n. . . 4 5 6\n中 -1e-2 0 nan\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"'中' \(row 2\).*not finite"):
        WordVectors.load(path)
    found = WordVectors.load(path, limit=2)
    assert found.words == ["the", ". . ."]
    assert found[". . ."].tolist() == [4, 5, 6]


BINARY = b"2 2\nab " + np.array([1, 2], "<f4").tobytes() + b"\ncd " + np.array([-300, 4e9], "<f4").tobytes() + b"\n"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "empty"),
        (b"\n", "empty"),
        (b"word\n", "line 1: expected a word and its numbers"),
        (b"the 1 2\ncat 1\n", "line 2: expected a word and 2 numbers, got 2"),
        (b"the 1 2\ncat 1 x\n", "line 2.*'cat'.*no number"),
        (b"the 1 2\ncat 1 2\nthe 3 4\n", "'the' occurs twice"),
        (b"the 1 2\n\xff 1 2\n", "line 2, byte 0: not UTF-8"),
        (b"3 2\na 1 2\nb 1 2\n", "ends after 2 words"),
        (b"0 2\n", "promises 0 vectors"),
        (BINARY[:-4], "ends within the vector of word 2"),
        (BINARY[:17], "ends within word 2 of 2"),
        (b"2 2\n\xff " + BINARY[7:], "word 1 is not UTF-8"),
        (b"\x1f\x8b broken", "cannot be read"),
    ],
)
def test_damaged_files_name_the_place(tmp_path, content, match):
    path = tmp_path / "v.bin"
    path.write_bytes(content)
    with pytest.raises(DataError, match=match):
        WordVectors.load(path)


def test_a_missing_file_and_words_that_cannot_be_written(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        WordVectors.load(tmp_path / "none.txt")
    with pytest.raises(DataError, match="white space"):
        WordVectors(["a b"], np.ones((1, 2))).save(tmp_path / "v.txt")


def test_lists_of_questions_and_pairs(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text(": capitals\nParis France Rome Italy\n: family\nman woman king queen\n")
    assert read_analogies(file) == [
        ("capitals", ("Paris", "France", "Rome", "Italy")),
        ("family", ("man", "woman", "king", "queen")),
    ]
    file.write_text(": x\na b c\n")
    with pytest.raises(DataError, match="line 2: expected four words, got 3"):
        read_analogies(file)
    for text in (
        "# head\nWord 1\tWord 2\tHuman\nlove\tsex\t6.77\n",
        "w1,w2,score\nlove,sex,6.77\n",
        "w\tv\tPOS\tx\nlove\tsex\tN\t6.77\n",
    ):
        file.write_text(text)
        assert read_similarities(file) == [("love", "sex", 6.77)]
    file.write_text("a\tb\t1\na b 2\n")
    with pytest.raises(DataError, match="line 2"):
        read_similarities(file)


# --- parquet ----------------------------------------------------------------------------------------------------------


def test_snappy_literals_and_copies():
    # "abcabcabcabc!" : 3 literal bytes, a copy of 9 from 3 back that copies what it writes, 1 literal byte
    assert _unsnap(bytes([13, 2 << 2]) + b"abc" + bytes([(9 - 4) << 2 | 1, 3, 0]) + b"!", 13) == b"abcabcabcabc!"
    with pytest.raises(ValueError, match="before the beginning"):
        _unsnap(bytes([4, 1, 3]), 4)


def test_hybrid_runs_and_packed_groups():
    # four times 1, then eight numbers of three bits packed
    packed = sum(n << 3 * i for i, n in enumerate(range(8))).to_bytes(3, "little")
    assert _hybrid(bytes([4 << 1, 1, 1 << 1 | 1]) + packed, 3, 12).tolist() == [1, 1, 1, 1, *range(8)]


def thrift(fields):
    """A struct in Thrift's compact protocol: {number: int, bytes, list or dict}, numbers rising by at most 15."""
    out, last = b"", 0
    for number, value in fields.items():
        kind, data = thrift_value(value)
        out, last = out + bytes([(number - last) << 4 | kind]) + data, number
    return out + b"\0"


def thrift_value(value):
    def varint(n):
        return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)

    if isinstance(value, int):
        return 5, varint(2 * value)
    if isinstance(value, bytes):
        return 8, varint(len(value)) + value
    if isinstance(value, dict):
        return 12, thrift(value)
    kinds, parts = zip(*map(thrift_value, value), strict=True)
    return 9, bytes([len(value) << 4 | kinds[0]]) + b"".join(parts)


def parquet(columns):
    """A file with one page for each column of (name, type, bytes, number of values), not compressed."""
    data, chunks = b"PAR1", []
    for name, kind, page, n in columns:
        chunk = {1: kind, 2: [0], 3: [name], 4: 0, 5: n, 6: len(page), 7: len(page), 9: len(data)}
        chunks.append({2: len(data), 3: chunk})
        data += thrift({1: 0, 2: len(page), 3: len(page), 5: {1: n, 2: 0, 3: 3, 4: 3}}) + page
    schema = [{4: b"root", 5: len(columns)}, *({1: kind, 3: 0, 4: name} for name, kind, *_ in columns)]
    footer = thrift({1: 1, 2: schema, 3: 2, 4: [{1: chunks, 2: 0, 3: 2}]})
    return data + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def test_parquet_columns(tmp_path):
    words = b"".join(len(w).to_bytes(4, "little") + w for w in (b"the", "中".encode()))
    path = tmp_path / "x.parquet"
    path.write_bytes(parquet([(b"word", 6, words, 2), (b"x", 5, np.array([0.5, -2]).tobytes(), 2)]))
    found = read_parquet(path)
    assert found["word"] == ["the", "中"]
    assert found["x"].tolist() == [0.5, -2]
    path.write_bytes(parquet([(b"word", 6, words[:-1], 2)]))
    with pytest.raises(DataError, match=r"damaged.*end of its page"):
        read_parquet(path)
    path.write_bytes(parquet([(b"flag", 0, b"\1", 2)]))
    with pytest.raises(DataError, match="physical type 0"):
        read_parquet(path)


def test_damaged_parquet(tmp_path):
    path = tmp_path / "x.parquet"
    for content in (b"", b"PAR1" + b"\x00" * 20 + b"PAR1", b"PAR1\x99\x99\x99\xff\xff\xff\x7fPAR1"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="damaged"):
            read_parquet(path)


# --- PPMI -------------------------------------------------------------------------------------------------------------


def test_cooccurrences_by_hand():
    table = cooccurrences(np.array([0, 1, 2, 0, 1]), np.array([0, 3, 5]), 3, 2)
    assert table.tolist() == [[0, 2, 0.5], [2, 0, 1], [0.5, 1, 0]]


def test_ppmi_by_hand():
    table = np.array([[0, 6], [6, 4]])
    found = ppmi(table, power=1)
    assert found[0, 1] == pytest.approx(math.log(6 * 16 / (6 * 10)))
    assert found[0, 0] == 0  # never met
    assert found[1, 1] == 0  # less often than by chance


def test_the_svd_finds_groups(rng):
    groups = [("cat", "dog"), ("eats", "sleeps"), ("car", "bus"), ("drives", "stops")]
    text = [[groups[2 * k][i], groups[2 * k + 1][j]] for k, i, j in rng.integers(0, 2, (400, 3))]
    v = ppmi_svd(text, size=4, min_count=1)
    assert v.similarity("cat", "dog") > 0.9 > v.similarity("cat", "car") + 0.5
    full = ppmi_svd(text, size=8, min_count=1).vectors
    assert full.shape == (8, 8)


# --- association tests ------------------------------------------------------------------------------------------------


def test_weat_by_hand():
    east, west = np.array([1.0, 0]), np.array([-1.0, 0])
    x, y = np.array([[1, 0.1], [1, -0.2]]), np.array([[-1, 0.3], [-1, 0.1]])
    found = weat(x, y, [east], [west])
    assert (found.exact, found.partitions) == (True, 6)
    assert found.p_value == pytest.approx(1 / 6)
    assert found.effect_size == pytest.approx(1.73, abs=0.01)  # the most that four words can show: sqrt(3)
    swapped = weat(y, x, [east], [west])
    assert swapped.effect_size == pytest.approx(-found.effect_size)
    assert swapped.p_value == 1


def test_drawn_partitions_agree_with_all(rng, monkeypatch):
    x, y, a, b = rng.normal(size=(4, 6, 5))
    x = x + 0.5 * a[0]
    exact = weat(x, y, a, b)
    monkeypatch.setattr("tinyllm.metrics.associations.EXACT_UP_TO", 0)
    drawn = weat(x, y, a, b, draws=4000)
    assert exact.exact
    assert not drawn.exact
    assert drawn.effect_size == exact.effect_size
    spread = math.sqrt(exact.p_value * (1 - exact.p_value) / 4000)
    assert abs(drawn.p_value - exact.p_value) < 4 * spread + 1e-3


def test_weat_refuses(rng):
    x = rng.normal(size=(3, 4))
    with pytest.raises(ValueError, match="two targets"):
        weat(x[:1], x, x, x)
    with pytest.raises(ValueError, match="different lengths"):
        weat(x, x, x, x[:, :2])


def test_probe_says_which_words_are_missing(rng):
    test = TESTS["maths"]
    known = [w for words in (test.x, test.y, test.a, test.b) for w in words if w != "calculus"]
    finding = next(probe(WordVectors(known, rng.normal(size=(len(known), 4))), ["maths"]))
    assert finding.missing == ("calculus",)
    with pytest.raises(DataError, match="too few words"):
        next(probe(GENDER, ["career"]))


# --- the commands -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    (folder / "text.txt").write_text("The cat sat on the mat.\nA dog sat on the cat!\n\nThe dog ran.\n" * 40)
    out = folder / "v.bin"
    options = ["--data", str(folder / "text.txt"), "--out", str(out), "--size", "8", "--epochs", "2"]
    assert cli.main(["words", "train", *options]) == 0
    return out


def test_train_and_ask(trained, capsys, tmp_path):
    def ask(*words):
        assert cli.main(["words", *words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert len(ask("neighbours", str(trained), "cat", "-n", "3")["cat"]) == 3
    assert len(ask("analogy", str(trained), "cat", "dog", "mat", "-n", "2")["answers"]) == 2
    picture = tmp_path / "map.png"
    assert set(ask("map", str(trained), "cat:dog", "mat", "--out", str(picture))["places"]) == {"cat", "dog", "mat"}
    assert picture.read_bytes()[:4] == b"\x89PNG"
    (tmp_path / "q.txt").write_text(": s\ncat dog mat sat\n")
    assert ask("evaluate", str(trained), "--analogies", str(tmp_path / "q.txt"))["analogies"]["all"][1:] == [1, 1]
    svd = ["--data", str(trained.parent / "text.txt"), "--out", str(tmp_path / "p.txt"), "--method", "ppmi-svd"]
    assert ask("train", *svd, "--size", "4")["size"] == 4


def test_an_interrupted_training_writes_what_it_has(trained, capsys, monkeypatch, tmp_path):
    def interrupt(self, text):
        raise KeyboardInterrupt

    monkeypatch.setattr("tinyllm.train.console.Console.progress", interrupt)
    out = tmp_path / "half.txt"
    options = ["--data", str(trained.parent / "text.txt"), "--out", str(out), "--size", "4", "--epochs", "3"]
    assert cli.main(["words", "train", *options]) == 130
    assert "what was learned is in" in capsys.readouterr().err
    assert "cat" in WordVectors.load(out)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["neighbours", "V", "zebra"], "no vector of the word 'zebra'"),
        (["evaluate", "V"], "nothing to evaluate"),
        (["bias", "V", "--test", "sience"], "did you mean 'science'"),
        (["bias", "V"], "no test"),
        (["train", "--out", "nowhere/v.txt"], "no folder nowhere"),
        (["train", "--out", "v.txt", "--method", "skipgram"], "did you mean 'skip-gram/"),
        (["neighbours", "V", "cat", "--lmit", "3"], "'--lmit' is not an argument"),
    ],
)
def test_errors_of_the_user(trained, capsys, words, match):
    assert cli.main(["words", *(str(trained) if word == "V" else word for word in words)]) == 2
    assert re.search(match, capsys.readouterr().err)
