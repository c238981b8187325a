"""Trajectories equal those of torch.optim to 1e-10 in float64, for every combination of options."""

import itertools

import numpy as np
import pytest

import tinyllm as tl
from tinyllm import optim

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch", reason="PyTorch is not installed")

STEPS = 60


def combinations(**options):
    return [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]


SGD = [
    c
    for c in combinations(
        momentum=[0, 0.9], dampening=[0, 0.4], weight_decay=[0, 0.1], nesterov=[False, True], lr=[0.03]
    )
    if not c["nesterov"] or (c["momentum"] and not c["dampening"])
]
ADAM = combinations(
    lr=[1e-3, 0.05], betas=[(0.9, 0.999), (0.5, 0.6), (0.0, 0.0)], eps=[1e-8, 1e-2], weight_decay=[0, 0.1]
)


@pytest.mark.parametrize(
    ("name", "options"),
    [("SGD", c) for c in SGD] + [(name, c) for name in ("Adam", "AdamW") for c in ADAM],
    ids=str,
)
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_trajectory(name, options, backend, rng):
    start = [rng.normal(size=shape) for shape in ((3, 4), (5,), ())]
    target = [rng.normal(size=s.shape) for s in start]
    ours = [tl.tensor(s, requires_grad=True) for s in start]
    theirs = [torch.tensor(s, requires_grad=True) for s in start]
    groups = [{"lr": options["lr"]}, {"lr": options["lr"] / 3}]
    a = getattr(optim, name)([{"params": ours[:2], **groups[0]}, {"params": ours[2:], **groups[1]}], **options)
    b = getattr(torch.optim, name)(
        [{"params": theirs[:2], **groups[0]}, {"params": theirs[2:], **groups[1]}], **options
    )
    for t in range(STEPS):
        rate = options["lr"] * (1 - t / STEPS)
        a.param_groups[0]["lr"] = b.param_groups[0]["lr"] = rate
        a.zero_grad()
        b.zero_grad()
        left_out = t % 3  # one parameter without a gradient in each step
        with tl.backend(backend):
            for i, (p, q, goal) in enumerate(zip(ours, theirs, target, strict=True)):
                if i != left_out:
                    (tl.sin(p) * (p - goal) ** 2).sum().backward()
                    (torch.sin(q) * (q - torch.tensor(goal)) ** 2).sum().backward()
            a.step()
            b.step()
        for p, q in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=0, atol=1e-10)
    assert all(np.abs(p.data - s).max() > 1e-3 for p, s in zip(ours, start, strict=True))
