"""What a tokenizer.json does to a text before it is cut: the ``normalizer``."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tinyllm.errors import TokenizerError
from tinyllm.text.bert_normalizer import BertTable
from tinyllm.text.files import field, only_known
from tinyllm.text.patterns import compile_pattern
from tinyllm.text.unicode_classes import strip_left, strip_right

Step = Callable[[str], str]


@dataclass(frozen=True)
class Normalizer:
    """Text to text, step by step; `spec` is the ``normalizer`` of tokenizer.json that it came from."""

    spec: dict[str, Any]
    steps: tuple[Step, ...]

    def __call__(self, text: str) -> str:
        """The normalised text."""
        for step in self.steps:
            text = step(text)
        return text

    @classmethod
    def from_spec(cls, spec: dict[str, Any] | None) -> Normalizer | None:
        """Read the ``normalizer`` of a tokenizer.json; None where there is none.

        Raises
        ------
        TokenizerError
            For a normalizer that is not supported, by name, and for a damaged one.
        """
        return None if spec is None else cls(spec, tuple(_steps(spec, "normalizer")))


def _steps(spec: dict[str, Any], where: str) -> list[Step]:
    kind = field(spec, "type", str, where)
    if kind == "Sequence":
        only_known(spec, {"type", "normalizers"}, where)
        parts = field(spec, "normalizers", list, where)
        return [step for n, part in enumerate(parts) for step in _steps(_object(part, where, n), f"{where}[{n}]")]
    if kind == "BertNormalizer":
        only_known(spec, {"type", "clean_text", "handle_chinese_chars", "strip_accents", "lowercase"}, where)
        return [BertTable.from_spec(spec, where)]
    if kind not in _KINDS:
        known = ", ".join(sorted(["BertNormalizer", "Sequence", *_KINDS]))
        raise TokenizerError(f"the {where} {kind!r} is not supported; known: {known}")
    keys, make = _KINDS[kind]
    only_known(spec, {"type", *keys}, where)
    return [make(*(field(spec, name, kind_, where) for name, kind_ in keys.items()))]


def _object(value: Any, where: str, n: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TokenizerError(f"'{where}[{n}]' should be an object")
    return value


def pattern_of(spec: dict[str, Any], where: str) -> re.Pattern[str]:
    """The compiled ``{"String": ...}`` or ``{"Regex": ...}`` of a tokenizer.json."""
    match spec:
        case {"String": str(text), **rest} if text and not rest:
            return re.compile(re.escape(text))
        case {"Regex": str(text), **rest} if text and not rest:
            return compile_pattern(text)
    raise TokenizerError(f"{where!r} should be an object with a String or a Regex that is not empty")


def _replace(pattern: dict[str, Any], content: str) -> Step:
    compiled = pattern_of(pattern, "normalizer.pattern")
    return lambda text: compiled.sub(lambda _: content, text)


def _strip(left: bool, right: bool) -> Step:
    def strip(text: str) -> str:
        text = strip_left(text) if left else text
        return strip_right(text) if right else text

    return strip


def _form(name: str) -> Step:
    return partial(unicodedata.normalize, name)  # type: ignore[arg-type]


def _lower(text: str) -> str:
    return "".join([char.lower() for char in text])  # each alone: no other form for a sigma at a word's end


def _without_accents(text: str) -> str:
    return "".join([char for char in text if not unicodedata.category(char).startswith("M")])


# For each kind: its settings with their types, and what makes the step of them.
_KINDS: dict[str, tuple[dict[str, type], Callable[..., Step]]] = {
    "NFC": ({}, partial(_form, "NFC")),
    "NFD": ({}, partial(_form, "NFD")),
    "NFKC": ({}, partial(_form, "NFKC")),
    "NFKD": ({}, partial(_form, "NFKD")),
    "Lowercase": ({}, lambda: _lower),
    "StripAccents": ({}, lambda: _without_accents),
    "Strip": ({"strip_left": bool, "strip_right": bool}, _strip),
    "Prepend": ({"prepend": str}, lambda prefix: lambda text: prefix + text if text else text),
    "Replace": ({"pattern": dict, "content": str}, _replace),
}
