"""Which scripts a text is written in: a model has nothing to say about letters that it has never seen."""

from __future__ import annotations

import unicodedata


def scripts(text: str) -> set[str]:
    """The scripts of a text's letters, by the first word of their Unicode names.

    Examples
    --------
    >>> sorted(scripts("Python 是一种语言, π ~ 3.14"))
    ['CJK', 'GREEK', 'LATIN']
    """
    names = (unicodedata.name(c, "UNKNOWN") for c in set(text) if unicodedata.category(c).startswith("L"))
    return {name.split(" ")[0].split("-")[0] for name in names}
