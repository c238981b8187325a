"""One token per character: the smallest vocabulary that a text can be written in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Self

from tinyllm.errors import TokenizerError
from tinyllm.text.tokenizer import as_texts, cut_at, encodable
from tinyllm.text.vocabulary import VocabularyTokenizer


class CharTokenizer(VocabularyTokenizer):
    """A tokenizer whose tokens are single characters (Unicode code points).

    Examples
    --------
    >>> tok = CharTokenizer.train(["hello"])
    >>> tok.encode("hole")
    [1, 3, 2, 0]
    """

    glue: ClassVar[str] = ""
    unit: ClassVar[str] = "character"

    @classmethod
    def train(
        cls, texts: str | Iterable[str], special_tokens: Iterable[str] = (), unk_token: str | None = None
    ) -> Self:
        """Take every character of the texts into the vocabulary, ids in the order of their code points.

        Parameters
        ----------
        texts : iterable of str
            The corpus.
        special_tokens : iterable of str
            Tokens with the ids after the characters'.
        unk_token : str, optional
            The special token for characters that are not in the vocabulary; without it they raise in `encode`.

        Raises
        ------
        TokenizerError
            Where the texts have no character, or half a surrogate pair.
        """
        named = list(special_tokens)
        characters: set[str] = set()
        for text in as_texts(texts):
            characters.update(*cut_at(named, text))
        if not characters:
            raise TokenizerError("the corpus is empty: there is no character to learn")
        encodable(characters)
        return cls._from_units(sorted(characters), named, unk_token)

    @classmethod
    def pre_tokenizer(cls) -> dict[str, Any]:
        """Cut at every character, newlines too."""
        return {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}

    @classmethod
    def decoder(cls) -> dict[str, Any]:
        """Join without spaces."""
        return {"type": "Fuse"}

    def _units(self, text: str) -> Iterator[tuple[int, str]]:
        return enumerate(text)
