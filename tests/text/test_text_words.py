"""Words and the vocabulary of words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.errors import TokenizerError
from tinyllm.text import WordTokenizer, load_tokenizer, word_tokenize


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        (
            "Hello, world! This is a test sentence.",
            ["Hello", ",", "world", "!", "This", "is", "a", "test", "sentence", "."],
        ),
        ("I don't; it’s rock'n'roll, 'quoted'", ["I", "don't", ";", "it’s", "rock'n'roll", ",", "'", "quoted", "'"]),
        ("3.14 1,000.5 2nd v2 x_1 5.", ["3.14", "1,000.5", "2nd", "v2", "x_1", "5", "."]),
        ("我爱NLP，2024年", ["我", "爱", "NLP", "，", "2024", "年"]),
        ("नमस्ते e\u0301te\u0301", ["नमस्ते", "e\u0301te\u0301"]),
        ("a...b -- c", ["a", ".", ".", ".", "b", "-", "-", "c"]),
        ("", []),
        (" \n\t\u3000", []),
    ],
)
def test_word_tokenize(text, tokens):
    assert word_tokenize(text) == tokens


@given(st.text())
def test_nothing_but_white_space_is_lost(text):
    def visible(s):
        return "".join(s.split()).translate(dict.fromkeys(range(0x1C, 0x20)))

    assert visible("".join(word_tokenize(text))) == visible(text)


def test_vocabulary_is_ordered_by_count_then_code_point():
    tok = WordTokenizer.train(["b a b c", "c b d"], min_count=1)
    assert [tok.id_to_token(i) for i in range(tok.vocab_size)] == ["b", "c", "a", "d", "<unk>"]
    assert tok.encode("b z d") == [0, 4, 3]
    assert tok.decode([0, 4, 3], skip_special_tokens=False) == "b <unk> d"
    assert tok.decode([0, 4, 3]) == "b d"


def test_vocabulary_limits():
    texts = ["a a a b b c"]
    assert WordTokenizer.train(texts, min_count=2).vocab_size == 3
    assert WordTokenizer.train(texts, vocab_size=2).encode("a b") == [0, 1]
    tok = WordTokenizer.train(texts, vocab_size=4, special_tokens=["<pad>"])
    assert (tok.vocab_size, tok.pad_token_id, tok.unk_token_id) == (4, 2, 3)
    for nothing in ({"vocab_size": 1}, {"min_count": 9}):
        with pytest.raises(TokenizerError, match="no word to learn"):
            WordTokenizer.train(texts, **nothing)


def test_unknown_word_without_unk_is_named():
    tok = WordTokenizer.train(["the cat"], unk_token=None)
    with pytest.raises(TokenizerError, match=r"'dog' at offset 4 .*unk_token"):
        tok.encode("the dog")


def test_saved_words_come_back(tmp_path):
    tok = WordTokenizer.train(["the cat sat, didn't it? 我"], special_tokens=["<pad>"])
    again = load_tokenizer(tok.save(tmp_path / "tokenizer.json"))
    assert isinstance(again, WordTokenizer)
    assert again.encode("the 我 dog didn't") == tok.encode("the 我 dog didn't")
    assert again.unk_token_id == tok.unk_token_id
