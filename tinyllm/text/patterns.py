r"""The patterns in tokenizer.json, spelt for Python's `re`.

They are written for Oniguruma: ``[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|...``. `re` has no ``\p{L}``, and its ``\s`` and
``\w`` are not Unicode's, so each class is written out. What has another meaning there, or may take forever on a text
that is made for it, is refused.
"""

from __future__ import annotations

import re
from functools import lru_cache

from tinyllm.errors import TokenizerError
from tinyllm.text.unicode_classes import CATEGORIES, WHITE_SPACE, character_class, complement, of_ascii

_GROUPS = ("(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>")
_PLAIN_ESCAPES = {"r": r"\r", "n": r"\n", "t": r"\t", "f": r"\f", "v": r"\v"}
_HEX = re.compile(r"\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}")
_PROPERTY = re.compile(r"\\([pP])\{(\^?)(\w+)\}")
_REPEAT = re.compile(r"[*+?]|\{\d{0,3},?\d{0,3}\}")


@lru_cache(maxsize=64)
def compile_pattern(published: str, ascii_only: bool = False) -> re.Pattern[str]:
    """The compiled pattern.

    Parameters
    ----------
    published : str
        As in tokenizer.json.
    ascii_only : bool
        For texts of ASCII alone, for which the classes are short and matching is faster.

    Raises
    ------
    TokenizerError
        For a pattern that is damaged, or has something that is not known here.
    """
    try:
        return re.compile(_Translation(published, ascii_only).text)
    except (re.error, OverflowError, RecursionError) as error:
        raise TokenizerError(f"the pattern {published!r} is not a regular expression ({error})") from None


class _Translation:
    """One pattern on its way to Python; `text` is the result."""

    def __init__(self, published: str, ascii_only: bool) -> None:
        self.published, self.ascii_only, self.at = published, ascii_only, 0
        # For each open group, whether a repetition or a choice is in it: (a+)+ and (a|aa)+ have exponentially many ways
        # to match, which `re` tries one by one.
        self.loose = [False]
        done: list[str] = []
        while self.at < len(published):
            done.append(self._next())
        self.text = "".join(done)

    def _refuse(self, what: str) -> TokenizerError:
        return TokenizerError(f"the pattern {self.published!r} has {what} at character {self.at}: not supported")

    def _next(self) -> str:
        """One element of the pattern, with the repetition that follows it."""
        rest = self.published[self.at :]
        char = rest[0]
        if char == "(":
            return self._open(rest)
        if char in "*+?":
            raise self._refuse(f"a repetition {char!r} of nothing")
        if char in "^$":
            raise self._refuse(f"the anchor {char!r}")
        if char == "|":
            self.at += 1
            self.loose[-1] = True
            return char
        if char == ")":
            return self._close()
        if char == "[":
            return self._bracket() + self._repeat(again=True)
        if char == "\\":
            negated, inside = self._escape()
            return f"[{'^' if negated else ''}{inside}]" + self._repeat(again=True)
        self.at += 1
        return ("." if char == "." else re.escape(char)) + self._repeat(again=True)

    def _open(self, rest: str) -> str:
        """A group's beginning. None of them captures: `re.findall` would give the group in place of the match."""
        opening = "(" if not rest.startswith("(?") else next((g for g in _GROUPS if rest.startswith(g)), None)
        if opening is None:
            raise self._refuse(f"the group {rest[:4]!r}")
        self.at += len(opening)
        self.loose.append(False)
        return "(?:" if opening == "(" else opening

    def _close(self) -> str:
        self.at += 1
        loose = self.loose.pop()
        if not self.loose:
            raise self._refuse("a ')' without its '('")
        repeat = self._repeat(again=not loose)
        self.loose[-1] |= loose
        return ")" + repeat

    def _repeat(self, again: bool) -> str:
        """What says how often the last element comes; ``?`` alone where it may not come again and again."""
        match = _REPEAT.match(self.published, self.at)
        if match is None:
            return ""
        repeat = match[0]
        if repeat != "?" and not again:
            raise self._refuse(f"the repetition {repeat!r} of a choice or a repetition, which may never end,")
        self.at = match.end()
        self.loose[-1] = True
        how = self.published[self.at : self.at + 1]
        if how and how in "?+":  # as few as possible, or never given back
            if repeat[0] == "{":
                raise self._refuse(f"the repetition {repeat + how!r}")
            self.at += 1
            return repeat + how
        if how == "*":
            raise self._refuse("a repetition of a repetition")
        return repeat

    def _bracket(self) -> str:
        """``[...]`` with its classes written out."""
        start = self.at
        self.at += 1
        negated = self.published.startswith("^", self.at)
        self.at += negated
        inside: list[str] = []
        while not self.published.startswith("]", self.at) or not inside:
            if self.at >= len(self.published):
                self.at = start
                raise self._refuse("a '[' without its ']'")
            char = self.published[self.at]
            if char == "[" or self.published.startswith("&&", self.at):
                raise self._refuse(f"{char!r} inside brackets")
            if char == "\\":
                without, chars = self._escape()
                inside.append(complement(chars, self.ascii_only) if without else chars)
            else:
                self.at += 1
                inside.append("-" if char == "-" else re.escape(char))
        self.at += 1
        return f"[{'^' if negated else ''}{''.join(inside)}]"

    def _escape(self) -> tuple[bool, str]:
        """What a backslash begins: whether it stands for all other characters, and the inside of a bracket."""
        found = _PROPERTY.match(self.published, self.at)
        if found:
            if found[3] not in CATEGORIES:
                raise self._refuse(f"the class {found[0]!r}")
            self.at = found.end()
            return (found[1] == "P") != bool(found[2]), self._chars(character_class(found[3]))
        code = _HEX.match(self.published, self.at)
        if code:
            self.at = code.end()
            return False, re.escape(chr(int(code[0][2:], 16)))
        char = self.published[self.at + 1 : self.at + 2]
        classes = {
            "s": lambda: WHITE_SPACE,
            "d": lambda: character_class("Nd"),
            "w": lambda: character_class("L", "M", "N", "Pc"),
        }
        if char.lower() in classes and char:
            self.at += 2
            return char.isupper(), self._chars(classes[char.lower()]())
        if char in _PLAIN_ESCAPES:
            self.at += 2
            return False, _PLAIN_ESCAPES[char]
        if not char or char.isalnum():
            raise self._refuse(f"the escape {chr(92) + char!r}")
        self.at += 2
        return False, re.escape(char)

    def _chars(self, inside: str) -> str:
        return of_ascii(inside) if self.ascii_only else inside
