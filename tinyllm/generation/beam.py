"""Beam search: keep the few most likely beginnings of a text, and extend them all."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tinyllm.errors import ConfigError
from tinyllm.generation.choice import Choice
from tinyllm.generation.filters import log_softmax
from tinyllm.generation.session import Session


@dataclass(frozen=True)
class Hypothesis:
    """An ended text: its new tokens, the model's log-probability of each, and its score."""

    ids: list[int]
    logprobs: list[float]
    score: float


@dataclass(frozen=True)
class Beams:
    """The settings of a search.

    Parameters
    ----------
    num_beams : int
        Beginnings that are kept, and ended texts.
    length_penalty : float
        A text's score is the sum of its log-probabilities over its number of new tokens to this power: 0 compares
        sums, which favours short texts, 1 means, above 1 favours long ones.
    early_stopping : bool or "never"
        When the search for a prompt is over, once `num_beams` texts have ended. True: at once. False: when the best
        beginning, scored at its present length, is no better than the worst of them. "never": when it could not be
        even at the length where its score is best.
    """

    num_beams: int
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.length_penalty):
            raise ConfigError(f"length_penalty must be a finite number, got {self.length_penalty}")
        if self.early_stopping not in (True, False, "never"):
            raise ConfigError(f"early_stopping must be True, False or 'never', got {self.early_stopping!r}")

    def score(self, total: float, length: int) -> float:
        """Of a text of `length` new tokens whose log-probabilities sum up to `total`."""
        return total / length**self.length_penalty


@dataclass
class _Search:
    """The search for one prompt's continuations."""

    beams: Beams
    ended: list[Hypothesis] = field(default_factory=list)  # the best first

    def end(self, ids: list[int], logprobs: list[float], total: float) -> None:
        """A text has ended: keep it if it is among the best."""
        self.ended.append(Hypothesis(ids, logprobs, self.beams.score(total, len(ids))))
        self.ended.sort(key=lambda h: -h.score)
        del self.ended[self.beams.num_beams :]

    def over(self, best: float, length: int, longest: int) -> bool:
        """Whether beginnings of `length` tokens, the best with this sum of log-probabilities, are not worth more."""
        if len(self.ended) < self.beams.num_beams:
            return False
        if self.beams.early_stopping is True:
            return True
        if self.beams.early_stopping == "never" and self.beams.length_penalty > 0:
            length = longest
        return self.beams.score(best, length) <= self.ended[-1].score


def beam_search(
    session: Session,
    count: int,
    beams: Beams,
    choice: Choice,
    ended: Callable[[list[int]], bool],
    ends: int,
) -> list[list[Hypothesis]]:
    """The best continuations of each of the session's texts, at most `num_beams`, the best first.

    Parameters
    ----------
    session : Session
    count : int
        The most new tokens, at least 1: a text of so many has ended.
    beams : Beams
    choice : Choice
        Penalties and biases, which are applied to log-probabilities before they are added up.
    ended : callable
        Whether these new tokens are a whole text.
    ends : int
        How many tokens end a text. So many times more candidates are looked at, that enough of them go on.

    Notes
    -----
    Source: Freitag and Al-Onaizan 2017, "Beam search strategies for neural machine translation", section 2; the rules
    for stopping are those of transformers, so that the same texts are found.
    """
    start, candidates = session.length, max(2, 1 + ends) * beams.num_beams
    searches = [_Search(beams) for _ in range(len(session.ids))]
    owner = np.arange(len(searches))  # which search each of the session's texts belongs to
    totals = np.zeros(len(searches))  # and the sum of its log-probabilities
    logprobs: list[list[float]] = [[] for _ in searches]
    for length in range(1, count + 1):
        logp = log_softmax(session.logits()[:, -1])  # (R, V)
        seen = np.where(session.mask, session.ids, -1)
        scores = choice.penalised(logp, seen, seen[:, start:]) + totals[:, None]
        rows: list[int] = []
        tokens: list[int] = []
        for i in dict.fromkeys(owner.tolist()):
            search, mine = searches[i], np.flatnonzero(owner == i)
            going = len(rows)
            for rank, (row, token) in enumerate(_best(scores[mine], candidates)):
                row = mine[row]
                ids = [*session.ids[row, start:].tolist(), token]
                if length == count or ended(ids):
                    if rank < beams.num_beams:  # the others are there only to go on
                        search.end(ids, [*logprobs[row], logp[row, token]], scores[row, token])
                elif len(rows) - going < beams.num_beams:
                    rows.append(row)
                    tokens.append(token)
            if len(rows) > going and search.over(scores[rows[going], tokens[going]], length, count):
                del rows[going:], tokens[going:]
        if not rows:
            break
        owner, totals = owner[rows], scores[rows, tokens]
        logprobs = [[*logprobs[row], logp[row, token]] for row, token in zip(rows, tokens, strict=True)]
        session.reorder(np.array(rows))
        session.add(np.array(tokens))
    return [search.ended for search in searches]


def _best(scores: np.ndarray, count: int) -> list[tuple[int, int]]:
    """Where the highest finite scores (R, V) are, the highest first; of equal ones the first."""
    flat = scores.reshape(-1)
    least = np.partition(flat, -count)[-count] if count < flat.size else -np.inf
    places = np.flatnonzero((flat >= least) & (flat > -np.inf))
    places = places[np.argsort(-flat[places], kind="stable")][:count]
    return [divmod(int(place), scores.shape[1]) for place in places]
