"""tokenizer.json of many families, made and read by Hugging Face's tokenizers: the same ids and texts here."""

import inspect
import json
import string
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.text import AddedToken, SentencePieceBPE, load_tokenizer

pytestmark = pytest.mark.peers
tokenizers = pytest.importorskip("tokenizers", reason="compares with Hugging Face's tokenizers")
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402

CORPUS = [
    "The quick brown fox didn't jump over the lazy dog's back; IT'S 3.14 metres, they'll say.\n\nWe've done it!  \n",
    "我们都是大语言模型的学生。今天天气很好，我们去公园玩吧！语言模型，语言模型。",
    "emoji 😀😀👩‍💻🇫🇷👍🏽 ☎️ and symbols ™ © → ∑ €5 ½ ² Ⅷ ٣ 1234567 12,345.67",
    "def f(x):\n    if x < 0:\n\t\treturn -x  # a comment\r\n    return {'a': [1, 2, 3]}\n\n\n",
    "a b  c   d    e\t\tf \n g\r\n\r\nh \x0b i\u3000j\xa0k\u2028l \x1c m\x00n   ",
    "naïve café e\u0301te\u0301 नमस्ते สวัสดี مرحبا שלום Привет ΑΒΓΣ ς ǅ ﬀ ﬁne Å Å ½ ſ'ſ DON'T",
    inspect.getsource(textwrap),
    inspect.getdoc(json) + inspect.getsource(string),
]
EXTRA = [
    "",
    " ",
    "x<|end|> y<s><s>  z",
    "a" * 500,
    " " * 100 + "\n" * 50,
    "▁ ▁a▁b",
    "日本 語",
    "it'S we'LL I'd",
    "<0x41>",
]

# Code points that Python's version of Unicode has not assigned are cut differently by a library with a newer one.
MIXED = st.text(st.sampled_from("ab E1'st  \n\t\r.é中²😀\u3000\x1c\u0301<|>▁ſSΣ7/"))
ASSIGNED = st.text(st.characters(exclude_categories=["Cs", "Cn"]))

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace("{1,3}", "")
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(tokenizers.Regex(pattern), behavior, invert)


def byte_level(**options):
    return pre_tokenizers.ByteLevel(**{"add_prefix_space": False, "use_regex": False, **options})


PRE_TOKENIZERS = {
    "gpt2": byte_level(use_regex=True),
    "gpt2, space before": byte_level(use_regex=True, add_prefix_space=True),
    "one word": byte_level(),
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), byte_level(use_regex=True)]),
    "digits together": pre_tokenizers.Sequence([pre_tokenizers.Digits(False), byte_level(add_prefix_space=True)]),
    "llama3": pre_tokenizers.Sequence([split(LLAMA3), byte_level()]),
    "llama3, inverted": pre_tokenizers.Sequence([split(LLAMA3, "removed", True), byte_level()]),
    "qwen": pre_tokenizers.Sequence([split(QWEN), byte_level()]),
    "cl100k": pre_tokenizers.Sequence([split(CL100K), byte_level()]),
    "o200k": pre_tokenizers.Sequence([split(O200K), byte_level()]),
    "deepseek": pre_tokenizers.Sequence(
        [
            split(r"[\r\n]"),
            split(r"\s?[A-Za-zµÀ-ÖØ-öø-ƺ]+"),
            split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
            split(r"\s+$".replace("$", "(?!.)")),
            split(r"[一-龥ࠀ-一가-퟿]+"),
            pre_tokenizers.Digits(True),
            byte_level(),
        ]
    ),
    "punctuation": pre_tokenizers.Sequence([pre_tokenizers.Punctuation("contiguous"), byte_level()]),
    "escapes": pre_tokenizers.Sequence([split(r"[^\S\n]+|[\W\d]|\P{L}\x41|[a-c\-\]]+?"), byte_level()]),
    **{
        f"spaces {behavior}": pre_tokenizers.Sequence([pre_tokenizers.Split(" ", behavior), byte_level()])
        for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous")
    },
}
NORMALIZERS = {
    "none": None,
    **{name: getattr(normalizers, name)() for name in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents")},
    "several": normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Strip(), normalizers.Replace("a", "\\1ä")]
    ),
    "replace, prepend": normalizers.Sequence(
        [normalizers.Replace(tokenizers.Regex(r"\s+"), " "), normalizers.Prepend("_")]
    ),
}


def made(pre_tokenizer, normalizer=None, **model):
    """A byte-level BPE of the peer's, trained on the corpus."""
    theirs = tokenizers.Tokenizer(models.BPE(**model))
    theirs.pre_tokenizer, theirs.decoder = pre_tokenizer, decoders.ByteLevel()
    if normalizer is not None:
        theirs.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|end|>", "<s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    theirs.train_from_iterator(CORPUS, trainer)
    return theirs


