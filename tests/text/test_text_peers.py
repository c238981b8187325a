"""The same ids, texts and merges as Hugging Face's tokenizers, and GPT-2's pattern as the regex package reads it."""

import gzip
import inspect
import json
import string
import sys
import textwrap
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.text import ByteLevelBPE, CharTokenizer, WordTokenizer, gpt2_split, load_tokenizer

pytestmark = pytest.mark.peers
tokenizers = pytest.importorskip("tokenizers", reason="compares with Hugging Face's tokenizers")

CORPUS = [
    "The quick brown fox didn't jump over the lazy dog's back; it's 3.14 metres, they'll say.\n\nWe've done it!  \n",
    "我们都是大语言模型的学生。今天天气很好，我们去公园玩吧！语言模型，语言模型。",
    "emoji 😀😀👩‍💻🇫🇷👍🏽 ☎️ and symbols ™ © → ∑ €5 ½ ² Ⅷ ٣",
    "def f(x):\n    if x < 0:\n\t\treturn -x  # a comment\n    return {'a': [1, 2, 3]}\n\n\n",
    "a b  c   d    e\t\tf \n g\r\n\r\nh \x0b i\u3000j\xa0k\u2028l \x1c m\x00n   ",
    "naïve café e\u0301te\u0301 नमस्ते สวัสดี مرحبا שלום Привет ΑΒΓ ǅ ﬀ",
    inspect.getsource(textwrap),
    inspect.getdoc(json) + inspect.getsource(string),
]

# Code points that Python's version of Unicode has not assigned are cut differently by a library with a newer one.
ASSIGNED = st.text(st.characters(exclude_categories=["Cs", "Cn"]))
MIXED = st.text(st.sampled_from("ab E1'st  \n\t.é中²😀\u3000\x1c\u0301<|>"))


def same(ours, theirs, text, **options):
    """Our ids and decoded text for `text`, having checked that theirs are equal."""
    encoded = theirs.encode(text, **options)
    ids = ours.encode(text)
    assert ids == encoded.ids
    assert ours.decode(ids) == theirs.decode(encoded.ids)
    assert ours.decode(ids, skip_special_tokens=False) == theirs.decode(encoded.ids, skip_special_tokens=False)


def peer_trainer(texts, vocab_size, special_tokens, min_frequency=0):
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special_tokens,
        min_frequency=min_frequency,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    theirs.train_from_iterator(texts, trainer)
    return [tuple(merge) for merge in json.loads(theirs.to_str())["model"]["merges"]]


@pytest.fixture(scope="module")
def bpe():
    return ByteLevelBPE.train(CORPUS, vocab_size=700, special_tokens=["<|endoftext|>", "<pad>"])


@pytest.fixture(scope="module")
def bpe_pair(bpe, tmp_path_factory):
    return bpe, tokenizers.Tokenizer.from_file(str(bpe.save(tmp_path_factory.mktemp("bpe") / "tokenizer.json")))


@pytest.fixture(scope="module")
def gpt2_pair(data_folder, tmp_path_factory):
    folder = data_folder / "gpt2_bpe"
    ours = ByteLevelBPE.from_pair(folder / "encoder.json.gz", folder / "vocab.bpe.gz")
    return ours, tokenizers.Tokenizer.from_file(str(ours.save(tmp_path_factory.mktemp("gpt2") / "tokenizer.json")))


# Pre-tokenisation ---------------------------------------------------------------------------------------------------


@given(ASSIGNED | MIXED)
def test_gpt2_split_is_gpt2s_pattern(text):
    regex = pytest.importorskip("regex", reason="reads GPT-2's published pattern")
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    assert gpt2_split(text) == regex.findall(pattern, text)


def test_every_assigned_character_is_in_the_same_class(bpe_pair):
    peer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)) not in ("Cs", "Cn", "Co"):
            text = f"a{chr(code)}1{chr(code)}."
            cuts = [end for _, (_, end) in peer.pre_tokenize_str(text)]
            words = gpt2_split(text)
            assert cuts == [len("".join(words[: i + 1])) for i in range(len(words))], hex(code)


# Training -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [256, 300, 1500, 100_000])
@pytest.mark.parametrize("min_frequency", [1, 2])
def test_training_learns_the_same_merges(size, min_frequency):
    ours = ByteLevelBPE.train(CORPUS, size, ["<|endoftext|>"] if size > 256 else [], min_frequency)
    assert ours.merges == peer_trainer(CORPUS, size, ["<|endoftext|>"] if size > 256 else [], min_frequency)


@given(st.lists(MIXED, min_size=1))
def test_training_learns_the_same_merges_from_anything(texts):
    if any(texts):
        assert ByteLevelBPE.train(texts, 400).merges == peer_trainer(texts, 400, [])


def test_training_learns_the_same_merges_from_shakespeare(data_folder):
    text = gzip.decompress((data_folder / "tinyshakespeare" / "input.txt.gz").read_bytes()).decode("utf-8")
    assert ByteLevelBPE.train([text], 4096).merges == peer_trainer([text], 4096, [])


# Byte-level BPE -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*CORPUS, "", " ", "x<|endoftext|> y<pad><pad>", "a" * 1000, " " * 100 + "\n" * 50])
def test_same_ids(bpe_pair, gpt2_pair, text):
    same(*bpe_pair, text)
    same(*gpt2_pair, text)


