r"""Pre-tokenisation: a text is cut into words before byte pairs are merged, and no merge crosses a cut.

GPT-2's pattern needs a regex engine that knows ``\p{L}`` and ``\p{N}``::

    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+

which `tinyllm.text.patterns` spells for Python's `re`. Joined, its words are the text again. Later models cut by other
patterns (each digit alone, say), which their tokenizer.json tells: `PreTokenizer`. Source: Radford et al., "Language
Models are Unsupervised Multitask Learners" (2019), section 2.2, and the encoder published with it.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from tinyllm.errors import TokenizerError
from tinyllm.text.files import expect, field, only_known
from tinyllm.text.normalize import pattern_of
from tinyllm.text.patterns import compile_pattern
from tinyllm.text.unicode_classes import WHITE_SPACE, character_class

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

#: A piece of text, and whether it begins the whole text -> the pieces it is cut into.
Step = Callable[[str, bool], list[str]]


def gpt2_split(text: str) -> list[str]:
    """Cut `text` into GPT-2's words.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    list of str
        The words in order; ``"".join(words) == text``. ``"Hello, world"`` gives ``["Hello", ",", " world"]``.
    """
    return compile_pattern(GPT2_PATTERN, text.isascii()).findall(text)


@dataclass(frozen=True)
class PreTokenizer:
    """Text to words; `spec` is the ``pre_tokenizer`` of tokenizer.json that it came from."""

    spec: dict[str, Any] | None
    steps: tuple[Step, ...]

    def __call__(self, text: str, at_start: bool = True) -> list[str]:
        """The words of `text`; `at_start` says whether it begins the user's text."""
        words = [text]
        for step in self.steps:
            words = [part for n, word in enumerate(words) for part in step(word, at_start and n == 0)]
        return words

    @classmethod
    def from_spec(cls, spec: dict[str, Any] | None) -> PreTokenizer:
        """Read the ``pre_tokenizer`` of a tokenizer.json; without one, the text is one word.

        Raises
        ------
        TokenizerError
            For one that is not supported, by name, and for a damaged one.
        """
        return cls(spec, () if spec is None else tuple(step for part in parts_of(spec) for step in _steps(part)))


def parts_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The pre-tokenizers of a sequence, itself without sequences; a single one is a sequence of one."""
    if field(spec, "type", str, "pre_tokenizer") != "Sequence":
        return [spec]
    only_known(spec, {"type", "pretokenizers"}, "pre_tokenizer")
    inner = field(spec, "pretokenizers", list, "pre_tokenizer")
    return [part for n, one in enumerate(inner) for part in parts_of(expect(one, dict, f"pretokenizers[{n}]"))]


def _steps(spec: dict[str, Any]) -> list[Step]:
    kind = spec["type"]
    if kind not in _KINDS:
        raise TokenizerError(f"the pre-tokenizer {kind!r} is not supported; known: Sequence, {', '.join(_KINDS)}")
    known, make = _KINDS[kind]
    only_known(spec, {"type", *known}, "pre_tokenizer")
    return make(spec)


# Each kind of them ------------------------------------------------------------------------------------------------


def _byte_level(spec: dict[str, Any]) -> list[Step]:
    """GPT-2's own: perhaps a space before a text that has none, perhaps its pattern."""
    prefix = field(spec, "add_prefix_space", bool, "pre_tokenizer")
    steps: list[Step] = []
    if prefix:
        steps.append(lambda text, _: [text if text.startswith(" ") else " " + text])
    if expect(spec.get("use_regex", True), bool, "pre_tokenizer.use_regex"):
        steps.append(lambda text, _: gpt2_split(text))
    return steps


def _split(spec: dict[str, Any]) -> list[Step]:
    pattern = field(spec, "pattern", dict, "pre_tokenizer")
    behavior = field(spec, "behavior", str, "pre_tokenizer")
    invert = expect(spec.get("invert", False), bool, "pre_tokenizer.invert")
    compiled = pattern_of(pattern, "pre_tokenizer.pattern")
    short = compile_pattern(pattern["Regex"], ascii_only=True) if "Regex" in pattern else compiled
    return [_cutter(lambda text: short if text.isascii() else compiled, behavior, invert)]


def _digits(spec: dict[str, Any]) -> list[Step]:
    one = field(spec, "individual_digits", bool, "pre_tokenizer")
    return [_by(r"\p{N}" if one else r"\p{N}+", "Isolated")]


def _punctuation(spec: dict[str, Any]) -> list[Step]:
    marks = re.compile(f"[{re.escape(string.punctuation)}{character_class('P')}]")
    return [_cutter(lambda _: marks, expect(spec.get("behavior", "Isolated"), str, "pre_tokenizer.behavior"), False)]


