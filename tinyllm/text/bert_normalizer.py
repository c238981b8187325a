"""What BERT does to a text before it is cut: control characters go, ideographs stand alone, accents and case go.

Every step looks at one character at a time, so that all of it is one table from characters to what replaces them; and
each character of the result is known to come from one of the text, which is how the place of a token is found again.

Source: Devlin et al. 2019 and the code published with it; in detail the normalizer of Hugging Face's ``tokenizers``.
Its classes of characters are those of Unicode 8, so a character assigned later may be treated otherwise there.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from tinyllm.errors import TokenizerError
from tinyllm.text.files import field
from tinyllm.text.unicode_classes import WHITE_SPACE

# The ideographs that BERT puts between spaces. (The gap after U+2B81F is a misprint of the publication that stayed.)
_IDEOGRAPH = re.compile(
    "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b81f\U0002b920-\U0002ceaf"
    "\U0002f800-\U0002fa1f]"
)
_SPACE = re.compile(f"[{WHITE_SPACE}]")
_FLAGS = ("clean_text", "handle_chinese_chars", "lowercase")


class BertTable(dict[int, str]):
    """From each character's number to what stands in its place, for ``str.translate``; filled as characters are met.

    Parameters
    ----------
    clean_text : bool
        Whether control characters, U+0000 and U+FFFD go, and every white space is one space.
    handle_chinese_chars : bool
        Whether there are spaces around ideographs.
    strip_accents : bool, optional
        Whether letters lose their marks; by default where they lose their case.
    lowercase : bool
    """

    def __init__(
        self,
        clean_text: bool = True,
        handle_chinese_chars: bool = True,
        strip_accents: bool | None = None,
        lowercase: bool = True,
    ) -> None:
        super().__init__()
        self.clean_text, self.handle_chinese_chars, self.lowercase = clean_text, handle_chinese_chars, lowercase
        self.strip_accents = strip_accents

    @classmethod
    def from_spec(cls, spec: dict[str, Any], where: str) -> BertTable:
        """Read the settings of a BertNormalizer in a tokenizer.json; TokenizerError where they are damaged."""
        flags = {name: field(spec, name, bool, where) for name in _FLAGS}
        accents = spec.get("strip_accents")
        if accents is not None and type(accents) is not bool:
            raise TokenizerError(f"'{where}.strip_accents' should be true, false or null, but is {accents!r}")
        return cls(strip_accents=accents, **flags)

    @property
    def spec(self) -> dict[str, Any]:
        """The ``normalizer`` of tokenizer.json."""
        flags = {name: getattr(self, name) for name in _FLAGS}
        return {"type": "BertNormalizer", **flags, "strip_accents": self.strip_accents}

    def __call__(self, text: str) -> str:
        """The normalised text."""
        return text.translate(self)

    def __missing__(self, code: int) -> str:
        new = self[code] = self._replaced(chr(code))
        return new

    def _replaced(self, char: str) -> str:
        if self.clean_text:
            if char in "\x00\ufffd" or (char not in "\t\n\r" and unicodedata.category(char) in ("Cc", "Cf", "Co")):
                return ""
            if _SPACE.match(char):
                return " "
        text = f" {char} " if self.handle_chinese_chars and _IDEOGRAPH.match(char) else char
        if self.lowercase if self.strip_accents is None else self.strip_accents:
            text = "".join([c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn"])
        # Each character alone, which knows no other sigma at a word's end.
        return "".join([c.lower() for c in text]) if self.lowercase else text
