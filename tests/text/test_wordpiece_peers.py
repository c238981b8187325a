"""WordPiece against Hugging Face's tokenizers and transformers: the same ids, types, places and texts."""

import gzip
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.data.stdlib import read_prose
from tinyllm.text import WordPiece
from tinyllm.text.bert_normalizer import BertTable
from tinyllm.text.wordpiece import SPECIAL_TOKENS

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
tokenizers = pytest.importorskip("tokenizers", reason="compares with Hugging Face's tokenizers")

CORPUS = ["The naïve café's 北京 students didn't say: «Привет, ΣΑΣ!» 我们都是大语言模型的学生。 x\u200by"] * 3


def differs(char):
    """Whether the two libraries' tables of Unicode treat a character in two ways: theirs are of Unicode 8."""
    flags = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": True, "lowercase": True}
    if BertTable(**flags)(char) != tokenizers.normalizers.BertNormalizer(**flags).normalize_str(char):
        return True
    words = [word for word, _ in tokenizers.pre_tokenizers.BertPreTokenizer().pre_tokenize_str(f"x{char}x")]
    mark = unicodedata.category(char).startswith("P") or (char.isascii() and char.isprintable() and not char.isalnum())
    return (words == ["x", char, "x"]) != (mark and char != " ")


@pytest.fixture(scope="module")
def newer():
    assigned = (chr(c) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co"))
    return frozenset(char for char in assigned if differs(char))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    ours = WordPiece.train(CORPUS, vocab_size=150, min_frequency=1)
    return ours, peer_of(ours, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def bert(data_folder, tmp_path_factory):
    ours = WordPiece.from_vocab(data_folder / "bert_vocab" / "vocab.txt")
    return ours, peer_of(ours, tmp_path_factory.mktemp("bert"))


def peer_of(ours, folder):
    return tokenizers.Tokenizer.from_file(str(ours.save(folder / "tokenizer.json")))


def same(pair, text, second=None):
    ours, theirs = pair
    expected = theirs.encode(text, second)
    ids, types = ours.encode_with_types(text, second)
    assert ids == ours.encode(text, second) == expected.ids
    assert types == expected.type_ids
    for skip in (True, False):
        assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(expected.ids, skip_special_tokens=skip)
    bare = theirs.encode(text, add_special_tokens=False)
    ids, places = ours.encode_with_offsets(text)
    assert ids == bare.ids
    assert places == bare.offsets


ASSIGNED = st.text(st.characters(exclude_categories=["Cs", "Cn"]))
MIXED = st.text(st.sampled_from("abEß1'st  \n\t.é中京²😀\u3000\x1c\u0301\u200b\x00ΣİǅỘ한ﬁ豈##[MASK]"))


def test_few_characters_are_read_in_two_ways(newer):
    """All of them are of scripts, signs and marks that came after Unicode 8; none is in the blocks of daily use."""
    assert len(newer) < 600
    assert not any(ord(char) < 0x61D for char in newer)


@given(ASSIGNED | MIXED)
def test_ids_of_a_trained_vocabulary_are_theirs(trained, newer, text):
    same(trained, "".join(char for char in text if char not in newer))


@given(ASSIGNED | MIXED, st.none() | MIXED)
def test_ids_of_berts_vocabulary_are_theirs(bert, newer, text, second):
    same(bert, "".join(char for char in text if char not in newer), second)


@given(ASSIGNED | MIXED, st.booleans(), st.booleans(), st.booleans() | st.none(), st.booleans())
def test_every_setting_of_the_normalizer_is_theirs(newer, text, clean, chinese, accents, lowercase):
    text = "".join(char for char in text if char not in newer)
    flags = {"clean_text": clean, "handle_chinese_chars": chinese, "strip_accents": accents, "lowercase": lowercase}
    assert BertTable(**flags)(text) == tokenizers.normalizers.BertNormalizer(**flags).normalize_str(text)


@pytest.mark.parametrize(
    "file", ["wikitext2/wiki.valid.tokens.txt.gz", "zh_classics/zh_classics.jsonl.gz", "tatoeba_eng_fra/eng-fra.tsv"]
)
def test_ids_of_real_text_are_theirs(bert, data_folder, file):
    data = (data_folder / file).read_bytes()
    text = (gzip.decompress(data) if file.endswith(".gz") else data).decode("utf-8")
    same(bert, text[:60_000])


def trained_here(text, size):
    """The vocabulary that we learn."""
    ours = WordPiece.train([text], vocab_size=size)
    return {ours.id_to_token(i) for i in range(ours.vocab_size)}


def trained_by_peer(text, size):
    """The vocabulary that the trainer of `tokenizers` learns."""
    theirs = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    theirs.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=2, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    theirs.train_from_iterator([text], trainer)
    return set(theirs.get_vocab())


def test_a_trained_vocabulary_is_theirs_but_for_ties():
    """Of equally frequent pairs they merge one by chance: two of their own runs differ by up to 8 of 4,000 pieces.

    A character that never begins a word is a piece of theirs without its ``##``, too; ours has it with it alone.
    """
    text = "\n".join(document.text for document in read_prose().documents)[:400_000]
    assert trained_here(text, 1000) == trained_by_peer(text, 1000)
    assert len(trained_here(text, 4000) & trained_by_peer(text, 4000)) >= 3970
    assert trained_by_peer("ab ab ac", 12) - trained_here("ab ab ac", 12) == {"b", "c"}


def test_transformers_reads_a_vocabulary_in_the_same_way(data_folder):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    path = data_folder / "bert_vocab" / "vocab.txt"
    for lowercase in (True, False):
        theirs = transformers.BertTokenizer(str(path), do_lower_case=lowercase)
        ours = WordPiece.from_vocab(path, lowercase=lowercase)
        for text in CORPUS:
            assert ours.encode(text, "A b.") == theirs(text, "A b.")["input_ids"]
            assert ours.encode_with_types(text, "A b.")[1] == theirs(text, "A b.")["token_type_ids"]


def test_transformers_loads_a_saved_folder(trained, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    ours, _ = trained
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(CORPUS[0])["input_ids"] == ours.encode(CORPUS[0])
    assert (theirs.mask_token_id, theirs.pad_token_id) == (ours.mask_token_id, ours.pad_token_id)
