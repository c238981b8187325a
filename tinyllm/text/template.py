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
        adding = [part for part in _parts(spec) if part["type"] != "ByteLevel"]  # which moves offsets only, never ids
        if len(adding) > 1:
            raise TokenizerError(f"a post-processor of {len(adding)} parts that add tokens is not supported, only one")
        if not adding:
            return None
        part, kind = adding[0], adding[0]["type"]
        if kind in ("BertProcessing", "RobertaProcessing"):
            cls_, sep = (_named_id(part, name) for name in ("cls", "sep"))
            between = (sep, sep) if kind == "RobertaProcessing" else (sep,)
            return cls((cls_, "A", sep), (cls_, "A", *between, "B", sep), spec)
        if kind != "TemplateProcessing":
            raise TokenizerError(
                f"the post-processor {kind!r} is not supported; known: BertProcessing, ByteLevel, RobertaProcessing, "
                "Sequence, TemplateProcessing"
            )
        ids = _special_ids(field(part, "special_tokens", dict, "post_processor"))
        single = _pieces(field(part, "single", list, "post_processor"), ids)
        pair = _pieces(field(part, "pair", list, "post_processor"), ids)
        return cls(single, pair, spec)

    def apply(self, first: list[int], second: list[int] | None) -> list[int]:
        """The ids of the template with the texts' ids in their places."""
        texts = {"A": first, "B": second or []}
        ids: list[int] = []
        for piece in self.single if second is None else self.pair:
            ids += texts[piece] if isinstance(piece, str) else piece
        return ids


def _parts(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The post-processors of a sequence, itself without sequences; a single one is a sequence of one."""
    if field(spec, "type", str, "post_processor") != "Sequence":
        return [spec]
    inner = field(spec, "processors", list, "post_processor")
    return [part for n, one in enumerate(inner) for part in _parts(expect(one, dict, f"processors[{n}]"))]


def _named_id(spec: dict[str, Any], name: str) -> tuple[int]:
    """The id of a token that is written ``["[CLS]", 101]``."""
    match spec.get(name):
        case [str(), int(index)] if type(index) is int:
            return (index,)
    raise TokenizerError(f"'post_processor.{name}' should be a token and its id")


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
