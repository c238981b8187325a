"""Hiding tokens so that a model can be asked for them (F-MLM), in a way that is drawn anew at every step.

Of the chosen tokens most are hidden behind ``[MASK]``; some become any other token and some stay as they are, so that
the model cannot rely on the mark. Nothing is stored: the draws are a function of (seed, step) alone, as the batches
are, and a text that comes again in a later epoch is hidden otherwise.

Source: Devlin et al. 2019, section 3.1 and appendix A.1; anew each time: Liu et al. 2019, "RoBERTa", section 4.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from tinyllm.data.batches import Batch, Batches
from tinyllm.errors import ConfigError, DataError

IGNORED = -100  # the label of a token that is not asked for


@dataclass(frozen=True)
class Masking:
    """Which tokens are hidden, and how.

    Parameters
    ----------
    mask_id : int
        The id of ``[MASK]``.
    vocab_size : int
        V: a random token is any of them.
    kept : ids
        Never chosen: special tokens.
    rate : float
        Share of the other tokens that are chosen.
    masked, random : float
        Shares of the chosen ones that become ``[MASK]``, and any token; the rest stay as they are.
    goes_on : (V,) booleans, optional
        Which tokens go on with the word before them: a word is then chosen as a whole.

    Raises
    ------
    ConfigError
        For shares that are none.
    """

    mask_id: int
    vocab_size: int
    kept: frozenset[int] = frozenset()
    rate: float = 0.15
    masked: float = 0.8
    random: float = 0.1
    goes_on: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1 or min(self.masked, self.random) < 0 or self.masked + self.random > 1:
            raise ConfigError(
                f"the rate must be in (0, 1] and the shares of masked and random tokens must not exceed 1 together; "
                f"got rate={self.rate}, masked={self.masked}, random={self.random}"
            )

    def __call__(
        self, ids: np.ndarray, u_choose: np.ndarray, u_action: np.ndarray, random_ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Hide tokens, given the draws; all arrays are (B, T).

        Parameters
        ----------
        ids : integers
        u_choose, u_action : floats in [0, 1)
            Whether a token is chosen, and what becomes of it.
        random_ids : integers
            The token to put where a random one is due.

        Returns
        -------
        inputs, labels : (B, T) int64
            The text with tokens hidden; the chosen tokens, and -100 elsewhere.
        """
        ids = np.asarray(ids, np.int64)  # a label is negative where nothing is asked
        special = np.isin(ids, list(self.kept))
        if self.goes_on is not None:  # a piece shares the draw of its word's first piece
            first = np.where(self.goes_on[ids] & ~special, 0, np.arange(ids.shape[1]))
            first = np.maximum.accumulate(first, axis=1)
            u_choose = np.take_along_axis(u_choose, first, axis=1)
        chosen = (u_choose < self.rate) & ~special
        inputs = np.where(chosen & (u_action < self.masked), self.mask_id, ids)
        inputs = np.where(
            chosen & (u_action >= self.masked) & (u_action < self.masked + self.random), random_ids, inputs
        )
        return inputs, np.where(chosen, ids, IGNORED)

    def draw(self, ids: np.ndarray, seed: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Hide tokens; the draws are a function of (seed, step).

        Raises
        ------
        DataError
            If all tokens are special.
        """
        # A stream of its own: the key of the batches, and a counter that they never reach.
        words = np.random.Philox(key=np.array([seed, step], dtype=np.uint64), counter=1 << 64).random_raw(3 * ids.size)
        choose, action, other = words.reshape(3, *ids.shape)
        u_choose, u_action = (choose >> 11) * 2.0**-53, (action >> 11) * 2.0**-53
        random_ids = (other % np.uint64(self.vocab_size)).astype(np.int64)
        inputs, labels = self(ids, u_choose, u_action, random_ids)
        if (labels == IGNORED).all():  # so short a text: then the token that came closest is
            places = np.where(np.isin(ids, list(self.kept)), np.inf, u_choose)
            if np.isinf(places).all():
                raise DataError("there is no token to hide: the text has special tokens only")
            nearest = np.unravel_index(places.argmin(), ids.shape)
            inputs[nearest], labels[nearest] = self.mask_id, ids[nearest]
        return inputs, labels


class MaskedBatches:
    """Random windows with tokens hidden; batch number `step` is a function of (seed, step) alone.

    Parameters
    ----------
    tokens : (N,) integers
    batch_size, block_size : int
        B and T: windows in a batch, and tokens in a window with what stands around it.
    masking : Masking
    around : (int, int), optional
        The ids before and after each window, BERT's ``[CLS]`` and ``[SEP]``.
    seed : int

    Raises
    ------
    DataError, ConfigError
        As for `Batches`.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        batch_size: int,
        block_size: int,
        masking: Masking,
        around: tuple[int, int] | None = None,
        seed: int = 0,
    ) -> None:
        self._windows = Batches(tokens, batch_size, block_size - (2 if around else 0), seed)
        self.masking, self.around, self.seed = masking, around, seed

    def at(self, step: int) -> Batch:
        """Batch number `step`: B windows, each hidden in its own way."""
        ids = _within(self._windows.at(step)["input_ids"], self.around)
        inputs, labels = self.masking.draw(ids, self.seed, step)
        return {"input_ids": inputs, "labels": labels}


def masked_windows(
    tokens: np.ndarray,
    block_size: int,
    batch_size: int,
    masking: Masking,
    around: tuple[int, int] | None = None,
    limit: int | None = None,
) -> Iterator[Batch]:
    """Windows side by side over a whole text, hidden in the same way each time; the last one may be shorter.

    Parameters
    ----------
    tokens : (N,) integers
    block_size, batch_size : int
    masking : Masking
    around : (int, int), optional
        As for `MaskedBatches`.
    limit : int, optional
        At most so many windows, spread evenly over the text.

    Raises
    ------
    DataError
        For a text without tokens.
    """
    if len(tokens) == 0:
        raise DataError("the held-out text has no tokens: hold out a larger share or give more text")
    length = block_size - (2 if around else 0)
    starts = np.arange(0, len(tokens), length)
    if limit is not None and limit < len(starts):
        starts = starts[np.arange(limit) * len(starts) // limit]
    for group in _groups(starts, len(tokens) - length, batch_size):
        ids = _within(np.stack([tokens[start : start + length] for start in group]).astype(np.int64), around)
        hidden = [masking.draw(row[None], seed=0, step=start) for row, start in zip(ids, group.tolist(), strict=True)]
        inputs, labels = (np.concatenate(arrays) for arrays in zip(*hidden, strict=True))
        yield {"input_ids": inputs, "labels": labels}


def _groups(starts: np.ndarray, last: int, size: int) -> Iterable[np.ndarray]:
    """The starts of whole windows, `size` at a time, then one that begins after `last` and is shorter."""
    whole = starts[starts <= last]
    yield from (whole[i : i + size] for i in range(0, len(whole), size))
    yield from (starts[i : i + 1] for i in range(len(whole), len(starts)))


def _within(ids: np.ndarray, around: tuple[int, int] | None) -> np.ndarray:
    """Each row with what stands around it."""
    if around is None:
        return ids
    before, after = (np.full((len(ids), 1), index) for index in around)
    return np.concatenate([before, ids, after], axis=1)
