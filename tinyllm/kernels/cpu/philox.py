"""Philox-4x32-10 (Salmon et al. 2011), as `tinyllm.autograd.random` draws it: the same bits for the same key."""

from __future__ import annotations

import numpy as np

from tinyllm.kernels.cpu.compile import inline

M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
W0, W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
LOW, HALF, BYTE = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(8)
UNIT = np.float32(2**-24)


@inline
def philox(a, b, c, d, k0, k1):
    """Ten rounds: 4 times 32 random bits for the counter (a, b, c, d), all held as uint64."""
    for _ in range(10):
        p = a * M0
        q = c * M1
        a, b, c, d = (q >> HALF) ^ b ^ k0, q & LOW, (p >> HALF) ^ d ^ k1, p & LOW
        k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
    return a, b, c, d


@inline
def unit(word):
    """A float32 in [0, 1) from 24 of 32 bits."""
    return np.float32(word >> BYTE) * UNIT


@inline
def uniforms(key, sample, begin, end, out):
    """Numbers `begin` to `end` of a sample into `out`, and the index in `out` of number `begin`.

    `key` holds the two halves of the seed, the step and the layer, as uint64. Numbers come in blocks of four; those
    before `begin` in its block are written, too: `out` has room for 6 more.
    """
    first = begin // 4
    for w in range((end + 3) // 4 - first):
        a, b, c, d = philox(np.uint64(first + w), np.uint64(sample), key[3], key[2], key[0], key[1])
        out[4 * w], out[4 * w + 1], out[4 * w + 2], out[4 * w + 3] = unit(a), unit(b), unit(c), unit(d)
    return begin - 4 * first
