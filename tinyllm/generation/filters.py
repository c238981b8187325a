"""What is done to the logits before a token is drawn: functions from logits (and the ids so far) to logits.

A token that must not be drawn gets -inf. The arithmetic is float64, and what is returned is float64. Equal logits are
ranked by id, the lower one first, so that every filter keeps the same tokens on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from tinyllm.errors import ConfigError


def log_softmax(logits: ArrayLike) -> np.ndarray:
    """Log-probabilities (..., V) in float64; -inf stays."""
    x = np.asarray(logits, dtype=np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def softmax(logits: ArrayLike) -> np.ndarray:
    """Probabilities (..., V) in float64; -inf gives 0."""
    x = np.asarray(logits, dtype=np.float64)
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def temperature(logits: ArrayLike, value: float) -> np.ndarray:
    """Divide the logits by a temperature: below 1 likely tokens gain, above 1 unlikely ones.

    Parameters
    ----------
    logits : (..., V)
    value : float
        Above 0.

    Returns
    -------
    np.ndarray, (..., V) float64

    Raises
    ------
    ConfigError
        If `value` is not a positive number.
    """
    _within("temperature", value, 0 < value < np.inf, "above 0 (greedy decoding needs no temperature)")
    return np.asarray(logits, dtype=np.float64) / value


def top_k(logits: ArrayLike, k: int) -> np.ndarray:
    """Keep the `k` most likely tokens; of equal ones the lower ids.

    Parameters
    ----------
    logits : (..., V)
    k : int
        At least 1; V or more keeps everything.

    Returns
    -------
    np.ndarray, (..., V) float64

    Raises
    ------
    ConfigError
        If `k` is not a positive whole number.

    Notes
    -----
    Source: Fan et al. 2018, "Hierarchical neural story generation", section 5.
    """
    _whole("top_k", k)
    x = np.asarray(logits, dtype=np.float64)
    if k >= x.shape[-1]:
        return x.copy()
    least = np.partition(x, -k, axis=-1)[..., -k, None]  # the k-th largest, which a sort would take far longer to find
    above, equal = x > least, x == least
    places = k - above.sum(axis=-1, keepdims=True)
    return np.where(above | (equal & (equal.cumsum(axis=-1) <= places)), x, -np.inf)


def top_p(logits: ArrayLike, p: float) -> np.ndarray:
    """Keep the most likely tokens up to and including the one with which their probability reaches `p` (nucleus).

    Parameters
    ----------
    logits : (..., V)
    p : float
        Above 0, at most 1; 1 keeps everything.

    Returns
    -------
    np.ndarray, (..., V) float64

    Raises
    ------
    ConfigError
        If `p` is outside (0, 1].

    Notes
    -----
    Source: Holtzman et al. 2020, "The curious case of neural text degeneration", section 3.1.
    """
    _within("top_p", p, 0 < p <= 1, "above 0 and at most 1")
    x = np.array(logits, dtype=np.float64)
    if p == 1:  # a sum that is rounded up to 1 must not end the set early
        return x
    # Tokens less likely than this make up less than 1 - p together, so that the others reach p: only they are sorted.
    least = (1 - p) / (2 * x.shape[-1])
    rows = x.reshape(-1, x.shape[-1])
    for row, q in zip(rows, softmax(rows), strict=True):
        likely = np.flatnonzero(q >= least)
        likely = likely[np.argsort(-row[likely], kind="stable")]
        before = np.cumsum(q[likely]) - q[likely]
        kept = likely[before < p]
        values = row[kept]
        row[:] = -np.inf
        row[kept] = values
    return x


def min_p(logits: ArrayLike, p: float) -> np.ndarray:
    """Keep the tokens whose probability is at least `p` times that of the most likely one.

    Parameters
    ----------
    logits : (..., V)
    p : float
        From 0 (everything) to 1.

    Returns
    -------
    np.ndarray, (..., V) float64

    Raises
    ------
    ConfigError
        If `p` is outside [0, 1].

    Notes
    -----
    Source: Nguyen et al. 2024, "Turning up the heat: min-p sampling", section 3.
    """
    _within("min_p", p, 0 <= p <= 1, "from 0 to 1")
    x = np.asarray(logits, dtype=np.float64)
    likelihood = np.exp(x - x.max(axis=-1, keepdims=True))  # relative to the most likely token
    return np.where(likelihood >= p, x, -np.inf)


def typical(logits: ArrayLike, mass: float) -> np.ndarray:
    """Keep the tokens whose information, -log p, is nearest to its mean (the entropy), until their sum is `mass`.

    Parameters
    ----------
    logits : (..., V)
    mass : float
        Above 0, at most 1; 1 keeps everything.

    Returns
    -------
    np.ndarray, (..., V) float64

    Raises
    ------
    ConfigError
        If `mass` is outside (0, 1].

    Notes
    -----
    Source: Meister et al. 2023, "Locally typical sampling", section 4.
    """
    _within("typical", mass, 0 < mass <= 1, "above 0 and at most 1")
    x = np.asarray(logits, dtype=np.float64)
    p = softmax(x)
    with np.errstate(divide="ignore"):
        information = -np.log(p)
    entropy = np.where(p > 0, p * np.where(p > 0, information, 0), 0).sum(axis=-1, keepdims=True)
    return _smallest_set(x, np.argsort(np.abs(information - entropy), axis=-1, kind="stable"), mass)


def repetition_penalty(logits: ArrayLike, ids: ArrayLike, penalty: float) -> np.ndarray:
    """Make the tokens that have come already less likely: a positive logit is divided, a negative one multiplied.

    Parameters
    ----------
    logits : (V,) or (B, V)
    ids : integers, (T,) or (B, T)
        The tokens so far; negative ones (padding) are passed over.
    penalty : float
        Above 0; 1 changes nothing, below 1 rewards repetition.

    Returns
    -------
    np.ndarray, of the shape of `logits`, float64

    Raises
    ------
    ConfigError
        If `penalty` is not a positive number.

    Notes
    -----
    Source: Keskar et al. 2019, "CTRL", section 4.1.
    """
    _within("repetition_penalty", penalty, 0 < penalty < np.inf, "above 0")
    out, rows = _by_row(logits, ids)
    for x, seen in rows:
        x[seen] = np.where(x[seen] > 0, x[seen] / penalty, x[seen] * penalty)
    return out


def frequency_penalty(logits: ArrayLike, ids: ArrayLike, penalty: float) -> np.ndarray:
    """Take `penalty` off a token's logit for each time that it has come.

    Parameters
    ----------
    logits : (V,) or (B, V)
    ids : integers, (T,) or (B, T)
        The tokens that count; negative ones (padding) are passed over.
    penalty : float
        0 changes nothing, below 0 rewards repetition.

    Returns
    -------
    np.ndarray, of the shape of `logits`, float64

    Raises
    ------
    ConfigError
        If `penalty` is not a finite number.

    Notes
    -----
    Source: the parameter `frequency_penalty` of OpenAI's completions.
    """
    _within("frequency_penalty", penalty, abs(penalty) < np.inf, "a finite number")
    out, rows = _by_row(logits, ids)
    for x, seen in rows:
        np.subtract.at(x, seen, penalty)
    return out


def presence_penalty(logits: ArrayLike, ids: ArrayLike, penalty: float) -> np.ndarray:
    """Take `penalty` off the logits of the tokens that have come, however often.

    Parameters
    ----------
    logits : (V,) or (B, V)
    ids : integers, (T,) or (B, T)
        The tokens that count; negative ones (padding) are passed over.
    penalty : float
        0 changes nothing, below 0 rewards repetition.

    Returns
    -------
    np.ndarray, of the shape of `logits`, float64

    Raises
    ------
    ConfigError
        If `penalty` is not a finite number.

    Notes
    -----
    Source: the parameter `presence_penalty` of OpenAI's completions.
    """
    _within("presence_penalty", penalty, abs(penalty) < np.inf, "a finite number")
    out, rows = _by_row(logits, ids)
    for x, seen in rows:
        x[np.unique(seen)] -= penalty
    return out


def logit_bias(logits: ArrayLike, bias: Mapping[int, float]) -> np.ndarray:
    """Add numbers of one's own to the logits of some tokens; -inf forbids a token.

    Parameters
    ----------
    logits : (..., V)
    bias : dict
        What is added, by token id.

    Returns
    -------
    np.ndarray, (..., V) float64

    Raises
    ------
    ConfigError
        If a value is NaN or +inf, or an id is outside the vocabulary.
    """
    out = np.array(logits, dtype=np.float64)
    for token, value in bias.items():
        _within(f"logit_bias of token {token}", value, value < np.inf, "a number, or -inf")
        if not isinstance(token, int | np.integer) or not 0 <= token < out.shape[-1]:
            raise ConfigError(f"logit_bias: token {token!r} is not in the vocabulary 0..{out.shape[-1] - 1}")
        out[..., token] += value
    return out


def no_repeat_ngram(logits: ArrayLike, ids: ArrayLike, n: int) -> np.ndarray:
    """Forbid the tokens that would repeat a sequence of `n` tokens.

    Parameters
    ----------
    logits : (V,) or (B, V)
    ids : integers, (T,) or (B, T)
        The tokens so far; negative ones (padding) are passed over.
    n : int
        At least 1, which forbids every token that has come.

    Returns
    -------
    np.ndarray, of the shape of `logits`, float64

    Raises
    ------
    ConfigError
        If `n` is not a positive whole number.

    Notes
    -----
    Source: Paulus et al. 2018, "A deep reinforced model for abstractive summarization", section 2.5.
    """
    _whole("no_repeat_ngram", n)
    out, rows = _by_row(logits, ids)
    for x, seen in rows:
        if len(seen) >= n:
            grams = np.lib.stride_tricks.sliding_window_view(seen, n)
            last = seen[len(seen) - n + 1 :]
            x[grams[(grams[:, :-1] == last).all(axis=1), -1]] = -np.inf
    return out


def _keep(x: np.ndarray, order: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """`x` where `kept` is true of its rank in `order`, -inf elsewhere."""
    mask = np.empty(x.shape, dtype=bool)
    np.put_along_axis(mask, order, np.broadcast_to(kept, x.shape), axis=-1)
    return np.where(mask, x, -np.inf)


def _smallest_set(x: np.ndarray, order: np.ndarray, mass: float) -> np.ndarray:
    """The first tokens in `order` until their probability reaches `mass`."""
    if mass == 1:  # a sum that is rounded up to 1 must not end the set early
        return x.copy()
    p = np.take_along_axis(softmax(x), order, axis=-1)
    before = np.cumsum(p, axis=-1) - p
    kept = before < mass
    kept[..., 0] = True
    return _keep(x, order, kept)


def _by_row(logits: ArrayLike, ids: ArrayLike) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """A copy of the logits, and for each of its rows the row (a view) and the ids so far, without padding."""
    out = np.array(logits, dtype=np.float64)
    tokens = np.asarray(ids)
    if out.ndim not in (1, 2) or tokens.ndim != out.ndim or tokens.shape[:-1] != out.shape[:-1]:
        raise ValueError(f"expected logits (V,) and ids (T,), or (B, V) and (B, T); got {out.shape} and {tokens.shape}")
    if tokens.size and tokens.dtype.kind not in "iu":
        raise TypeError(f"ids must be integers, got {tokens.dtype}")
    if tokens.size and tokens.max() >= out.shape[-1]:
        raise IndexError(f"id {tokens.max()} is outside the vocabulary 0..{out.shape[-1] - 1}")
    rows = zip(np.atleast_2d(out), np.atleast_2d(tokens).astype(np.int64), strict=True)
    return out, [(x, t[t >= 0]) for x, t in rows]


def _within(name: str, value: float, right: bool, allowed: str) -> None:
    if not right:
        raise ConfigError(f"{name} must be {allowed}, got {value}")


def _whole(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ConfigError(f"{name} must be a whole number of at least 1, got {value!r}")
