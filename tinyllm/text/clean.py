"""Cleaning text before it is tokenised (P-PREP): six steps, each of which can be called alone."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from html import unescape
from html.entities import html5
from typing import Literal

from tinyllm.text.unicode_classes import character_class

# HTML's elements, by what takes the place of their tags: a newline, a space, nothing.
_LINE_NAMES = """
    address article aside blockquote body br caption center dd details dialog dir div dl dt fieldset figcaption figure
    footer form frame frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html iframe legend li link main menu meta nav
    noframes noscript ol optgroup option p pre search section select summary table tbody template textarea tfoot thead
    title tr ul
"""
_INLINE_NAMES = """
    a abbr acronym applet area audio b base basefont bdi bdo big button canvas cite code col colgroup data datalist del
    dfn em embed font i img input ins kbd label map mark meter nobr object output param picture progress q rp rt ruby s
    samp slot small source span strike strong sub sup svg time track tt u var video wbr
"""
_REPLACEMENTS = (
    dict.fromkeys(_LINE_NAMES.split(), "\n")
    | dict.fromkeys(_INLINE_NAMES.split(), "")
    | dict.fromkeys(["td", "th"], " ")
)

# A quoted or bare value follows "="; few attributes are written without one. So `a<b and c>d` is no tag.
_ATTRIBUTE = (
    r"""[a-z_:@][\w:.@-]*\s*=\s*(?:"[^"<]*"|'[^'<]*'|[^\s"'<>`]+)"""
    "|allowfullscreen|async|autofocus|autoplay|checked|controls|default|defer|disabled|formnovalidate|hidden|inert|ismap"
    "|itemscope|loop|multiple|muted|nomodule|noshade|novalidate|nowrap|open|playsinline|readonly|required|reversed|selected"
)
_TAG = re.compile(rf"</?([a-z][a-z0-9:-]*)(?:\s+(?:{_ATTRIBUTE}))*\s*/?>", re.IGNORECASE)
_CLOSING_TAG = re.compile(r"</([a-z][a-z0-9:-]*)\s*>", re.IGNORECASE)
_DECLARATION = re.compile(r"<!doctype\b[^<>]*>|<\?xml\b[^<>]*\?>", re.IGNORECASE)

# What is removed with all that it encloses.
_ENCLOSED = [
    (re.compile("<!--"), re.compile("-->")),
    (re.compile(r"<script\b[^<>]*>", re.IGNORECASE), re.compile(r"</script\s*>", re.IGNORECASE)),
    (re.compile(r"<style\b[^<>]*>", re.IGNORECASE), re.compile(r"</style\s*>", re.IGNORECASE)),
]

# Joiner, enclosing keycap, variation selectors, skin tones, the tags of regional flags.
_EMOJI_MODIFIERS = "\u200d\u20e3\ufe00-\ufe0f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f"


def clean(
    text: str,
    *,
    html: bool = True,
    entities: bool = True,
    control: bool = True,
    unicode: bool = True,
    symbols: bool = True,
    white_space: bool = True,
) -> str:
    """Clean a text by the steps of this module, in the order of the arguments (P-PREP).

    Parameters
    ----------
    text : str
        Raw text.
    html : bool
        Whether to apply `strip_html`.
    entities : bool
        Whether to apply `decode_entities`.
    control : bool
        Whether to apply `remove_control_characters`.
    unicode : bool
        Whether to apply `normalize_unicode`.
    symbols : bool
        Whether to apply `remove_special_symbols`.
    white_space : bool
        Whether to apply `normalize_white_space`.

    Returns
    -------
    str

    Examples
    --------
    >>> clean("<p>Tom &amp; Jerry™:  if a < b</p>")
    'Tom & Jerry : if a < b'
    """
    steps = [
        (html, strip_html),
        (entities, decode_entities),
        (control, remove_control_characters),
        (unicode, normalize_unicode),
        (symbols, remove_special_symbols),
        (white_space, normalize_white_space),
    ]
    for wanted, step in steps:
        if wanted:
            text = step(text)
    return text


