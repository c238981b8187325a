"""Optimisers against the literal loops of `tinyllm.formulas`; what they refuse; exact resumption."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyllm as tl
from tinyllm import optim
from tinyllm.errors import CheckpointError
from tinyllm.formulas import optimisers as loops

MAKERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.05),
    "momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.3, weight_decay=0.1),
    "nesterov": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.05, weight_decay=0.1),
    "adamw": lambda p: optim.AdamW(p, lr=0.05, betas=(0.8, 0.95)),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.3, initial_accumulator_value=0.1),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.05, alpha=0.9),
    "centered": lambda p: optim.RMSprop(p, lr=0.03, momentum=0.5, weight_decay=0.1, centered=True),
}


def parameter(value, dtype=np.float64) -> tl.Tensor:
    return tl.tensor(value, dtype=dtype, requires_grad=True)


def descend(opt: optim.Optimizer, params: list[tl.Tensor], steps: int, seed: int = 0) -> None:
    """Steps along gradients that depend on the parameters and on the number of the step."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        for p in params:
            p.grad = tl.tensor((p.numpy() + rng.normal(size=p.shape)).astype(p.dtype))
        opt.step()


def test_sgd_is_the_formula(rng):
    p, g = parameter(rng.normal(size=5)), rng.normal(size=5)
    expected = loops.sgd_step(p.numpy(), g, 0.1)
    p.grad = tl.tensor(g)
    optim.SGD([p], lr=0.1).step()
    np.testing.assert_allclose(p.data, expected, rtol=1e-15)


def test_momentum_is_the_formula(rng):
    p = parameter(rng.normal(size=5))
    opt = optim.SGD([p], lr=0.1, momentum=0.8)
    theta, velocity = p.numpy(), np.zeros(5)
    for _ in range(50):
        g = rng.normal(size=5)
        theta, velocity = loops.sgd_momentum_step(theta, g, velocity, 0.1, 0.8)
        p.grad = tl.tensor(g)
        opt.step()
        np.testing.assert_allclose(p.data, theta, rtol=1e-12)


@given(
    momentum=st.sampled_from([0.3, 0.9]),
    dampening=st.sampled_from([0.0, 0.4]),
    weight_decay=st.sampled_from([0.0, 0.1]),
    nesterov=st.booleans(),
)
def test_every_option_of_sgd_is_as_documented(momentum, dampening, weight_decay, nesterov):
    rng = np.random.default_rng(0)
    dampening = 0.0 if nesterov else dampening
    p, velocity = parameter(2.0), None
    opt = optim.SGD([p], 0.1, momentum, dampening, weight_decay, nesterov)
    theta = 2.0
    for _ in range(10):
        p.grad = tl.tensor(rng.normal())
        g = p.grad.item() + weight_decay * theta
        velocity = g if velocity is None else momentum * velocity + (1 - dampening) * g
        theta -= 0.1 * (g + momentum * velocity if nesterov else velocity)
        opt.step()
        assert p.item() == pytest.approx(theta, rel=1e-12)


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW])
def test_adam_is_the_formula(kind, rng):
    p = parameter(rng.normal(size=5))
    opt = kind([p], lr=0.1, betas=(0.8, 0.97), eps=1e-3, weight_decay=0.2)
    theta, m, v = p.numpy(), np.zeros(5), np.zeros(5)
    for t in range(1, 51):
        g = rng.normal(size=5)
        p.grad = tl.tensor(g)
        if kind is optim.Adam:
            g = g + 0.2 * np.array(theta)
        else:
            theta = np.array(theta) * (1 - 0.1 * 0.2)
        theta, m, v = loops.adam_step(theta, g, m, v, t, 0.1, 0.8, 0.97, 1e-3)
        opt.step()
        np.testing.assert_allclose(p.data, theta, rtol=1e-11)


