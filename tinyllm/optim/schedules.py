"""Learning rates as functions of the update's number t = 0, 1, ...: ``opt.lr = rate(t)`` before ``opt.step()``."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def constant(lr: float) -> Schedule:
    """Always `lr`."""
    return lambda t: lr


def warmup(lr: float, warmup: int) -> Schedule:
    """``lr * t / warmup`` for the first `warmup` updates, then `lr`."""
    _not_negative("warmup", warmup)
    return lambda t: lr * t / warmup if t < warmup else lr


def cosine(lr: float, warmup: int, steps: int, final: float = 0.0) -> Schedule:
    """Warm-up, then half a cosine down to `final` at update number `steps`, and `final` from there on.

    Parameters
    ----------
    lr : float
        The highest rate, reached at update number `warmup`.
    warmup : int
        Length of the rise ``lr * t / warmup``; may be 0.
    steps : int
        Length of the whole, warm-up included.
    final : float

    Raises
    ------
    ValueError
        If the warm-up is not shorter than the whole.

    Notes
    -----
    Source: Loshchilov and Hutter 2017, equation 5, without restarts.
    """
    _not_negative("warmup", warmup)
    if warmup >= steps:
        raise ValueError(f"the warm-up of {warmup} updates must be shorter than the {steps} steps of the schedule")

    def rate(t: int) -> float:
        if t < warmup:
            return lr * t / warmup
        done = min((t - warmup) / (steps - warmup), 1.0)
        return final + (lr - final) * 0.5 * (1 + math.cos(math.pi * done))

    return rate


def step(lr: float, step_size: int, gamma: float = 0.1) -> Schedule:
    """`lr`, times `gamma` after every `step_size` updates: ``lr * gamma ** (t // step_size)``."""
    if step_size < 1:
        raise ValueError(f"step_size must be at least 1, got {step_size}")
    return lambda t: lr * gamma ** (t // step_size)


def exponential(lr: float, gamma: float) -> Schedule:
    """`lr`, times `gamma` after every update: ``lr * gamma ** t``."""
    return lambda t: lr * gamma**t


def inverse_square_root(lr: float, warmup: int) -> Schedule:
    """``lr * min(t / warmup, sqrt(warmup / t))``: up to `lr` at update number `warmup`, then down like 1 / sqrt(t).

    Notes
    -----
    Source: Vaswani et al. 2017, equation 3, where lr is 1 / sqrt(d_model * warmup).
    """
    if warmup < 1:
        raise ValueError(f"warmup must be at least 1, got {warmup}")
    return lambda t: lr * t / warmup if t < warmup else lr * math.sqrt(warmup / t)


def _not_negative(name: str, value: int) -> None:
    if value < 0:
        raise ValueError(f"{name} must not be negative, got {value}")
