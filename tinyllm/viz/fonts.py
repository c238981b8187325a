"""Token labels in whatever script: with a font that has it where one is installed, escaped where none is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

SPACE = "\u2423"  # the open box: a space that can be seen

# Fonts with Chinese, Japanese and Korean characters that systems bring with them.
CJK = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Arial Unicode MS",
    "Microsoft YaHei",
    "SimHei",
)


@contextmanager
def label_fonts(tokens: Iterable[str]) -> Iterator[dict[str, str]]:
    """Within it, figures find a font for every token; gives what to write for each.

    A character that no font has is written as its code point, ``U+5B57``; white space as what Python would write.
    """
    import matplotlib
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    families = ["DejaVu Sans", *(name for name in CJK if name in installed)]
    known: set[int] = set()
    for name in families:
        known |= set(font_manager.get_font(font_manager.findfont(name)).get_charmap())
    with matplotlib.rc_context({"font.family": families}):
        yield {token: "".join(_shown(character, known) for character in token) or "''" for token in tokens}


def _shown(character: str, known: set[int]) -> str:
    if character == " ":
        return SPACE
    if not character.isprintable():
        return repr(character)[1:-1]
    if character == "$":
        return r"\$"  # would begin a formula
    return character if ord(character) in known else f"U+{ord(character):04X}"