def ours_of(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "tokenizer.json"
    theirs.save(str(path))
    ours = load_tokenizer(path)
    again = load_tokenizer(ours.save(path.with_name("again.json")))  # and what we write of it is the same tokenizer
    assert again.encode(CORPUS[0]) == ours.encode(CORPUS[0])
    assert tokenizers.Tokenizer.from_file(str(path.with_name("again.json"))).encode(CORPUS[3]).ids == ours.encode(
        CORPUS[3]
    )
    return ours


def same(ours, theirs, text):
    ids = ours.encode(text)
    assert ids == theirs.encode(text).ids
    for skip in (True, False):
        assert ours.decode(ids, skip) == theirs.decode(ids, skip_special_tokens=skip)
    assert ours.decode(ids[1:]) == theirs.decode(ids[1:])


@pytest.fixture(scope="module", params=PRE_TOKENIZERS)
def byte_level_pair(request, tmp_path_factory):
    theirs = made(PRE_TOKENIZERS[request.param])
    return ours_of(theirs, tmp_path_factory), theirs


def test_pre_tokenizers_of_the_families(byte_level_pair):
    for text in [*CORPUS, *EXTRA]:
        same(*byte_level_pair, text)


@given(MIXED | ASSIGNED)
def test_any_text_through_any_pre_tokenizer(byte_level_pair, text):
    same(*byte_level_pair, text)


@pytest.mark.parametrize("name", NORMALIZERS)
def test_normalizers(tmp_path_factory, name):
    theirs = made(PRE_TOKENIZERS["qwen"], NORMALIZERS[name])
    ours = ours_of(theirs, tmp_path_factory)
    for text in [*CORPUS, *EXTRA]:
        same(ours, theirs, text)


@pytest.mark.parametrize("normalizer", [None, normalizers.Lowercase(), normalizers.Prepend("▁")])
def test_added_tokens(tmp_path_factory, normalizer):
    theirs = made(PRE_TOKENIZERS["gpt2"], normalizer)
    special = {"a": "<|a|>", "b": "<|b|>", "c": "<|c|>"}
    theirs.add_special_tokens(
        [
            tokenizers.AddedToken(special["a"], lstrip=True),
            tokenizers.AddedToken(special["b"], rstrip=True),
            tokenizers.AddedToken(special["c"], normalized=True),
        ]
    )
    theirs.add_tokens(
        [
            tokenizers.AddedToken("Word", single_word=True),
            tokenizers.AddedToken("raw", normalized=False, single_word=True, lstrip=True),
            tokenizers.AddedToken("ab", normalized=True),
            tokenizers.AddedToken("b", normalized=False),
        ]
    )
    ours = ours_of(theirs, tmp_path_factory)
    parts = [
        "Word",
        "word",
        "raw",
        " ",
        "  \n",
        "x",
        "1",
        "é",
        "\u0301",
        "-",
        "ab",
        "b",
        "a",
        *special.values(),
        "▁",
        "_",
    ]
    for first in parts:
        for second in parts:
            for third in parts:
                text = first + second + third
                assert ours.encode(text) == theirs.encode(text).ids, text


@pytest.mark.parametrize("kind", ["template", "sequence", "bert", "roberta"])
def test_post_processors(tmp_path_factory, kind):
    theirs = made(PRE_TOKENIZERS["gpt2"])
    template = processors.TemplateProcessing(
        "<s> $A <|end|>", "<s> $A <|end|> $B:1 <s>:1", [("<s>", 1), ("<|end|>", 0)]
    )
    theirs.post_processor = {
        "template": template,
        "sequence": processors.Sequence([processors.ByteLevel(trim_offsets=False), template]),
        "bert": processors.BertProcessing(("<s>", 1), ("<|end|>", 0)),
        "roberta": processors.RobertaProcessing(("<s>", 1), ("<|end|>", 0)),
    }[kind]
    ours = ours_of(theirs, tmp_path_factory)
    assert ours.encode("one two") == theirs.encode("one two").ids
    assert ours.encode("one two", "three") == theirs.encode("one two", "three").ids
    assert ours.encode("one", add_special_tokens=False) == theirs.encode("one", add_special_tokens=False).ids


# SentencePiece's kind -------------------------------------------------------------------------------------------------

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SP_DECODER = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
SENTENCE_PIECES = {
    "llama2": (normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None, SP_DECODER),
    "mistral": (None, pre_tokenizers.Metaspace("▁", "first", split=False), SP_DECODER),
    "metaspace": (None, pre_tokenizers.Metaspace("▁", "always"), [decoders.ByteFallback(), decoders.Metaspace()]),
    "never": (
        None,
        pre_tokenizers.Metaspace("▁", "never"),
        [decoders.ByteFallback(), decoders.Metaspace("▁", "never")],
    ),
    "gemma": (normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"), SP_DECODER[:3]),
}


def sentence_piece(kind, byte_fallback=True, fuse_unk=True):
    """A character BPE of the peer's, its vocabulary cut so that rare characters have no piece."""
    normalizer, pre_tokenizer, decoder = SENTENCE_PIECES[kind]
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always")
    trained.train_from_iterator(CORPUS[-2:], trainers.BpeTrainer(vocab_size=500, show_progress=False))
    learned = json.loads(trained.to_str())["model"]
    names = ["<unk>", "<s>", "</s>", *(BYTES if byte_fallback else []), *learned["vocab"]]
    vocab = {name: index for index, name in enumerate(names)}
    merges = [tuple(merge) for merge in learned["merges"]]
    theirs = tokenizers.Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=fuse_unk, byte_fallback=byte_fallback)
    )
    if normalizer is not None:
        theirs.normalizer = normalizer
    if pre_tokenizer is not None:
        theirs.pre_tokenizer = pre_tokenizer
    theirs.decoder = decoders.Sequence(decoder)
    theirs.add_special_tokens(["<unk>", "<s>", "</s>"])
    theirs.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    return theirs


