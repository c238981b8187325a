"""Cutting a text into sentences, well enough for a baseline."""

from __future__ import annotations

import re

# A mark that ends a sentence, white space, and something that begins one; Chinese marks need neither.
_END = re.compile(r"(?<=[.!?])\s+(?=[^a-z\s])|(?<=[。！？])\s*")


def sentences(text: str) -> list[str]:
    """The sentences of a text in order; the whole text where no mark ends any.

    Examples
    --------
    >>> sentences("It returns None. See e.g. the list, or x. Then stop!")
    ['It returns None.', 'See e.g. the list, or x.', 'Then stop!']
    """
    return [part for part in _END.split(text.strip()) if part] or [text]
