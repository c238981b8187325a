"""Rotary positions: each pair of channels (i, i + D/2) is turned by the angle of its position.

Read once, written once; the sines are made by the caller, since all rows of a position share them. The derivative is
the same turn backwards, with the sines negated.
"""

from __future__ import annotations

from tinyllm.kernels.cpu.compile import Array, jit


@jit
def rotate(x: Array, cos: Array, sin: Array, out: Array) -> None:
    """Turn x (N, T, M, D) by cos, sin (N or 1, T, D/2) into `out`; D is even."""
    half = x.shape[3] // 2
    for n in range(x.shape[0]):
        own = n if cos.shape[0] > 1 else 0
        for t in range(x.shape[1]):
            c, s = cos[own, t], sin[own, t]
            for m in range(x.shape[2]):
                first, second = x[n, t, m, :half], x[n, t, m, half:]
                out_first, out_second = out[n, t, m, :half], out[n, t, m, half:]
                for i in range(half):
                    out_first[i] = first[i] * c[i] - second[i] * s[i]
                    out_second[i] = second[i] * c[i] + first[i] * s[i]
