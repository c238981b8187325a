"""Random numbers that can be drawn again: a key says which, and the key is on the tape.

Philox-4x32-10 turns a key and a counter into random bits without any state (Salmon et al. 2011, "Parallel random
numbers: as easy as 1, 2, 3"). The key of a draw is (seed, step, layer, sample): whoever recomputes it, in whatever
order and on however many machines, gets the same numbers.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tinyllm.autograd.tensor import Array


class Key(NamedTuple):
    """Which random numbers to draw.

    `seed` of the run (64 bits), `step` of training, `layer` (the how-manieth draw of the step), and `sample`, the
    index in the whole batch of the first row of the array drawn.
    """

    seed: int
    step: int = 0
    layer: int = 0
    sample: int = 0


class _Draws(threading.local):
    scope: Key | None = None
    recorded: list[Key] | None = None
    replayed: Iterator[Key] | None = None


_draws = _Draws()


@contextlib.contextmanager
def random_scope(seed: int, step: int = 0, sample: int = 0) -> Iterator[None]:
    """Within it, random operations take their keys from (seed, step), numbered in the order of the calls.

    Parameters
    ----------
    seed, step : int
    sample : int
        Index in the whole batch of the first sample worked on here.
    """
    before, _draws.scope = _draws.scope, Key(seed, step, 0, sample)
    try:
        yield
    finally:
        _draws.scope = before


@contextlib.contextmanager
def record_keys() -> Iterator[list[Key]]:
    """Within it, every key that is drawn is written to the list."""
    before, _draws.recorded = _draws.recorded, []
    try:
        yield _draws.recorded
    finally:
        recorded, _draws.recorded = _draws.recorded, before
        if before is not None:
            before.extend(recorded)


@contextlib.contextmanager
def replay_keys(keys: list[Key]) -> Iterator[None]:
    """Within it, the keys are those of the list, in order."""
    before = _draws.replayed, _draws.recorded
    _draws.replayed, _draws.recorded = iter(keys), None  # a key that is drawn again is not a new draw
    try:
        yield
    finally:
        _draws.replayed, _draws.recorded = before


def next_key(rng: np.random.Generator | None = None) -> Key:
    """The key for the next random operation: from the list being replayed, else the scope, else drawn from `rng`.

    Raises
    ------
    ValueError
        If there is none of them: nothing random happens without a seed that the caller has chosen.
    """
    if _draws.replayed is not None:
        key = next(_draws.replayed)
    elif _draws.scope is not None:
        key = _draws.scope
        _draws.scope = key._replace(layer=key.layer + 1)
    elif rng is not None:
        key = Key(int(rng.integers(2**63)))
    else:
        raise ValueError(
            "a random operation needs a seed: pass rng=numpy.random.default_rng(seed), "
            "or work inside `with tinyllm.random_scope(seed, step):`"
        )
    if _draws.recorded is not None:
        _draws.recorded.append(key)
    return key


def philox(xp: Any, counter: tuple[Any, Any, Any, Any], key: tuple[int, int]) -> tuple[Array, Array, Array, Array]:
    """Ten rounds of Philox-4x32: four arrays of 32 random bits (held as uint64) for each counter."""
    low = xp.uint64(0xFFFFFFFF)
    shift = xp.uint64(32)
    a, b, c, d = (xp.asarray(word, dtype=xp.uint64) for word in counter)
    k0, k1 = key
    for _ in range(10):
        p = a * xp.uint64(0xD2511F53)
        q = c * xp.uint64(0xCD9E8D57)
        a, b, c, d = (q >> shift) ^ b ^ xp.uint64(k0), q & low, (p >> shift) ^ d ^ xp.uint64(k1), p & low
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return a, b, c, d


def uniform(xp: Any, key: Key, shape: tuple[int, ...]) -> Array:
    """Uniform float32 numbers in [0, 1), of 24 bits each; row i of axis 0 depends on ``key.sample + i`` alone."""
    rows = shape[0] if shape else 1
    width = int(np.prod(shape[1:], dtype=int))
    blocks = -(-width // 4)
    sample = xp.arange(key.sample, key.sample + rows, dtype=xp.uint64).reshape(rows, 1)
    block = xp.arange(blocks, dtype=xp.uint64).reshape(1, blocks)
    counter = (block, sample, xp.uint64(key.layer), xp.uint64(key.step))
    words = philox(xp, counter, (key.seed & 0xFFFFFFFF, (key.seed >> 32) & 0xFFFFFFFF))
    bits = xp.stack(words, axis=-1).reshape(rows, 4 * blocks)[:, :width]
    return ((bits >> xp.uint64(8)).astype(xp.float32) * xp.float32(2**-24)).reshape(shape)
