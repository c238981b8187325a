"""Dropout (F-DROP): the mask is drawn and applied in one pass over memory, and never stored."""

from __future__ import annotations

import numpy as np

from tinyllm.kernels.cpu.compile import jit
from tinyllm.kernels.cpu.philox import philox, unit


@jit
def dropout(x, key, sample, p, scale, out):
    """To `out`: x * 0 with probability `p`, else x * `scale`; (R, W), each row a sample, numbered from `sample`.

    `key` holds the two halves of the seed, the step and the layer, as uint64. Four elements of a row share a counter;
    the last such block may be cut.
    """
    least, kept, zero = np.float32(p), x.dtype.type(scale), x.dtype.type(0)
    rows, width = x.shape
    k0, k1, step, layer = key[0], key[1], key[2], key[3]
    for i in range(rows):
        row, to, which = x[i], out[i], np.uint64(sample + i)
        for w in range(width // 4):
            a, b, c, d = philox(np.uint64(w), which, layer, step, k0, k1)
            to[4 * w] = row[4 * w] * (kept if unit(a) >= least else zero)
            to[4 * w + 1] = row[4 * w + 1] * (kept if unit(b) >= least else zero)
            to[4 * w + 2] = row[4 * w + 2] * (kept if unit(c) >= least else zero)
            to[4 * w + 3] = row[4 * w + 3] * (kept if unit(d) >= least else zero)
        words = philox(np.uint64(width // 4), which, layer, step, k0, k1)
        for j in range(width - width % 4, width):
            to[j] = row[j] * (kept if unit(words[j % 4]) >= least else zero)