@pytest.mark.parametrize("name", MAKERS)
def test_every_optimiser_finds_the_bottom_of_a_parabola(name):
    p = parameter([3.0, -2.0])
    opt = MAKERS[name]([p])
    opt.param_groups[0]["weight_decay"] = 0.0
    high = 1.0 if name == "adagrad" else 0.1  # whose steps shrink by themselves
    for t in range(500):
        opt.lr = high * (1 - t / 500)
        ((p - np.array([1.0, 2.0])) ** 2).sum().backward()
        opt.step()
        opt.zero_grad()
    np.testing.assert_allclose(p.data, [1, 2], atol=1e-4)


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW])
@pytest.mark.parametrize(("dtype", "atol"), [(np.float64, 1e-13), (np.float32, 2e-5)])
def test_compiled_and_numpy_steps_are_equal(kind, dtype, atol, rng):
    pytest.importorskip("numba", reason="Numba is not installed")
    start = rng.normal(size=(3, 37))
    found = {}
    for backend in ("numpy", "numba"):
        p = parameter(start, dtype)
        with tl.backend(backend):
            descend(kind([p], lr=0.01, weight_decay=0.1), [p], 50)
        found[backend] = p.numpy()
    np.testing.assert_allclose(found["numba"], found["numpy"], rtol=0, atol=atol)
    assert np.abs(found["numpy"] - start).max() > 0.05


def test_adagrad_is_as_documented():
    p = parameter(2.0)
    opt = optim.Adagrad([p], 0.1, lr_decay=0.5, initial_accumulator_value=0.2, eps=1e-3)
    theta, squares = 2.0, 0.2
    for t, g in enumerate((1.0, -3.0, 0.5), start=1):
        p.grad = tl.tensor(g)
        opt.step()
        squares += g**2
        theta -= 0.1 / (1 + (t - 1) * 0.5) * g / (squares**0.5 + 1e-3)
        assert p.item() == pytest.approx(theta, rel=1e-14)


@pytest.mark.parametrize("momentum", [0.0, 0.6])
@pytest.mark.parametrize("centered", [False, True])
def test_rmsprop_is_as_documented(momentum, centered):
    p = parameter(2.0)
    opt = optim.RMSprop([p], 0.1, alpha=0.7, eps=1e-3, momentum=momentum, centered=centered)
    theta, v, mean, u = 2.0, 0.0, 0.0, 0.0
    for g in (1.0, -3.0, 0.5):
        p.grad = tl.tensor(g)
        opt.step()
        v, mean = 0.7 * v + 0.3 * g**2, 0.7 * mean + 0.3 * g
        u = momentum * u + g / ((v - centered * mean**2) ** 0.5 + 1e-3)
        theta -= 0.1 * u
        assert p.item() == pytest.approx(theta, rel=1e-13)


SHAPES = [(3, 4), (), (0,), (50,), (500, 300), (7,), (400, 200)]


def steps(name: str, threads: int, shapes: list[tuple[int, ...]], dtype=np.float32) -> list[np.ndarray]:
    """The parameters after three steps on so many threads."""
    before = tl.get_num_threads()
    tl.set_num_threads(threads)
    try:
        rng = np.random.default_rng(0)
        params = [parameter(rng.normal(size=shape), dtype) for shape in shapes]
        descend(MAKERS[name](params), params, 3)
    finally:
        tl.set_num_threads(before)
    return [p.numpy() for p in params]


