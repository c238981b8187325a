"""What a tokenizer puts around a text or a pair of texts: ``[CLS] A [SEP] B [SEP]`` and the like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinyllm.errors import TokenizerError
from tinyllm.text.files import expect, field

#: A piece of a template: ``"A"`` or ``"B"`` for a text, or the ids of a special token.
Piece = str | tuple[int, ...]


@dataclass(frozen=True)
class Template:
    """The pieces around one text and around a pair; `spec` is the ``post_processor`` of tokenizer.json it came from."""

    single: tuple[Piece, ...]
    pair: tuple[Piece, ...]
    spec: dict[str, Any]

    @classmethod
    def from_spec(cls, spec: dict[str, Any] | None) -> Template | None:
        """Read the ``post_processor`` of a tokenizer.json; None where it adds no token.

        Raises
        ------
        TokenizerError
            For a post-processor that is not supported, by name, and for a damaged one.
        """
        if spec is None:
            return None
        kind = field(spec, "type", str, "post_processor")
        if kind == "ByteLevel":  # moves offsets only, never ids
            return None
        if kind != "TemplateProcessing":
            raise TokenizerError(f"the post-processor {kind!r} is not supported; known: ByteLevel, TemplateProcessing")
        ids = _special_ids(field(spec, "special_tokens", dict, "post_processor"))
        single = _pieces(field(spec, "single", list, "post_processor"), ids)
        pair = _pieces(field(spec, "pair", list, "post_processor"), ids)
        return cls(single, pair, spec)

    def apply(self, first: list[int], second: list[int] | None) -> list[int]:
        """The ids of the template with the texts' ids in their places."""
        texts = {"A": first, "B": second or []}
        ids: list[int] = []
        for piece in self.single if second is None else self.pair:
            ids += texts[piece] if isinstance(piece, str) else piece
        return ids


def _special_ids(specials: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    where = "post_processor.special_tokens"
    ids = {}
    for name, entry in specials.items():
        values = field(expect(entry, dict, f"{where}.{name}"), "ids", list, f"{where}.{name}")
        ids[name] = tuple(expect(value, int, f"{where}.{name}.ids") for value in values)
    return ids


def _pieces(items: list[Any], ids: dict[str, tuple[int, ...]]) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    for item in items:
        match item:
            case {"Sequence": {"id": "A" | "B" as text}}:
                pieces.append(text)
            case {"SpecialToken": {"id": str(name)}} if name in ids:
                pieces.append(ids[name])
            case _:
                raise TokenizerError(f"the post-processor's template has an unknown piece: {item!r}")
    return tuple(pieces)
