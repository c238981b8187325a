"""Speculative decoding: a small model drafts some tokens, the large one judges them all in one pass.

A pass of the large model over a few tokens takes hardly longer than over one, since its weights must be read once
either way. What is written follows the large model's law exactly, whatever the draft: a draft's token x is kept with
probability min(1, p(x) / q(x)), and otherwise replaced by one drawn from what p has more than q.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from tinyllm.errors import ConfigError
from tinyllm.generation.choice import Choice
from tinyllm.generation.output import Step, step_of
from tinyllm.generation.session import Session


@dataclass
class Tally:
    """How many tokens were drafted, and how many of them were kept."""

    drafted: int = 0
    kept: int = 0

    @property
    def rate(self) -> float:
        """The share that was kept; NaN if nothing was drafted."""
        return self.kept / self.drafted if self.drafted else float("nan")


def speculate(
    target: Session,
    draft: Session,
    count: int,
    choice: Choice,
    ended: Callable[[list[int]], bool],
    drafts: int,
    top: int | None,
    tally: Tally,
) -> Iterator[Step]:
    """At most `count` new tokens of the one text of `target`, which `draft` holds too, `drafts` guessed at a time.

    Notes
    -----
    Source: Leviathan, Kalman and Matias 2023, "Fast inference from Transformers via speculative decoding", algorithm 1.
    """
    start = target.length
    while (made := target.length - start) < count:
        n = target.length
        room = [count - made - 1, *(s.limit - n for s in (target, draft) if s.limit is not None)]
        guesses = max(0, min(drafts, *room))  # once the window slides, none: every position changes at every step
        q = [_drafted(draft, choice, start) for _ in range(guesses)]  # (V,) each
        target.add(draft.ids[:, n:])
        logits = target.logits(guesses + 1)[0]  # (guesses + 1, V)
        if q and q[0].shape != logits[0].shape:
            raise ConfigError(f"draft_model has {q[0].size} tokens, the model {logits.shape[1]}: they must be the same")
        new = []
        for i in range(guesses + 1):
            p = _law(target, logits[i], choice, n + i, start)
            if i == guesses:
                new.append(_draw(p, choice))
                break
            guess = int(target.ids[0, n + i])
            if not _kept(guess, p, q[i], choice):
                new.append(_draw(np.maximum(p - q[i], 0), choice))
                break
            new.append(guess)
        tally.drafted += guesses
        tally.kept += len(new) - 1
        for session in (target, draft):
            session.crop(n + len(new) - 1)
            session.add(np.array(new[-1:]))
        for i, token in enumerate(new):
            yield step_of(np.array([token]), logits[i : i + 1], top)
            if ended(target.ids[0, start : n + i + 1].tolist()):
                return


def _drafted(draft: Session, choice: Choice, start: int) -> np.ndarray:
    """Append a token to the draft; the probabilities (V,) that it was drawn from."""
    q = _law(draft, draft.logits()[0, -1], choice, draft.length, start)
    draft.add(np.array([_draw(q, choice)]))
    return q


def _law(session: Session, logits: np.ndarray, choice: Choice, length: int, start: int) -> np.ndarray:
    """What the token after the first `length` ones is drawn from (V,)."""
    seen = np.where(session.mask, session.ids, -1)[:, :length]
    return choice.probabilities(logits[None], seen, seen[:, start:])[0]


def _draw(p: np.ndarray, choice: Choice) -> int:
    return int(choice.draw(p[None])[0])


def _kept(guess: int, p: np.ndarray, q: np.ndarray, choice: Choice) -> bool:
    """Whether a guess drawn from q is kept; without chance, whether it is the token that the model would choose."""
    if choice.rng is None or choice.temperature == 0:
        return p[guess] == 1
    return choice.rng.random() * q[guess] < p[guess]
