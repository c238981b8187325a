r"""GPT-2's pre-tokenisation: text is cut into words before byte pairs are merged, and no merge crosses a cut.

The published pattern needs a regex engine that knows ``\p{L}`` and ``\p{N}``::

    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+

Here the same pattern is spelt for Python's `re`, with each class written out from `unicodedata`. Joined, the words are
the text again. Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), section 2.2, and
the encoder published with it.
"""

from __future__ import annotations

import re
from functools import lru_cache

from tinyllm.text.unicode_classes import WHITE_SPACE, character_class


@lru_cache(maxsize=2)
def _pattern(ascii_only: bool) -> re.Pattern[str]:
    """GPT-2's pattern; for text of ASCII alone the classes are short, and matching is faster."""
    letters, numbers = ("A-Za-z", "0-9") if ascii_only else (character_class("L"), character_class("N"))
    return re.compile(
        f"'(?:s|t|re|ve|m|ll|d)"  # the English contractions
        f"| ?[{letters}]+"  # a word, with the one space before it
        f"| ?[{numbers}]+"
        f"| ?[^{WHITE_SPACE}{letters}{numbers}]+"  # punctuation and symbols
        f"|[{WHITE_SPACE}]+(?![^{WHITE_SPACE}])"  # white space, but for the last one before a word
        f"|[{WHITE_SPACE}]+"
    )


def gpt2_split(text: str) -> list[str]:
    """Cut `text` into GPT-2's words.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    list of str
        The words in order; ``"".join(words) == text``. ``"Hello, world"`` gives ``["Hello", ",", " world"]``.
    """
    return _pattern(text.isascii()).findall(text)
