"""Learning rates as functions of the update's number t = 0, 1, ...: ``opt.lr = rate(t)`` before ``opt.step()``."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

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


def one_cycle(
    lr: float,
    steps: int,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> Schedule:
    """Up to `lr` and down again, far below where it began, over all updates of a training.

    Parameters
    ----------
    lr : float
        The highest rate, reached at update number ``pct_start * steps - 1``.
    steps : int
        Length of the whole; the rate stays what it is at the end, update number ``steps - 1``.
    pct_start : float
        Share of the steps in which the rate rises.
    anneal_strategy : {"cos", "linear"}
        Along half a cosine, or a line.
    div_factor : float
        The rate begins at ``lr / div_factor`` ...
    final_div_factor : float
        ... and ends at that over `final_div_factor`.
    three_phase : bool
        Come down to where it began in as many steps as it rose, and to the end in those that are left.

    Raises
    ------
    ValueError
        If an option is out of range, or the phases do not fit into the steps.

    Notes
    -----
    Source: Smith and Topin 2018, section 3; the rates of `torch.optim.lr_scheduler.OneCycleLR`.
    """
    if steps < 1 or not 0 <= pct_start <= 1:
        raise ValueError(f"steps must be at least 1 and pct_start from 0 to 1, got {steps} and {pct_start}")
    if anneal_strategy not in ("cos", "linear"):
        raise ValueError(f"anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}")
    if not div_factor > 0 or not final_div_factor > 0:
        raise ValueError(f"div_factor and final_div_factor must be positive, got {div_factor} and {final_div_factor}")
    first = lr / div_factor
    turns = [(0.0, first), (pct_start * steps - 1, lr)]  # update numbers, and the rates there
    if three_phase:
        turns.append((2 * pct_start * steps - 2, first))
    turns.append((steps - 1, first / final_div_factor))
    if any(end <= begin for (begin, _), (end, _) in pairwise(turns)):
        raise ValueError(f"the phases of {pct_start} of {steps} steps do not fit: each needs a step or more")

    def rate(t: int) -> float:
        for (begin, high), (end, low) in pairwise(turns):
            if t < end:
                done = (t - begin) / (end - begin)
                share = (1 - math.cos(math.pi * done)) / 2 if anneal_strategy == "cos" else done
                return high + (low - high) * share
        return turns[-1][1]

    return rate


def _not_negative(name: str, value: int) -> None:
    if value < 0:
        raise ValueError(f"{name} must not be negative, got {value}")
