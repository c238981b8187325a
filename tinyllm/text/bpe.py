"""Byte-level byte-pair encoding, GPT-2's tokenizer: any string is bytes, frequent runs of bytes are tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tinyllm.errors import TokenizerError
from tinyllm.text.bpe_train import train_merges
from tinyllm.text.bytes_alphabet import SYMBOLS, read_bytes, write_bytes
from tinyllm.text.files import describe, expect, field, only_known, read_json_object, read_text, vocabulary
from tinyllm.text.merges import merge_word
from tinyllm.text.pretokenize import gpt2_split
from tinyllm.text.template import Template
from tinyllm.text.tokenizer import AddedToken, Tokenizer, append_tokens, as_texts, cut_at, encodable, lone_surrogate

_CACHED_WORDS = 1 << 16  # words whose ids are remembered; a language repeats few words most of the time
_CACHED_LENGTH = 64  # a longer word will hardly come again

_UNSUPPORTED = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
_MODEL_KEYS = {"type", "vocab", "merges", "unk_token", "fuse_unk", "ignore_merges", *_UNSUPPORTED}
_PRE_TOKENIZER_KEYS = {"type", "add_prefix_space", "trim_offsets", "use_regex"}


class ByteLevelBPE(Tokenizer):
    """Byte-level BPE with GPT-2's pre-tokenisation. Make one with `train`, `from_pair` or ``load_tokenizer``.

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
    add_prefix_space : bool
        Whether a text that does not begin with a space gets one.
    use_regex : bool
        Whether the text is cut by GPT-2's pattern; if not, each text is one word.
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
        add_prefix_space: bool = False,
        use_regex: bool = True,
        ignore_merges: bool = False,
    ) -> None:
        super().__init__(vocab, added, template, roles)
        self.merges = list(merges)
        self.add_prefix_space, self.use_regex, self.ignore_merges = add_prefix_space, use_regex, ignore_merges
        self._byte_ids = [self._ids.get(symbol) for symbol in SYMBOLS]
        self._ranks = {self._pair(rank, *pair): (rank, self._ids["".join(pair)]) for rank, pair in enumerate(merges)}
        self._bytes = {
            index: token.encode() if token in self._added_by_content else read_bytes(token)
            for token, index in self._ids.items()
        }
        self._cache: dict[str, list[int]] = {}

    def _pair(self, rank: int, left: str, right: str) -> tuple[int, int]:
        for token in (left, right, left + right):
            if token not in self._ids:
                raise TokenizerError(f"merge {rank}, {left!r} with {right!r}, needs {token!r}, which has no id")
        return self._ids[left], self._ids[right]

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
        pre_tokenizer = field(spec, "pre_tokenizer", dict)
        only_known(model, _MODEL_KEYS, "model")
        only_known(pre_tokenizer, _PRE_TOKENIZER_KEYS, "pre_tokenizer")
        for name in _UNSUPPORTED:
            if model.get(name):
                raise TokenizerError(f"'model.{name}' = {model[name]!r} is not supported by byte-level BPE here")
        if field(spec, "decoder", dict).get("type") != "ByteLevel":
            raise TokenizerError(f"the decoder {spec['decoder'].get('type')!r} is not supported; known: ByteLevel")
        vocab = vocabulary(field(model, "vocab", dict, "model"), "model.vocab")
        if model.get("unk_token") is not None and not vocab.keys() >= set(SYMBOLS):
            raise TokenizerError("'model.unk_token' is not supported where the vocabulary lacks some of the 256 bytes")
        written = field(model, "merges", list, "model")
        merges = [_read_merge(merge, f"'model.merges', entry {n}") for n, merge in enumerate(written)]
        return cls(
            vocab,
            merges,
            added,
            template,
            roles,
            add_prefix_space=field(pre_tokenizer, "add_prefix_space", bool, "pre_tokenizer"),
            use_regex=expect(pre_tokenizer.get("use_regex", True), bool, "pre_tokenizer.use_regex"),
            ignore_merges=expect(model.get("ignore_merges", False), bool, "model.ignore_merges"),
        )

    # Using it -----------------------------------------------------------------------------------------------------

    def _encode_piece(self, text: str, offset: int) -> list[int]:
        if self.add_prefix_space and not text.startswith(" "):
            text, offset = " " + text, offset - 1
        cache = self._cache
        ids: list[int] = []
        try:
            for word in gpt2_split(text) if self.use_regex else [text]:
                known = cache.get(word)
                if known is None:
                    known = self._encode_word(word)
                    if len(word) <= _CACHED_LENGTH:
                        if len(cache) >= _CACHED_WORDS:
                            cache.clear()
                        cache[word] = known
                ids += known
        except UnicodeEncodeError:
            place = next(i for i, c in enumerate(text) if "\ud800" <= c <= "\udfff")
            raise lone_surrogate(text[place], f"the text has, at offset {offset + place},") from None
        return ids

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
        table = self._bytes
        return b"".join([table[index] for index in ids])

    def _spec(self) -> dict[str, Any]:
        byte_level = {
            "type": "ByteLevel",
            "add_prefix_space": self.add_prefix_space,
            "trim_offsets": True,
            "use_regex": self.use_regex,
        }
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
        return {"pre_tokenizer": byte_level, "decoder": byte_level, "model": model}


def _read_merge(merge: Any, where: str) -> tuple[str, str]:
    """A merge written as ``"a b"`` or ``["a", "b"]``."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    match parts:
        case [str(left), str(right)] if left and right:
            return left, right
    raise TokenizerError(f"{where}: a merge is two tokens parted by one space, or a list of two, not {describe(merge)}")