@pytest.fixture(scope="module", params=SENTENCE_PIECES)
def sentence_piece_pair(request, tmp_path_factory):
    theirs = sentence_piece(request.param)
    return ours_of(theirs, tmp_path_factory), theirs


def test_sentence_piece_families(sentence_piece_pair):
    for text in [*CORPUS, *EXTRA]:
        same(*sentence_piece_pair, text)


@given(MIXED | ASSIGNED)
def test_any_text_through_sentence_pieces(sentence_piece_pair, text):
    same(*sentence_piece_pair, text)


@given(st.lists(st.integers(0, 700), max_size=8))
def test_any_ids_are_decoded_alike(sentence_piece_pair, ids):
    ours, theirs = sentence_piece_pair
    ids = [i for i in ids if ours.id_to_token(i) is not None]
    assert ours.decode(ids) == theirs.decode(ids)


@pytest.mark.parametrize("fuse_unk", [False, True])
def test_unknown_characters_without_their_bytes(tmp_path_factory, fuse_unk):
    theirs = sentence_piece("llama2", byte_fallback=False, fuse_unk=fuse_unk)
    ours = ours_of(theirs, tmp_path_factory)
    for text in [*CORPUS, "我们 a 我b我们"]:
        assert ours.encode(text) == theirs.encode(text).ids


def test_scores_are_merges_in_their_order(tmp_path_factory):
    """A SentencePiece model has a score for each piece; with those of a list of merges it gives the same ids."""
    theirs = sentence_piece("llama2")
    spec = json.loads(theirs.to_str())["model"]
    pieces = list(spec["vocab"])
    rank = {"".join(pair): n for n, pair in enumerate(spec["merges"])}
    added = [AddedToken(name, index) for index, name in enumerate(pieces[:3])]
    scores = [float(-rank.get(piece, 10_000)) for piece in pieces]
    ours = SentencePieceBPE.from_scores(pieces, scores, added, roles={"unk_token": "<unk>"})
    pairs = [list(pair) for pair in sorted(ours.ranks, key=lambda pair: ours.ranks[pair][0])]
    theirs = json.loads(theirs.to_str())
    theirs["model"]["merges"] = pairs
    theirs = tokenizers.Tokenizer.from_str(json.dumps(theirs))
    for text in CORPUS:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids


# A megabyte -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def megabyte():
    text = ""
    for file in sorted(Path(json.__file__).parents[1].glob("*.py")):
        text += file.read_text("utf-8", errors="replace")
        if len(text) > 1_000_000:
            return text
    raise AssertionError("the standard library is smaller than a megabyte")


@pytest.mark.parametrize("kind", ["smollm", "llama3", "o200k"])
def test_a_megabyte_of_the_standard_library(tmp_path_factory, megabyte, kind):
    theirs = made(PRE_TOKENIZERS[kind])
    ours = ours_of(theirs, tmp_path_factory)
    begin = time.process_time()
    ids = ours.encode(megabyte)
    assert time.process_time() - begin < 20  # a hundred times slower would be another algorithm
    assert ids == theirs.encode(megabyte).ids


def test_a_megabyte_in_sentence_pieces(tmp_path_factory, megabyte):
    theirs = sentence_piece("llama2")
    ours = ours_of(theirs, tmp_path_factory)
    assert ours.encode(megabyte) == theirs.encode(megabyte).ids
