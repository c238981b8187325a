r"""Words: the tokeniser of the documents' sample (C-002a), and a vocabulary of the words of a corpus.

A token is one of

* a Chinese character, each by itself;
* a number with its inner points and commas: ``3.14``, ``1,000``;
* a word: letters with their marks, digits, underscores, and apostrophes between them, so that ``don't`` is one token;
* any other single character that is no white space.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, ClassVar, Self

from tinyllm.errors import TokenizerError
from tinyllm.text.tokenizer import as_texts, cut_at, encodable
from tinyllm.text.unicode_classes import IDEOGRAPHS, WHITE_SPACE, character_class
from tinyllm.text.vocabulary import VocabularyTokenizer


def _pattern(word: str, number: str) -> str:
    """The pattern of a token, given the insides of two bracket expressions."""
    return (
        f"[{IDEOGRAPHS}]"
        f"|[{number}]+(?:[.,][{number}]+)*(?![{word}])"  # "2nd" is a word, not the number 2
        f"|[{word}]+(?:['’][{word}]+)*"
        f"|[^{WHITE_SPACE}]"
    )


@lru_cache(maxsize=1)
def _compiled() -> re.Pattern[str]:
    word = character_class("L", "M", "N", without=IDEOGRAPHS) + "_"
    return re.compile(_pattern(word, character_class("N", without=IDEOGRAPHS)))


def word_tokenize(text: str) -> list[str]:
    """Cut a text into words, numbers, punctuation marks and Chinese characters (C-002a).

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    list of str
        The tokens in order, without the white space between them.

    Examples
    --------
    >>> word_tokenize("Hello, world! This is a test sentence.")
    ['Hello', ',', 'world', '!', 'This', 'is', 'a', 'test', 'sentence', '.']
    >>> word_tokenize("I don't owe 3.14 to 小明")
    ['I', "don't", 'owe', '3.14', 'to', '小', '明']
    """
    return _compiled().findall(text)


class WordTokenizer(VocabularyTokenizer):
    """A tokenizer whose tokens are the words of `word_tokenize`; decoded words are joined by single spaces.

    Examples
    --------
    >>> tok = WordTokenizer.train(["the cat sat on the mat"])
    >>> tok.encode("the cat flew")
    [0, 1, 5]
    >>> tok.decode([0, 1, 5], skip_special_tokens=False)
    'the cat <unk>'
    """

    glue: ClassVar[str] = " "
    unit: ClassVar[str] = "word"

    @classmethod
    def train(
        cls,
        texts: str | Iterable[str],
        vocab_size: int | None = None,
        min_count: int = 1,
        special_tokens: Iterable[str] = (),
        unk_token: str | None = "<unk>",
    ) -> Self:
        """Take the words of the texts into the vocabulary, the most frequent first, ties in the order of code points.

        Parameters
        ----------
        texts : iterable of str
            The corpus.
        vocab_size : int, optional
            The most tokens to have, special tokens included; all words without it.
        min_count : int
            A word that occurs less often is left out.
        special_tokens : iterable of str
            Tokens with the ids after the words'.
        unk_token : str or None
            The special token for words that are not in the vocabulary; with None they raise in `encode`.

        Raises
        ------
        TokenizerError
            Where no word is left, or `vocab_size` has no room for one.
        """
        named = list(special_tokens)
        counts: Counter[str] = Counter()
        for text in as_texts(texts):
            for piece in cut_at(named, text):
                counts.update(word_tokenize(piece))
        encodable(counts)
        words = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
        if vocab_size is not None:
            words = words[: max(0, vocab_size - len({*named, unk_token} - {None}))]
        if not words:
            raise TokenizerError(
                f"no word to learn: the corpus has {len(counts)} different words, min_count is {min_count}, "
                f"vocab_size is {vocab_size}"
            )
        return cls._from_units(words, named, unk_token)

    @classmethod
    def pre_tokenizer(cls) -> dict[str, Any]:
        """Cut out the words and remove what lies between them."""
        word, number = rf"\p{{L}}\p{{M}}\p{{N}}_&&[^{IDEOGRAPHS}]", rf"\p{{N}}&&[^{IDEOGRAPHS}]"
        pattern = {"Regex": _pattern(word, number)}
        return {"type": "Split", "pattern": pattern, "behavior": "Removed", "invert": True}

    @classmethod
    def decoder(cls) -> None:
        """Join by spaces, which is what the file format does without a decoder."""
        return None

    def _units(self, text: str) -> Iterator[tuple[int, str]]:
        return ((match.start(), match[0]) for match in _compiled().finditer(text))
