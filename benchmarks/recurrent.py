"""Training recurrent layers (forward, backward through time) against PyTorch's: RNN, LSTM, GRU.

    python benchmarks/recurrent.py
    python benchmarks/recurrent.py --quick    # the LSTM alone, within 45 s

H=256 units, as many inputs, T=64 steps, B=32 sequences, float32. All gradients are computed, that of the inputs too.
The limit is the matrix products, six of the size (T B, I) x (I, G H), at the rate of sgemm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from harness import OURS, Case, Step, compare, options_of, peer, work

import tinyllm as tl
from tinyllm import nn
from tinyllm.profile import Limits

TORCH = "PyTorch"
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
BATCH, TIME, UNITS = 32, 64, 256


def case(kind: str, quick: bool) -> Case:
    """A kind of layer as a piece of work."""
    flops = 6 * 2.0 * TIME * BATCH * UNITS * GATES[kind] * UNITS
    about = f"{kind}, forward and backward, H={UNITS}, T={TIME}, B={BATCH}"
    return Case(about, {"kind": kind}, flops, 0.0, (TORCH,), 1.0 if quick else 3.0)


def arrays() -> list[np.ndarray]:
    """Inputs, and the gradient that arrives."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal((BATCH, TIME, UNITS), np.float32) for _ in range(2)]


def ours(threads: int, kind: str) -> Step:
    """Forward and backward on the tape."""
    inputs, g = (tl.tensor(a) for a in arrays())
    x = tl.tensor(inputs, requires_grad=True)
    layer = getattr(nn, kind)(UNITS, UNITS, rng=np.random.default_rng(0))

    def step() -> Any:
        y, _ = layer(x)
        y.backward(g)
        layer.zero_grad()
        x.grad = None

    return step


def pytorch(threads: int, kind: str) -> Step:
    """The same in PyTorch."""
    torch = peer("torch")
    torch.set_num_threads(threads)
    inputs, g = (torch.from_numpy(a) for a in arrays())
    x = inputs.requires_grad_(True)
    layer = getattr(torch.nn, kind)(UNITS, UNITS, batch_first=True)

    def step() -> None:
        y, _ = layer(x)
        y.backward(g)
        layer.zero_grad()
        x.grad = None

    return step


SIDES = {OURS: ours, TORCH: pytorch}


def main() -> None:
    """Measure, and print a table or an object."""
    options = options_of(__doc__).parse_args()
    kinds = ("LSTM",) if options.quick else tuple(GATES)
    cases = {kind: case(kind, options.quick) for kind in kinds}
    if options.worker:
        work(SIDES, {kind: case(kind, options.quick) for kind in GATES}, options)
        return
    if options.quick:
        options.rounds = 1
    tl.set_num_threads(options.threads)
    report = compare(__file__, cases, options, Limits.measure())
    report.print(options.json)


if __name__ == "__main__":
    main()
