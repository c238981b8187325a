r"""The tokenisers that BLEU is reported with: which marks stand alone decides much of the score.

Their rules are those of mteval-v13a and mteval-v14, as sacrebleu (Post 2018, "A Call for Clarity in Reporting BLEU
Scores") fixed them, oddities included, so that scores can be compared.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from functools import lru_cache

from tinyllm.text.unicode_classes import character_class

_WITHIN_WORDS = "',-."
# Every mark of ASCII stands alone, except the four that occur within words and numbers.
_MARK = re.compile(f"([{re.escape(''.join(mark for mark in string.punctuation if mark not in _WITHIN_WORDS))}])")
_POINT_AFTER = re.compile(r"([^0-9])([.,])")
_POINT_BEFORE = re.compile(r"([.,])([^0-9])")
_DASH_AFTER_DIGIT = re.compile(r"([0-9])(-)")

# First and last character of each block that the Chinese tokeniser cuts into characters. Two are not what they were
# meant to be: U+2001 to U+2A6D (quotation marks, arrows, mathematics) stands for extension B, which is therefore
# missing, and U+2F81 to U+2FA1 for the supplement of compatibility ideographs.
_CHINESE = (
    "\u3400-\u4db5\u4e00-\u9fbb\uf900-\ufa2d\ufa30-\ufa6a\ufa70-\ufad9\u2001-\u2a6d\u2f81-\u2fa1\uff00-\uffef"
    "\u2e80-\u2eff\u3000-\u303f\u31c0-\u31ef\u2f00-\u2fdf\u2ff0-\u2fff\u3100-\u312f\u31a0-\u31bf\ufe10-\ufe1f"
    "\ufe30-\ufe4f\u2600-\u26ff\u2700-\u27bf\u3200-\u33ff"
)
_CHINESE_CHARACTER = re.compile(f"([{_CHINESE}])")


def tokenize_none(text: str) -> list[str]:
    """Cut at white space only: for text that is tokenised already."""
    return text.split()


def tokenize_char(text: str) -> list[str]:
    """Every character that is no white space."""
    return list("".join(text.split()))


def tokenize_13a(text: str) -> list[str]:
    """The rules of mteval-v13a: marks stand alone, except points and commas within numbers, apostrophes and hyphens.

    Parameters
    ----------
    text : str
        A sentence, not tokenised.

    Returns
    -------
    list of str

    Examples
    --------
    >>> tokenize_13a("It's 3.14, isn't it?")
    ["It's", '3.14', ',', "isn't", 'it', '?']
    """
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, mark in (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")):
        text = text.replace(entity, mark)
    return _western(f" {text} ")


def tokenize_zh(text: str) -> list[str]:
    """Every Chinese character alone; the rest by the rules of `tokenize_13a`.

    Parameters
    ----------
    text : str
        A sentence.

    Returns
    -------
    list of str
    """
    return _western(_CHINESE_CHARACTER.sub(r" \1 ", text.strip()))


def tokenize_intl(text: str) -> list[str]:
    """The rules of mteval-v14: punctuation of any script stands alone, except between digits; so does every symbol.

    Parameters
    ----------
    text : str
        A sentence.

    Returns
    -------
    list of str
    """
    after, before, symbol = _international()
    text = before.sub(r" \1 \2", after.sub(r"\1 \2 ", text))
    return symbol.sub(r" \1 ", text).split()


TOKENIZERS: dict[str, Callable[[str], list[str]]] = {
    "none": tokenize_none,
    "char": tokenize_char,
    "13a": tokenize_13a,
    "zh": tokenize_zh,
    "intl": tokenize_intl,
}


def _western(text: str) -> list[str]:
    text = _MARK.sub(r" \1 ", text)
    text = _POINT_AFTER.sub(r"\1 \2 ", text)
    text = _POINT_BEFORE.sub(r" \1 \2", text)
    return _DASH_AFTER_DIGIT.sub(r"\1 \2 ", text).split()


@lru_cache(maxsize=1)
def _international() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    number, punctuation, symbol = (character_class(c) for c in "NPS")
    return (
        re.compile(f"([^{number}])([{punctuation}])"),
        re.compile(f"([{punctuation}])([^{number}])"),
        re.compile(f"([{symbol}])"),
    )
