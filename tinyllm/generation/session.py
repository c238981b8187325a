"""A model at work on a batch of texts: the tokens so far, and the logits of those that may come next."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from tinyllm.autograd import Tensor, no_grad
from tinyllm.errors import ConfigError
from tinyllm.generation.protocols import Cache, CausalModel, EncoderDecoder


class Session:
    """Texts that grow, and what the model remembers of them.

    Each token is predicted from at most the last ``model.context_length`` ones. While the texts fit, a cache holds what
    was computed for earlier tokens. Once they do not, the window begins one token later at every step, so that every
    position in it changes: it is computed anew each time, with a cache as without one.

    Parameters
    ----------
    model : CausalModel or EncoderDecoder
    prompt : integers (B, T)
        What a causal model's texts begin with; the source of an encoder-decoder, whose texts begin with one token.
    mask : booleans (B, T)
        False for padding.
    use_cache : bool

    Attributes
    ----------
    ids : integers (B, T)
        The texts.
    mask : booleans (B, T)
    """

    def __init__(
        self, model: CausalModel | EncoderDecoder, prompt: np.ndarray, mask: np.ndarray, use_cache: bool
    ) -> None:
        self.model = cast(Any, model)
        self.limit: int | None = model.context_length
        self.ids, self.mask = prompt, mask
        self._cache: Cache | None = self.model.new_cache() if use_cache else None
        self._about: dict[str, Any] = {}  # what an encoder-decoder is told of the source at every step
        if has_encoder(self.model):
            shown = None if mask.all() else mask
            with no_grad(), _evaluating(self.model):
                encoded = self.model.encode(prompt, attention_mask=shown)
            self._about = {"encoder_outputs": encoded, "attention_mask": shown}
            self.ids = np.array([[_start(self.model.config)]] * len(prompt))
            self.mask = np.ones_like(self.ids, dtype=bool)
        function = getattr(model, "forward", model)
        self._keeps = "logits_to_keep" in inspect.signature(function).parameters

    @property
    def length(self) -> int:
        """T, padding included."""
        return self.ids.shape[1]

    def logits(self, count: int = 1) -> np.ndarray:
        """The logits (B, count, V) of what follows each of the last `count` tokens, in float64."""
        if self.limit is not None and self.length > self.limit:
            self._cache = None  # its positions are not those of the window any more
        window = slice(None if self.limit is None else -self.limit, None)
        known = 0 if self._cache is None else self._cache.length
        ids, mask = self.ids[:, window][:, known:], self.mask[:, window]
        more: dict[str, Any] = {} if self._cache is None else {"cache": self._cache}
        if self._keeps:
            more["logits_to_keep"] = count
        with no_grad(), _evaluating(self.model):
            if self._about:
                out = self.model(decoder_input_ids=ids, **self._about, **more)
            else:
                out = self.model(ids, attention_mask=None if mask.all() else mask, **more)
            logits = np.array(out.logits[:, -count:], dtype=np.float64)
        if np.isnan(logits).any():
            raise ValueError("the model's logits are NaN, so no token can be chosen; its weights are broken")
        return logits

    def resume(self, cache: Cache) -> None:
        """Take what was computed of the texts' beginnings; one token at least must be new."""
        if cache.length >= self.length:
            raise ConfigError(f"the cache holds {cache.length} tokens and the prompt has {self.length}: crop the cache")
        self._cache = cache

    def add(self, tokens: np.ndarray) -> None:
        """Append tokens (B,), or several each (B, n)."""
        new = tokens.reshape(len(self.ids), -1)
        self.ids = np.concatenate([self.ids, new], axis=1)
        self.mask = np.concatenate([self.mask, np.ones(new.shape, dtype=bool)], axis=1)

    def reorder(self, rows: np.ndarray) -> None:
        """Go on with these texts, of which one may be taken several times."""
        if len(rows) == len(self.ids) and (rows == np.arange(len(rows))).all():
            return
        self.ids, self.mask = self.ids[rows], self.mask[rows]
        if self._cache is not None and self._cache.length:
            self._cache.reorder(rows)
        self._about = {name: _rows(value, rows) for name, value in self._about.items()}

    def crop(self, length: int) -> None:
        """Take back the newest tokens, so that each text has `length`, padding included."""
        self.ids, self.mask = self.ids[:, :length], self.mask[:, :length]
        if self._cache is not None and self._cache.length > length:
            self._cache.crop(length)


def has_encoder(model: Any) -> bool:
    """Whether the prompt is a source to be encoded, rather than the beginning of the text."""
    return callable(getattr(model, "encode", None))


def _start(config: Any) -> int:
    start = getattr(config, "decoder_start_token_id", None)
    if start is None:
        raise ConfigError("the model's configuration names no decoder_start_token_id for its texts to begin with")
    return start


def _rows(value: Any, rows: np.ndarray) -> Any:
    """These rows of an array or Tensor, or of each in a tuple; None stays None."""
    if isinstance(value, tuple):
        return tuple(_rows(part, rows) for part in value)
    if isinstance(value, Tensor):
        with no_grad():
            return value[rows]
    return None if value is None else value[rows]


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Without dropout; what was in training mode is so again afterwards."""
    training = getattr(model, "training", False)
    if training:
        model.train(False)
    try:
        yield
    finally:
        if training:
            model.train(True)
