"""C-002a: the words of the document's sentence."""

from tinyllm.formulas.procedures import tokenise
from tinyllm.samples import word_tokenize


def test_c002a_words_of_the_sentence(capsys):
    """The ten tokens that NLTK gives for it."""
    tokens = word_tokenize()
    assert tokens == ["Hello", ",", "world", "!", "This", "is", "a", "test", "sentence", "."]
    assert tokens == tokenise("Hello, world! This is a test sentence.")
    assert capsys.readouterr().out == f"{tokens}\n"


def test_c002a_takes_another_sentence():
    assert word_tokenize("It's 42.") == ["It's", "42", "."]