@given(ASSIGNED | MIXED)
def test_same_ids_for_any_text(bpe_pair, gpt2_pair, text):
    same(*bpe_pair, text)
    same(*gpt2_pair, text)


def test_same_ids_on_much_text(gpt2_pair, data_folder):
    texts = [file.read_text("utf-8") for file in sorted((data_folder / "udhr").glob("*.txt"))]
    texts.append(gzip.decompress((data_folder / "wikitext2" / "wiki.valid.tokens.txt.gz").read_bytes()).decode("utf-8"))
    assert len(texts) > 5
    for text in texts:
        same(*gpt2_pair, text)


def test_same_ids_on_a_megabyte_of_the_standard_library(gpt2_pair, bpe_pair):
    text = ""
    for file in sorted(Path(json.__file__).parents[1].glob("*.py")):
        text += file.read_text("utf-8", errors="replace")
        if len(text) > 1_000_000:
            break
    assert len(text) > 1_000_000
    same(*gpt2_pair, text)
    same(*bpe_pair, text)


@given(st.lists(st.integers(0, 699), max_size=12))
def test_same_text_for_any_ids(bpe_pair, ids):
    ours, theirs = bpe_pair
    assert ours.decode(ids) == theirs.decode(ids)


def test_vocabulary_lookups(bpe_pair):
    ours, theirs = bpe_pair
    assert ours.vocab_size == theirs.get_vocab_size()
    for index in range(ours.vocab_size):
        assert ours.id_to_token(index) == theirs.id_to_token(index)
        assert theirs.token_to_id(ours.id_to_token(index)) == index


@pytest.mark.parametrize("add_prefix_space", [False, True])
@pytest.mark.parametrize("use_regex", [False, True])
@pytest.mark.parametrize("ignore_merges", [False, True])
def test_what_tokenizers_writes_is_read(tmp_path, add_prefix_space, use_regex, ignore_merges):
    learned = ByteLevelBPE.train(CORPUS, 600, ["<s>"])
    vocab = {**learned._ids, "zzz": 600}
    model = tokenizers.models.BPE(vocab=vocab, merges=learned.merges, ignore_merges=ignore_merges)
    theirs = tokenizers.Tokenizer(model)
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=use_regex)
    theirs.decoder = tokenizers.decoders.ByteLevel()
    theirs.post_processor = tokenizers.processors.ByteLevel()
    theirs.add_special_tokens(["<s>", tokenizers.AddedToken("<mask>", lstrip=True, rstrip=True)])
    theirs.add_tokens(["  several words "])
    theirs.save(str(tmp_path / "tokenizer.json"))
    texts = [*CORPUS, "", " x", "zzz zzz", "a <s>b\n<mask>  c<mask> <mask>", "of  several words of", " \t<mask>"]
    for _ in range(2):  # as they wrote it, and as we wrote what we read
        ours = load_tokenizer(tmp_path / "tokenizer.json")
        for text in texts:
            same(ours, theirs, text)
        ours.save(tmp_path / "tokenizer.json")
        theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))


def test_same_template(bpe, tmp_path):
    theirs = tokenizers.Tokenizer.from_file(str(bpe.save(tmp_path / "tokenizer.json")))
    theirs.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|endoftext|> $A",
        pair="<|endoftext|> $A <pad> $B:1 <pad>:1",
        special_tokens=list(bpe.special_tokens.items()),
    )
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = load_tokenizer(tmp_path / "tokenizer.json")
    for plain in (True, False):
        assert ours.encode("the", add_special_tokens=plain) == theirs.encode("the", add_special_tokens=plain).ids
        pair = theirs.encode("the", "fox", add_special_tokens=plain)
        assert ours.encode("the", "fox", add_special_tokens=plain) == pair.ids


# Characters and words -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unk_token", [None, "<unk>"])
def test_characters(tmp_path, unk_token):
    ours = CharTokenizer.train(CORPUS, special_tokens=["<|end|>"], unk_token=unk_token)
    theirs = tokenizers.Tokenizer.from_file(str(ours.save(tmp_path / "tokenizer.json")))
    for text in [*CORPUS, "", "x<|end|>\n\n"]:
        same(ours, theirs, text)
    if unk_token:
        same(ours, theirs, "猫 and ж")
    else:
        with pytest.raises(Exception, match="UNK"):
            theirs.encode("猫")


@pytest.fixture(scope="module")
def words_pair():
    ours = WordTokenizer.train(CORPUS, min_count=2, special_tokens=["<pad>"])
    return ours, tokenizers.Tokenizer.from_str(json.dumps(ours._to_json()))


@pytest.mark.parametrize("text", CORPUS)
def test_words(words_pair, text):
    same(*words_pair, text)


@given(ASSIGNED | MIXED)
def test_words_of_any_text(words_pair, text):
    same(*words_pair, text)


# transformers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ByteLevelBPE, CharTokenizer])
def test_transformers_loads_the_folder(tmp_path, kind):
    transformers = pytest.importorskip("transformers", reason="loads the saved folder")
    ours = kind.train(CORPUS, special_tokens=["<s>", "</s>"])
    ours.save(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (ours.bos_token_id, ours.eos_token_id)
    for text in CORPUS:
        assert theirs(text)["input_ids"] == ours.encode(text)
    theirs.save_pretrained(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").encode(CORPUS[0]) == ours.encode(CORPUS[0])
