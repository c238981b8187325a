"""tokenizer.json: written whole, read back the same, refused by name where it cannot be obeyed."""

import contextlib
import copy
import gzip
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinyllm.errors import TokenizerError
from tinyllm.text import ByteLevelBPE, CharTokenizer, load_tokenizer

TEXT = "the cat sat on the mat, beside another one\n  the end <|endoftext|> 猫😀"


@pytest.fixture(scope="module")
def bpe():
    return ByteLevelBPE.train([TEXT] * 3, vocab_size=290, special_tokens=["<|endoftext|>", "<pad>"])


@pytest.fixture
def spec(bpe, tmp_path):
    """A tokenizer.json as a dict, to be damaged."""
    return json.loads(bpe.save(tmp_path / "good.json").read_text("utf-8"))


@pytest.fixture
def load(tmp_path):
    """Write a dict or text to a file and load it."""

    def load(content):
        file = tmp_path / "tokenizer.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        return load_tokenizer(file)

    return load


def test_saved_to_a_file_and_to_a_folder(bpe, tmp_path):
    for place in (tmp_path / "a" / "tokenizer.json", tmp_path / "run", tmp_path / "run"):
        file = bpe.save(place)
        assert file.name == "tokenizer.json"
        for again in (load_tokenizer(file), load_tokenizer(file.parent)):
            assert again.encode(TEXT) == bpe.encode(TEXT)
            assert (again.vocab_size, again.eos_token_id, again.pad_token_id) == (290, 288, 289)
            assert repr(again) == repr(bpe)
    assert sorted(os.listdir(tmp_path / "run")) == ["tokenizer.json", "tokenizer_config.json"]


def test_saving_twice_gives_the_same_bytes(bpe, tmp_path):
    first = bpe.save(tmp_path / "1.json").read_bytes()
    assert load_tokenizer(tmp_path / "1.json").save(tmp_path / "2.json").read_bytes() == first


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_save_keeps_the_old_file(bpe, tmp_path, monkeypatch, step):
    file = bpe.save(tmp_path / "tokenizer.json")
    before = file.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space"):
        CharTokenizer.train("abc").save(file)
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["tokenizer.json"]


# What other libraries write -----------------------------------------------------------------------------------------


def test_merges_as_lists_and_no_model_type(spec, load, bpe):
    spec["model"]["merges"] = [merge.split(" ") for merge in spec["model"]["merges"]]
    del spec["model"]["type"]
    assert load(spec).encode(TEXT) == bpe.encode(TEXT)


def test_special_tokens_outside_the_model(spec, load, bpe):
    del spec["model"]["vocab"]["<|endoftext|>"], spec["model"]["vocab"]["<pad>"]
    assert load(spec).encode(TEXT) == bpe.encode(TEXT)


def test_add_prefix_space(spec, load, bpe):
    spec["pre_tokenizer"]["add_prefix_space"] = True
    tok = load(spec)
    assert tok.encode("the<|endoftext|>cat") == bpe.encode(" the<|endoftext|> cat")
    assert tok.encode(" the") == bpe.encode(" the")
    with pytest.raises(TokenizerError, match="at offset 2,"):
        tok.encode("ab\ud800")


def test_without_the_pattern_a_text_is_one_word(spec, load):
    spec["pre_tokenizer"]["use_regex"] = False
    spec["model"]["vocab"]["eĠ"] = 400
    spec["model"]["merges"].insert(0, "e Ġ")
    tok = load(spec)
    assert tok.id_to_token(tok.encode("e e")[0]) == "eĠ"
    assert tok.vocab_size == 401


def test_ignore_merges(spec, load):
    spec["model"]["vocab"]["zzz"] = 290
    assert 290 not in load(spec).encode("zzz")
    spec["model"]["ignore_merges"] = True
    assert load(spec).encode("zzz") == [290]


def test_added_tokens_that_strip_or_are_not_special(spec, load, bpe):
    spec["added_tokens"] += [
        {"id": 290, "content": "<mask>", "lstrip": True, "rstrip": True, "special": True},
        {"id": 291, "content": "kitty", "special": False},
    ]
    tok = load(spec)
    ids = tok.encode("the \n<mask>  kitty")
    assert ids == [*bpe.encode("the"), 290, 291]
    assert tok.decode(ids) == "thekitty"
    assert tok.decode(ids, skip_special_tokens=False) == "the<mask>kitty"


