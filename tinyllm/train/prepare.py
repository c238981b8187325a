"""From a corpus to token arrays: cleaning, division, vocabulary."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from tinyllm.data import Corpus, load, split, tokenize_corpus
from tinyllm.errors import ConfigError, DataError
from tinyllm.text import ByteLevelBPE, CharTokenizer, Tokenizer, WordPiece, clean
from tinyllm.text.wordpiece import SPECIAL_TOKENS
from tinyllm.train.console import Console
from tinyllm.train.settings import Settings

#: What a character outside the vocabulary is written as, in training and held-out text alike.
REPLACEMENT = "\ufffd"
END_OF_TEXT = "<|endoftext|>"
_BETWEEN = "\n\n"  # stands between two documents of characters
_VALIDATION = 0.05  # share of the training text set aside where training stops early


@dataclass(frozen=True)
class Part:
    """A text as tokens, with its length in characters and how many of them were replaced."""

    name: str
    tokens: np.ndarray
    characters: int
    replaced: int = 0

    @property
    def tokens_per_character(self) -> float:
        """What turns a loss per token into one per character."""
        return len(self.tokens) / self.characters

    def __str__(self) -> str:
        text = f"{self.name}: {self.characters:,} characters"
        if len(self.tokens) != self.characters:
            text += f", {len(self.tokens):,} tokens"
        return text + (f", {self.replaced} of them not in the vocabulary: written as U+FFFD" if self.replaced else "")


@dataclass(frozen=True)
class Prepared:
    """The parts of a corpus: one trains, one is watched while training, one is judged at the end.

    The watched part is the held-out one, unless training stops early: what chooses the parameters must not judge them,
    so it is then a piece of the training text.
    """

    corpus: Corpus
    held_out_corpus: str
    tokenizer: Tokenizer
    train: Part
    watched: Part
    held_out: Part

    @property
    def fingerprint(self) -> str:
        """A hash of all tokens: resuming on another text would not be resuming."""
        digest = hashlib.sha256()
        for part in (self.train, self.watched, self.held_out):
            digest.update(f"{part.tokens.dtype} {len(part.tokens)} ".encode())
            digest.update(part.tokens.data)
        return digest.hexdigest()


def prepare(settings: Settings, tokenizer: Tokenizer | None = None, console: Console | None = None) -> Prepared:
    """Read, clean and divide the corpus that the settings name, and write it in tokens.

    Parameters
    ----------
    settings : Settings
    tokenizer : Tokenizer, optional
        That of an earlier run; without it one is trained, on the training text alone.
    console : Console, optional
        Where progress is shown.

    Raises
    ------
    DataError
        For a corpus that cannot be used, such as one shorter than a block.
    """
    corpus = read(settings, settings.data, console)
    train, held_out = split(corpus, settings.held_out, settings.seed)
    train, watched = split(train, _VALIDATION, settings.seed) if settings.patience else (train, held_out)
    tokenizer = tokenizer or _train_tokenizer(train, settings, console)
    if console:
        console.progress("writing the text in tokens")
    parts = {name: tokens_of(part, tokenizer, name) for name, part in (("training", train), ("held out", held_out))}
    parts["validation"] = tokens_of(watched, tokenizer, "validation") if settings.patience else parts["held out"]
    return Prepared(corpus, held_out.name, tokenizer, parts["training"], parts["validation"], parts["held out"])


def read(settings: Settings, data: str, console: Console | None = None) -> Corpus:
    """The corpus `data`, cleaned where the settings say so."""
    corpus = load(data, settings.encoding or None, console.files if console else None)
    if settings.clean == "no" or (settings.clean == "auto" and data != "stdlib-prose"):
        return corpus
    if console:
        console.progress("cleaning the text")
    documents = (replace(document, text=clean(document.text)) for document in corpus.documents)
    kept = tuple(document for document in documents if document.text)
    if not kept:
        raise DataError(f"nothing is left of {corpus.name} after cleaning; try --clean no")
    return replace(corpus, documents=kept)


def tokens_of(corpus: Corpus, tokenizer: Tokenizer, name: str) -> Part:
    """The documents of a corpus as one array of tokens, with what stands between them."""
    if not isinstance(tokenizer, CharTokenizer) or tokenizer.token_to_id(REPLACEMENT) is None:
        tokens = tokenize_corpus(corpus.documents, tokenizer, separator=tokenizer.eos_token_id)
        return Part(name, tokens, corpus.characters)
    texts = [document.text for document in corpus.documents]
    unknown = {c for c in set().union(*texts) if tokenizer.token_to_id(c) is None}
    replaced = sum(text.count(c) for text in texts for c in unknown)
    table = str.maketrans(dict.fromkeys(unknown, REPLACEMENT))
    documents = [
        replace(document, text=document.text.translate(table) + (_BETWEEN if place < len(texts) else ""))
        for place, document in enumerate(corpus.documents, start=1)
    ]
    tokens = tokenize_corpus(documents, tokenizer)
    return Part(name, tokens, len(tokens), replaced)


def _train_tokenizer(corpus: Corpus, settings: Settings, console: Console | None) -> Tokenizer:
    texts = [document.text for document in corpus.documents]
    if settings.tokenizer == "word":
        raise ConfigError("words would leave out what lies between them: a language model's tokenizer is char or bpe")
    special = [name for name in SPECIAL_TOKENS if name != "[UNK]"] if settings.model == "bert" else []
    if settings.tokenizer == "char":
        return CharTokenizer.train(_frequent(texts, settings.min_count), special)
    if console:
        console.progress("training the tokenizer")
    if settings.tokenizer == "wordpiece":
        return WordPiece.train(texts, vocab_size=settings.vocab_size)
    return ByteLevelBPE.train(texts, vocab_size=settings.vocab_size, special_tokens=[END_OF_TEXT, *special])


def _frequent(texts: Iterable[str], min_count: int) -> list[str]:
    """The characters that a vocabulary holds: the frequent ones, the replacement, and what stands between documents."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    return [c for c, n in counts.items() if n >= min_count] + [REPLACEMENT, *_BETWEEN]
