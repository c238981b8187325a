"""Pre-tokenisers, normalisers and SentencePiece's kind of BPE, without another library: laws, and what is refused."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.errors import TokenizerError
from tinyllm.text import AddedToken, ByteLevelBPE, SentencePieceBPE, load_tokenizer
from tinyllm.text.normalize import Normalizer
from tinyllm.text.patterns import compile_pattern
from tinyllm.text.pretokenize import GPT2_PATTERN, PreTokenizer

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MIXED = st.text(st.sampled_from("ab E1'st  \n\t\r.é中²😀\u3000\x1c\u0301<|>▁"))
ASCII = st.text(st.characters(max_codepoint=127))


# -- patterns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", [GPT2_PATTERN, LLAMA3, r"[^\S\n]+|\W|\P{L}", r"[\p{Lu}\p{P}-]+|[\d_]"])
@given(text=ASCII)
def test_the_short_classes_match_ascii_alike(pattern, text):
    spans = [[m.span() for m in compile_pattern(pattern, ascii_only).finditer(text)] for ascii_only in (True, False)]
    assert spans[0] == spans[1]


@pytest.mark.parametrize("pattern", [GPT2_PATTERN, LLAMA3])
@given(text=MIXED)
def test_patterns_of_the_families_leave_nothing_out(pattern, text):
    assert "".join(compile_pattern(pattern).findall(text)) == text


def test_llama_3_cuts():
    words = compile_pattern(LLAMA3).findall("We'LL see 12345 things\r\n\n  at 3.14!\n x")
    assert words == [
        "We",
        "'LL",
        " see",
        " ",
        "123",
        "45",
        " things",
        "\r\n\n",
        " ",
        " at",
        " ",
        "3",
        ".",
        "14",
        "!\n",
        " x",
    ]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (r"(a+)+b", "may never end"),
        (r"(?:a|aa)*", "may never end"),
        (r"(?:(?:ab?)){2,9}", "may never end"),
        (r"a**", "repetition of a repetition"),
        (r"*a", "repetition '*' of nothing"),
        (r"^a", "the anchor '^'"),
        (r"\bword", r"the escape '\\b'"),
        (r"(a)\1", r"the escape '\\1'"),
        (r"\p{Greek}", r"the class '\\p{Greek}'"),
        (r"[a&&b]", "'&' inside brackets"),
        (r"[[:alpha:]]", "'[' inside brackets"),
        (r"(?<name>a)", "the group '(?<n'"),
        (r"(?P<n>a)", "the group '(?P<'"),
        (r"(a", "not a regular expression"),
        (r"a)", "without its '('"),
        (r"[a", "without its ']'"),
        (r"[z-a]", "not a regular expression"),
        (r"a{1,3}+", "the repetition '{1,3}+'"),
    ],
)
def test_what_a_pattern_may_not_have(pattern, said):
    with pytest.raises(TokenizerError, match=re.escape(said).replace(r"\\\\", r"\\+")):
        compile_pattern(pattern)


def test_groups_do_not_change_what_is_found():
    assert compile_pattern(r"(a|b)c|d(?=e)").findall("acdebc") == ["ac", "d", "bc"]


# -- steps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behavior", "words"),
    [
        ("Isolated", ["a", " ", " ", "b", " ", "c"]),
        ("Removed", ["a", "b", "c"]),
        ("Contiguous", ["a", "  ", "b", " ", "c"]),
        ("MergedWithPrevious", ["a ", " ", "b ", "c"]),
        ("MergedWithNext", ["a", " ", " b", " c"]),
    ],
)
def test_behaviours_of_a_split(behavior, words):
    spec = {"type": "Split", "pattern": {"String": " "}, "behavior": behavior, "invert": False}
    assert PreTokenizer.from_spec(spec)("a  b c") == words


def test_metaspace_at_the_beginning_alone():
    spec = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}
    cut = PreTokenizer.from_spec(spec)
    assert cut("ab c", at_start=True) == ["▁ab", "▁c"]
    assert cut("ab c", at_start=False) == ["ab", "▁c"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"type": "UnicodeScripts"}, "pre-tokenizer 'UnicodeScripts' is not supported"),
        ({"type": "Sequence", "pretokenizers": [3]}, "should be an object"),
        ({"type": "Digits"}, "individual_digits' is missing"),
        ({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"}, "not a regular expression"),
        ({"type": "Split", "pattern": {}, "behavior": "Isolated"}, "with a String or a Regex"),
        ({"type": "Split", "pattern": {"String": "a"}, "behavior": "Torn"}, "behavior 'Torn' is not supported"),
        ({"type": "Metaspace", "replacement": "ab"}, "replacement 'ab'"),
    ],
)
def test_pre_tokenizers_that_are_refused(spec, said):
    with pytest.raises(TokenizerError, match=said):
        PreTokenizer.from_spec(spec)


def test_normalizers():
    def of(*kinds, **more):
        parts = [{"type": kind, **more} for kind in kinds]
        return Normalizer.from_spec({"type": "Sequence", "normalizers": parts})

    assert of("NFC")("e\u0301") == "é"
    assert of("NFD", "StripAccents")("Éé") == "Ee"
    assert of("NFKC")("ﬁ²") == "fi2"
    assert of("Lowercase")("ΑΣ") == "ας".replace("ς", "σ")
    assert of("Strip", strip_left=True, strip_right=False)(" \u3000a ") == "a "
    assert of("Prepend", prepend="▁")("") == ""
    assert of("Replace", pattern={"Regex": r"\s+"}, content="\\1")("a \n b") == "a\\1b"


# -- SentencePiece's kind ----------------------------------------------------------------------------------------------

PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "a", "b", "c", "ab", "▁ab", "abc", "▁▁"]


@pytest.fixture(scope="module")
def pieces():
    added = [AddedToken(PIECES[n], n) for n in range(3)]
    scores = [0.0] * 259 + [-float(n) for n in range(len(PIECES) - 259)]
    return SentencePieceBPE.from_scores(PIECES, scores, added, roles={"unk_token": "<unk>"})


@given(text=MIXED.filter(lambda text: "<s>" not in text))
def test_any_text_is_written_and_read(pieces, text):
    back = text.replace("▁", " ")  # which is how a space is written
    assert pieces.decode(pieces.encode(text)) == back
    assert pieces.decode_bytes(pieces.encode(text)) == back.encode()


def test_the_best_score_merges_first(pieces):
    assert [pieces.id_to_token(i) for i in pieces.encode("abc ab  c")] == ["▁ab", "c", "▁ab", "▁▁", "c"]
    assert [pieces.id_to_token(i) for i in pieces.encode("é")] == ["▁", "<0xC3>", "<0xA9>"]


def test_bytes_that_are_no_character(pieces):
    ids = [pieces.token_to_id(f"<0x{b:02X}>") for b in "😀".encode()]
    assert pieces.decode(ids) == "😀"
    assert pieces.decode(ids[:3]) == "\ufffd" * 3
    assert pieces.decode_bytes(ids[:3]) == "😀".encode()[:3]


def test_saved_and_loaded(pieces, tmp_path):
    again = load_tokenizer(pieces.save(tmp_path / "tokenizer.json"))
    assert isinstance(again, SentencePieceBPE)
    for text in ("abc ab  c", "naïve 😀<s>ab", ""):
        assert again.encode(text) == pieces.encode(text)


@pytest.mark.parametrize(
    ("scores", "said"), [([0.0], "have 1 scores"), ([float("nan")] * len(PIECES), "not a finite number")]
)
def test_scores_that_are_refused(scores, said):
    with pytest.raises(TokenizerError, match=said):
        SentencePieceBPE.from_scores(PIECES, scores)


def test_a_decoder_that_is_not_known(pieces, tmp_path):
    spec = pieces._to_json()
    for decoder in ({"type": "CTC"}, {"type": "Sequence", "decoders": [{"type": "Strip", "content": "x"}]}):
        (tmp_path / "tokenizer.json").write_text(json.dumps({**spec, "decoder": decoder}))
        with pytest.raises(TokenizerError, match="is not supported as it is given"):
            load_tokenizer(tmp_path / "tokenizer.json")


# -- within GGUF and beside llama2.c weights ---------------------------------------------------------------------------


def test_a_tokenizer_of_llama2c(tmp_path):
    import struct

    names = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(f"<0x{b:02X}>".encode() for b in range(256)), b" ", b"a", b" a"]
    data = struct.pack("<i", 7) + b"".join(struct.pack("<fi", -n, len(name)) + name for n, name in enumerate(names))
    path = tmp_path / "tok.bin"
    path.write_bytes(data)
    tok = load_tokenizer(path)
    assert tok.encode("a") == [1, 261]
    assert tok.decode(tok.encode("a\na")) == "a\na"
    for cut, said in (
        (data[:-1], "a piece of 2 bytes; the file has"),
        (data[:2000], "the file has 2000"),
        (b"", "too few"),
        (data[:50] + b"\xff" * 60, "tok.bin: byte"),
    ):
        path.write_bytes(cut)
        with pytest.raises(TokenizerError, match=said):
            load_tokenizer(path)


def test_a_byte_level_tokenizer_is_the_same_within_gguf(tmp_path):
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
    from gguf_files import gguf_bytes

    bpe = ByteLevelBPE.train(["the cat sat on the mat 12"] * 3, 270, ["<|end|>"])
    size = bpe.vocab_size
    settings = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [bpe.id_to_token(n) for n in range(size)],
        "tokenizer.ggml.token_type": [("i32", 1)] * (size - 1) + [("i32", 3)],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in bpe.merges],
        "tokenizer.ggml.eos_token_id": ("u32", size - 1),
    }
    path = tmp_path / "m.gguf"

    def loaded(**change):
        path.write_bytes(gguf_bytes(settings | {f"tokenizer.ggml.{k}": v for k, v in change.items()}, {})[0])
        return load_tokenizer(path)

    text = "the cat<|end|> sat 12 猫"
    assert loaded().encode(text) == bpe.encode(text)
    assert loaded().eos_token_id == bpe.token_to_id("<|end|>")
    assert len(loaded(pre="smollm").encode("12")) == 2
    assert loaded(bos_token_id=("u32", size - 1), add_bos_token=("bool", True)).encode("a")[0] == size - 1
    for change, said in (
        ({"model": "bert"}, "tokenizer 'bert' is not supported; known: gpt2, llama"),
        ({"pre": "tekken"}, "pre-tokenizer 'tekken' is not supported"),
        ({"eos_token_id": ("u32", size)}, "eos_token has the id"),
        ({"token_type": [("i32", 1)]}, "but 1 kinds of them"),
        ({"tokens": ["a", "a"], "token_type": [("i32", 1)] * 2, "eos_token_id": ("u32", 0)}, "only 1 different"),
        ({"merges": ["a"]}, "a merge is two tokens"),
        ({"add_eos_token": ("bool", True)}, "add_eos_token is true"),
    ):
        with pytest.raises(TokenizerError, match=said) as error:
            loaded(**change)
        assert str(path) in str(error.value)