def test_template(spec, load, bpe):
    special, a, b = (
        {"SpecialToken": {"id": "E", "type_id": 0}},
        *({"Sequence": {"id": s, "type_id": 0}} for s in "AB"),
    )
    spec["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [special, a],
        "pair": [special, a, special, b],
        "special_tokens": {"E": {"id": "E", "ids": [288], "tokens": ["<|endoftext|>"]}},
    }
    tok = load(spec)
    x, y = bpe.encode("the"), bpe.encode("cat")
    assert tok.encode("the") == [288, *x]
    assert tok.encode("the", "cat") == [288, *x, 288, *y]
    assert tok.encode("the", "cat", add_special_tokens=False) == x + y
    assert tok.decode(tok.encode("the")) == "the"
    assert load(tok._to_json()).encode("the", "cat") == tok.encode("the", "cat")
    spec["post_processor"]["special_tokens"]["E"]["ids"] = [999]
    with pytest.raises(TokenizerError, match=r"adds the ids \[999\]"):
        load(spec)


def test_roles_of_the_folder(bpe, tmp_path):
    bpe.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "<pad>"}, "bos_token": null}')
    tok = load_tokenizer(tmp_path)
    assert (tok.eos_token_id, tok.pad_token_id, tok.bos_token_id) == (289, 289, 288)
    for wrong, message in (
        ('{"eos_token": "nope"}', "eos_token 'nope' is not in"),
        ('{"eos_token": 3}', "should be a string"),
    ):
        (tmp_path / "tokenizer_config.json").write_text(wrong)
        with pytest.raises(TokenizerError, match=message):
            load_tokenizer(tmp_path)


def test_a_folder_with_the_pair_alone(tmp_path):
    vocab = {"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text("#version: 0.2\r\na b\r\n")
    tok = load_tokenizer(tmp_path)
    assert tok.encode("aab<|endoftext|>b") == [0, 2, 3, 1]
    with pytest.raises(TokenizerError, match="no token for the byte 0x63 in 'bc'"):
        tok.encode("bc")


# Refused ------------------------------------------------------------------------------------------------------------


def change(path, value):
    """A function that sets the value at a path of keys in a tokenizer.json, or deletes it for `...`."""

    def apply(spec):
        *holders, last = path
        for key in holders:
            spec = spec[key]
        if value is ...:
            del spec[last]
        else:
            spec[last] = value

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change(["normalizer"], {"type": "Nmt"}), "normalizer 'Nmt' is not supported"),
        (change(["normalizer"], {"type": "Strip"}), "'normalizer.strip_left' is missing"),
        (change(["truncation"], {"max_length": 8}), "truncation .* is not supported"),
        (change(["padding"], {"strategy": "BatchLongest"}), "padding .* is not supported"),
        (change(["post_processor"], {"type": "Nothing"}), "post-processor 'Nothing' is not supported"),
        (change(["post_processor"], {"type": "BertProcessing", "sep": 3}), "post_processor.cls.* a token and its id"),
        (change(["pre_tokenizer"], {"type": "Metaspace"}), "pre-tokenizer 'Metaspace'"),
        (change(["pre_tokenizer"], None), "pre-tokenizer None"),
        (change(["decoder"], {"type": "WordPiece"}), "decoder 'WordPiece'"),
        (change(["decoder"], None), "'decoder' should be an object, but is null"),
        (change(["model", "type"], "Unigram"), "model 'Unigram' is not supported"),
        (change(["model", "type"], "WordLevel"), "pre-tokenizer 'ByteLevel' of a WordLevel model"),
        (change(["model", "dropout"], 0.1), "model.dropout' = 0.1"),
        (change(["model", "novelty"], 1), "'model.novelty' is not supported"),
        (change(["pre_tokenizer", "novelty"], 1), "'pre_tokenizer.novelty' is not supported"),
        (change(["added_tokens", 0, "novelty"], 1), "'added_tokens.0..novelty' is not supported"),
        (change(["novelty"], None), "'tokenizer.novelty' is not supported"),
        (change(["model", "byte_fallback"], True), "byte_fallback"),
        (change(["model", "continuing_subword_prefix"], "##"), "continuing_subword_prefix"),
        (change(["model", "end_of_word_suffix"], "</w>"), "end_of_word_suffix"),
        (change(["added_tokens", 0, "id"], 5), "added token .* id 5, but in the vocabulary it is 288"),
        (change(["added_tokens", 0, "content"], ""), "is empty"),
        (change(["added_tokens", 0], 7), "should be an object"),
        (change(["added_tokens", 0, "id"], ...), "'added_tokens.0..id' is missing"),
        (change(["model"], ...), "is it a tokenizer.json"),
        (change(["model"], []), "'model' should be an object"),
        (change(["model", "vocab"], ...), "'model.vocab' is missing"),
        (change(["model", "vocab", "a"], "1"), "'model.vocab.a' should be a whole number"),
        (change(["model", "vocab", "a"], True), "'model.vocab.a' should be a whole number"),
        (change(["model", "vocab", "a"], 98), "have the same id 98"),
        (change(["model", "vocab", "a"], -1), "id -1"),
        (change(["model", "vocab", "a"], 10**12), "id 1000000000000"),
        (change(["model", "vocab", "猫"], 400), "'猫' stands for no byte"),
        (change(["model", "merges", 0], "a b c"), "entry 0: a merge is two tokens"),
        (change(["model", "merges", 0], 3), "entry 0: a merge is two tokens"),
        (change(["model", "merges", 0], "q q"), "needs 'qq', which has no id"),
        (change(["model", "merges"], {}), "'model.merges' should be a list"),
        (change(["pre_tokenizer", "use_regex"], 1), "should be true or false"),
    ],
)
def test_what_cannot_be_obeyed_is_named(spec, load, tmp_path, damage, message):
    damage(spec)
    with pytest.raises(TokenizerError, match=message) as caught:
        load(spec)
    assert str(tmp_path / "tokenizer.json") in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("[]", "a list"),
        ("null", "null"),
        ('{"a"', "line 1, column 5"),
        ("hello", "not valid JSON"),
        ("[" * 100_000, "JSON"),
        ("{}", "no 'model'"),
    ],
)
def test_foreign_files(load, tmp_path, content, message):
    with pytest.raises(TokenizerError, match=message) as caught:
        load(content)
    assert str(tmp_path / "tokenizer.json") in str(caught.value)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(TokenizerError, match="no such file"):
        load_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json in this folder"):
        load_tokenizer(tmp_path)
    (tmp_path / "x.json").write_bytes(b"{\xff\xfe}")
    with pytest.raises(TokenizerError, match="not UTF-8 at byte 1"):
        load_tokenizer(tmp_path / "x.json")
    (tmp_path / "x.json").write_bytes(gzip.compress(b"{}" * 100)[:-9])
    with pytest.raises(TokenizerError, match="damaged gzip"):
        load_tokenizer(tmp_path / "x.json")


