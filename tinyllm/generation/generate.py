"""Writing with any causal model: ask it for the next token's logits, choose one, append it, and ask again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from tinyllm.errors import ConfigError
from tinyllm.generation.beam import Beams, beam_search
from tinyllm.generation.choice import Choice
from tinyllm.generation.output import Generation, Step, step_of
from tinyllm.generation.protocols import Cache, CausalModel, Decoder, EncoderDecoder
from tinyllm.generation.session import Session, has_encoder
from tinyllm.generation.speculative import Tally, speculate


def generate(
    model: CausalModel | EncoderDecoder,
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
    frequency_penalty: float | None = None,
    presence_penalty: float | None = None,
    no_repeat_ngram: int | None = None,
    logit_bias: Mapping[int, float] | None = None,
    num_return_sequences: int = 1,
    length_penalty: float = 1.0,
    early_stopping: bool | Literal["never"] = False,
    draft_model: CausalModel | EncoderDecoder | None = None,
    num_draft_tokens: int = 4,
    stop: str | Iterable[str] | None = None,
    tokenizer: Decoder | None = None,
    pad_token_id: int | None = None,
    cache: Cache | None = None,
    stream: bool = False,
    details: bool = False,
    top_logprobs: int = 0,
) -> Any:
    """Continue a prompt, token by token; or, with an encoder-decoder, write about it.

    Each token is predicted from at most the last ``model.context_length`` tokens. As long as all tokens fit, a cache
    holds what was computed for the earlier ones; beyond that, every token's position changes with every step, so
    that the window is computed anew: slower, and the same with a cache as without one.

    Parameters
    ----------
    model : CausalModel or EncoderDecoder
        Such as a GPT. An encoder-decoder (whatever has `encode`) reads the prompt, and begins its own text with the
        configuration's `decoder_start_token_id`.
    prompt_ids : integers (T,) or (B, T)
        Prompts of different lengths are padded on the left (an encoder's on either side). An empty prompt begins with
        the model's `bos_token_id`, if its configuration has one.
    max_new_tokens : int
        Fewer come if every row has ended.
    temperature : float
        0 takes the most likely token, of equal ones the lowest id; above 0 tokens are drawn.
    top_k, top_p, min_p, typical : optional
        The filters of :mod:`tinyllm.generation`, in this order after `temperature`.
    repetition_penalty, frequency_penalty, presence_penalty, no_repeat_ngram, logit_bias : optional
        The others, in this order before it. Frequency and presence count in the new text alone.
    num_beams : int
        Above 1: beam search, which needs temperature 0.
    num_return_sequences : int
        Rows for each prompt: so many draws, or the best of so many beams, the best first.
    length_penalty : float
        Beams are compared by the sum of their log-probabilities over their number of new tokens to this power.
    early_stopping : bool or "never"
        When a beam search ends, see :class:`tinyllm.generation.beam.Beams`.
    draft_model : optional
        A smaller model with the same vocabulary, for a single prompt: speculative decoding. It changes the time that
        the text takes and, where tokens are drawn, which ones; not the law that they are drawn from.
    num_draft_tokens : int
        How many tokens the draft is ahead, at most 64.
    use_cache : bool
        Changes the time it takes, and nothing else.
    eos_token_id : int or several, optional
        A row that has produced it has ended. By default an encoder-decoder's is its configuration's.
    rng : numpy Generator
        Needed when tokens are drawn: one number per row and step.
    attention_mask : (B, T), optional
        1 for tokens, 0 for padding.
    stop : str or several, optional
        A row whose new text contains one has ended, wherever the borders of the tokens are. The text may go on a
        little beyond it, to the end of its last token.
    tokenizer : optional
        For `stop`: whatever has `decode`.
    pad_token_id : int, optional
        What rows that have ended are filled up with while others go on; by default `eos_token_id`, then the
        configuration's `pad_token_id`.
    cache : Cache, optional
        Of an earlier call, for a prompt that begins with the tokens in it: only the others are read. It is added to. A
        causal model's, without beams or a draft.
    stream : bool
        Return an iterator over the new tokens, (B,) at a time, as they come.
    details : bool
        Return a :class:`Generation` with log-probabilities; in a stream, a :class:`Step` for each token.
    top_logprobs : int
        With `details`: also the so many most likely tokens at each place.

    Returns
    -------
    np.ndarray (B, T + new) int64, or an iterator of np.ndarray (B,) int64
        With an encoder-decoder (B, 1 + new), the first being the start token.

    Raises
    ------
    ConfigError
        For a setting that is impossible.
    ValueError
        For a prompt that is empty or badly shaped, or logits that nothing can be chosen from.
    """
    _counts(max_new_tokens=(max_new_tokens, 0), num_beams=(num_beams, 1), top_logprobs=(top_logprobs, 0))
    _counts(num_return_sequences=(num_return_sequences, 1), num_draft_tokens=(num_draft_tokens, 1))
    choice = Choice(
        *(temperature, top_k, top_p, min_p, typical, repetition_penalty, frequency_penalty, presence_penalty),
        *(no_repeat_ngram, logit_bias, rng),
    )
    ids, mask = _prompt(prompt_ids, attention_mask, model)
    config = getattr(model, "config", None)
    if eos_token_id is None and has_encoder(model):
        eos_token_id = getattr(config, "eos_token_id", None)
    ended = _End(eos_token_id, stop, tokenizer)
    if pad_token_id is None:
        pad_token_id = ended.eos[0] if ended.eos else getattr(config, "pad_token_id", None)
    if ended.stops and len(ids) * num_return_sequences > 1 and pad_token_id is None:
        raise ConfigError("rows that end early are filled up with pad_token_id: pass it, or eos_token_id")
    top = int(top_logprobs) if details else None
    if top_logprobs and not details:
        raise ConfigError(f"top_logprobs={top_logprobs} is returned with the details: pass details=True")

    if num_beams > 1:
        if temperature or stream or draft_model is not None or top_logprobs:
            raise ConfigError(
                f"num_beams={num_beams} compares whole texts: not with temperature above 0, stream, draft_model or "
                "top_logprobs"
            )
        if num_return_sequences > num_beams:
            raise ConfigError(f"num_beams={num_beams} cannot give num_return_sequences={num_return_sequences}")
    elif num_return_sequences > 1:
        if not temperature:
            raise ConfigError(
                f"num_return_sequences={num_return_sequences} would all be the same: draw them with temperature above "
                "0, or use num_beams"
            )
        ids, mask = (np.repeat(x, num_return_sequences, axis=0) for x in (ids, mask))
    if draft_model is not None and len(ids) > 1:
        raise ConfigError(f"a draft_model writes one text at a time, and there are {len(ids)}: call it for each")

    session = _session(model, ids, mask, use_cache, max_new_tokens)
    if cache is not None:
        if num_beams > 1 or draft_model is not None or has_encoder(model) or not use_cache:
            raise ConfigError("cache is for a causal model, without num_beams, draft_model or use_cache=False")
        session.resume(cache)
    before = session.ids
    if num_beams > 1:
        beams = Beams(int(num_beams), length_penalty, early_stopping)
        return _best_beams(
            session, int(max_new_tokens), beams, choice, ended, num_return_sequences, pad_token_id, details
        )
    tally = Tally()
    if draft_model is None:
        steps = _one_by_one(session, int(max_new_tokens), choice, ended, pad_token_id, top)
    else:
        draft = _session(draft_model, ids, mask, use_cache, max_new_tokens)
        guesses = min(int(num_draft_tokens), 64)
        steps = speculate(session, draft, int(max_new_tokens), choice, ended, guesses, top, tally)
    if stream:
        return steps if details else (step.ids for step in steps)
    made = list(steps)
    written = np.concatenate([before, *(step.ids[:, None] for step in made)], axis=1)
    if not details:
        return written
    rows = len(before)
    return Generation(
        written,
        _stacked([step.logprobs for step in made], (rows, 0)),
        _stacked([step.top_ids for step in made], (rows, 0, top)) if top else None,
        _stacked([step.top_logprobs for step in made], (rows, 0, top)) if top else None,
        acceptance_rate=None if draft_model is None else tally.rate,
    )


def _one_by_one(
    session: Session,
    count: int,
    choice: Choice,
    ended: Callable[[list[int]], bool],
    fill: int | None,
    top: int | None,
) -> Iterator[Step]:
    """The steps until every text has ended."""
    start = session.length
    going = np.ones(len(session.ids), dtype=bool)
    for _ in range(count):
        logits = session.logits()[:, -1]  # (B, V)
        # Rows that have ended still take part in the draw, so that nobody else's luck changes; their filters rest.
        seen = np.where(session.mask & going[:, None], session.ids, -1)
        new = choice.draw(choice.probabilities(logits, seen, seen[:, start:]))
        if fill is not None:
            new[~going] = fill
        session.add(new)
        step = step_of(new, logits, top)
        if step.logprobs is not None:
            step.logprobs[~going] = 0.0
        yield step
        for i in np.flatnonzero(going):
            going[i] = not ended(session.ids[i, start:].tolist())
        if not going.any():
            return


def _best_beams(
    session: Session,
    count: int,
    beams: Beams,
    choice: Choice,
    ended: _End,
    wanted: int,
    fill: int | None,
    details: bool,
) -> np.ndarray | Generation:
    """The `wanted` best texts of each of the session's, filled up to one length."""
    before = np.repeat(session.ids, wanted, axis=0)  # (B * wanted, T)
    if count == 0:
        best = []
    else:
        found = beam_search(session, count, beams, choice, ended, len(ended.eos))
        if min(map(len, found)) < wanted:
            raise ValueError(f"there are fewer than {wanted} texts to choose from: the filters forbid the others")
        best = [text for texts in found for text in texts[:wanted]]
    new = max((len(text.ids) for text in best), default=0)
    ids = np.full((len(before), new), 0 if fill is None else fill)
    logprobs, scores = np.zeros((len(before), new)), np.zeros(len(before))
    for row, text in enumerate(best):
        ids[row, : len(text.ids)], logprobs[row, : len(text.ids)], scores[row] = text.ids, text.logprobs, text.score
    written = np.concatenate([before, ids], axis=1)
    return Generation(written, logprobs, scores=scores) if details else written


class _End:
    """Whether new tokens are a whole text: the last of them ends it, or their text contains a stop string."""

    def __init__(
        self, eos: int | Sequence[int] | None, stop: str | Iterable[str] | None, tokenizer: Decoder | None
    ) -> None:
        self.eos: list[int] = [] if eos is None else np.atleast_1d(np.asarray(eos)).tolist()
        self.stops = [stop] if isinstance(stop, str) else list(stop or ())
        self.tokenizer = tokenizer
        if "" in self.stops:
            raise ConfigError("a stop string must not be empty")
        if self.stops and tokenizer is None:
            raise ConfigError("stop strings are looked for in the text, which needs a tokenizer: pass tokenizer=")

    def __call__(self, ids: list[int]) -> bool:
        if ids[-1] in self.eos:
            return True
        if not self.stops:
            return False
        assert self.tokenizer is not None
        text = self.tokenizer.decode(ids)
        return any(stop in text for stop in self.stops)


def _counts(**values: tuple[int, int]) -> None:
    for name, (value, least) in values.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ConfigError(f"{name} must be a whole number of at least {least}, got {value!r}")


def _session(
    model: CausalModel | EncoderDecoder, ids: np.ndarray, mask: np.ndarray, use_cache: bool, count: int
) -> Session:
    session = Session(model, ids, mask, use_cache)
    if has_encoder(model) and session.limit is not None and count + 1 > session.limit:
        raise ConfigError(f"the decoder can write {session.limit - 1} tokens at most, got max_new_tokens={count}")
    return session


def _stacked(parts: list[Any], empty: tuple[Any, ...]) -> np.ndarray:
    """Steps side by side: (B, ...) each -> (B, steps, ...)."""
    return np.stack(parts, axis=1) if parts else np.zeros(empty)


def _prompt(
    prompt_ids: ArrayLike, attention_mask: ArrayLike | None, model: CausalModel | EncoderDecoder
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
    if ids.shape[1] == 0 and has_encoder(model):
        raise ValueError("the source is empty: there is nothing to write about")
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
    if has_encoder(model):
        return ids, mask
    if not mask[:, -1].all() or (mask[:, :-1] & ~mask[:, 1:]).any():
        raise ValueError("prompts must be padded on the left: the new tokens follow the last ones of each row")
    return ids, mask
