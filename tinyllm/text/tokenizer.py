"""The contract that every tokenizer keeps, and what they share: special tokens, pairs of texts, ids checked."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyllm.errors import TokenizerError
from tinyllm.text.added import AddedToken, Finder
from tinyllm.text.files import write_json
from tinyllm.text.normalize import Normalizer
from tinyllm.text.template import Template

#: The special tokens that play a role by convention, the likeliest first.
ROLES: dict[str, tuple[str, ...]] = {
    "bos_token": ("<s>", "<bos>", "[BOS]", "<|begin_of_text|>", "<|endoftext|>"),
    "eos_token": ("</s>", "<eos>", "[EOS]", "<|end_of_text|>", "<|endoftext|>"),
    "pad_token": ("<pad>", "[PAD]", "<|pad|>"),
    "unk_token": ("<unk>", "[UNK]"),
    "cls_token": ("[CLS]",),
    "sep_token": ("[SEP]",),
    "mask_token": ("[MASK]", "<mask>"),
}

_MOST_IDS = 1 << 31  # ids are stored in 32 bits


class Tokenizer(ABC):
    """Text to token ids and back.

    Every tokenizer has ``train`` (a class method over an iterable of texts), `encode`, `decode`, `decode_bytes`,
    `vocab_size`, `token_to_id`, `id_to_token` and `save`; ``tinyllm.text.load_tokenizer`` reads what `save` wrote.

    Parameters
    ----------
    vocab : mapping of str to int
        Each token, as tokenizer.json writes it, with its id.
    added : sequence of AddedToken
        The tokens that are found in the text first, such as ``<|endoftext|>``.
    template : Template, optional
        What `encode` puts around the texts.
    roles : mapping of str to str, optional
        Which token is the ``bos_token``, ``eos_token``, ``pad_token``, ``unk_token``, ``cls_token``, ``sep_token`` or
        ``mask_token``; for a role that it leaves out, the conventional names of special tokens (`ROLES`) decide.
    normalizer : Normalizer, optional
        What is done to a text between the added tokens before it is encoded.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        added: Sequence[AddedToken] = (),
        template: Template | None = None,
        roles: Mapping[str, str] | None = None,
        normalizer: Normalizer | None = None,
    ) -> None:
        self._ids = _with_added(vocab, added)
        self._tokens = {index: token for token, index in self._ids.items()}
        if len(self._tokens) != len(self._ids):
            first, index = next((token, i) for token, i in self._ids.items() if self._tokens[i] != token)
            raise TokenizerError(f"{first!r} and {self._tokens[index]!r} have the same id {index}")
        self.added = tuple(added)
        self.template = template
        self.normalizer = normalizer
        self._added_by_content = {token.content: token for token in added}
        self._special_ids = frozenset(token.id for token in added if token.special)
        # Those that are found in the text as it is come first, then, between them, those of the normalised text.
        self._raw = Finder({token.content: token for token in added if not token.normalized})
        normalize = normalizer or str
        self._normalized = Finder({normalize(token.content): token for token in added if token.normalized})
        for piece in template.single + template.pair if template else ():
            if isinstance(piece, tuple) and not set(piece) <= self._tokens.keys():
                raise TokenizerError(f"the post-processor adds the ids {list(piece)}, which are not in the vocabulary")
        self.roles = {**self._conventional_roles(), **(roles or {})}
        for role, token in self.roles.items():
            if token not in self._ids:
                raise TokenizerError(f"the {role} {token!r} is not in the vocabulary")

    def _conventional_roles(self) -> dict[str, str]:
        special = {token.content for token in self.added if token.special}
        candidates = {role: [name for name in names if name in special] for role, names in ROLES.items()}
        return {role: names[0] for role, names in candidates.items() if names}

    # What a kind of tokenizer defines -----------------------------------------------------------------------------

    @abstractmethod
    def _encode_piece(self, text: str, offset: int) -> list[int]:
        """The ids of `text`, which has no added token in it and begins at `offset` of what the user gave."""

    @abstractmethod
    def _join(self, ids: Iterable[int]) -> bytes:
        """The UTF-8 bytes of known ids."""

    @abstractmethod
    def _spec(self) -> dict[str, Any]:
        """The keys of tokenizer.json that are this kind's own: ``model``, ``pre_tokenizer``, ``decoder``."""

    # What all of them do ------------------------------------------------------------------------------------------

    def encode(self, text: str, pair: str | None = None, add_special_tokens: bool = True) -> list[int]:
        """The token ids of a text, or of a pair of texts.

        Parameters
        ----------
        text : str
            Any text. A special token written in it becomes that token's id.
        pair : str, optional
            A second text, as for a sentence-pair task.
        add_special_tokens : bool
            Whether the tokenizer's template, if it has one, puts its tokens around the texts.

        Returns
        -------
        list of int

        Raises
        ------
        TokenizerError
            Where the text has something that this tokenizer has no token for.
        """
        first = self._encode_text(text)
        second = None if pair is None else self._encode_text(pair)
        if self.template is not None and add_special_tokens:
            return self.template.apply(first, second)
        return first + (second or [])

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids; bytes that are no UTF-8, as in the middle of a character, become U+FFFD.

        Parameters
        ----------
        ids : sequence of int or (T,) int array
            Token ids.
        skip_special_tokens : bool
            Whether special tokens are left out.

        Returns
        -------
        str

        Raises
        ------
        TokenizerError
            For an id that is not in the vocabulary.
        """
        return self.decode_bytes(ids, skip_special_tokens).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int], skip_special_tokens: bool = True) -> bytes:
        """The bytes of token ids, exact even where they end inside a character; arguments as `decode`."""
        return self._join(self._kept(ids, skip_special_tokens))

    def _kept(self, ids: Iterable[int], skip_special_tokens: bool) -> list[int]:
        """The ids that are shown, each of them known."""
        known = self._checked(ids)
        return [i for i in known if i not in self._special_ids] if skip_special_tokens else known

    @property
    def vocab_size(self) -> int:
        """One more than the largest id: the rows that a model's embedding needs."""
        return max(self._tokens) + 1

    def token_to_id(self, token: str) -> int | None:
        """The id of a token as tokenizer.json writes it, None where there is no such token."""
        return self._ids.get(token)

    def id_to_token(self, index: int) -> str | None:
        """The token with this id as tokenizer.json writes it, None where there is no such id."""
        return self._tokens.get(index)

    @property
    def special_tokens(self) -> dict[str, int]:
        """The special tokens with their ids."""
        return {token.content: token.id for token in self.added if token.special}

    @property
    def bos_token_id(self) -> int | None:
        """The id of the token that begins a text, None where there is none."""
        return self._role("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        """The id of the token that ends a text, None where there is none."""
        return self._role("eos_token")

    @property
    def pad_token_id(self) -> int | None:
        """The id of the token that fills up a batch, None where there is none."""
        return self._role("pad_token")

    @property
    def unk_token_id(self) -> int | None:
        """The id of the token for what the vocabulary lacks, None where there is none."""
        return self._role("unk_token")

    @property
    def cls_token_id(self) -> int | None:
        """The id of the token that stands for a whole text, None where there is none."""
        return self._role("cls_token")

    @property
    def sep_token_id(self) -> int | None:
        """The id of the token that ends each text of a pair, None where there is none."""
        return self._role("sep_token")

    @property
    def mask_token_id(self) -> int | None:
        """The id of the token in whose place another one is to be told, None where there is none."""
        return self._role("mask_token")

    def save(self, path: str | Path) -> Path:
        """Write Hugging Face's tokenizer.json, which the ``tokenizers`` package loads with the same ids.

        Parameters
        ----------
        path : str or Path
            A file ending in ``.json``, or a folder, which is made where there is none. A folder also gets a
            ``tokenizer_config.json``, so that ``transformers`` knows the roles of the special tokens.

        Returns
        -------
        Path
            The tokenizer's file.
        """
        path = Path(path)
        into_folder = path.suffix != ".json" or path.is_dir()
        file = path / "tokenizer.json" if into_folder else path
        write_json(file, self._to_json())
        if into_folder:
            write_json(path / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **self.roles})
        return file

    def __len__(self) -> int:
        return self.vocab_size

    def __repr__(self) -> str:
        special = ", ".join(self.special_tokens) or "none"
        return f"{type(self).__name__}(vocab_size={self.vocab_size}, special tokens: {special})"

    def _role(self, role: str) -> int | None:
        return self._ids[self.roles[role]] if role in self.roles else None

    def _encode_text(self, text: str) -> list[int]:
        if not isinstance(text, str):
            raise TypeError(f"encode takes a str, but got {type(text).__name__}; encode each text of a list by itself")
        ids: list[int] = []
        for offset, piece in self._pieces(text):
            ids += [piece.id] if isinstance(piece, AddedToken) else self._encode_piece(piece, offset)
        return ids

    def _pieces(self, text: str) -> Iterator[tuple[int, str | AddedToken]]:
        """The added tokens and the non-empty texts between them, each with its offset.

        A text in a piece that was normalised has the offset of that piece, except that only the first may have 0.
        """
        for offset, piece in self._raw.cut(text):
            if isinstance(piece, AddedToken):
                yield offset, piece
                continue
            if self.normalizer is not None:
                refuse_surrogates(piece, offset)
                piece = self.normalizer(piece)
            for place, part in self._normalized.cut(piece):
                yield offset + place, part

    def _checked(self, ids: Iterable[int]) -> list[int]:
        """`ids` as Python ints, each of them in the vocabulary."""
        values = np.asarray(ids).tolist() if hasattr(ids, "__array__") else list(ids)
        if not all(type(value) is int for value in values):
            values = [_whole_number(value) for value in values]
        for place, index in enumerate(values):
            if index not in self._tokens:
                raise TokenizerError(
                    f"the id {index} at place {place} is not in the vocabulary, whose ids are below {self.vocab_size}"
                )
        return values

    def _to_json(self) -> dict[str, Any]:
        added = [
            {
                "id": token.id,
                "content": token.content,
                "single_word": token.single_word,
                "lstrip": token.lstrip,
                "rstrip": token.rstrip,
                "normalized": token.normalized,
                "special": token.special,
            }
            for token in self.added
        ]
        common = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added}
        normalizer = self.normalizer.spec if self.normalizer else None
        return {
            **common,
            "normalizer": normalizer,
            "post_processor": self.template.spec if self.template else None,
            **self._spec(),
        }


def refuse_surrogates(text: str, offset: int) -> None:
    """TokenizerError where `text`, at `offset` of what the user gave, has half of a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        place = error.start
        raise lone_surrogate(text[place], f"the text has, at offset {offset + place},") from None


def as_texts(texts: str | Iterable[str]) -> Iterator[str]:
    """The texts of a corpus; one str is a corpus of one text. TypeError for anything that is no text."""
    for place, text in enumerate([texts] if isinstance(texts, str) else texts):
        if not isinstance(text, str):
            raise TypeError(f"a corpus is an iterable of str, but its item {place} is {type(text).__name__}")
        yield text


def lone_surrogate(character: str, found: str) -> TokenizerError:
    """The error for text that UTF-8 cannot write; `found` begins the sentence."""
    return TokenizerError(
        f"{found} the lone surrogate U+{ord(character):04X}: half a character, which UTF-8 cannot write; "
        f"it often comes from decoding with errors='surrogateescape'"
    )


def encodable(units: Iterable[str], found: str = "the corpus has") -> dict[str, bytes]:
    """Each unit of a corpus with its UTF-8 bytes; TokenizerError, begun by `found`, for half of a surrogate pair."""
    try:
        return {unit: unit.encode("utf-8") for unit in units}
    except UnicodeEncodeError as error:
        raise lone_surrogate(error.object[error.start], found) from None


def append_tokens(vocab: dict[str, int], special_tokens: Iterable[str]) -> list[AddedToken]:
    """Special tokens with the ids after those of `vocab`; TokenizerError for one that is empty, doubled or in it."""
    added: list[AddedToken] = []
    for content in special_tokens:
        if not content or content in vocab or any(content == token.content for token in added):
            why = "is empty" if not content else "is in the vocabulary already; choose a name that no text contains"
            raise TokenizerError(f"the special token {content!r} {why}")
        added.append(AddedToken(content, len(vocab) + len(added)))
    return added


def cut_at(special_tokens: Sequence[str], text: str) -> list[str]:
    """The texts between the special tokens: a trainer learns nothing from the tokens themselves."""
    if not special_tokens:
        return [text]
    longest_first = sorted(special_tokens, key=len, reverse=True)
    return re.split("|".join(map(re.escape, longest_first)), text)


def _whole_number(value: Any) -> int:
    if isinstance(value, np.integer):
        return int(value)
    if type(value) is int:
        return value
    raise TypeError(f"decode takes a sequence of token ids, whole numbers, but got a {type(value).__name__} in it")


def _with_added(vocab: Mapping[str, int], added: Sequence[AddedToken]) -> dict[str, int]:
    """`vocab` with the added tokens, whose ids must agree with it."""
    ids = dict(vocab)
    for token in added:
        if ids.setdefault(token.content, token.id) != token.id:
            raise TokenizerError(
                f"the added token {token.content!r} has the id {token.id}, "
                f"but in the vocabulary it is {ids[token.content]}"
            )
    if not ids:
        raise TokenizerError("the vocabulary is empty")
    if min(ids.values()) < 0 or max(ids.values()) >= _MOST_IDS:
        name, index = next((name, index) for name, index in ids.items() if not 0 <= index < _MOST_IDS)
        raise TokenizerError(f"the token {name!r} has the id {index}; ids go from 0 to {_MOST_IDS - 1}")
    encodable(["".join(ids)], "the vocabulary has")
    return ids
