"""WordPiece: how it cuts, what it learns, its files, and what is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.errors import TokenizerError
from tinyllm.text import WordPiece, load_tokenizer
from tinyllm.text.bert_normalizer import BertTable
from tinyllm.text.wordpiece import SPECIAL_TOKENS

CORPUS = [
    "The quick brown fox didn't jump over the lazy dog; the dogs were quicker, the foxes the quickest.",
    "我们都是大语言模型的学生。语言模型，语言模型。",
    "naïve café, NAÏVE CAFÉ: unaffable, affable.",
] * 3


@pytest.fixture(scope="module")
def tok():
    return WordPiece.train(CORPUS, vocab_size=200)


def pieces(tok, text):
    return [tok.id_to_token(i) for i in tok.encode(text, add_special_tokens=False)]


def with_vocab(*tokens, **settings):
    vocab = {token: i for i, token in enumerate([*SPECIAL_TOKENS, *tokens])}
    return WordPiece._bert(vocab, BertTable(**settings), SPECIAL_TOKENS)


def test_the_longest_piece_is_taken_first():
    rest = ("un", "##aff", "##able", "##a")
    assert pieces(with_vocab(*rest), "unaffable aff") == ["un", "##aff", "##able", "[UNK]"]
    # "una" is longer than "un", and there is no way back from it
    assert pieces(with_vocab(*rest, "una"), "unaffable") == ["[UNK]"]


def test_a_word_that_one_piece_lacks_is_unknown_as_a_whole():
    tok = with_vocab("un", "##able", "x" * 100)
    assert pieces(tok, "unable unaxable able") == ["un", "##able", "[UNK]", "[UNK]"]
    assert pieces(tok, "x" * 100) == ["x" * 100]
    assert pieces(tok, "x" * 101) == ["[UNK]"]


@pytest.mark.parametrize(
    ("settings", "text", "expected"),
    [
        ({}, "  Ünï\u0301 \t CÔDÉ\u200b\x00 ", "unicode"),
        ({"lowercase": False}, "Éa", "Éa"),
        ({"strip_accents": False}, "ÉA", "éa"),
        ({"lowercase": False, "strip_accents": True}, "Éa", "Ea"),
        ({}, "北京x", "北京x"),
        ({"handle_chinese_chars": False}, "北京", "北京"),
        ({}, "ΣΑΣ", "σασ"),
        ({}, "a\u00a0b\u3000c\x85d", "abcd"),
    ],
)
def test_the_normalizer_by_hand(settings, text, expected):
    assert "".join(BertTable(**settings)(text).split()) == expected


def test_ideographs_and_marks_are_words_of_their_own(tok):
    assert pieces(tok, "我们:语言") == ["我", "们", ":", "语", "言"]


def test_special_tokens_stand_around_texts_and_are_found_in_them(tok):
    ids = dict(zip(SPECIAL_TOKENS, range(5), strict=True))
    assert tok.special_tokens == ids
    assert (tok.pad_token_id, tok.unk_token_id, tok.cls_token_id, tok.sep_token_id, tok.mask_token_id) == (
        0,
        1,
        2,
        3,
        4,
    )
    the, dog = tok.token_to_id("the"), tok.encode("dog", add_special_tokens=False)
    assert tok.encode("The [MASK] dog") == [2, the, 4, *dog, 3]
    ids, types = tok.encode_with_types("The [SEP]", "dog the")
    assert ids == [2, the, 3, 3, *dog, the, 3]
    assert types == [0] * 4 + [1] * (len(dog) + 2)
    assert tok.encode_with_types("the") == ([2, the, 3], [0, 0, 0])


def test_decoding_joins_pieces(tok):
    assert tok.decode(tok.encode("The QUICKEST  fox, didn't!")) == "the quickest fox, didn ' t"
    assert tok.decode(tok.encode("A fox!"), skip_special_tokens=False) == "[CLS] a fox [UNK] [SEP]"


@given(st.text(st.sampled_from("abc Éé\u0301中 .,!'\t\u200b[MASK]ß"), max_size=30))
def test_places_of_tokens_are_those_of_their_characters(text):
    tok = with_vocab("a", "b", "##a", "##b", "ab", "##ab", "e", "##e", "c", "中", ".", ",", "'", "[", "]", "m", "##m")
    ids, places = tok.encode_with_offsets(text)
    assert ids == tok.encode(text, add_special_tokens=False)
    end = 0
    for index, (begin, stop) in zip(ids, places, strict=True):
        assert end <= begin < stop <= len(text)
        token, end = tok.id_to_token(index), stop
        if index > 4:
            assert "".join(tok.normalizer(text[begin:stop]).split()) == token.removeprefix("##")
        elif token != "[UNK]":
            assert text[begin:stop] == token


def test_training_is_the_merging_of_the_most_frequent_pair():
    tok = WordPiece.train(["low low low lower newer newer"], vocab_size=22, min_frequency=1)
    # characters: l n | ##e ##o ##r ##w; pairs: l+o 4, o+w 4, e+r 3, w+e 3 (in newer twice, in lower once), ...
    learned = [tok.id_to_token(i) for i in range(5, tok.vocab_size)]
    assert learned[:6] == ["l", "n", "##e", "##o", "##r", "##w"]
    assert learned[6:9] == ["lo", "low", "##er"]
    assert "lower" in learned
    assert "newer" in learned
    assert len(set(learned)) == len(learned)


def test_rare_characters_are_left_out():
    tok = WordPiece.train(["aa ab ab ac"], vocab_size=50, most_characters=2, min_frequency=1)
    assert pieces(tok, "ab ac") == ["ab", "[UNK]"]


def test_everything_of_the_corpus_can_be_spelt(tok):
    for text in CORPUS:
        assert tok.unk_token_id not in tok.encode(text)


def test_what_is_saved_is_loaded(tok, tmp_path):
    tok.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert type(again) is WordPiece
    assert again.roles == tok.roles
    assert again._to_json() == tok._to_json()
    for text in [*CORPUS, "A [MASK]!", "\x00 é"]:
        assert again.encode(text) == tok.encode(text)
        assert again.encode_with_offsets(text) == tok.encode_with_offsets(text)
        assert again.decode(again.encode(text)) == tok.decode(tok.encode(text))


def test_a_vocabulary_file_and_the_settings_beside_it(tok, tmp_path):
    tokens = [tok.id_to_token(i) for i in range(tok.vocab_size)]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    found = load_tokenizer(tmp_path)
    assert found.encode(CORPUS[0], CORPUS[2]) == tok.encode(CORPUS[0], CORPUS[2])
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "strip_accents": True}))
    assert load_tokenizer(tmp_path).normalizer.spec["lowercase"] is False
    assert load_tokenizer(tmp_path).normalizer("É") == "E"


def test_how_batches_are_cut_and_filled_is_not_asked(tok, tmp_path):
    file = tok.save(tmp_path / "tokenizer.json")
    spec = json.loads(file.read_text(encoding="utf-8"))
    spec |= {"truncation": {"max_length": 2}, "padding": {"strategy": {"Fixed": 128}}}
    file.write_text(json.dumps(spec))
    assert load_tokenizer(file).encode(CORPUS[0]) == tok.encode(CORPUS[0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s["model"].update(unk_token="[NOPE]"), "NOPE"),
        (lambda s: s["model"].update(dropout=0.1), "model.dropout"),
        (lambda s: s["decoder"].update(type="ByteLevel"), "decoder"),
        (lambda s: s["normalizer"].update(lowercase="yes"), "normalizer.lowercase"),
        (lambda s: s["normalizer"].update(strip_accents=1), "strip_accents"),
        (lambda s: s["model"].pop("max_input_chars_per_word"), "max_input_chars_per_word"),
        (lambda s: s.update(decoder=None), "decoder"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(tok, tmp_path, change, said):
    file = tok.save(tmp_path / "tokenizer.json")
    spec = json.loads(file.read_text(encoding="utf-8"))
    change(spec)
    file.write_text(json.dumps(spec))
    with pytest.raises(TokenizerError, match=said) as error:
        load_tokenizer(file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("lines", "said"),
    [("a\nb\n", r"\[PAD\]"), ("\n".join([*SPECIAL_TOKENS, "a", "a"]), "'a' is there twice")],
)
def test_a_vocabulary_that_is_none_is_refused(tmp_path, lines, said):
    (tmp_path / "vocab.txt").write_text(lines)
    with pytest.raises(TokenizerError, match=said):
        WordPiece.from_vocab(tmp_path / "vocab.txt")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"texts": ["", "  "]}, "empty"),
        ({"texts": ["abc"], "vocab_size": 6}, "vocab_size is 6"),
        ({"texts": ["abc"], "special_tokens": ["[PAD]"]}, r"\[UNK\]"),
        ({"texts": ["a\ud800"]}, "U\\+D800"),
    ],
)
def test_a_corpus_that_teaches_nothing_is_refused(settings, said):
    with pytest.raises(TokenizerError, match=said):
        WordPiece.train(**settings)


def test_half_a_character_is_refused(tok):
    with pytest.raises(TokenizerError, match="offset 4"):
        tok.encode("the \ud800")
    with pytest.raises(TokenizerError, match="offset 4"):
        tok.encode_with_offsets("the \ud800")
