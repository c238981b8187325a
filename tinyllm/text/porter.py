"""Porter's stemmer: rules that take English endings off; `connected` and `connections` become one word (P-PREP)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

from tinyllm.errors import TokenizerError, nearest

Rule = tuple[str, str]

STEP_1A: tuple[Rule, ...] = (("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", ""))
# An ending that another one ends with comes after it: the longest that fits is the one that counts.
STEP_2: tuple[Rule, ...] = (
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("abli", "able"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
)
STEP_3: tuple[Rule, ...] = (
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
)
_STEP_4 = "al ance ence er ic able ible ant ement ment ent ion ou ism ate iti ous ive ize"
STEP_4 = tuple(_STEP_4.split())

# What NLTK added to the paper.
NLTK_STEP_2: tuple[Rule, ...] = (
    *((("bli", "ble") if ending == "abli" else (ending, becomes)) for ending, becomes in STEP_2),
    ("fulli", "ful"),
)
NLTK_WHOLE_WORDS = {
    "skies": "sky",
    "dying": "die",
    "lying": "lie",
    "tying": "tie",
    "innings": "inning",
    "outings": "outing",
    "cannings": "canning",
}
_UNCHANGED = ("sky", "news", "inning", "outing", "canning", "howe", "proceed", "exceed", "succeed")
NLTK_WHOLE_WORDS |= {word: word for word in _UNCHANGED}

MODES = ("paper", "nltk")


class PorterStemmer:
    """Stems of English words.

    Parameters
    ----------
    mode : {"paper", "nltk"}
        "paper" is the published algorithm. "nltk" has the changes that NLTK makes without being asked, which ROUGE
        scores are reported with: words of one or two letters stay, some words are looked up, `dies` and `died` become
        `die`, `enjoy` keeps its y, and more.

    Raises
    ------
    TokenizerError
        For another mode.

    Notes
    -----
    Source: Porter 1980, An algorithm for suffix stripping.

    Examples
    --------
    >>> stem = PorterStemmer().stem
    >>> [stem(word) for word in ("connected", "connections", "relational", "hopping", "skies")]
    ['connect', 'connect', 'relat', 'hop', 'ski']
    """

    def __init__(self, mode: Literal["paper", "nltk"] = "paper") -> None:
        if mode not in MODES:
            raise TokenizerError(f"the mode of the stemmer is {mode!r}{nearest(str(mode), MODES)}")
        self.mode = mode

    def stem(self, word: str) -> str:
        """The stem of one word, in lower case; it need not be a word itself.

        Parameters
        ----------
        word : str
            Letters that are not English count as consonants.

        Returns
        -------
        str
        """
        word = word.lower()
        nltk = self.mode == "nltk"
        if nltk and (len(word) <= 2 or word in NLTK_WHOLE_WORDS):
            return NLTK_WHOLE_WORDS.get(word, word)
        if nltk and len(word) == 4 and word.endswith("ies"):
            word = word[:-1]
        else:
            word = _replace(word, STEP_1A, lambda stem: True)
        word = self._step_1b(word)
        if word.endswith("y"):
            stem = word[:-1]
            if (len(stem) > 1 and _consonants(stem)[-1]) if nltk else has_vowel(stem):
                word = stem + "i"
        word = self._step_2(word)
        word = _replace(word, STEP_3, lambda stem: measure(stem) > 0)
        for ending in STEP_4:
            if word.endswith(ending):
                stem = word[: -len(ending)]
                if measure(stem) > 1 and (ending != "ion" or stem[-1] in "st"):
                    word = stem
                break
        return self._step_5(word)

    def _step_1b(self, word: str) -> str:
        """-eed, -ed and -ing; the stem of the last two is mended where the ending had changed it."""
        if self.mode == "nltk" and word.endswith("ied"):
            return word[:-1] if len(word) == 4 else word[:-2]
        if word.endswith("eed"):
            return word[:-1] if measure(word[:-3]) > 0 else word
        stem = word[:-2] if word.endswith("ed") else word[:-3] if word.endswith("ing") else ""
        if not has_vowel(stem):
            return word
        if stem.endswith(("at", "bl", "iz")):
            return stem + "e"
        if _ends_double(stem):
            return stem if stem[-1] in "lsz" else stem[:-1]
        return stem + "e" if measure(stem) == 1 and self._ends_short(stem) else stem

    def _step_2(self, word: str) -> str:
        def long_enough(stem: str) -> bool:
            return measure(stem) > 0

        if self.mode == "paper":
            return _replace(word, STEP_2, long_enough)
        if word.endswith("alli") and long_enough(word[:-4]):
            return self._step_2(word[:-2])  # first -ally, then what stood before it
        if word.endswith("logi"):
            return word[:-1] if long_enough(word[:-3]) else word
        return _replace(word, NLTK_STEP_2, long_enough)

    def _step_5(self, word: str) -> str:
        """A last -e, and one l of two."""
        if word.endswith("e"):
            m = measure(word[:-1])
            if m > 1 or (m == 1 and not self._ends_short(word[:-1])):
                word = word[:-1]
        return word[:-1] if word.endswith("ll") and measure(word[:-1]) > 1 else word

    def _ends_short(self, stem: str) -> bool:
        """The paper's *o: consonant, vowel, consonant other than w, x, y (-wil, -hop)."""
        c = _consonants(stem)
        if self.mode == "nltk" and len(stem) == 2:
            return not c[0] and c[1]
        return len(stem) >= 3 and c[-3] and not c[-2] and c[-1] and stem[-1] not in "wxy"


def measure(stem: str) -> int:
    """The paper's m: how often a consonant follows a vowel. tree 0, trouble 1, oaten 2."""
    c = _consonants(stem)
    return sum(not before and after for before, after in pairwise(c))


def has_vowel(stem: str) -> bool:
    """The paper's *v*."""
    return not all(_consonants(stem))


def _consonants(stem: str) -> list[bool]:
    """Which letters are consonants: all but a, e, i, o, u, and y after a consonant."""
    found: list[bool] = []
    for letter in stem:
        found.append(letter not in "aeiou" and not (letter == "y" and bool(found) and found[-1]))
    return found


def _ends_double(stem: str) -> bool:
    """The paper's *d: two equal consonants."""
    return len(stem) > 1 and stem[-1] == stem[-2] and _consonants(stem)[-1]


def _replace(word: str, rules: tuple[Rule, ...], condition: Callable[[str], bool]) -> str:
    """The first rule whose ending fits decides, whether its condition holds or not."""
    for ending, becomes in rules:
        if word.endswith(ending):
            stem = word[: len(word) - len(ending)]
            return stem + becomes if condition(stem) else word
    return word