@pytest.mark.parametrize("name", MAKERS)
def test_the_number_of_threads_changes_nothing(name):
    alone = steps(name, 1, SHAPES)
    for threads in (2, 3, 8):
        for a, b in zip(alone, steps(name, threads, SHAPES), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_many_arrays_move_as_one_flat_array_does(name):
    rng = np.random.default_rng(0)
    values, grads = ([rng.normal(size=shape).astype(np.float32) for shape in SHAPES] for _ in range(2))
    many = [parameter(value, np.float32) for value in values]
    one = [parameter(np.concatenate([value.ravel() for value in values]), np.float32)]
    for params, given_grads in ((many, grads), (one, [np.concatenate([g.ravel() for g in grads])])):
        opt = MAKERS[name](params)
        for _ in range(3):
            for p, g in zip(params, given_grads, strict=True):
                p.grad = tl.tensor(g)
            opt.step(0.3)
    np.testing.assert_array_equal(np.concatenate([p.numpy().ravel() for p in many]), one[0].data)


@pytest.mark.parametrize("name", [*MAKERS, "muon"])
def test_the_scale_of_a_step_is_that_of_the_gradient(name, rng):
    maker = MAKERS.get(name, lambda p: optim.Muon(p, lr=0.05))
    start, g = rng.normal(size=(4, 6)), rng.normal(size=(4, 6))
    scaled, plain = parameter(start), parameter(start)
    a, b = maker([scaled]), maker([plain])
    for _ in range(3):
        scaled.grad, plain.grad = tl.tensor(g), tl.tensor(0.25 * g)
        a.step(0.25)
        b.step()
    np.testing.assert_allclose(scaled.data, plain.data, rtol=1e-13)
    np.testing.assert_array_equal(scaled.grad.data, g)


@pytest.mark.parametrize("name", MAKERS)
def test_views_that_somebody_holds_see_every_step(name, rng):
    p = parameter(rng.normal(size=(3, 4)))
    held = p.data
    opt = MAKERS[name]([p])
    descend(opt, [p], 2)
    np.testing.assert_array_equal(held, p.numpy())


def test_dtypes_may_be_mixed_in_a_group(rng):
    start = [rng.normal(size=5000), rng.normal(size=5000), rng.normal(size=3)]
    dtypes = [np.float32, np.float64, np.float16]
    params = [parameter(value, dtype) for value, dtype in zip(start, dtypes, strict=True)]
    descend(optim.AdamW(params, lr=0.1), params, 2)
    assert [p.dtype for p in params] == dtypes
    assert all(np.abs(p.data - value).min() > 0 for p, value in zip(params, start, strict=True))


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_memory_order_of_parameters_and_gradients_does_not_matter(backend, rng):
    pytest.importorskip("numba", reason="Numba is not installed")
    start, g = rng.normal(size=(4, 6)), rng.normal(size=(4, 6))
    found = []
    for order_p in "CF":
        for order_g in "CF":
            p = parameter(np.asarray(start, order=order_p))
            p.grad = tl.tensor(np.asarray(g, order=order_g))
            with tl.backend(backend):
                optim.AdamW([p], lr=0.1).step()
            found.append(p.numpy())
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-14)
    assert (found[0] != start).all()


@pytest.mark.parametrize("name", MAKERS)
def test_float32_stays_float32_even_with_a_numpy_rate(name, rng):
    start = rng.normal(size=100)
    p, scalar = parameter(start, np.float32), parameter(1.0, np.float32)
    opt = MAKERS[name]([p, scalar])
    opt.param_groups[0]["lr"] = np.float64(0.1)
    descend(opt, [p, scalar], 3)
    twins = [parameter(start, np.float32), parameter(1.0, np.float32)]
    plain = MAKERS[name](twins)
    plain.lr = 0.1
    descend(plain, twins, 3)
    np.testing.assert_array_equal(p.data, twins[0].data)
    assert p.dtype == scalar.dtype == np.float32
    state = opt.state_dict().items()
    assert all(v.dtype == np.float32 for k, v in state if isinstance(v, np.ndarray))
    opt.lr = np.float64(0.2)
    assert type(opt.lr) is float


@pytest.mark.parametrize("name", MAKERS)
def test_parameters_without_gradient_are_left_alone(name):
    moved, still = parameter([1.0]), parameter([1.0])
    opt = MAKERS[name]([moved, still])
    moved.grad = tl.tensor([1.0])
    opt.step()
    assert moved.item() != 1
    assert still.item() == 1
    assert not any(key.startswith("state.1") for key in opt.state_dict())


@pytest.mark.parametrize("name", MAKERS)
def test_the_tape_notices_a_step(name):
    p = parameter([1.0, 2.0])
    y = (p * p).sum()
    p.grad = tl.tensor([1.0, 1.0])
    MAKERS[name]([p]).step()
    with pytest.raises(RuntimeError, match="overwritten"):
        y.backward()


