"""What a summed negative log-likelihood says about a text."""

from __future__ import annotations

import math


def perplexity(nll: float, tokens: int) -> float:
    """Perplexity, exp(nll / tokens): the number of equally likely tokens that would be as hard to guess (F-LM).

    Parameters
    ----------
    nll : float
        Negative log-likelihood in nats, summed over the text; inf is allowed.
    tokens : int
        Number of predicted tokens.

    Returns
    -------
    float
        At least 1; inf where it is too large to represent.

    Raises
    ------
    ValueError
        For a negative or undefined nll, or a count that is not positive.

    References
    ----------
    Jelinek, Mercer, Bahl, Baker, "Perplexity: a measure of the difficulty of speech recognition tasks", 1977.
    """
    _check(nll, tokens, "tokens")
    try:
        return math.exp(nll / tokens)
    except OverflowError:
        return math.inf


def bits_per_byte(nll: float, bytes: int) -> float:
    """Bits per byte, nll / (bytes * ln 2): comparable between tokenizers, as perplexity per token is not.

    Parameters
    ----------
    nll : float
        Negative log-likelihood in nats, summed over the text; inf is allowed.
    bytes : int
        Length of the text in bytes (in characters it gives bits per character).

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For a negative or undefined nll, or a count that is not positive.
    """
    _check(nll, bytes, "bytes")
    return nll / (bytes * math.log(2))


def _check(nll: float, count: int, name: str) -> None:
    if not nll >= 0:  # also catches nan
        raise ValueError(f"nll is a summed negative log-likelihood, at least 0; got {nll}")
    if count <= 0:
        raise ValueError(f"{name} must be positive, got {count}")
