"""Muon equals torch.optim.Muon to 1e-10 in float64, for every combination of options."""

import itertools

import numpy as np
import pytest

import tinyllm as tl
from tinyllm.optim.muon import Muon

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch", reason="PyTorch is not installed")

STEPS = 20


@pytest.fixture
def full_precision(monkeypatch):
    """PyTorch iterates in bfloat16, of which 8 bits are left; held against float64 it must not."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.clone())


@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize(
    ("momentum", "nesterov", "weight_decay", "adjust_lr_fn", "ns_steps"),
    list(itertools.product([0.95, 0.5], [True, False], [0.0, 0.1], [None, "original", "match_rms_adamw"], [5, 2])),
)
def test_trajectory(momentum, nesterov, weight_decay, adjust_lr_fn, ns_steps, rng):
    options = {
        "lr": 0.03,
        "weight_decay": weight_decay,
        "momentum": momentum,
        "nesterov": nesterov,
        "adjust_lr_fn": adjust_lr_fn,
        "ns_steps": ns_steps,
    }
    start = [rng.normal(size=shape) for shape in ((3, 7), (6, 2), (4, 4), (1, 5))]
    ours = [tl.tensor(s, requires_grad=True) for s in start]
    theirs = [torch.tensor(s, requires_grad=True) for s in start]
    a, b = Muon(ours, **options), torch.optim.Muon(theirs, **options)
    for t in range(STEPS):
        a.param_groups[0]["lr"] = b.param_groups[0]["lr"] = options["lr"] * (1 - t / STEPS)
        a.zero_grad()
        b.zero_grad()
        for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            if i != t % 5:  # now and then one without a gradient
                (tl.sin(p) * p**2).sum().backward()
                (torch.sin(q) * q**2).sum().backward()
        a.step()
        b.step()
        for p, q in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-10, atol=1e-12)
