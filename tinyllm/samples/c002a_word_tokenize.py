"""C-002a: a text cut into words. Document 002 (002_53c33e9b6693ac78.txt), section 5.1.

What is wrong in the original: `word_tokenize` of NLTK needs data that are downloaded first (and a newer NLTK wants
other data than the `punkt` that is fetched). Here the words are found by rules, without a download.
"""

from __future__ import annotations

from tinyllm import text


def word_tokenize(sentence: str = "Hello, world! This is a test sentence.") -> list[str]:
    """Print and return the words and marks of a sentence, by `tinyllm.text.word_tokenize`.

    Parameters
    ----------
    sentence : str
        The document's by default.

    Returns
    -------
    list of str
    """
    tokens = text.word_tokenize(sentence)
    print(tokens)
    return tokens


if __name__ == "__main__":
    word_tokenize()
