"""The running average of weights: its value, its place in the model, its state."""

import numpy as np
import pytest

import tinyllm as tl
from tinyllm.errors import CheckpointError
from tinyllm.optim import EMA


def parameters(rng, dtype=np.float64) -> list[tl.Tensor]:
    return [tl.tensor(rng.normal(size=shape), dtype=dtype, requires_grad=True) for shape in ((3, 4), (), (5,))]


def wander(params, rng) -> None:
    for p in params:
        p.assign_(rng.normal(size=p.shape))


def test_the_first_step_is_the_average_and_later_ones_enter_it(rng):
    params = parameters(rng)
    ema = EMA(params, 0.9)
    expected = None
    for _ in range(5):
        wander(params, rng)
        ema.update()
        values = [p.numpy() for p in params]
        expected = values if expected is None else [0.9 * a + 0.1 * b for a, b in zip(expected, values, strict=True)]
    for n, value in enumerate(expected):
        np.testing.assert_allclose(ema.state_dict()[f"average.{n}"], value, rtol=1e-13)


def test_apply_and_restore(rng):
    params = parameters(rng)
    ema = EMA(params, 0.5)
    for _ in range(2):
        wander(params, rng)
        ema.update()
    trained = [p.numpy() for p in params]
    with ema.applied():
        ema.apply()  # once is enough
        for n, p in enumerate(params):
            np.testing.assert_array_equal(p.data, ema.state_dict()[f"average.{n}"])
        with pytest.raises(RuntimeError, match="restore"):
            ema.update()
    for p, value in zip(params, trained, strict=True):
        np.testing.assert_array_equal(p.data, value)
    with pytest.raises(ZeroDivisionError), ema.applied():
        raise ZeroDivisionError
    np.testing.assert_array_equal(params[0].data, trained[0])


def test_the_tape_notices(rng):
    params = parameters(rng)
    ema = EMA(params)
    y = (params[0] * params[0]).sum()
    ema.apply()
    with pytest.raises(RuntimeError, match="overwritten"):
        y.backward()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_its_state_goes_on_bit_by_bit(dtype, rng):
    params = parameters(rng, dtype)
    ema = EMA(params, 0.7)
    for _ in range(3):
        wander(params, rng)
        ema.update()
    saved = ema.state_dict()
    other = EMA(params, 0.7)
    other.load_state_dict(saved)
    wander(params, rng)
    ema.update(), other.update()
    for name, value in ema.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], value)
    assert saved["average.0"].dtype == dtype
    assert not np.array_equal(saved["average.0"], ema.state_dict()["average.0"])


def test_a_foreign_state_is_refused_and_changes_nothing(rng):
    ema = EMA(parameters(rng))
    ema.update()
    before = ema.state_dict()
    bad = {**before, "average.1": np.zeros(2), "average.9": np.zeros(1)}
    del bad["average.0"]
    with pytest.raises(CheckpointError) as info:
        ema.load_state_dict(bad)
    for part in ("missing: average.0", "unexpected: average.9", "average.1: (2,) float64, expected ()"):
        assert part in str(info.value)
    np.testing.assert_array_equal(ema.state_dict()["average.2"], before["average.2"])


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_impossible_options_are_refused(decay, rng):
    with pytest.raises(ValueError, match="decay"):
        EMA(parameters(rng), decay)
    with pytest.raises(ValueError, match="at least one"):
        EMA([])
