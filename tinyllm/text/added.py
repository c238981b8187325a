"""Added tokens: those that are found in a text before anything else, such as ``<|endoftext|>``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tinyllm.text.unicode_classes import character_class, strip_left, strip_right


@dataclass(frozen=True)
class AddedToken:
    """A token that is found in the text before anything else; a `special` one is left out of decoded text.

    `lstrip` and `rstrip` let it swallow the white space before and after it; a `single_word` is not found inside a
    word; a `normalized` one is looked for in the normalised text.
    """

    content: str
    id: int
    special: bool = True
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False


class Finder:
    """Finds added tokens in a text: the first one, of those that begin at the same place the longest."""

    def __init__(self, tokens: Mapping[str, AddedToken]) -> None:
        self._tokens = {content: token for content, token in tokens.items() if content}
        longest_first = sorted(self._tokens, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if self._tokens else None

    def cut(self, text: str) -> Iterator[tuple[int, str | AddedToken]]:
        """The tokens and the non-empty texts between them, each with its offset."""
        end = 0
        for match in self._pattern.finditer(text) if self._pattern else ():
            token = self._tokens[match[0]]
            if token.single_word and (_is_word(text[: match.start()][-1:]) or _is_word(text[match.end() :][:1])):
                continue
            before = text[end : match.start()]
            before = strip_right(before) if token.lstrip else before
            if before:
                yield end, before
            yield match.start(), token
            end = match.end()
            if token.rstrip:
                end = len(text) - len(strip_left(text[end:]))
        if end < len(text):
            yield end, text[end:]


def _is_word(char: str) -> bool:
    """Whether a character is one that words are made of; "" is none."""
    return re.fullmatch(f"[{character_class('L', 'M', 'Nd', 'Nl', 'Pc')}\u200c\u200d]", char) is not None