def _bert(_: dict[str, Any]) -> list[Step]:
    """BERT's: words between white space, and every punctuation mark alone."""
    marks = re.escape(string.punctuation) + character_class("P")
    words = re.compile(f"[{marks}]|[^{WHITE_SPACE}{marks}]+")
    return [lambda text, _: words.findall(text)]


def _metaspace(spec: dict[str, Any]) -> list[Step]:
    """SentencePiece's: a space is a visible character, and a text may get one before it; cut before each."""
    space = field(spec, "replacement", str, "pre_tokenizer")
    # Files from before there were schemes have one flag.
    old = "always" if expect(spec.get("add_prefix_space", True), bool, "pre_tokenizer.add_prefix_space") else "never"
    scheme = expect(spec.get("prepend_scheme", old), str, "pre_tokenizer.prepend_scheme")
    if len(space) != 1 or "\ud800" <= space <= "\udfff" or scheme not in ("first", "always", "never"):
        raise TokenizerError(f"Metaspace with replacement {space!r} and prepend_scheme {scheme!r} is not supported")

    def replace(text: str, at_start: bool) -> list[str]:
        text = text.replace(" ", space)
        wanted = scheme == "always" or (scheme == "first" and at_start)
        return [space + text if wanted and not text.startswith(space) else text]

    if not expect(spec.get("split", True), bool, "pre_tokenizer.split"):
        return [replace]
    one = re.compile(re.escape(space))
    return [replace, _cutter(lambda _: one, "MergedWithNext", False)]


def _by(published: str, behavior: str, invert: bool = False) -> Step:
    return _cutter(lambda text: compile_pattern(published, text.isascii()), behavior, invert)


# For each kind: its settings, and what makes its steps.
_KINDS: dict[str, tuple[set[str], Callable[[dict[str, Any]], list[Step]]]] = {
    "ByteLevel": ({"add_prefix_space", "trim_offsets", "use_regex"}, _byte_level),
    "Split": ({"pattern", "behavior", "invert"}, _split),
    "Digits": ({"individual_digits"}, _digits),
    "Punctuation": ({"behavior"}, _punctuation),
    "BertPreTokenizer": (set(), _bert),
    "Metaspace": ({"replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"}, _metaspace),
    "Whitespace": (set(), lambda _: [_by(r"\w+|[^\w\s]+", "Removed", invert=True)]),
    "WhitespaceSplit": (set(), lambda _: [_by(r"\s", "Removed")]),
}

#: GPT-2's pre-tokenizer, as tokenizer.json writes it.
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
#: And BERT's.
BERT = {"type": "BertPreTokenizer"}


# Cutting at matches -----------------------------------------------------------------------------------------------


def _cutter(pattern: Callable[[str], re.Pattern[str]], behavior: str, invert: bool) -> Step:
    """A step that cuts at what the pattern matches; `invert` takes the rest for the matches."""
    if behavior not in _BEHAVIORS:
        raise TokenizerError(f"the behavior {behavior!r} is not supported; known: {', '.join(_BEHAVIORS)}")
    join = _BEHAVIORS[behavior]

    def cut(text: str, _: bool) -> list[str]:
        return join([(part, matched != invert) for part, matched in _segments(pattern(text), text)])

    return cut


def _segments(pattern: re.Pattern[str], text: str) -> Iterator[tuple[str, bool]]:
    """The matches and what lies between them, none of it empty, each with whether it is a match."""
    end = 0
    for match in pattern.finditer(text):
        if end < match.start():
            yield text[end : match.start()], False
        if match[0]:
            yield match[0], True
        end = match.end()
    if end < len(text):
        yield text[end:], False


Segments = list[tuple[str, bool]]


def _merged(segments: Segments, joins: Callable[[bool, bool], bool]) -> list[str]:
    """The segments, each joined to the one before where ``joins(before, this)`` of their matches says so."""
    words: list[str] = []
    before = False
    for part, matched in segments:
        if words and joins(before, matched):
            words[-1] += part
        else:
            words.append(part)
        before = matched
    return words


def _with_next(segments: Segments) -> list[str]:
    """As MergedWithPrevious, read from the end."""
    backwards = _merged([(part[::-1], matched) for part, matched in reversed(segments)], _to_previous)
    return [word[::-1] for word in reversed(backwards)]


def _to_previous(before: bool, this: bool) -> bool:
    return this and not before


_BEHAVIORS: dict[str, Callable[[Segments], list[str]]] = {
    "Isolated": lambda segments: [part for part, _ in segments],
    "Removed": lambda segments: [part for part, matched in segments if not matched],
    "Contiguous": partial(_merged, joins=lambda before, this: before == this),
    "MergedWithPrevious": partial(_merged, joins=_to_previous),
    "MergedWithNext": _with_next,
}
