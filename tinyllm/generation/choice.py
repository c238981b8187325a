"""How the next token is chosen from the logits: the filters that are on, and the draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tinyllm.errors import ConfigError
from tinyllm.generation import filters


@dataclass(frozen=True)
class Choice:
    """The settings of :func:`generate` that decide between tokens; None, 0 or empty is off."""

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    no_repeat_ngram: int | None = None
    logit_bias: Mapping[int, float] | None = None
    rng: np.random.Generator | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < np.inf:
            raise ConfigError(f"temperature must be at least 0, got {self.temperature}")
        if self.temperature > 0 and not isinstance(self.rng, np.random.Generator):
            raise ConfigError(
                f"temperature={self.temperature} draws tokens at random, which needs a seed: pass "
                "rng=numpy.random.default_rng(seed), or temperature=0 for the most likely token"
            )
        biased = [token for token in self.logit_bias or () if isinstance(token, int | np.integer)]
        ids = np.zeros((1, 1), dtype=np.int64)
        self.scores(np.zeros((1, 2 + max(biased, default=0))), ids, ids)  # impossible settings are refused here

    def scores(self, logits: np.ndarray, seen: np.ndarray, new: np.ndarray) -> np.ndarray:
        """The filtered logits (B, V); `seen` holds the tokens so far, `new` those after the prompt, -1 for padding."""
        logits = self.penalised(logits, seen, new)
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

    def penalised(self, logits: np.ndarray, seen: np.ndarray, new: np.ndarray) -> np.ndarray:
        """The filters that look at the tokens so far, and the bias; these hold for beams too."""
        if self.repetition_penalty is not None:
            logits = filters.repetition_penalty(logits, seen, self.repetition_penalty)
        if self.frequency_penalty is not None:
            logits = filters.frequency_penalty(logits, new, self.frequency_penalty)
        if self.presence_penalty is not None:
            logits = filters.presence_penalty(logits, new, self.presence_penalty)
        if self.no_repeat_ngram is not None:
            logits = filters.no_repeat_ngram(logits, seen, self.no_repeat_ngram)
        if self.logit_bias is not None:
            logits = filters.logit_bias(logits, self.logit_bias)
        return logits

    def probabilities(self, logits: np.ndarray, seen: np.ndarray, new: np.ndarray) -> np.ndarray:
        """(B, V): what tokens are drawn from; without a temperature, 1 for the most likely one (the lowest id)."""
        scores = self.scores(logits, seen, new)
        if (scores.max(axis=-1) == -np.inf).any():
            raise ValueError("no token is left to choose: the filters forbid the whole vocabulary (no_repeat_ngram?)")
        if self.temperature > 0:
            return filters.softmax(scores)
        return (np.arange(scores.shape[-1]) == scores.argmax(axis=-1)[:, None]).astype(np.float64)

    def draw(self, probabilities: np.ndarray) -> np.ndarray:
        """A token for each row of `probabilities` (B, V); one uniform number per row where chance decides."""
        if self.temperature == 0:
            return probabilities.argmax(axis=-1)
        assert self.rng is not None
        return draw(probabilities, self.rng)


def draw(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A token for each row of `probabilities` (B, V): the first with which their sum exceeds a uniform number."""
    total = probabilities.cumsum(axis=-1)
    u = rng.random((len(probabilities), 1)) * total[:, -1:]
    # Rounding may lift u to the whole sum, which nothing exceeds: the last possible token then.
    possible = np.where(probabilities > 0, np.arange(probabilities.shape[-1]), 0).max(axis=-1)
    return np.minimum((total <= u).sum(axis=-1), possible)
