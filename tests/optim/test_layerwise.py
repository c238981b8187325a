"""Groups with shares of the rate."""

import numpy as np
import pytest

import tinyllm as tl
from tinyllm.optim import AdamW, LayerwiseAdamW


def test_each_group_moves_as_adamw_with_its_own_rate():
    rng = np.random.default_rng(0)
    start, g = rng.normal(size=(2, 5)), rng.normal(size=(2, 5))
    ours = [tl.tensor(row, requires_grad=True) for row in start]
    theirs = [tl.tensor(row, requires_grad=True) for row in start]
    layered = LayerwiseAdamW([{"params": [p]} for p in ours], shares=[1.0, 0.25], weight_decay=0.1)
    plain = [AdamW([p], weight_decay=0.1) for p in theirs]
    for step in range(4):
        layered.lr = rate = 0.1 / (step + 1)
        for optimizer, share in zip(plain, (1.0, 0.25), strict=True):
            optimizer.lr = rate * share
        for p, q, row in zip(ours, theirs, g, strict=True):
            p.grad, q.grad = tl.tensor(row), tl.tensor(row)
        layered.step()
        for optimizer in plain:
            optimizer.step()
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())
    assert layered.lr == rate


def test_shares_must_fit_the_groups():
    p = tl.tensor(np.ones(2), requires_grad=True)
    with pytest.raises(ValueError, match="1 groups need as many shares"):
        LayerwiseAdamW([{"params": [p]}], shares=[1.0, 0.5])
    with pytest.raises(ValueError, match="none negative"):
        LayerwiseAdamW([{"params": [p]}], shares=[-1.0])
