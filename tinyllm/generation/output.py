"""What `generate` gives when it is asked for more than the tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tinyllm.generation.filters import log_softmax


class Step(NamedTuple):
    """One new token in each text.

    Attributes
    ----------
    ids : integers (B,)
    logprobs : (B,), optional
        Of these tokens under the model itself: before filters and temperature.
    top_ids, top_logprobs : (B, n), optional
        The model's most likely tokens there, the likeliest first.
    """

    ids: np.ndarray
    logprobs: np.ndarray | None = None
    top_ids: np.ndarray | None = None
    top_logprobs: np.ndarray | None = None


@dataclass(frozen=True)
class Generation:
    """Texts, and how likely they are.

    Attributes
    ----------
    ids : integers (B, T + new)
    logprobs : (B, new)
        Natural logarithms of the new tokens' probabilities under the model itself, before filters and temperature; 0
        where a text has ended before.
    top_ids, top_logprobs : (B, new, n), optional
        The model's most likely tokens at each place, where `top_logprobs` asked for n.
    scores : (B,), optional
        Of beams: the sum of the (filtered) log-probabilities, over the number of new tokens to the `length_penalty`.
    acceptance_rate : float, optional
        Of speculative decoding: the share of the draft's tokens that were kept.
    """

    ids: np.ndarray
    logprobs: np.ndarray
    top_ids: np.ndarray | None = None
    top_logprobs: np.ndarray | None = None
    scores: np.ndarray | None = None
    acceptance_rate: float | None = None


def step_of(ids: np.ndarray, logits: np.ndarray, wanted: int | None) -> Step:
    """The step that chose `ids` (B,) by `logits` (B, V), with the `wanted` most likely tokens; None: ids alone."""
    if wanted is None:
        return Step(ids)
    logp = log_softmax(logits)
    chosen = np.take_along_axis(logp, ids[:, None], axis=-1)[:, 0]
    if wanted == 0:
        return Step(ids, chosen)
    best = np.argsort(-logp, axis=-1, kind="stable")[:, :wanted]
    return Step(ids, chosen, best, np.take_along_axis(logp, best, axis=-1))
