"""What writing needs of a model, of its memory, and of a tokenizer: whoever has these methods can be used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Cache(Protocol):
    """What a model remembers of the tokens that it has seen."""

    @property
    def length(self) -> int:
        """How many tokens it has seen."""

    def reorder(self, indices: np.ndarray) -> None:
        """Hold, as sequence i, what sequence ``indices[i]`` was; there may be more or fewer than before."""

    def crop(self, length: int) -> None:
        """Forget the newest tokens, so that `length` are left. Only beams reorder, and only drafts are taken back."""


class CausalModel(Protocol):
    """What `generate` needs of a model that continues its own text.

    ``model(ids, attention_mask=mask, cache=cache).logits`` is a Tensor (B, T, V); without a cache the last argument is
    left out, without padding the mask is None. With one, `ids` continue what it holds, and `mask` covers that too.

    A model whose parameters include `logits_to_keep` is given it: then only the logits of so many last tokens are
    wanted. One that has `training` and `train` is put into evaluation mode while it is asked.
    """

    def __call__(self, input_ids: np.ndarray, **kwargs: Any) -> Any:
        """The model's output, with `logits`."""

    @property
    def context_length(self) -> int | None:
        """The most tokens that it can see at once; None for no limit."""

    def new_cache(self) -> Cache:
        """An empty cache."""


class EncoderDecoder(Protocol):
    """What `generate` needs of a model that writes a text about another one; `encode` is what it is known by.

    ``model.encode(source_ids, attention_mask=mask)`` is called once. What it gives is a Tensor (B, ...), or a tuple of
    such, and is handed on, its rows repeated or put in another order for beams (along the first axis), as

        model(decoder_input_ids=ids, encoder_outputs=encoded, attention_mask=mask, cache=cache).logits   # (B, T, V)

    where `mask` is the source's (None without padding), and `ids` continue what the cache holds; without a cache, which
    is left out then, they are all tokens written so far. The first is ``model.config.decoder_start_token_id``. What a
    layer makes of the encoder's output may be kept in the cache (`KVCache.of_source`): `reorder` is to cover it.
    """

    config: Any

    def encode(self, input_ids: np.ndarray, attention_mask: np.ndarray | None = None) -> Any:
        """What the decoder is to know of the source: a Tensor (B, ...) or a tuple of such."""

    def __call__(self, **kwargs: Any) -> Any:
        """The model's output, with `logits`."""

    @property
    def context_length(self) -> int | None:
        """The most tokens that the decoder can write; None for no limit."""

    def new_cache(self) -> Cache:
        """An empty cache."""


class Decoder(Protocol):
    """What stop strings need of a tokenizer."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these tokens."""