def test_damaged_pairs(tmp_path):
    vocab, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    vocab.write_text('{"a": 0, "b": 1, "ab": 2}')
    for bad, message in (("a b c", "merges.txt: line 1"), ("a b\nb b", "needs 'bb'"), ("ab", "line 1: a merge is two")):
        merges.write_text(bad)
        with pytest.raises(TokenizerError, match=message):
            ByteLevelBPE.from_pair(vocab, merges)
    merges.write_text("a b")
    vocab.write_text('{"a": 0.5}')
    with pytest.raises(TokenizerError, match=r"vocab\.json.*'vocabulary.a' should be a whole number"):
        ByteLevelBPE.from_pair(vocab, merges)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000))
def test_a_truncated_file_is_refused(bpe, load, tmp_path, cut):
    whole = bpe.save(tmp_path / "good.json").read_text("utf-8")
    with pytest.raises(TokenizerError):
        load(whole[: min(cut, len(whole) - 3)])


JUNK = st.sampled_from([None, True, -1, 0, 3, 2.5, "", "x", [], {}, [None], {"type": "BPE"}])


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_junk_in_any_place_raises_nothing_but_a_tokenizer_error(spec, load, data):
    """A value anywhere in the file is replaced by junk: the file still loads, or is refused in our words."""
    damaged = copy.deepcopy(spec)
    holder = damaged
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = data.draw(st.sampled_from(keys))
        deeper = isinstance(holder[key], dict | list) and len(holder[key]) > 0
        if not deeper or data.draw(st.integers(0, 3)) == 0:
            break
        holder = holder[key]
    holder[key] = data.draw(JUNK)
    with contextlib.suppress(TokenizerError):
        load(damaged).encode("the cat")
