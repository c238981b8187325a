"""Writing with any causal model: ask it for the next token's logits, choose one, append it, and ask again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from tinyllm.autograd import no_grad
from tinyllm.errors import ConfigError
from tinyllm.generation import filters


class Cache(Protocol):
    """What a model remembers of the tokens that it has seen."""

    @property
    def length(self) -> int:
        """How many positions it holds."""


class CausalModel(Protocol):
    """What `generate` needs of a model.

    ``model(ids, attention_mask=mask, cache=cache).logits`` is a Tensor (B, T, V); without a cache the last argument is
    left out, without padding the mask is None. With one, `ids` continue what it holds, and `mask` covers that too.
    A model that also has `training` and `train` is put into evaluation mode while it is asked.
    """

    def __call__(self, input_ids: np.ndarray, **kwargs: Any) -> Any:
        """The model's output, with `logits`."""

    @property
    def context_length(self) -> int | None:
        """The most tokens that it can see at once; None for no limit."""

    def new_cache(self) -> Cache:
        """An empty cache."""


class Decoder(Protocol):
    """What stop strings need of a tokenizer."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these tokens."""


@dataclass(frozen=True)
class _Choice:
    """How the next token is chosen."""

    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical: float | None
    repetition_penalty: float | None
    no_repeat_ngram: int | None
    rng: np.random.Generator | None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < np.inf:
            raise ConfigError(f"temperature must be at least 0, got {self.temperature}")
        if self.temperature > 0 and not isinstance(self.rng, np.random.Generator):
            raise ConfigError(
                f"temperature={self.temperature} draws tokens at random, which needs a seed: pass "
                "rng=numpy.random.default_rng(seed), or temperature=0 for the most likely token"
            )
        self.scores(np.zeros((1, 2)), np.zeros((1, 1), dtype=np.int64))  # impossible settings are refused here

    def scores(self, logits: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """The filtered logits (B, V); `seen` (B, T) holds the tokens so far, -1 for padding."""
        if self.repetition_penalty is not None:
            logits = filters.repetition_penalty(logits, seen, self.repetition_penalty)
        if self.no_repeat_ngram is not None:
            logits = filters.no_repeat_ngram(logits, seen, self.no_repeat_ngram)
        if self.temperature > 0:
            logits = filters.temperature(logits, self.temperature)
        if self.top_k is not None:
            logits = filters.top_k(logits, self.top_k)
        if self.top_p is not None:
            logits = filters.top_p(logits, self.top_p)
        if self.min_p is not None:
            logits = filters.min_p(logits, self.min_p)
        if self.typical is not None:
            logits = filters.typical(logits, self.typical)
        return logits

    def tokens(self, logits: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """One token per row (B,)."""
        if np.isnan(logits).any():
            raise ValueError("the model's logits are NaN, so no token can be chosen; its weights are broken")
        scores = self.scores(logits, seen)
        if (scores.max(axis=-1) == -np.inf).any():
            raise ValueError("no token is left to choose: the filters forbid the whole vocabulary (no_repeat_ngram?)")
        if self.temperature == 0:
            return scores.argmax(axis=-1)  # of equal ones the lowest id
        assert self.rng is not None
        return draw(filters.softmax(scores), self.rng)


def draw(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A token for each row of `probabilities` (B, V): the first with which their sum exceeds a uniform number."""
    total = probabilities.cumsum(axis=-1)
    u = rng.random((len(probabilities), 1)) * total[:, -1:]
    # Rounding may lift u to the whole sum, which nothing exceeds: the last possible token then.
    possible = np.where(probabilities > 0, np.arange(probabilities.shape[-1]), 0).max(axis=-1)
    return np.minimum((total <= u).sum(axis=-1), possible)


def generate(
    model: CausalModel,
    prompt_ids: ArrayLike,
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    num_beams: int = 1,
    use_cache: bool = True,
    eos_token_id: int | Sequence[int] | None = None,
    rng: np.random.Generator | None = None,
    *,
    attention_mask: ArrayLike | None = None,
    min_p: float | None = None,
    typical: float | None = None,
    repetition_penalty: float | None = None,
    no_repeat_ngram: int | None = None,
    stop: str | Iterable[str] | None = None,
    tokenizer: Decoder | None = None,
    pad_token_id: int | None = None,
    stream: bool = False,
) -> Any:
    """Continue a prompt, token by token.

    Each token is predicted from at most the last ``model.context_length`` tokens. As long as all tokens fit, a cache
    holds what was computed for the earlier ones; beyond that, every token's position changes with every step, so
    that the window is computed anew: slower, and the same with a cache as without one.

    Parameters
    ----------
    model : CausalModel
        Such as a GPT.
    prompt_ids : integers (T,) or (B, T)
        Prompts of different lengths are padded on the left. An empty prompt begins with the model's `bos_token_id`,
        if its configuration has one.
    max_new_tokens : int
        Fewer come if every row has ended.
    temperature : float
        0 takes the most likely token, of equal ones the lowest id; above 0 tokens are drawn.
    top_k, top_p, min_p, typical, repetition_penalty, no_repeat_ngram : optional
        The filters of :mod:`tinyllm.generation`: the last two first, then `temperature`, then the others in this order.
    num_beams : int
        1: there is no beam search yet.
    use_cache : bool
        Changes the time it takes, and nothing else.
    eos_token_id : int or several, optional
        A row that has produced it has ended.
    rng : numpy Generator
        Needed when tokens are drawn: one number per row and step.
    attention_mask : (B, T), optional
        1 for tokens, 0 for the padding on the left.
    stop : str or several, optional
        A row whose new text contains one has ended, wherever the borders of the tokens are. The text may go on a
        little beyond it, to the end of its last token.
    tokenizer : optional
        For `stop`: whatever has `decode`.
    pad_token_id : int, optional
        What rows that have ended are filled up with while others go on; by default `eos_token_id`, then the
        configuration's `pad_token_id`.
    stream : bool
        Return an iterator over the new tokens, (B,) at a time, as they come.

    Returns
    -------
    np.ndarray (B, T + new) int64, or an iterator of np.ndarray (B,) int64

    Raises
    ------
    ConfigError
        For a setting that is impossible.
    ValueError
        For a prompt that is empty or badly shaped, or logits that nothing can be chosen from.
    """
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int | np.integer) or max_new_tokens < 0:
        raise ConfigError(f"max_new_tokens must be a whole number of at least 0, got {max_new_tokens!r}")
    if num_beams != 1:
        raise ConfigError(f"num_beams={num_beams}: there is no beam search yet, only num_beams=1")
    choice = _Choice(temperature, top_k, top_p, min_p, typical, repetition_penalty, no_repeat_ngram, rng)
    ids, mask = _prompt(prompt_ids, attention_mask, model)
    stops = [stop] if isinstance(stop, str) else list(stop or ())
    if "" in stops:
        raise ConfigError("a stop string must not be empty")
    if stops and tokenizer is None:
        raise ConfigError("stop strings are looked for in the text, which needs a tokenizer: pass tokenizer=")
    eos = [] if eos_token_id is None else np.atleast_1d(np.asarray(eos_token_id)).tolist()
    if pad_token_id is None:
        pad_token_id = eos[0] if eos else getattr(getattr(model, "config", None), "pad_token_id", None)
    if stops and len(ids) > 1 and pad_token_id is None:
        raise ConfigError("rows that end early are filled up with pad_token_id: pass it, or eos_token_id")

    def ended(row: list[int]) -> bool:
        if row[-1] in eos:
            return True
        if not stops:
            return False
        assert tokenizer is not None
        text = tokenizer.decode(row)
        return any(s in text for s in stops)

    steps = _steps(model, ids, mask, int(max_new_tokens), choice, use_cache, ended, pad_token_id)
    return steps if stream else np.concatenate([ids, *(new[:, None] for new in steps)], axis=1)


def _steps(
    model: CausalModel,
    ids: np.ndarray,
    mask: np.ndarray,
    count: int,
    choice: _Choice,
    use_cache: bool,
    ended: Callable[[list[int]], bool],
    fill: int | None,
) -> Iterator[np.ndarray]:
    """The new tokens (B,) of each step, until every row of `ids` (B, T) has ended; `mask` is False for padding."""
    start = ids.shape[1]
    going = np.ones(len(ids), dtype=bool)
    limit = model.context_length
    cache = model.new_cache() if use_cache else None
    for _ in range(count):
        if limit is not None and ids.shape[1] > limit:
            cache = None  # the window begins later than what the cache holds, so that all its positions are wrong
        seen = 0 if cache is None else cache.length
        window = slice(None if limit is None else -limit, None)
        logits = _ask(model, ids[:, window][:, seen:], mask[:, window], cache)  # (B, V)
        # Rows that have ended still take part in the draw, so that nobody else's luck changes; their filters rest.
        new = choice.tokens(logits, np.where(mask & going[:, None], ids, -1))
        if fill is not None:
            new[~going] = fill
        ids = np.concatenate([ids, new[:, None]], axis=1)
        mask = np.concatenate([mask, np.ones_like(mask, shape=(len(mask), 1))], axis=1)
        yield new
        for i in np.flatnonzero(going):
            going[i] = not ended(ids[i, start:].tolist())
        if not going.any():
            return


def _ask(model: CausalModel, ids: np.ndarray, mask: np.ndarray, cache: Cache | None) -> np.ndarray:
    """The logits (B, V) after the last token, in float64."""
    known = {} if cache is None else {"cache": cache}
    with no_grad(), _evaluating(model):
        logits = model(ids, attention_mask=None if mask.all() else mask, **known).logits  # (B, T, V)
        return np.array(logits[:, -1], dtype=np.float64)


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


def _prompt(
    prompt_ids: ArrayLike, attention_mask: ArrayLike | None, model: CausalModel
) -> tuple[np.ndarray, np.ndarray]:
    """The prompt (B, T) and its mask, True for tokens, with something in every row."""
    try:
        ids = np.asarray(prompt_ids)
    except ValueError:
        raise ValueError(
            "the prompts differ in length: pad the shorter ones on the left, and mark the padding in attention_mask"
        ) from None
    if ids.ndim not in (1, 2) or (ids.ndim == 2 and len(ids) == 0):
        raise ValueError(f"prompt_ids must have shape (T,) or (B, T), got {ids.shape}")
    if ids.size and ids.dtype.kind not in "iu":
        raise TypeError(f"prompt_ids must be integers, got {ids.dtype}; encode text with a tokenizer first")
    ids = np.atleast_2d(ids).astype(np.int64)
    if ids.shape[1] == 0:
        bos = getattr(getattr(model, "config", None), "bos_token_id", None)
        if bos is None:
            raise ValueError("the prompt is empty, and the model's configuration names no bos_token_id to begin with")
        ids = np.full((len(ids), 1), bos)
    if attention_mask is None or np.size(attention_mask) == 0:
        return ids, np.ones(ids.shape, dtype=bool)
    mask = np.atleast_2d(np.asarray(attention_mask))
    if mask.shape != ids.shape or not ((mask == 0) | (mask == 1)).all():
        raise ValueError(
            f"attention_mask must hold 1 for tokens and 0 for padding, in shape {ids.shape}; got {mask.shape}"
        )
    mask = mask.astype(bool)
    if not mask[:, -1].all() or (mask[:, :-1] & ~mask[:, 1:]).any():
        raise ValueError("prompts must be padded on the left: the new tokens follow the last ones of each row")
    return ids, mask
