"""Tokenizers that cut a text into units and look each unit up in a list of known ones: characters, words."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

from tinyllm.errors import TokenizerError
from tinyllm.text.files import field, only_known, vocabulary
from tinyllm.text.template import Template
from tinyllm.text.tokenizer import AddedToken, Tokenizer, append_tokens


class VocabularyTokenizer(Tokenizer):
    """A tokenizer whose tokens are the units of the text themselves; arguments as `Tokenizer`.

    A unit that is not in the vocabulary becomes the ``unk_token``; where there is none, `encode` raises.
    """

    #: What stands between two decoded units.
    glue: ClassVar[str]
    #: What a unit is called in messages.
    unit: ClassVar[str]

    @classmethod
    @abstractmethod
    def pre_tokenizer(cls) -> dict[str, Any]:
        """The ``pre_tokenizer`` of tokenizer.json that cuts as `_units` does."""

    @classmethod
    @abstractmethod
    def decoder(cls) -> dict[str, Any] | None:
        """The ``decoder`` of tokenizer.json that joins as `glue` does."""

    @abstractmethod
    def _units(self, text: str) -> Iterator[tuple[int, str]]:
        """The units of a text, each with its offset."""

    @classmethod
    def from_spec(
        cls, spec: dict[str, Any], added: Sequence[AddedToken], template: Template | None, roles: Mapping[str, str]
    ) -> Self:
        """Make the tokenizer of a tokenizer.json with a WordLevel model."""
        model = field(spec, "model", dict)
        only_known(model, {"type", "vocab", "unk_token"}, "model")
        vocab = vocabulary(field(model, "vocab", dict, "model"), "model.vocab")
        unk = field(model, "unk_token", str, "model")
        return cls(vocab, added, template, {**roles, "unk_token": unk} if unk in vocab else roles)

    @classmethod
    def _from_units(cls, units: list[str], special_tokens: Iterable[str], unk_token: str | None) -> Self:
        vocab = {unit: index for index, unit in enumerate(units)}
        named = [*special_tokens]
        if unk_token is not None and unk_token not in named:
            named.append(unk_token)
        return cls(vocab, append_tokens(vocab, named), roles={"unk_token": unk_token} if unk_token is not None else {})

    def _encode_piece(self, text: str, offset: int) -> list[int]:
        unk = self.unk_token_id
        ids = [self._ids.get(unit, unk) for _, unit in self._units(text)]
        if None in ids:
            place, unit = next((place, unit) for place, unit in self._units(text) if unit not in self._ids)
            code = f" (U+{ord(unit):04X})" if len(unit) == 1 else ""
            raise TokenizerError(
                f"the {self.unit} {unit!r}{code} at offset {offset + place} is not among the {len(self._ids)} that "
                f"this tokenizer knows; leave it out, or train with unk_token='<unk>' or on text that has it"
            )
        return [index for index in ids if index is not None]

    def _join(self, ids: Iterable[int]) -> bytes:
        return self.glue.join([self._tokens[index] for index in ids]).encode("utf-8")

    def _spec(self) -> dict[str, Any]:
        # An empty unk_token is in no vocabulary: an unknown unit is an error to the other library as well.
        model = {"type": "WordLevel", "vocab": self._ids, "unk_token": self.roles.get("unk_token", "")}
        return {"pre_tokenizer": self.pre_tokenizer(), "decoder": self.decoder(), "model": model}
