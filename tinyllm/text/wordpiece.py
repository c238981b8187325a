"""WordPiece, BERT's tokenizer: a word is cut into the longest pieces that the vocabulary has, from left to right.

A piece that does not begin its word is written with ``##`` before it. A word with a part that no piece covers is one
``[UNK]``. Source: Schuster and Nakajima 2012, "Japanese and Korean voice search"; Devlin et al. 2019, section 3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tinyllm.errors import TokenizerError
from tinyllm.text.bert_normalizer import BertTable
from tinyllm.text.bpe_train import learn_pairs
from tinyllm.text.files import expect, field, only_known, read_text, vocabulary
from tinyllm.text.normalize import Normalizer
from tinyllm.text.pretokenize import BERT as BERT_WORDS
from tinyllm.text.pretokenize import PreTokenizer
from tinyllm.text.template import Template
from tinyllm.text.tokenizer import AddedToken, Tokenizer, as_texts, cut_at, encodable, refuse_surrogates
from tinyllm.text.word_cache import WordCache

#: The special tokens of BERT, in the order in which `WordPiece.train` numbers them.
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_PREFIX = "##"
_LONGEST_WORD = 100  # characters; a longer word is unknown
# What the decoder mends: English writes no space before these.
_BEFORE = (" .", " ?", " !", " ,", " n't", " 'm", " 's", " 've", " 're")


class WordPiece(Tokenizer):
    """BERT's tokenizer. Make one with `train`, `from_vocab` or ``load_tokenizer``.

    Parameters
    ----------
    vocab : mapping of str to int
        Each piece with its id, special tokens among them.
    added, template, roles, normalizer : optional
        As for `Tokenizer`; the role ``unk_token`` is for a word that cannot be spelt.
    pre_tokenizer : PreTokenizer, optional
        What cuts a text into words; by default BERT's, at white space and around every punctuation mark.
    prefix : str
        What stands before a piece that does not begin its word.
    longest_word : int
        A word of more characters is unknown.

    Examples
    --------
    >>> tok = WordPiece.train(["low lower lowest newer newest"], vocab_size=30, min_frequency=1)
    >>> [tok.id_to_token(i) for i in tok.encode("lowest", "Newer!")]
    ['[CLS]', 'lowest', '[SEP]', 'newer', '[UNK]', '[SEP]']
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        added: Sequence[AddedToken] = (),
        template: Template | None = None,
        roles: Mapping[str, str] | None = None,
        *,
        normalizer: Normalizer | None = None,
        pre_tokenizer: PreTokenizer | None = None,
        prefix: str = _PREFIX,
        longest_word: int = _LONGEST_WORD,
        decoder: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(vocab, added, template, roles, normalizer)
        if self.unk_token_id is None:
            raise TokenizerError("a WordPiece vocabulary needs a token for unknown words, such as [UNK]")
        self.pre_tokenizer = pre_tokenizer or PreTokenizer.from_spec(BERT_WORDS)
        self.prefix, self.longest_word = prefix, longest_word
        self.decoder = {"type": "WordPiece", "prefix": prefix, "cleanup": True} if decoder is None else decoder
        self._longest_piece = max(map(len, self._ids))
        self._cache = WordCache(self._encode_word)

    # Making one ---------------------------------------------------------------------------------------------------

    @classmethod
    def train(
        cls,
        texts: str | Iterable[str],
        vocab_size: int = 4096,
        special_tokens: Sequence[str] = SPECIAL_TOKENS,
        min_frequency: int = 2,
        lowercase: bool = True,
        strip_accents: bool | None = None,
        most_characters: int = 1000,
    ) -> Self:
        """Learn the pieces of a corpus: the frequent characters, then what byte-pair merging makes of them.

        The ids are: the special tokens, the characters that begin words and those that go on with them (in the order of
        code points), the merged pieces in the order they were learned. (The publication chose the merge that makes the
        corpus most likely; as the trainer of ``tokenizers`` we take the most frequent pair.)

        Parameters
        ----------
        texts : iterable of str
            The corpus.
        vocab_size : int
            Special tokens, characters and pieces together. It is smaller where the corpus has no more pairs.
        special_tokens : sequence of str
            Among them BERT's five, which stand around texts, hide words, fill up batches.
        min_frequency : int
            A pair that occurs less often is not merged.
        lowercase, strip_accents : bool
            As in `BertTable`.
        most_characters : int
            Of more characters than this the rarest are left out, and with them the words that have one.

        Raises
        ------
        TokenizerError
            For an empty corpus, a vocabulary with no room for the characters, text with half a surrogate pair.
        """
        missing = [name for name in SPECIAL_TOKENS if name not in special_tokens]
        if missing:
            raise TokenizerError(f"the special tokens lack {', '.join(missing)}, which BERT needs")
        table = BertTable(lowercase=lowercase, strip_accents=strip_accents)
        cut = PreTokenizer.from_spec(BERT_WORDS)
        counts: Counter[str] = Counter()
        for text in as_texts(texts):
            for piece in cut_at(special_tokens, text):
                counts.update(cut(table(piece)))
        encodable(counts)
        characters: Counter[str] = Counter()
        for word, count in counts.items():
            for char in word:
                characters[char] += count
        kept = {char for char, _ in sorted(characters.items(), key=lambda item: (-item[1], item[0]))[:most_characters]}
        spelt = {word: [word[0], *(_PREFIX + c for c in word[1:])] for word in counts if kept.issuperset(word)}
        symbols = sorted({s for pieces in spelt.values() for s in pieces}, key=lambda s: (s.startswith(_PREFIX), s))
        tokens = [*special_tokens, *symbols]
        if not symbols:
            raise TokenizerError("the corpus is empty: there is nothing to learn")
        if vocab_size < len(tokens):
            raise TokenizerError(
                f"vocab_size is {vocab_size}, but {len(special_tokens)} special tokens and {len(symbols)} characters "
                f"need {len(tokens)}; ask for more, or for fewer most_characters"
            )
        vocab = {token: index for index, token in enumerate(tokens)}
        number = {symbol: index for index, symbol in enumerate(symbols)}
        words = [([number[s] for s in pieces], counts[word]) for word, pieces in spelt.items()]
        for a, b in learn_pairs(words, len(symbols), min_frequency):
            if len(vocab) == vocab_size:
                break
            symbols.append(symbols[a] + symbols[b].removeprefix(_PREFIX))
            vocab.setdefault(symbols[-1], len(vocab))  # two merges may spell one piece
        return cls._bert(vocab, table, special_tokens)

    @classmethod
    def from_vocab(
        cls,
        path: str | Path,
        lowercase: bool = True,
        strip_accents: bool | None = None,
        tokenize_chinese_chars: bool = True,
    ) -> Self:
        """Read BERT's ``vocab.txt``: one token a line, whose id is its number, from 0.

        Parameters
        ----------
        path : path
        lowercase, strip_accents, tokenize_chinese_chars : bool
            As in `BertTable`; "cased" models need ``lowercase=False``.

        Raises
        ------
        TokenizerError
            For a file that is missing or no vocabulary.
        """
        lines = read_text(Path(path)).split("\n")
        tokens = [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
        if len(set(tokens)) != len(tokens):
            twice = next(token for token, count in Counter(tokens).items() if count > 1)
            raise TokenizerError(f"{path}: the token {twice!r} is there twice")
        vocab = {token: index for index, token in enumerate(tokens)}
        missing = [name for name in SPECIAL_TOKENS if name not in vocab]
        if missing:
            raise TokenizerError(f"{path}: {', '.join(missing)} is not in it; is it BERT's vocab.txt?")
        table = BertTable(True, tokenize_chinese_chars, strip_accents, lowercase)
        return cls._bert(vocab, table, SPECIAL_TOKENS)

    @classmethod
    def _bert(cls, vocab: dict[str, int], table: BertTable, special_tokens: Iterable[str]) -> Self:
        """With BERT's template: ``[CLS] A [SEP]``, ``[CLS] A [SEP] B [SEP]``."""
        ids = {name: {"id": name, "ids": [vocab[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")}
        single = [_special("[CLS]", 0), _sequence("A", 0), _special("[SEP]", 0)]
        pair = [*single, _sequence("B", 1), _special("[SEP]", 1)]
        template = {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": ids}
        added = [AddedToken(name, vocab[name]) for name in special_tokens]
        return cls(vocab, added, Template.from_spec(template), normalizer=Normalizer(table.spec, (table,)))

    @classmethod
    def from_spec(
        cls, spec: dict[str, Any], added: Sequence[AddedToken], template: Template | None, roles: Mapping[str, str]
    ) -> Self:
        """Make the tokenizer of a tokenizer.json with a WordPiece model.

        Raises
        ------
        TokenizerError
            For a setting that is not supported, by name, and for a damaged file.
        """
        model = field(spec, "model", dict)
        only_known(
            model, {"type", "vocab", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word"}, "model"
        )
        decoder = expect(spec.get("decoder"), dict, "decoder")
        if decoder.get("type") != "WordPiece" or decoder.get("prefix", _PREFIX) != model["continuing_subword_prefix"]:
            raise TokenizerError("the decoder of a WordPiece model should be WordPiece, with the prefix of the model")
        pre_tokenizer = spec.get("pre_tokenizer")
        return cls(
            vocabulary(field(model, "vocab", dict, "model"), "model.vocab"),
            added,
            template,
            {**roles, "unk_token": field(model, "unk_token", str, "model")},
            normalizer=Normalizer.from_spec(spec.get("normalizer")),
            pre_tokenizer=PreTokenizer.from_spec(
                pre_tokenizer if pre_tokenizer is None else expect(pre_tokenizer, dict, "pre_tokenizer")
            ),
            prefix=field(model, "continuing_subword_prefix", str, "model"),
            longest_word=field(model, "max_input_chars_per_word", int, "model"),
            decoder=decoder,
        )

    # Using it -----------------------------------------------------------------------------------------------------

    def encode_with_types(self, text: str, pair: str | None = None) -> tuple[list[int], list[int]]:
        """`encode` of a text or a pair, and the `token_type_ids`: 0 for the first text, 1 for the second.

        Raises
        ------
        TokenizerError
            Where the tokenizer does not put ``[CLS] A [SEP] B [SEP]`` together, as BERT does.
        """
        ids = self.encode(text, pair)
        if pair is None:
            return ids, [0] * len(ids)
        template = self.template
        if template is None or template.pair[: len(template.single)] != template.single:
            raise TokenizerError("this tokenizer does not put pairs of texts together as BERT does")
        first = len(self.encode(text))
        return ids, [0] * first + [1] * (len(ids) - first)

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of a text, no special tokens around it, and each one's place: ``text[begin:end]``.

        Raises
        ------
        TokenizerError
            Where the normalizer is not BERT's, which works character by character.
        """
        if self.normalizer is not None and not all(isinstance(step, BertTable) for step in self.normalizer.steps):
            raise TokenizerError(f"the normalizer {self.normalizer.spec['type']!r} does not say where characters go")
        ids: list[int] = []
        places: list[tuple[int, int]] = []
        for offset, piece in self._raw.cut(text):
            if isinstance(piece, AddedToken):
                ids.append(piece.id)
                places.append((offset, offset + len(piece.content)))
            else:
                refuse_surrogates(piece, offset)
                for index, begin, end in self._placed(piece):
                    ids.append(index)
                    places.append((offset + begin, offset + end))
        return ids, places

    def _placed(self, text: str) -> Iterator[tuple[int, int, int]]:
        """The pieces of a text without special tokens, with their places."""
        chars = [self.normalizer(char) if self.normalizer else char for char in text]
        origin = [place for place, new in enumerate(chars) for _ in new]
        normal, at = "".join(chars), 0
        for word in self.pre_tokenizer(normal):
            at = begin = normal.index(word, at)
            for index in self._cache.ids([word]):
                if index == self.unk_token_id:
                    length = len(word)
                else:
                    length = len(self._tokens[index]) - (len(self.prefix) if at > begin else 0)
                yield index, origin[at], origin[at + length - 1] + 1
                at += length

    def _encode_piece(self, text: str, offset: int) -> list[int]:
        return self._cache.ids(self.pre_tokenizer(text, offset == 0))

    def _encode_word(self, word: str) -> list[int]:
        unknown = self._ids[self.roles["unk_token"]]
        if len(word) > self.longest_word:
            return [unknown]
        ids: list[int] = []
        begin = 0
        while begin < len(word):
            prefix = self.prefix if begin else ""
            for end in range(min(len(word), begin + self._longest_piece), begin, -1):
                index = self._ids.get(prefix + word[begin:end])
                if index is not None:
                    break
            else:
                return [unknown]
            ids.append(index)
            begin = end
        return ids

    def _join(self, ids: Iterable[int]) -> bytes:
        parts = []
        for place, index in enumerate(ids):
            token = self._tokens[index]
            if place:
                token = token.removeprefix(self.prefix) if token.startswith(self.prefix) else f" {token}"
            parts.append(_mended(token) if self.decoder.get("cleanup", True) else token)
        return "".join(parts).encode("utf-8")

    def _spec(self) -> dict[str, Any]:
        model = {
            "type": "WordPiece",
            "unk_token": self.roles["unk_token"],
            "continuing_subword_prefix": self.prefix,
            "max_input_chars_per_word": self.longest_word,
            "vocab": self._ids,
        }
        return {"pre_tokenizer": self.pre_tokenizer.spec, "decoder": self.decoder, "model": model}


def _mended(token: str) -> str:
    for mark in _BEFORE:
        token = token.replace(mark, mark[1:])
    return token.replace(" ' ", "'").replace(" do not", " don't")


def _special(name: str, kind: int) -> dict[str, Any]:
    return {"SpecialToken": {"id": name, "type_id": kind}}


def _sequence(name: str, kind: int) -> dict[str, Any]:
    return {"Sequence": {"id": name, "type_id": kind}}
