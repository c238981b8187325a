"""The character vocabulary."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.errors import TokenizerError
from tinyllm.text import CharTokenizer, load_tokenizer

WRITABLE = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(WRITABLE)
def test_round_trip_and_order(text):
    tok = CharTokenizer.train([text])
    ids = tok.encode(text)
    assert tok.decode(ids) == text
    assert tok.vocab_size == len(set(text)) == max(ids) + 1
    assert [tok.id_to_token(i) for i in range(tok.vocab_size)] == sorted(set(text))


def test_unknown_character_is_named():
    tok = CharTokenizer.train(["hello world"], special_tokens=["<|end|>"])
    with pytest.raises(TokenizerError, match=r"character 'é' \(U\+00E9\) at offset 14"):
        tok.encode("hello <|end|>hé")


def test_unknown_character_with_unk():
    tok = CharTokenizer.train(["abc"], unk_token="<unk>")
    assert tok.encode("axb\ud800") == [0, 3, 1, 3]
    assert tok.decode([0, 3, 1]) == "ab"
    assert tok.decode([0, 3, 1], skip_special_tokens=False) == "a<unk>b"


def test_special_tokens_come_after_the_characters_and_teach_nothing():
    tok = CharTokenizer.train(["ab<|end|>ba"], special_tokens=["<|end|>"])
    assert tok.vocab_size == 3
    assert tok.encode("ab<|end|>a") == [0, 1, 2, 0]
    assert tok.decode([0, 1, 2, 0]) == "aba"
    assert tok.special_tokens == {"<|end|>": 2}


def test_one_text_is_a_corpus_of_one():
    assert CharTokenizer.train("ba").encode("ab") == [0, 1]


def test_bad_corpora():
    for corpus in ([], "", [""], iter([])):
        with pytest.raises(TokenizerError, match="empty"):
            CharTokenizer.train(corpus)
    with pytest.raises(TokenizerError, match=r"lone surrogate U\+D800"):
        CharTokenizer.train(["a\ud800"])
    with pytest.raises(TypeError, match="item 1 is int"):
        CharTokenizer.train(["a", 3])
    for special in ("<s>", ""):
        with pytest.raises(TokenizerError, match="special token"):
            CharTokenizer.train(["aba"], special_tokens=["<s>", special])


def test_saved_characters_come_back(tmp_path):
    text = 'line\nline\r\n\t\x00"\\\u2028é中😀'
    tok = CharTokenizer.train([text], special_tokens=["<s>", "</s>"], unk_token="[??]")
    tok.save(tmp_path / "run")
    again = load_tokenizer(tmp_path / "run")
    assert isinstance(again, CharTokenizer)
    assert again.encode(text + "?</s>") == tok.encode(text + "?</s>")
    assert again.decode(tok.encode(text)) == text
    assert (again.bos_token_id, again.eos_token_id) == (tok.token_to_id("<s>"), tok.token_to_id("</s>"))
    assert again.unk_token_id == tok.token_to_id("[??]")
