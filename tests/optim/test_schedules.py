"""Learning rates over time: their corners, their shapes, and torch.optim.lr_scheduler where it has the same."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.optim import schedules


def test_constant():
    assert [schedules.constant(0.1)(t) for t in (0, 1, 1000)] == [0.1] * 3


@given(warmup=st.integers(1, 50), lr=st.floats(1e-5, 1))
def test_every_warm_up_is_the_same_line(warmup, lr):
    for rate in (
        schedules.warmup(lr, warmup),
        schedules.cosine(lr, warmup, warmup + 10),
        schedules.inverse_square_root(lr, warmup),
    ):
        assert [rate(t) for t in range(warmup)] == pytest.approx([lr * t / warmup for t in range(warmup)])
        assert rate(0) == 0
        assert rate(warmup) == pytest.approx(lr)
        assert all(rate(t) <= lr * (1 + 1e-12) for t in range(warmup + 30))


def test_warmup_then_constant():
    rate = schedules.warmup(0.2, 4)
    assert [rate(t) for t in range(7)] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2, 0.2, 0.2])
    assert schedules.warmup(0.2, 0)(0) == 0.2


@given(warmup=st.integers(0, 20), length=st.integers(1, 50), final=st.floats(0, 0.05))
def test_cosine_falls_from_lr_to_final_and_stays(warmup, length, final):
    rate = schedules.cosine(0.1, warmup, warmup + length, final)
    falling = [rate(t) for t in range(warmup, warmup + length + 1)]
    assert falling[0] == pytest.approx(0.1)
    assert falling[-1] == rate(warmup + length + 1) == rate(10**9) == final
    assert all(a > b for a, b in itertools.pairwise(falling))
    middle = [a + b for a, b in zip(falling, reversed(falling), strict=True)]
    assert middle == pytest.approx([0.1 + final] * len(middle))  # symmetric about its middle


def test_cosine_may_rise():
    rate = schedules.cosine(0.1, 0, 4, final=0.3)
    assert (rate(0), rate(2), rate(4)) == pytest.approx((0.1, 0.2, 0.3))


def test_step_and_exponential():
    rate = schedules.step(1.0, 3, 0.5)
    assert [rate(t) for t in range(7)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    assert schedules.step(1.0, 2)(2) == pytest.approx(0.1)
    assert [schedules.exponential(2.0, 0.5)(t) for t in range(4)] == [2, 1, 0.5, 0.25]


@given(warmup=st.integers(1, 100), t=st.integers(1, 10_000))
def test_inverse_square_root_is_the_formula(warmup, t):
    expected = 0.3 * min(t / warmup, math.sqrt(warmup / t))
    assert schedules.inverse_square_root(0.3, warmup)(t) == pytest.approx(expected)


def test_the_papers_rate():
    d_model, warmup = 512, 4000
    rate = schedules.inverse_square_root(1 / math.sqrt(d_model * warmup), warmup)
    for t in (1, 100, 4000, 100_000):
        assert rate(t) == pytest.approx(d_model**-0.5 * min(t**-0.5, t * warmup**-1.5))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: schedules.warmup(0.1, -1),
        lambda: schedules.cosine(0.1, -1, 10),
        lambda: schedules.cosine(0.1, 10, 10),
        lambda: schedules.step(0.1, 0),
        lambda: schedules.inverse_square_root(0.1, 0),
    ],
)
def test_impossible_lengths_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        wrong()


@pytest.mark.peers
@pytest.mark.parametrize("name", ["warmup", "cosine", "step", "exponential"])
def test_schedules_equal_torch(name):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    kinds = torch.optim.lr_scheduler
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    theirs, rate = {
        "warmup": lambda: (kinds.LambdaLR(opt, lambda t: min(t / 7, 1)), schedules.warmup(0.1, 7)),
        "cosine": lambda: (kinds.CosineAnnealingLR(opt, 40, eta_min=0.01), schedules.cosine(0.1, 0, 40, 0.01)),
        "step": lambda: (kinds.StepLR(opt, 6, gamma=0.3), schedules.step(0.1, 6, 0.3)),
        "exponential": lambda: (kinds.ExponentialLR(opt, 0.9), schedules.exponential(0.1, 0.9)),
    }[name]()
    found = []
    for _ in range(41):
        found.append(opt.param_groups[0]["lr"])
        opt.step()
        theirs.step()
    np.testing.assert_allclose([rate(t) for t in range(41)], found, rtol=1e-12, atol=1e-15)


def test_one_cycle_rises_then_falls_and_stays():
    rate = schedules.one_cycle(1.0, 20, pct_start=0.3, div_factor=10, final_div_factor=100)
    rates = [rate(t) for t in range(20)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[5] == pytest.approx(1.0)
    assert rates[19] == rate(20) == rate(10**9) == pytest.approx(0.001)
    assert all(a < b for a, b in itertools.pairwise(rates[:6]))
    assert all(a > b for a, b in itertools.pairwise(rates[5:]))
    lines = schedules.one_cycle(1.0, 21, 0.5, "linear", 10, 100, three_phase=False)
    assert lines(0) == pytest.approx(0.1)
    assert lines(19) - lines(20) == pytest.approx(lines(12) - lines(13))


def test_one_cycle_of_three_phases_comes_back_to_where_it_began():
    rate = schedules.one_cycle(1.0, 40, pct_start=0.25, div_factor=10, three_phase=True)
    assert rate(9) == pytest.approx(1.0)
    assert rate(18) == pytest.approx(rate(0)) == pytest.approx(0.1)


@pytest.mark.peers
@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize(("steps", "pct_start"), [(50, 0.3), (37, 0.4), (100, 0.05)])
def test_one_cycle_is_that_of_pytorch(strategy, three_phase, steps, pct_start):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    options = {"anneal_strategy": strategy, "div_factor": 20, "final_div_factor": 50, "three_phase": three_phase}
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.3, total_steps=steps, pct_start=pct_start, cycle_momentum=False, **options
    )
    ours = schedules.one_cycle(0.3, steps, pct_start, **options)
    for t in range(steps):
        assert ours(t) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        if t < steps - 1:
            theirs.step()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"pct_start": 1.5}, "pct_start"),
        ({"anneal_strategy": "cosine"}, "'cos' or 'linear', got 'cosine'"),
        ({"div_factor": 0.0}, "div_factor"),
        ({"final_div_factor": -1.0}, "final_div_factor"),
        ({"steps": 3}, "do not fit"),
        ({"pct_start": 0.6, "three_phase": True}, "do not fit"),
    ],
)
def test_impossible_cycles_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        schedules.one_cycle(**{"lr": 0.1, "steps": 50} | options)
