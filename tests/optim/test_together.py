"""Optimisers that step together are the same optimisers side by side."""

import numpy as np
import pytest

import tinyllm as tl
from tinyllm.errors import CheckpointError
from tinyllm.optim import AdamW, Muon, Together


def parameters(rng):
    return [tl.tensor(rng.normal(size=shape), requires_grad=True) for shape in [(4, 6), (6, 3), (5,), (7, 2)]]


def pair(params, lr=0.1):
    return Muon(params[:2], lr=lr), AdamW(params[2:], lr=lr)


def give_gradients(params, seed):
    rng = np.random.default_rng(seed)
    for p in params:
        p.grad = tl.tensor(rng.normal(size=p.shape))


def test_together_is_side_by_side(rng):
    ours, theirs = (parameters(np.random.default_rng(3)) for _ in range(2))
    together, alone = Together(pair(ours)), pair(theirs)
    for step in range(4):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        together.lr = 0.1 / (1 + step)
        together.step(0.5)
        for optimizer in alone:
            optimizer.lr = 0.1 / (1 + step)
            optimizer.step(0.5)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    together.zero_grad()
    assert all(p.grad is None for p in ours)


def test_what_is_saved_goes_on(rng):
    params = parameters(rng)
    together = Together(pair(params))
    give_gradients(params, 0)
    together.step()
    copies = [tl.tensor(p.numpy().copy(), requires_grad=True) for p in params]
    again = Together(pair(copies, lr=0.7))
    again.load_state_dict(together.state_dict())
    for optimizer, owned in ((together, params), (again, copies)):
        give_gradients(owned, 1)
        optimizer.step()
    for a, b in zip(params, copies, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("spoil", ["missing", "foreign", "number"])
def test_a_state_that_does_not_fit_changes_nothing(rng, spoil):
    params = parameters(rng)
    together = Together(pair(params))
    give_gradients(params, 0)
    together.step()
    state = together.state_dict()
    other = Together(pair(params, lr=0.9))
    before = other.state_dict()
    if spoil == "missing":
        del state["1.state.0.exp_avg"]
    elif spoil == "foreign":
        state["1.state.9.exp_avg"] = np.zeros(3)
    else:
        state["2.group.0.lr"] = 0.1
    with pytest.raises(CheckpointError):
        other.load_state_dict(state)
    assert other.state_dict() == before


def test_what_cannot_be_together(rng):
    params = parameters(rng)
    with pytest.raises(ValueError, match="at least one"):
        Together([])
    with pytest.raises(ValueError, match="two optimisers"):
        Together([AdamW(params), Muon(params[:1])])
    with pytest.raises(ValueError, match="different rates"):
        Together([AdamW(params[2:], lr=0.1), Muon(params[:2], lr=0.2)])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_share_muon_s_matrices(threads):
    found = []
    before = tl.threads.get_num_threads()
    for n in (1, threads):
        rng = np.random.default_rng(0)
        params = [tl.tensor(rng.normal(size=(8, 5)), requires_grad=True) for _ in range(7)]
        tl.set_num_threads(n)
        try:
            muon = Muon(params)
            for step in range(3):
                give_gradients(params, step)
                muon.step()
        finally:
            tl.set_num_threads(before)
        found.append([p.numpy() for p in params])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
