"""Byte-level BPE: the laws, the golden ids, and input that has to be refused."""

import random
import re
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.errors import TokenizerError
from tinyllm.text import ByteLevelBPE, gpt2_split
from tinyllm.text.bpe_train import train_merges, train_naive
from tinyllm.text.bytes_alphabet import BYTE_ORDER, SYMBOLS, read_bytes, write_bytes
from tinyllm.text.merges import merge_word, merge_word_naive

WRITABLE = st.text(st.characters(exclude_categories=["Cs"]))
WORDS = st.dictionaries(
    st.text("ab \xff", min_size=1, max_size=12).map(lambda s: s.encode("latin-1")), st.integers(1, 9)
)


@pytest.fixture(scope="module")
def trained():
    return ByteLevelBPE.train(
        ["the cat sat on the mat, the cat's hat", "the end\n\n  the end", "猫在垫子上"], vocab_size=300
    )


@pytest.fixture(scope="module")
def gpt2(data_folder):
    folder = data_folder / "gpt2_bpe"
    return ByteLevelBPE.from_pair(folder / "encoder.json.gz", folder / "vocab.bpe.gz")


# Pre-tokenisation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, world", ["Hello", ",", " world"]),
        ("I'll don't 'tis CAN'T", ["I", "'ll", " don", "'t", " '", "tis", " CAN", "'", "T"]),
        ("a  b   \n  c  ", ["a", " ", " b", "   \n ", " c", "  "]),
        ("x=1234; y²½", ["x", "=", "1234", ";", " y", "²½"]),
        ("\x1c\x1d a", ["\x1c\x1d", " a"]),  # white space to Python, not to Unicode
        ("a\u3000 中文，。", ["a", "\u3000", " 中文", "，。"]),
        ("", []),
    ],
)
def test_gpt2_split(text, words):
    assert gpt2_split(text) == words


@given(st.text())
def test_words_join_to_the_text(text):
    assert "".join(gpt2_split(text)) == text


@given(st.text("ab 1,'\n\tst", max_size=40).map(lambda text: text + "."))
def test_ascii_pattern_is_the_general_one(text):
    assert [*gpt2_split(text), "中"] == gpt2_split(text + "中")


def test_classes_are_those_of_unicodedata():
    letters = [c for c in map(chr, range(0x110000)) if unicodedata.category(c)[0] == "L"]
    numbers = [c for c in map(chr, range(0x110000)) if unicodedata.category(c)[0] == "N"]
    assert gpt2_split("".join(letters)) == ["".join(letters)]
    assert gpt2_split("".join(numbers)) == ["".join(numbers)]
    assert [len(w) for w in gpt2_split("é".join(numbers))] == [1] * (2 * len(numbers) - 1)


def test_white_space_is_unicodes():
    white = [c for c in map(chr, range(0xD800)) if gpt2_split(f"{c}{c}a")[0] != 2 * c and not c.isalnum()]
    assert white == [c for c in map(chr, range(0xD800)) if c.isspace() and c not in "\x1c\x1d\x1e\x1f"]


# The byte alphabet --------------------------------------------------------------------------------------------------


def test_byte_alphabet():
    assert len(set(SYMBOLS)) == 256
    assert (SYMBOLS[ord(" ")], SYMBOLS[ord("\n")], SYMBOLS[ord("A")]) == ("Ġ", "Ċ", "A")
    assert not any(symbol.isspace() for symbol in SYMBOLS)
    assert sorted(BYTE_ORDER, key=lambda b: SYMBOLS[b]) == BYTE_ORDER
    everything = bytes(range(256))
    assert read_bytes(write_bytes(everything)) == everything
    with pytest.raises(TokenizerError, match="'中' stands for no byte"):
        read_bytes("a中")


# Training -----------------------------------------------------------------------------------------------------------


def test_golden_example():
    tok = ByteLevelBPE.train(["aaabdaaabac"], vocab_size=259)
    assert tok.encode("aaabdaaabac") == [258, 100, 258, 97, 99]
    assert tok.decode([258, 100, 258, 97, 99]) == "aaabdaaabac"


