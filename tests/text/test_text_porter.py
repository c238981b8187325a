"""Porter's stemmer: the examples of its paper, and NLTK's two ways of it."""

import random
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.errors import TokenizerError
from tinyllm.formulas import procedures
from tinyllm.text import PorterStemmer
from tinyllm.text.porter import STEP_1A, STEP_2, STEP_3, STEP_4, _replace, measure

ENDINGS = (
    *(ending for ending, _ in (*STEP_1A, *STEP_2, *STEP_3)),
    *STEP_4,
    *("ed", "ing", "eed", "ied", "y", "yy", "e", "ll", "logi", "fulli", "alli", "bli", "tion", "sion"),
)
WORDS = st.builds(
    lambda stem, endings: stem + "".join(endings),
    st.text("abdefghilnoprstuvwxyz", max_size=6),
    st.lists(st.sampled_from(ENDINGS), max_size=3),
)


def test_examples_of_the_paper():
    words = """
        caresses caress ponies poni ties ti cats cat feed feed agreed agre plastered plaster bled bled motoring
        motor sing sing conflated conflat troubled troubl sized size hopping hop tanned tan falling fall hissing hiss
        fizzed fizz failing fail filing file happy happi sky sky relational relat conditional condit rational ration
        triplicate triplic formative form goodness good revival reviv allowance allow replacement replac adoption adopt
        probate probat rate rate cease ceas controll control roll roll generalizations gener oscillators oscil
    """.split()  # noqa: SIM905
    stem = PorterStemmer().stem
    assert [stem(word) for word in words[::2]] == words[1::2]


def test_measure_of_the_paper():
    for m, words in enumerate(("tr ee tree y by", "trouble oats trees ivy", "troubles private oaten orrery")):
        assert {measure(word) for word in words.split()} == {m}


@given(WORDS)
def test_step_1a_is_the_loops(word):
    assert _replace(word, STEP_1A, lambda stem: True) == procedures.stem(word)


@given(WORDS, st.sampled_from(["paper", "nltk"]))
def test_a_stem_is_at_most_one_letter_longer_and_case_is_ignored(word, mode):
    stem = PorterStemmer(mode).stem(word)
    assert len(stem) <= len(word) + 1
    assert PorterStemmer(mode).stem(word.upper()) == stem


def test_unknown_mode():
    with pytest.raises(TokenizerError, match="did you mean 'paper'"):
        PorterStemmer("papers")


@pytest.mark.peers
@pytest.mark.parametrize(("ours", "theirs"), [("paper", "ORIGINAL_ALGORITHM"), ("nltk", "NLTK_EXTENSIONS")])
def test_stems_of_nltk(data_folder, ours, theirs):
    porter = pytest.importorskip("nltk.stem.porter", reason="NLTK is not installed")
    with zipfile.ZipFile(data_folder / "cmudict" / "cmudict.zip") as archive:
        lines = [line for name in archive.namelist() for line in archive.read(name).decode("latin-1").splitlines()]
    draw = random.Random(0)
    words = {line.split(" ")[0] for line in lines if line} | {
        "".join(draw.choices("aeiouybdflnstvz", k=draw.randint(0, 5)) + draw.choices(ENDINGS, k=draw.randint(0, 3)))
        for _ in range(30_000)
    }
    assert len(words) > 100_000
    expected, found = porter.PorterStemmer(theirs).stem, PorterStemmer(ours).stem
    assert [word for word in words if found(word) != expected(word)] == []