def strip_html(text: str) -> str:
    """Remove HTML's tags and comments, and scripts and style sheets with what they enclose.

    The tag of a block (``<p>``, ``<br>``, ``<li>``) becomes a newline, that of a table cell a space, any other nothing.
    What only looks like a tag stays: ``a < b``, ``x<y and y>z``, ``vector<int>``. A name that is not HTML's counts as
    one where the text closes it, as in ``<doc>...</doc>``.

    Parameters
    ----------
    text : str
        Text with or without HTML in it.

    Returns
    -------
    str
    """
    for opening, closing in _ENCLOSED:
        text = _remove_enclosed(text, opening, closing)
    text = _DECLARATION.sub("", text)
    closed = {name.lower() for name in _CLOSING_TAG.findall(text)}

    def replacement(tag: re.Match[str]) -> str:
        name = tag[1].lower()
        return _REPLACEMENTS.get(name, "" if name in closed else tag[0])

    return _TAG.sub(replacement, text)


def _remove_enclosed(text: str, opening: re.Pattern[str], closing: re.Pattern[str]) -> str:
    """`text` without what lies between `opening` and `closing`; an opening that is never closed stays."""
    kept, end = [], 0
    while (start := opening.search(text, end)) and (stop := closing.search(text, start.end())):
        kept.append(text[end : start.start()])
        end = stop.end()
    return "".join([*kept, text[end:]])


def decode_entities(text: str) -> str:
    """Decode HTML's character references once: ``&amp;`` to ``&``, ``&#x4E2D;`` to ``中``.

    Only complete ones, with their semicolon: an address with ``?a=1&copy=2`` stays as it is.
    """

    def decoded(reference: re.Match[str]) -> str:
        name = reference[0][1:]
        return unescape(reference[0]) if name.startswith("#") or name in html5 else reference[0]

    return re.sub(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});", decoded, text)


def remove_control_characters(text: str) -> str:
    """Remove control characters, byte order marks, invisible format characters and halves of surrogate pairs.

    Tab, newline and carriage return stay; the other controls that end a line become newlines. The joiners U+200C and
    U+200D stay as well: Persian, Indic scripts and emoji are spelt with them.
    """
    return text.translate(_control_table())


@lru_cache(maxsize=1)
def _control_table() -> dict[int, str | None]:
    controls = [*range(0x20), *range(0x7F, 0xA0), *range(0xD800, 0xE000)]
    invisible = [0xAD, 0x180E, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF]
    annotations = [0xFFF9, 0xFFFA, 0xFFFB]
    table: dict[int, str | None] = dict.fromkeys([*controls, *invisible, *annotations])
    table |= dict.fromkeys(map(ord, "\x0b\x0c\x1c\x1d\x1e\x85"), "\n")
    table |= {0x1F: " "}  # the unit separator: white space inside a line
    table |= {ord(kept): kept for kept in "\t\n\r"}
    return table


def normalize_unicode(text: str, form: Literal["NFC", "NFD", "NFKC", "NFKD"] = "NFC") -> str:
    """Write each character in one way only: Unicode's normal form, ``e`` + accent becomes ``é`` in NFC."""
    return unicodedata.normalize(form, text)


def remove_special_symbols(text: str, keep: str = "°℃℉№") -> str:
    """Put a space in the place of special symbols: pictures, ornaments, emoji, box drawing, private characters.

    Letters, marks, numbers, punctuation, and the signs of mathematics and currency stay.

    Parameters
    ----------
    text : str
        Any text.
    keep : str
        Symbols that stay.

    Returns
    -------
    str
    """
    return _symbol_pattern(keep).sub(" ", text)


@lru_cache(maxsize=8)
def _symbol_pattern(keep: str) -> re.Pattern[str]:
    """Runs of categories So and Co, with what joins and modifies emoji; and the box around a keycap's digit."""
    symbols = character_class("So", "Co", without=re.escape(keep))
    return re.compile(f"[{symbols}][{symbols}{_EMOJI_MODIFIERS}]*|\ufe0f?\u20e3")


def normalize_white_space(text: str) -> str:
    """Line feeds for newlines, at most one empty line in a row, single spaces elsewhere, none at the ends of lines."""
    text = re.sub("\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", "\n", text)
    text = re.sub(r"[^\S\n]+", " ", text)
    text = re.sub(" ?\n ?", "\n", text)
    return re.sub("\n{3,}", "\n\n", text).strip()
