"""Remembering the ids of words: a language repeats few words most of the time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

MOST_WORDS = 1 << 16  # that are remembered
LONGEST = 64  # characters; a longer word will hardly come again


class WordCache:
    """Words to ids by `encode`, which is asked for each word once in a while; its lists are not handed out."""

    def __init__(self, encode: Callable[[str], list[int]]) -> None:
        self._encode = encode
        self._known: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def ids(self, words: Iterable[str]) -> list[int]:
        """The ids of all `words`, one after the other."""
        known, result = self._known, []
        for word in words:
            ids = known.get(word)
            if ids is None:
                ids = self._encode(word)
                if len(word) <= LONGEST:
                    if len(known) >= MOST_WORDS:
                        known.clear()
                    known[word] = ids
            result += ids
        return result
