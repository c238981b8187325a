"""Correct rules pass, also where naive checkers see errors; and the report says what it saw."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyllm as tl
from tinyllm.testing import gradcheck, numerical_vjp, taylor_order, tensors

RNG = np.random.default_rng(6)
MASKED = np.array([[0.3, -np.inf, 1.0, -0.2], [0.1, 0.5, -np.inf, -np.inf]])
TRAPS = {
    "abs near 0": (tl.abs, np.array([0.0, 1e-9, -1e-13, 1e-300, 1.0])),
    "relu near 0": (tl.relu, np.array([0.0, 1e-9, -1e-13, 1.0, -2.0])),
    "relu(x - 1) near 1": (lambda x: tl.relu(x - 1), 1 + np.array([0.0, 1e-9, -1e-13, 1e-5])),
    "max with ties": (lambda x: tl.max(x, -1), np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 2.0], [1.0, 1 + 1e-12, 0.5]])),
    "maximum of equals": (lambda x: tl.maximum(x, 1.0), np.array([1.0, 1 + 1e-12, 3.0])),
    "sort with ties": (tl.sort, np.array([1.0, 1.0, 0.0, 1.0, 0.0])),
    "sqrt near 0": (tl.sqrt, np.array([0.0, 1e-12, 1e-300, 1.0, 4e8])),
    "norm at 0": (tl.norm, np.zeros(4)),
    "norm near 0": (tl.norm, np.full(4, 1e-12)),
    "clip on its bounds": (lambda x: tl.clip(x, -1, 1), np.array([-1.0, 1.0, 0.5, 2.0])),
    "floor at integers": (tl.floor, np.array([0.0, 1.0, 1.5, -2.0])),
    "logsumexp at 1e4": (tl.logsumexp, np.array([1e4, 1e4 + 1, 9990.0, -1e4])),
    "log_softmax at 1e4": (tl.log_softmax, 1e4 + RNG.normal(size=(2, 3))),
    "softmax of 1000s": (tl.softmax, 1e3 * RNG.normal(size=(3, 4))),
    "softmax beside -inf": (tl.softmax, MASKED),
    "log_softmax beside -inf": (tl.log_softmax, MASKED),
    "logsumexp beside -inf": (lambda x: tl.logsumexp(x, -1), MASKED),
    "1e-12 beside 1e3": (lambda x: x * np.array([1e-12, 1e3, 1.0]), RNG.normal(size=3)),
    "layer norm far from 0": (lambda x: tl.layer_norm(x, 5), 1e4 + RNG.normal(size=(2, 5))),
    "layer norm of two": (lambda x: tl.layer_norm(x, 2), RNG.normal(size=(3, 2))),
    "layer norm of equals": (lambda x: tl.layer_norm(x, 3), np.ones((2, 3))),
    "saturated": (tl.tanh, np.array([20.0, -40.0, 5.0])),
    "underflowed": (tl.gelu, np.array([-8.0, -40.0, 9.0])),
    "wide range": (lambda x: tl.log(x), 10.0 ** np.arange(-9, 9)),
    "empty": (tl.exp, np.zeros((0, 3))),
    "0-d": (tl.exp, np.array(0.3)),
    "repeated index": (lambda w: w[np.array([0, 2, 2, 0])], RNG.normal(size=(3, 2))),
    "repeated use": (lambda x: x * x * tl.exp(x) + x, RNG.normal(size=(2, 3))),
    "constant": (lambda x: 0 * x + 1.0, RNG.normal(size=3)),
}


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8])
@pytest.mark.parametrize("name", ["sum", "square", "relu", "sigmoid", "sin", "abs", "softmax", "matmul", "softplus"])
def test_inputs_of_every_scale(name, scale):
    x = scale * RNG.normal(size=(3, 4))
    functions = {"square": lambda x: x * x, "matmul": lambda x: x @ x.mT}
    gradcheck(functions.get(name) or getattr(tl, name), x)


@pytest.mark.parametrize("name", TRAPS)
def test_traps_for_naive_checkers(name):
    f, x = TRAPS[name]
    gradcheck(f, x)
    if name not in ("softmax of 1000s", "log_softmax at 1e4"):
        gradcheck(f, x, order=2)


@pytest.mark.parametrize("name", ["exp", "sin", "gelu", "softmax", "abs", "sigmoid"])
def test_float32(name):
    gradcheck(getattr(tl, name), RNG.normal(size=(3, 5)).astype(np.float32), order=2)


def test_a_running_sum_of_100000():
    gradcheck(tl.cumsum, RNG.normal(size=100_000))


def test_an_elementwise_check_of_100000_takes_seconds():
    x = RNG.normal(size=100_000)
    gradcheck(tl.gelu, x[:5000])  # compiles the kernel
    start = time.process_time()
    report = gradcheck(tl.gelu, x)
    assert time.process_time() - start < 20
    assert report.arguments[0].compared == 100_000


def test_kinks_are_reported_and_held_to_a_subgradient():
    report = gradcheck(tl.relu, np.array([0.0, 1.0, -1.0]))
    (kink,) = report.kinks
    assert (kink.index, kink.claimed) == ((0,), 0.0)
    assert (kink.left, kink.right) == pytest.approx((0.0, 1.0))
    assert "kink" in str(report)


def test_the_report_says_how_each_argument_was_checked():
    report = gradcheck(lambda x, w: tl.softmax(x @ w), RNG.normal(size=(300, 20)), RNG.normal(size=(20, 30)))
    assert [a.method for a in report.arguments] == ["every element (20 probes)", "projections and worst entries"]
    assert all(a.worst < 1 for a in report.arguments)
    assert all(0 < a.resolution < 1e-6 for a in report.arguments)
    assert "argument 1 (w)" in str(report)


def test_arguments_that_are_not_differentiated():
    ids = np.array([1, 0, 1])
    report = gradcheck(
        lambda ids, w, name: w[ids], ids, RNG.normal(size=(2, 3)), "text",
        vjp=lambda g, ids, w, name: (None, np.stack([g[1], g[0] + g[2]]), None),
    )  # fmt: skip
    assert len(report.arguments) == 1
    report = gradcheck(lambda a, b: a * b, np.ones(2), np.ones(2), vjp=lambda g, a, b: (g * b, None))
    assert "argument 1 (b) has no gradient (None): not checked" in report.notes


def test_broadcast_and_non_contiguous_inputs():
    x = RNG.normal(size=(4, 3)).T
    gradcheck(lambda x, b: tl.exp(x) * b, x, RNG.normal(size=(3, 1)), order=2)
    gradcheck(lambda x, b: x / b, tl.tensor(x), tl.tensor(2.0 + RNG.random(4)))


def test_granted_tolerances_widen_the_check():
    def nearly(g, x):
        return (g * np.cos(x) * 1.001,)

    gradcheck(np.sin, np.ones(3), vjp=nearly, rtol=1e-2)
    gradcheck(np.sin, np.ones(3), vjp=nearly, atol=1e-2)


def test_the_same_seed_gives_the_same_report():
    x = RNG.normal(size=(3, 4))
    assert gradcheck(tl.softmax, x, seed=3) == gradcheck(tl.softmax, x, seed=3)


@given(tensors(max_side=4), st.sampled_from(["exp", "tanh", "relu", "abs", "sin", "cumsum", "sum", "norm", "softplus"]))
def test_no_false_alarm_on_drawn_inputs(x, name):
    gradcheck(getattr(tl, name), x)


@settings(max_examples=15)
@given(tensors((2, 3)), tensors(st.sampled_from([(2, 3), (3,), (2, 1), ()])))
def test_no_false_alarm_on_drawn_broadcasts(a, b):
    gradcheck(lambda a, b: tl.maximum(a, b) * a + tl.sin(b), a, b)


def test_numerical_vjp():
    x, g = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4))
    d, none = numerical_vjp(lambda x, n: np.sin(x) * n, g, x, 3)
    assert none is None
    np.testing.assert_allclose(d, 3 * g * np.cos(x), rtol=1e-10, atol=1e-12)
    (d,) = numerical_vjp(tl.softmax, g, tl.tensor(x))
    y = tl.softmax(x).numpy()
    np.testing.assert_allclose(d, y * (g - (g * y).sum(-1, keepdims=True)), rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="the cotangent has shape"):
        numerical_vjp(np.sin, np.ones(2), x)


def test_taylor_order():
    x = RNG.normal(size=(3, 4))
    assert taylor_order(tl.exp, x) == pytest.approx(2, abs=0.2)
    assert taylor_order(lambda x: 3 * x, x) == np.inf
    assert taylor_order(np.sin, x, vjp=lambda g, x: (1.01 * g * np.cos(x),)) == pytest.approx(1, abs=0.2)
    assert taylor_order(tl.exp, x.astype(np.float32)) == pytest.approx(2, abs=0.3)


def test_drawn_tensors_cover_the_awkward_shapes():
    seen = set()

    @given(tensors(requires_grad=True))
    def look(x):
        assert x.requires_grad
        seen.update(
            name
            for name, holds in (
                ("0-d", x.ndim == 0),
                ("empty", x.size == 0),
                ("length 1", 1 in x.shape),
                ("non-contiguous", not x.data.flags.c_contiguous),
            )
            if holds
        )

    look()
    assert seen == {"0-d", "empty", "length 1", "non-contiguous"}