@given(WORDS, st.integers(0, 40), st.integers(1, 4))
def test_fast_training_is_naive_training(words, n_merges, min_frequency):
    assert train_merges(words, n_merges, min_frequency) == train_naive(words, n_merges, min_frequency)


def test_fast_training_is_naive_training_on_text():
    draw = random.Random(5)
    syllables = ["an", "ba", "na", "no", "ono", "é", "aa"]
    words = Counter("".join(draw.choices(syllables, k=draw.randint(1, 6))).encode() for _ in range(2000))
    merges = train_merges(words, 300)
    assert merges == train_naive(words, 300)
    assert len(merges) == len(set(merges)) == 300


def test_ties_go_to_the_smallest_ids():
    # Space is the byte 32, but comes after the printable ones in the alphabet.
    words = {b" a": 1, b"cba": 1}
    assert train_merges(words, 9) == train_naive(words, 9) == [(98, 97), (99, 256), (32, 97)]


def test_texts_are_pre_tokenised_alone():
    apart, together = ByteLevelBPE.train(["xy", "xy"], 258), ByteLevelBPE.train(["xyxy"], 258)
    assert apart.merges == [("x", "y")]
    assert together.merges == [("x", "y"), ("xy", "xy")]


def test_special_tokens_part_texts_and_are_not_learned():
    tok = ByteLevelBPE.train(["ab<|end|>ab<|end|>ab"], vocab_size=300, special_tokens=["<|end|>"])
    assert tok.merges == [("a", "b")]
    assert tok.encode("ab<|end|>ab") == [256, 257, 256]
    assert tok.vocab_size == len(tok) == 258
    assert tok.special_tokens == {"<|end|>": 257}


def test_longest_special_token_wins():
    tok = ByteLevelBPE.train(["x"], 259, special_tokens=["<s>", "<s><s>"])
    assert tok.encode("<s><s><s>") == [257, 256]


def test_min_frequency():
    assert ByteLevelBPE.train(["ab ab cd"], 300, min_frequency=2).merges == [("a", "b")]


def test_long_words_train_and_encode_in_reasonable_time():
    word = "".join(random.Random(0).choices("ACGT", k=200_000))
    tok = ByteLevelBPE.train([word], vocab_size=600)
    assert tok.decode(tok.encode(word)) == word
    assert len(tok.encode("A" * 100_000)) < 100_000


# Encoding -----------------------------------------------------------------------------------------------------------


@given(WRITABLE)
def test_round_trip(trained, text):
    ids = trained.encode(text)
    assert trained.decode(ids) == text
    assert trained.decode_bytes(ids) == text.encode("utf-8")
    assert trained.decode(np.array(ids, dtype=np.int64)) == text


@given(st.lists(st.integers(0, 5), max_size=30), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_fast_merging_is_naive_merging(ids, pairs):
    merges = {pair: (rank, 6 + rank) for rank, pair in enumerate(pairs)}
    assert merge_word(ids, merges) == merge_word_naive(ids, merges)


@given(WRITABLE)
def test_bytes_of_tokens_are_the_bytes_of_the_text(trained, text):
    pieces = [trained.decode_bytes([i]) for i in trained.encode(text)]
    assert b"".join(pieces) == text.encode("utf-8")


def test_the_cache_stays_bounded_and_changes_nothing(trained, monkeypatch):
    text = " ".join(str(n) for n in range(500))
    expected = trained.encode(text)
    monkeypatch.setattr("tinyllm.text.word_cache.MOST_WORDS", 10)
    fresh = ByteLevelBPE(trained._ids, trained.merges)
    assert fresh.encode(text) == fresh.encode(text) == expected
    assert len(fresh._cache) <= 10


def test_callers_cannot_spoil_the_cache(trained):
    first = trained.encode("the")
    first.append(0)
    assert trained.encode("the") == first[:-1]


def test_a_character_cut_in_two_decodes_to_the_replacement_character(trained):
    ids = trained.encode("😀")
    assert trained.decode(ids[:2]) == "\ufffd"
    assert trained.decode_bytes(ids[:2]) == "😀".encode()[:2]


def test_pairs_are_joined(trained):
    assert trained.encode("the", "cat") == trained.encode("the") + trained.encode("cat")


# GPT-2 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello, world", [15496, 11, 995]),
        ("Hello world", [15496, 995]),
        ("Hello, world. Is this-- a test?", [15496, 11, 995, 13, 1148, 428, 438, 257, 1332, 30]),
        ("", []),
        ("<|endoftext|>", [50256]),
        ("a<|endoftext|>", [64, 50256]),
        ("    ", [220, 220, 220, 220]),
    ],
)
def test_gpt2_golden_ids(gpt2, text, ids):
    assert gpt2.encode(text) == ids
    assert gpt2.decode(ids, skip_special_tokens=False) == text


