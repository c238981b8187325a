"""One vocabulary for both sides of pairs, and pairs written in it."""

from __future__ import annotations

from collections.abc import Sequence

from tinyllm.errors import ConfigError, DataError
from tinyllm.tasks.batches import Ids
from tinyllm.tasks.pairs import Pair
from tinyllm.text import ByteLevelBPE, CharTokenizer, Tokenizer, WordTokenizer
from tinyllm.train.settings import Settings

PAD, START, END, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"


def train_tokenizer(pairs: Sequence[Pair], settings: Settings) -> Tokenizer:
    """A tokenizer of the kind that the settings name, trained on both sides."""
    texts = [text for pair in pairs for text in (pair.source, pair.target)]
    if settings.tokenizer == "char":
        return CharTokenizer.train(texts, [PAD, START, END, UNKNOWN], UNKNOWN)
    if settings.tokenizer == "word":
        named = [PAD, START, END, UNKNOWN]
        return WordTokenizer.train(texts, min_count=settings.min_count, special_tokens=named, unk_token=UNKNOWN)
    if settings.tokenizer == "bpe":
        return ByteLevelBPE.train(texts, vocab_size=settings.vocab_size, special_tokens=[PAD, START, END])
    raise ConfigError(f"pairs of texts take the tokenizers char, bpe and word, not {settings.tokenizer!r}")


def encode_source(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text and the end token."""
    assert tokenizer.eos_token_id is not None
    return [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]


def encode_pairs(tokenizer: Tokenizer, pairs: Sequence[Pair], limit: int, name: str) -> tuple[list[Ids], list[Pair]]:
    """Pairs in ids, those with a side of more than `limit` tokens left out; and the pairs that are left.

    Raises
    ------
    DataError
        If none is left.
    """
    found, kept, longest = [], [], 0
    for pair in pairs:
        ids = encode_source(tokenizer, pair.source), encode_source(tokenizer, pair.target)
        longest = max(longest, *map(len, ids))
        if max(map(len, ids)) <= limit:
            found.append(ids)
            kept.append(pair)
    if not found:
        raise DataError(
            f"no {name} pair fits into the model's {limit} tokens (the longest has {longest}): raise block_size"
        )
    return found, kept