def test_the_gradient_is_not_changed_by_a_step(rng):
    for name, maker in MAKERS.items():
        p, g = parameter(rng.normal(size=4)), rng.normal(size=4)
        p.grad = tl.tensor(g)
        opt = maker([p])
        for _ in range(3):
            opt.step()
        np.testing.assert_array_equal(p.grad.data, g, err_msg=name)


def test_groups_have_their_own_options():
    a, b = parameter([1.0]), parameter([1.0])
    opt = optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.5}], lr=0.1)
    a.grad = b.grad = tl.tensor([1.0])
    opt.step()
    assert (a.item(), b.item()) == (0.9, 0.5)
    with pytest.raises(ValueError, match="different rates"):
        _ = opt.lr
    opt.param_groups[0]["lr"] = 0.2
    opt.step()
    assert a.item() == pytest.approx(0.7)
    opt.lr = 0.25
    assert opt.lr == 0.25
    assert [group["lr"] for group in opt.param_groups] == [0.25, 0.25]
    opt.zero_grad()
    assert a.grad is None
    assert b.grad is None


def test_a_generator_of_parameters_will_do():
    p = parameter([1.0])
    opt = optim.AdamW(q for q in [p])
    assert opt.param_groups[0]["params"] == [p]
    assert optim.AdamW([{"params": (q for q in [p])}]).param_groups[0]["params"] == [p]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (optim.SGD, {"lr": -0.1}, "lr must not be negative, got -0.1"),
        (optim.AdamW, {"lr": float("nan")}, "lr"),
        (optim.AdamW, {"weight_decay": -1}, "weight_decay"),
        (optim.Adam, {"betas": (0.9, 1.0)}, "betas"),
        (optim.Adam, {"betas": (-0.1, 0.9)}, "betas"),
        (optim.Adam, {"betas": (0.9,)}, "betas"),
        (optim.Adam, {"eps": -1e-8}, "eps"),
        (optim.SGD, {"momentum": -0.5}, "momentum"),
        (optim.Adagrad, {"lr_decay": -1.0}, "lr_decay"),
        (optim.Adagrad, {"initial_accumulator_value": -1.0}, "initial_accumulator_value"),
        (optim.Adagrad, {"eps": float("nan")}, "eps"),
        (optim.RMSprop, {"alpha": 1.0}, "alpha"),
        (optim.RMSprop, {"momentum": -0.1}, "momentum"),
        (optim.RMSprop, {"eps": -1.0}, "eps"),
        (optim.SGD, {"nesterov": True}, "nesterov"),
        (optim.SGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov"),
    ],
)
def test_impossible_options_are_refused(kind, options, message):
    p = parameter([1.0])
    with pytest.raises(ValueError, match=message):
        kind([p], **options)
    with pytest.raises(ValueError, match=message):
        kind([{"params": [p], **options}])
    opt = kind([p])
    opt.param_groups[0].update(options)
    with pytest.raises(ValueError, match=message):
        opt.step()


def test_impossible_parameters_are_refused():
    p, q = parameter([1.0]), parameter([1.0, 2.0])
    with pytest.raises(ValueError, match="empty list"):
        optim.SGD([])
    with pytest.raises(ValueError, match="group 1 has no parameters"):
        optim.SGD([{"params": [p]}, {"params": []}])
    with pytest.raises(ValueError, match=r"shape \(2,\) in group 0 is listed twice"):
        optim.SGD([p, q, q])
    with pytest.raises(ValueError, match="listed twice"):
        optim.SGD([{"params": [p]}, {"params": [p]}])
    with pytest.raises(TypeError, match=r"wrap it in \[\]"):
        optim.SGD(p)
    with pytest.raises(TypeError, match="floating Tensor"):
        optim.SGD([tl.tensor([1])])
    with pytest.raises(TypeError, match="floating Tensor"):
        optim.SGD([p * 2])
    with pytest.raises(TypeError, match="group 1 must be a dict"):
        optim.SGD([{"params": [p]}, q])
    with pytest.raises(ValueError, match=r"no option 'weight_deacy'; did you mean 'weight_decay'\?"):
        optim.SGD([{"params": [p], "weight_deacy": 0.1}])
    q.grad = tl.tensor([1.0])
    with pytest.raises(ValueError, match=r"shape \(2,\) float64 has a gradient of shape \(1,\)"):
        optim.SGD([q]).step()


