r"""Unicode's classes of characters, as the inside of a bracket expression for Python's `re`.

`re` knows neither ``\p{L}`` nor Unicode's white space (its ``\s`` also takes U+001C to U+001F), and the tokenizers
are defined by both. The letters, marks and numbers are those of this Python's Unicode version
(`unicodedata.unidata_version`): a character that was assigned later is an unassigned one here, and a tokenizer of
another library may split around it differently.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import lru_cache

#: Unicode's White_Space property: what ``\s`` means to GPT-2's pattern.
WHITE_SPACE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"

#: The ideographs that are words of their own: CJK unified, their extensions, and the compatibility blocks.
IDEOGRAPHS = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f\U00030000-\U000323af"

#: The names that ``\p{...}`` may have: the general categories and their first letters.
# fmt: off
CATEGORIES = {
    "L", "Lu", "Ll", "Lt", "Lm", "Lo",
    "M", "Mn", "Mc", "Me",
    "N", "Nd", "Nl", "No",
    "P", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po",
    "S", "Sm", "Sc", "Sk", "So",
    "Z", "Zs", "Zl", "Zp",
    "C", "Cc", "Cf",
}
# fmt: on

_STRIPPED = "".join(c for c in map(chr, range(0x3001)) if re.match(f"[{WHITE_SPACE}]", c))


def strip_left(text: str) -> str:
    """`text` without the white space (Unicode's, not Python's) at its beginning."""
    return text.lstrip(_STRIPPED)


def strip_right(text: str) -> str:
    """`text` without the white space (Unicode's, not Python's) at its end."""
    return text.rstrip(_STRIPPED)


@lru_cache(maxsize=1)
def _ranges() -> list[tuple[str, int, int]]:
    """The runs of characters of one general category (``Lu``, ``Nd``, ...): category, first and last code point."""
    ranges = []
    start, category = 0, unicodedata.category(chr(0))
    for code in range(1, sys.maxunicode + 2):
        new = unicodedata.category(chr(code)) if code <= sys.maxunicode else ""
        if new != category:
            ranges.append((category, start, code - 1))
            start, category = code, new
    return ranges


@lru_cache(maxsize=16)
def character_class(*categories: str, without: str = "") -> str:
    r"""The characters of some Unicode categories as the inside of a bracket expression.

    Parameters
    ----------
    *categories : str
        General categories or their first letters: ``"L"`` is ``\p{L}``, ``"So"`` is ``\p{So}``.
    without : str
        The inside of a bracket expression whose characters are left out.

    Returns
    -------
    str
        Ranges such as ``A-Za-z``, to be put between ``[`` or ``[^`` and ``]``.
    """
    chosen = [(first, last) for category, first, last in _ranges() if category.startswith(categories)]
    members = "".join(chr(code) for first, last in chosen for code in range(first, last + 1))
    if without:
        members = re.sub(f"[{without}]+", "", members)
    return _inside(members)


@lru_cache(maxsize=16)
def of_ascii(inside: str) -> str:
    """The inside of a bracket expression without what is not ASCII; where nothing is left, a character that is not."""
    return _inside("".join(re.findall(f"[{inside}]", "".join(map(chr, range(128)))))) or "\\x80"


@lru_cache(maxsize=16)
def complement(inside: str, ascii_only: bool) -> str:
    """The characters, or those of ASCII alone, that are not in a bracket expression, as the inside of one."""
    every = "".join(map(chr, range(128 if ascii_only else sys.maxunicode + 1)))
    return _inside(re.sub(f"[{inside}]+", "", every)) or "\\x80"


def _inside(members: str) -> str:
    """Characters in the order of their code points as the inside of a bracket expression, runs as ranges."""
    pieces, start = [], 0
    for i in range(1, len(members) + 1):
        if i == len(members) or ord(members[i]) != ord(members[i - 1]) + 1:
            pieces.append(re.escape(members[start]) + (f"-{re.escape(members[i - 1])}" if i - start > 1 else ""))
            start = i
    return "".join(pieces)
