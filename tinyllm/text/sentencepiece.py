"""SentencePiece's kind of byte-pair encoding, that of Llama 2 and Mistral: the pieces are characters, not bytes.

A space is the visible character U+2581 (``▁``), and a text usually gets one before it. A character that is in no piece
is written by one piece for each of its bytes, ``<0xE4>`` (byte fallback), or by the unknown token. Source: Kudo and
Richardson, "SentencePiece" (2018), section 3.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from tinyllm.errors import TokenizerError
from tinyllm.text.bpe import read_merges
from tinyllm.text.files import expect, field, only_known, vocabulary
from tinyllm.text.merges import merge_word
from tinyllm.text.normalize import Normalizer
from tinyllm.text.pretokenize import PreTokenizer
from tinyllm.text.template import Template
from tinyllm.text.tokenizer import AddedToken, Tokenizer, refuse_surrogates
from tinyllm.text.word_cache import WordCache

SPACE = "▁"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_UNSUPPORTED = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
_MODEL_KEYS = {"type", "vocab", "merges", "unk_token", "fuse_unk", "byte_fallback", "ignore_merges", *_UNSUPPORTED}

_REPLACE = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
_STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
#: Llama 2's way to put a space before a text and to make every space visible, as tokenizer.json writes it.
PREPEND: dict[str, Any] = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": SPACE},
        {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
    ],
}
#: And the way back.
DECODER: dict[str, Any] = {
    "type": "Sequence",
    "decoders": [_REPLACE, {"type": "ByteFallback"}, {"type": "Fuse"}, _STRIP],
}


class SentencePieceBPE(Tokenizer):
    """BPE over characters. Make one with ``load_tokenizer``, or of a SentencePiece model's pieces with `from_scores`.

    Parameters
    ----------
    vocab : mapping of str to int
        Each piece with its id; added tokens may be among them.
    ranks : mapping of (str, str) to (float, str)
        For a pair of pieces that merges: its rank (the smallest is merged first), and the merged piece.
    added, template, roles, normalizer : optional
        As for `Tokenizer`; the role ``unk_token`` is for a character that has no piece, nor pieces for its bytes.
    pre_tokenizer : PreTokenizer, optional
        What cuts a text into words; without it, all of it is one word.
    decoder : dict, optional
        The ``decoder`` of tokenizer.json. Llama 2's by default, which drops one space before a text.
    byte_fallback : bool
        Whether a character may be written by its bytes.
    fuse_unk : bool
        Whether unknown characters side by side are one unknown token.
    ignore_merges : bool
        Whether a word that is a piece is taken whole, without asking the merges.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        ranks: Mapping[tuple[str, str], tuple[float, str]],
        added: Sequence[AddedToken] = (),
        template: Template | None = None,
        roles: Mapping[str, str] | None = None,
        *,
        normalizer: Normalizer | None = None,
        pre_tokenizer: PreTokenizer | None = None,
        decoder: dict[str, Any] | None = None,
        byte_fallback: bool = True,
        fuse_unk: bool = True,
        ignore_merges: bool = False,
    ) -> None:
        super().__init__(vocab, added, template, roles, normalizer)
        self.pre_tokenizer = pre_tokenizer or PreTokenizer.from_spec(None)
        self.ranks = dict(ranks)
        self.byte_fallback, self.fuse_unk, self.ignore_merges = byte_fallback, fuse_unk, ignore_merges
        self._decoder = decoder or DECODER
        self._space, self._bytes_back, self._strip = _way_back(self._decoder)
        self._ranks = {}
        for (left, right), (rank, merged) in self.ranks.items():
            for piece in (left, right, merged):
                if piece not in self._ids:
                    raise TokenizerError(f"the merge of {left!r} with {right!r} needs {piece!r}, which has no id")
            self._ranks[self._ids[left], self._ids[right]] = rank, self._ids[merged]
        self._byte_ids = [self._ids.get(f"<0x{byte:02X}>") for byte in range(256)]
        # Where no piece has a space after something else, no merge crosses the place before a space: a text may be cut
        # there without changing its ids, and most of what is cut out will come again.
        crossing = any(SPACE in merged.lstrip(SPACE) for _, merged in self.ranks.values())
        whole = ignore_merges or crossing or SPACE not in self._ids
        self._word = re.compile(r"(?s:.)+" if whole else f"{SPACE}*[^{SPACE}]+|{SPACE}+")
        self._cache = WordCache(self._encode_word)

    @classmethod
    def from_scores(
        cls,
        pieces: Sequence[str],
        scores: Sequence[float],
        added: Sequence[AddedToken] = (),
        template: Template | None = None,
        roles: Mapping[str, str] | None = None,
        add_prefix_space: bool = True,
    ) -> Self:
        """Make the tokenizer of a SentencePiece BPE model: of all pairs that make a piece, the best score merges first.

        Parameters
        ----------
        pieces : sequence of str
            The piece of each id.
        scores : sequence of float
            Of each piece; the highest is merged first, of equal ones the leftmost in the text.
        added, template, roles
            As for `Tokenizer`.
        add_prefix_space : bool
            Whether a text gets a space before it.

        Raises
        ------
        TokenizerError
            If a piece comes twice, or the numbers of pieces and scores differ.
        """
        vocab = {piece: index for index, piece in enumerate(pieces)}
        if len(vocab) != len(pieces) or len(scores) != len(pieces):
            raise TokenizerError(f"{len(pieces)} pieces, of which {len(vocab)} differ, have {len(scores)} scores")
        if not all(isinstance(score, int | float) and math.isfinite(score) for score in scores):
            raise TokenizerError("the score of a piece is not a finite number")
        special = {token.content for token in added}
        ranks: dict[tuple[str, str], tuple[float, str]] = {}
        for piece, score in zip(pieces, scores, strict=True):
            if piece in special or _BYTE.fullmatch(piece) or len(piece) > _LONGEST:
                continue
            for cut in range(1, len(piece)):
                left, right = piece[:cut], piece[cut:]
                if left in vocab and right in vocab:
                    ranks[left, right] = -score, piece
        normalizer = PREPEND if add_prefix_space else PREPEND["normalizers"][1]
        decoder = DECODER if add_prefix_space else {**DECODER, "decoders": DECODER["decoders"][:-1]}
        return cls(vocab, ranks, added, template, roles, normalizer=Normalizer.from_spec(normalizer), decoder=decoder)

    @classmethod
    def from_spec(
        cls, spec: dict[str, Any], added: Sequence[AddedToken], template: Template | None, roles: Mapping[str, str]
    ) -> Self:
        """Make the tokenizer of a tokenizer.json with a BPE model over characters.

        Raises
        ------
        TokenizerError
            For a setting that is not supported, by name, and for a damaged file.
        """
        model = field(spec, "model", dict)
        only_known(model, _MODEL_KEYS, "model")
        for name in _UNSUPPORTED:
            if model.get(name):
                raise TokenizerError(f"'model.{name}' = {model[name]!r} is not supported by BPE over characters here")
        vocab = vocabulary(field(model, "vocab", dict, "model"), "model.vocab")
        unk = model.get("unk_token")
        if unk is not None:
            roles = {**roles, "unk_token": expect(unk, str, "model.unk_token")}
        merges = read_merges(field(model, "merges", list, "model"), "'model.merges'")
        cut = spec.get("pre_tokenizer")
        return cls(
            vocab,
            {pair: (rank, pair[0] + pair[1]) for rank, pair in enumerate(merges)},
            added,
            template,
            roles,
            normalizer=Normalizer.from_spec(spec.get("normalizer")),
            pre_tokenizer=PreTokenizer.from_spec(cut if cut is None else expect(cut, dict, "pre_tokenizer")),
            decoder=field(spec, "decoder", dict),
            **{
                name: expect(model.get(name, False), bool, f"model.{name}")
                for name in ("byte_fallback", "fuse_unk", "ignore_merges")
            },
        )

    def _encode_piece(self, text: str, offset: int) -> list[int]:
        refuse_surrogates(text, offset)
        pieces = self.pre_tokenizer(text, offset == 0)
        return self._cache.ids(word for piece in pieces for word in self._word.findall(piece))

    def _encode_word(self, word: str) -> list[int]:
        if self.ignore_merges and (whole := self._ids.get(word)) is not None:
            return [whole]
        ids: list[int] = []
        unknown = False  # whether the character before was unknown
        for char in word:
            found = self._character(char)
            if found is not None:
                ids += found
            elif self.unk_token_id is None:
                raise TokenizerError(f"the vocabulary has no piece for {char!r} (U+{ord(char):04X}), nor for its bytes")
            elif not (unknown and self.fuse_unk):
                ids.append(self.unk_token_id)
            unknown = found is None
        return merge_word(ids, self._ranks)

    def _character(self, char: str) -> list[int] | None:
        """The ids of a character before merging; None where it is unknown."""
        known = self._ids.get(char)
        if known is not None:
            return [known]
        if self.byte_fallback:
            ids = [index for byte in char.encode("utf-8") if (index := self._byte_ids[byte]) is not None]
            if len(ids) == len(char.encode("utf-8")):
                return ids
        return None

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids; each byte of what is no UTF-8, as in the middle of a character, becomes U+FFFD."""
        return self._stripped("".join(_shown(part) for part in self._parts(self._kept(ids, skip_special_tokens))))

    def _join(self, ids: Iterable[int]) -> bytes:
        parts = self._parts(ids)
        whole = b"".join(part if isinstance(part, bytes) else part.encode("utf-8") for part in parts)
        return whole[1:] if self._strip == "one" and whole.startswith(b" ") else whole

    def _stripped(self, text: str) -> str:
        return text[1:] if self._strip == "one" and text.startswith(" ") else text

    def _parts(self, ids: Iterable[int]) -> Iterator[str | bytes]:
        """The text of each piece; pieces that stand for bytes and lie side by side are one part, of bytes."""
        pieces = (self._tokens[index] for index in ids)
        numbered = enumerate(pieces)
        for is_byte, run in itertools.groupby(numbered, self._is_byte):
            if is_byte:
                yield bytes(int(piece[3:5], 16) for _, piece in run)
                continue
            for place, piece in run:
                first = place == 0 and self._strip == "first"
                yield piece.replace(SPACE, "" if first else " ") if self._space else piece

    def _is_byte(self, numbered: tuple[int, str]) -> bool:
        return self._bytes_back and _BYTE.fullmatch(numbered[1]) is not None

    def _spec(self) -> dict[str, Any]:
        order = sorted(self.ranks, key=lambda pair: self.ranks[pair][0])
        model = {
            "type": "BPE",
            "dropout": None,
            "unk_token": self.roles.get("unk_token"),
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": self.fuse_unk,
            "byte_fallback": self.byte_fallback,
            "ignore_merges": self.ignore_merges,
            "vocab": self._ids,
            "merges": [list(pair) for pair in order],
        }
        return {"pre_tokenizer": self.pre_tokenizer.spec, "decoder": self._decoder, "model": model}


_LONGEST = 1024  # characters of a piece that others merge into; SentencePiece's own limit is 16 by default


def _shown(part: str | bytes) -> str:
    if isinstance(part, str):
        return part
    try:
        return part.decode("utf-8")
    except UnicodeDecodeError:
        return "\ufffd" * len(part)


def _way_back(decoder: dict[str, Any]) -> tuple[bool, bool, str]:
    """What a decoder does: whether ``▁`` is a space, whether ``<0xE4>`` is a byte, and which space it drops.

    That is "one" before the text, those of the "first" piece, or "none".
    """
    steps = field(decoder, "decoders", list, "decoder") if decoder.get("type") == "Sequence" else [decoder]
    space = bytes_back = False
    strip = "none"
    for step in steps:
        kind = step.get("type") if isinstance(step, dict) else None
        if step == _REPLACE:
            space = True
        elif kind == "Metaspace" and step.get("replacement") == SPACE:
            space = True
            old = "always" if step.get("add_prefix_space", True) else "never"
            strip = "none" if step.get("prepend_scheme", old) == "never" else "first"
        elif step == _STRIP:
            strip = "one"
        elif kind == "ByteFallback":
            bytes_back = True
        elif kind != "Fuse":
            raise TokenizerError(
                f"the decoder {kind!r} is not supported as it is given; known: ByteFallback, Fuse, Metaspace, "
                f"Replace of {SPACE!r} by a space, Strip of one space before the text"
            )
    return space, bytes_back, strip