@pytest.mark.parametrize("name", MAKERS)
@given(before=st.integers(0, 4), after=st.integers(1, 4), dtype=st.sampled_from([np.float32, np.float64]))
def test_resumption_is_bit_exact(name, before, after, dtype):
    rng = np.random.default_rng(before)
    shapes = [(3, 2), (), (4,)]
    params = [parameter(rng.normal(size=shape), dtype) for shape in shapes]
    opt = MAKERS[name](params)
    opt.lr = 0.1 / 3
    descend(opt, params, before)
    saved = opt.state_dict()
    numbers = json.loads(json.dumps({k: v for k, v in saved.items() if not isinstance(v, np.ndarray)}))
    saved = {**{k: v for k, v in saved.items() if isinstance(v, np.ndarray)}, **numbers}
    copies = [parameter(p.numpy(), dtype) for p in params]
    resumed = MAKERS[name](copies)
    resumed.load_state_dict(saved)
    for which, tensors in ((opt, params), (resumed, copies)):
        descend(which, tensors, after, seed=1)
    for p, q in zip(params, copies, strict=True):
        np.testing.assert_array_equal(p.data, q.data)
    again = resumed.state_dict()
    assert again.keys() == opt.state_dict().keys()
    for key, value in opt.state_dict().items():
        np.testing.assert_array_equal(again[key], value)


def test_saved_arrays_are_copies():
    p = parameter([1.0])
    opt = optim.AdamW([p])
    descend(opt, [p], 1)
    saved = opt.state_dict()
    kept = saved["state.0.exp_avg"].copy()
    descend(opt, [p], 1)
    np.testing.assert_array_equal(saved["state.0.exp_avg"], kept)
    opt.load_state_dict(saved)
    descend(opt, [p], 1)
    np.testing.assert_array_equal(saved["state.0.exp_avg"], kept)


def test_options_are_restored_before_the_state_that_depends_on_them():
    p = parameter([1.0])
    opt = optim.SGD([p], lr=0.1, momentum=0.9)
    descend(opt, [p], 2)
    other = optim.SGD([p], lr=0.3)
    other.load_state_dict(opt.state_dict())
    assert other.param_groups[0]["momentum"] == 0.9
    assert other.state_dict()["state.0.momentum_buffer"] == opt.state_dict()["state.0.momentum_buffer"]


def test_a_foreign_state_is_refused_and_changes_nothing():
    p = parameter([1.0, 2.0])
    opt = optim.AdamW([p])
    descend(opt, [p], 2)
    good = opt.state_dict()
    bad = {**good, "state.0.exp_avg": np.zeros(3), "state.1.step": 1, "group.0.lr": 9.0}
    del bad["state.0.exp_avg_sq"]
    with pytest.raises(CheckpointError) as info:
        opt.load_state_dict(bad)
    for part in (
        "state.0.exp_avg: (3,) float64, expected (2,)",
        "unexpected: state.1.step",
        "missing: state.0.exp_avg_sq",
    ):
        assert part in str(info.value)
    with pytest.raises(CheckpointError, match=r"missing: group\.0\.betas\.0"):
        opt.load_state_dict(optim.SGD([p]).state_dict())
    with pytest.raises(CheckpointError, match="float32, expected"):
        opt.load_state_dict({**good, "state.0.exp_avg": np.zeros(2, np.float32)})
    with pytest.raises(ValueError, match="lr must not be negative"):
        opt.load_state_dict({**good, "group.0.lr": -1.0})
    for key, value in opt.state_dict().items():
        np.testing.assert_array_equal(value, good[key])
