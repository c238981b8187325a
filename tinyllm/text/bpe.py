"""Byte-level byte-pair encoding, GPT-2's tokenizer: any string is bytes, frequent runs of bytes are tokens.

Llama 3, Qwen, SmolLM2 and others differ from it in how a text is cut into words before (`PreTokenizer`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tinyllm.errors import TokenizerError
from tinyllm.text.bpe_train import train_merges
from tinyllm.text.bytes_alphabet import ALPHABET, SYMBOLS, read_bytes, write_bytes
from tinyllm.text.files import describe, expect, field, only_known, read_json_object, read_text, vocabulary
from tinyllm.text.merges import merge_word
from tinyllm.text.normalize import Normalizer
from tinyllm.text.pretokenize import BYTE_LEVEL, PreTokenizer, gpt2_split
from tinyllm.text.template import Template
from tinyllm.text.tokenizer import AddedToken, Tokenizer, append_tokens, as_texts, cut_at, encodable, refuse_surrogates
from tinyllm.text.word_cache import WordCache

_UNSUPPORTED = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
_MODEL_KEYS = {"type", "vocab", "merges", "unk_token", "fuse_unk", "ignore_merges", *_UNSUPPORTED}
_DECODER = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


class ByteLevelBPE(Tokenizer):
    """Byte-level BPE, by default with GPT-2's words. Make one with `train`, `from_pair` or ``load_tokenizer``.

    Parameters
    ----------
    vocab : mapping of str to int
        Each token, written in GPT-2's byte alphabet, with its id; added tokens may be among them.
    merges : sequence of (str, str)
        The pairs of tokens that merge, in order, written in the same way.
    added : sequence of AddedToken
        The tokens that are found in the text first, such as ``<|endoftext|>``.
    template : Template, optional
        What `encode` puts around the texts.
    roles : mapping of str to str, optional
        As for `Tokenizer`.
    normalizer : Normalizer, optional
        As for `Tokenizer`.
    pre_tokenizer : PreTokenizer, optional
        What cuts a text into words; by default GPT-2's pattern.
    ignore_merges : bool
        Whether a word that is a token is taken whole, without asking the merges.

    Examples
    --------
    >>> tok = ByteLevelBPE.train(["aaabdaaabac"], vocab_size=259)
    >>> tok.encode("aaabdaaabac")
    [258, 100, 258, 97, 99]
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        added: Sequence[AddedToken] = (),
        template: Template | None = None,
        roles: Mapping[str, str] | None = None,
        *,
        normalizer: Normalizer | None = None,
        pre_tokenizer: PreTokenizer | None = None,
        ignore_merges: bool = False,
    ) -> None:
        super().__init__(vocab, added, template, roles, normalizer)
        self.merges = list(merges)
        self.pre_tokenizer = pre_tokenizer or PreTokenizer.from_spec(BYTE_LEVEL)
        self.ignore_merges = ignore_merges
        self._byte_ids = [self._ids.get(symbol) for symbol in SYMBOLS]
        ids = self._ids
        try:
            self._ranks = {(ids[a], ids[b]): (rank, ids[a + b]) for rank, (a, b) in enumerate(merges)}
        except KeyError as error:
            rank, pair = next((n, pair) for n, pair in enumerate(merges) if not {*pair, "".join(pair)} <= ids.keys())
            raise TokenizerError(
                f"merge {rank}, {pair[0]!r} with {pair[1]!r}, needs {error}, which has no id"
            ) from None
        written = [token for token in ids if token not in self._added_by_content]
        if not ALPHABET.issuperset("".join(written)):
            for token in written:
                read_bytes(token)  # raises for the one that is not written in the alphabet
        self._bytes: dict[int, bytes] = {}
        self._cache = WordCache(self._encode_word)

    # Making one ---------------------------------------------------------------------------------------------------

    @classmethod
    def train(
        cls,
        texts: str | Iterable[str],
        vocab_size: int = 4096,
        special_tokens: Iterable[str] = (),
        min_frequency: int = 1,
    ) -> Self:
        """Learn the merges of a corpus.

        The ids are: 0 to 255 the bytes, then the merged tokens in the order they were learned, then the special tokens.
        Of equally frequent pairs the one with the smallest ids is merged (`tinyllm.text.bpe_train` states the order).

        Parameters
        ----------
        texts : iterable of str
            The corpus; each text is pre-tokenised alone.
        vocab_size : int
            Bytes, merged tokens and special tokens together. It is smaller where the corpus has no more pairs.
        special_tokens : iterable of str
            Tokens such as ``<|endoftext|>``. Where the corpus has them they part texts, and nothing is learned of them.
        min_frequency : int
            A pair that occurs less often is not merged.

        Raises
        ------
        TokenizerError
            For an empty corpus, a vocabulary with no room for the bytes, text with half a surrogate pair.
        """
        named = list(special_tokens)
        n_merges = vocab_size - 256 - len(named)
        if n_merges < 0:
            raise TokenizerError(
                f"vocab_size is {vocab_size}, but the 256 bytes and {len(named)} special tokens need {256 + len(named)}"
            )
        counts: Counter[str] = Counter()
        for text in as_texts(texts):
            for piece in cut_at(named, text):
                counts.update(gpt2_split(piece))
        if not counts:
            raise TokenizerError("the corpus is empty: there is nothing to learn")
        words = {data: counts[word] for word, data in encodable(counts).items()}
        tokens = [bytes([byte]) for byte in range(256)]
        merges = []
        for a, b in train_merges(words, n_merges, min_frequency):
            merges.append((write_bytes(tokens[a]), write_bytes(tokens[b])))
            tokens.append(tokens[a] + tokens[b])
        vocab = {write_bytes(token): index for index, token in enumerate(tokens)}
        return cls(vocab, merges, append_tokens(vocab, named))

    @classmethod
    def from_pair(cls, encoder: str | Path, merges: str | Path) -> Self:
        """Read GPT-2's pair of files, plain or gzip-compressed.

        An entry of the vocabulary that is no byte and that no merge makes is a special token: ``<|endoftext|>``.

        Parameters
        ----------
        encoder : path
            ``encoder.json`` or ``vocab.json``: token -> id.
        merges : path
            ``vocab.bpe`` or ``merges.txt``: one pair a line, perhaps after a ``#version`` line.

        Raises
        ------
        TokenizerError
            For a file that is missing, damaged or foreign, by name.
        """
        encoder, merges = Path(encoder), Path(merges)
        lines = read_text(merges).split("\n")
        numbered = [(n, line.rstrip("\r")) for n, line in enumerate(lines, 1) if line.strip()]
        if numbered and numbered[0][1].startswith("#version"):
            del numbered[0]
        pairs = [_read_merge(line, f"{merges}: line {n}") for n, line in numbered]
        try:
            vocab = vocabulary(read_json_object(encoder), "vocabulary")
            made = {left + right for left, right in pairs}.union(SYMBOLS)
            added = [AddedToken(token, index) for token, index in vocab.items() if token not in made]
            return cls(vocab, pairs, added)
        except TokenizerError as error:
            raise TokenizerError(f"{encoder} with {merges.name}: {error}") from None

    @classmethod
    def from_spec(
        cls, spec: dict[str, Any], added: Sequence[AddedToken], template: Template | None, roles: Mapping[str, str]
    ) -> Self:
        """Make the tokenizer of a tokenizer.json with a byte-level BPE model.

        Raises
        ------
        TokenizerError
            For a setting that is not supported, by name, and for a damaged file.
        """
        model = field(spec, "model", dict)
        only_known(model, _MODEL_KEYS, "model")
        for name in _UNSUPPORTED:
            if model.get(name):
                raise TokenizerError(f"'model.{name}' = {model[name]!r} is not supported by byte-level BPE here")
        if field(spec, "decoder", dict).get("type") != "ByteLevel":
            raise TokenizerError(f"the decoder {spec['decoder'].get('type')!r} is not supported; known: ByteLevel")
        vocab = vocabulary(field(model, "vocab", dict, "model"), "model.vocab")
        if model.get("unk_token") is not None and not vocab.keys() >= set(SYMBOLS):
            raise TokenizerError("'model.unk_token' is not supported where the vocabulary lacks some of the 256 bytes")
        return cls(
            vocab,
            read_merges(field(model, "merges", list, "model"), "'model.merges'"),
            added,
            template,
            roles,
            normalizer=Normalizer.from_spec(spec.get("normalizer")),
            pre_tokenizer=PreTokenizer.from_spec(field(spec, "pre_tokenizer", dict)),
            ignore_merges=expect(model.get("ignore_merges", False), bool, "model.ignore_merges"),
        )

    # Using it -----------------------------------------------------------------------------------------------------

    def _encode_piece(self, text: str, offset: int) -> list[int]:
        refuse_surrogates(text, offset)
        return self._cache.ids(self.pre_tokenizer(text, offset == 0))

    def _encode_word(self, word: str) -> list[int]:
        data = word.encode("utf-8")
        if self.ignore_merges and (whole := self._ids.get(write_bytes(data))) is not None:
            return [whole]
        ids = [index for byte in data if (index := self._byte_ids[byte]) is not None]
        if len(ids) != len(data):
            byte = next(byte for byte in data if self._byte_ids[byte] is None)
            raise TokenizerError(f"the vocabulary has no token for the byte 0x{byte:02X} in {word!r}")
        return merge_word(ids, self._ranks)

    def _join(self, ids: Iterable[int]) -> bytes:
        known, parts = self._bytes, []
        for index in ids:
            data = known.get(index)
            if data is None:
                token = self._tokens[index]
                data = known[index] = token.encode() if token in self._added_by_content else read_bytes(token)
            parts.append(data)
        return b"".join(parts)

    def _spec(self) -> dict[str, Any]:
        model = {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": self.ignore_merges,
            "vocab": self._ids,
            "merges": [f"{left} {right}" for left, right in self.merges],
        }
        return {"pre_tokenizer": self.pre_tokenizer.spec, "decoder": _DECODER, "model": model}


def read_merges(written: Sequence[Any], where: str) -> list[tuple[str, str]]:
    """The merges of a file; TokenizerError, begun by `where`, for one that is none."""
    return [_read_merge(merge, f"{where}, entry {n}") for n, merge in enumerate(written)]


def _read_merge(merge: Any, where: str) -> tuple[str, str]:
    """A merge written as ``"a b"`` or ``["a", "b"]``."""
    if isinstance(merge, str):
        left, _, right = merge.partition(" ")
        parts: Any = (left, right) if " " not in right else None
    else:
        parts = merge
    match parts:
        case [str(left), str(right)] if left and right:
            return left, right
    raise TokenizerError(f"{where}: a merge is two tokens parted by one space, or a list of two, not {describe(merge)}")