def test_gpt2_vocabulary(gpt2):
    assert gpt2.vocab_size == 50257
    assert gpt2.special_tokens == {"<|endoftext|>": 50256}
    assert gpt2.bos_token_id == gpt2.eos_token_id == 50256
    assert gpt2.pad_token_id is None
    assert (gpt2.id_to_token(995), gpt2.token_to_id("Ġworld")) == ("Ġworld", 995)
    assert gpt2.token_to_id(" world") is gpt2.id_to_token(60000) is None
    assert gpt2.decode([15496, 50256, 995]) == "Hello world"


@given(WRITABLE.filter(lambda text: "<|endoftext|>" not in text))  # that is a token as it stands
def test_gpt2_merging_is_naive_merging(gpt2, text):
    naive = []
    for word in gpt2_split(text):
        naive += merge_word_naive([gpt2.token_to_id(SYMBOLS[b]) for b in word.encode()], gpt2._ranks)
    assert gpt2.encode(text) == naive


def test_every_gpt2_token_decodes_to_its_bytes(gpt2):
    for index in range(0, 50256, 7):
        assert gpt2.decode_bytes([index]) == read_bytes(gpt2.id_to_token(index))


# Bad input ----------------------------------------------------------------------------------------------------------


def test_empty_corpus():
    for corpus in ([], "", ["", ""]):
        with pytest.raises(TokenizerError, match="corpus is empty"):
            ByteLevelBPE.train(corpus)


def test_one_character_corpus():
    tok = ByteLevelBPE.train(["a"], vocab_size=300)
    assert tok.vocab_size == 256
    assert tok.encode("a") == [97]


def test_vocabulary_smaller_than_the_bytes():
    with pytest.raises(TokenizerError, match="vocab_size is 255"):
        ByteLevelBPE.train(["a"], vocab_size=255)
    with pytest.raises(TokenizerError, match="1 special tokens need 257"):
        ByteLevelBPE.train(["a"], vocab_size=256, special_tokens=["<s>"])


@pytest.mark.parametrize("special", [["a"], ["Ġ"], [""], ["<s>", "<s>"]])
def test_special_tokens_that_cannot_be_told_apart(special):
    with pytest.raises(TokenizerError, match="the special token"):
        ByteLevelBPE.train(["some text"], vocab_size=300, special_tokens=special)


def test_lone_surrogates(trained):
    with pytest.raises(TokenizerError, match=re.escape("at offset 7, the lone surrogate U+DCFF")):
        trained.encode("the cat\udcff")
    with pytest.raises(TokenizerError, match=re.escape("the corpus has the lone surrogate U+D800")):
        ByteLevelBPE.train(["fine", "a\ud800"])


@pytest.mark.parametrize("index", [-1, 10**6, 2**63])
def test_ids_outside_the_vocabulary(trained, index):
    with pytest.raises(TokenizerError, match=rf"the id {index} at place 1 .* below {trained.vocab_size}"):
        trained.decode([0, index])


@pytest.mark.parametrize("ids", [[1.0], np.zeros((1, 2), int), ["a"], [True, False], 3])
def test_ids_that_are_no_ids(trained, ids):
    with pytest.raises(TypeError):
        trained.decode(ids)


@pytest.mark.parametrize("text", [None, b"bytes", ["a"], 3])
def test_text_that_is_no_text(trained, text):
    with pytest.raises(TypeError, match="encode takes a str"):
        trained.encode(text)
