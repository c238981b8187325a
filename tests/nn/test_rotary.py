"""Rotary positions: turns that depend on the distance alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyllm as tl
from tinyllm.kernels.cpu import rotary as kernels
from tinyllm.testing import gradcheck

rotary, rotate, rotary_tables = tl.nn.rotary, tl.nn.rotate, tl.nn.rotary_tables


def literal(x, base=10000.0, offset=0):
    """Pair by pair, as complex numbers: (..., T, D)."""
    half = x.shape[-1] // 2
    angles = (offset + np.arange(x.shape[-2]))[:, None] / base ** (np.arange(half) / half)
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag], axis=-1)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@given(
    lead=st.lists(st.integers(1, 3), max_size=2),
    time=st.integers(1, 5),
    half=st.integers(1, 4),
    base=st.sampled_from([10.0, 10000.0]),
    offset=st.integers(0, 300),
)
def test_equals_turns_of_complex_numbers(backend, lead, time, half, base, offset):
    x = np.random.default_rng(0).normal(size=(*lead, time, 2 * half))
    with tl.backend(backend):
        y = rotary(x, base, offset=offset)
    np.testing.assert_allclose(y.data, literal(x, base, offset), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_axis_of_the_positions(backend, rng):
    x = rng.normal(size=(2, 5, 3, 4))
    with tl.backend(backend):
        swapped = rotary(x.swapaxes(1, 2)).numpy().swapaxes(1, 2)
        np.testing.assert_array_equal(rotary(x, axis=1).data, swapped)


@given(shift=st.integers(0, 500), distance=st.integers(0, 50))
def test_scores_depend_on_the_distance_alone(shift, distance):
    q, k = np.random.default_rng(3).normal(size=(2, 1, 8))

    def score(at):
        return float((rotary(q, offset=at + distance) * rotary(k, offset=at)).sum())

    assert score(shift) == pytest.approx(score(0), abs=1e-9)


def test_lengths_stay_and_a_cache_may_cut_anywhere(rng):
    x = rng.normal(size=(2, 6, 8)).astype(np.float32)
    whole = rotary(x).numpy()
    np.testing.assert_allclose((whole**2).sum(-1), (x**2).sum(-1), rtol=1e-5)
    np.testing.assert_array_equal(whole[:, 4:], rotary(x[:, 4:], offset=4).data)
    assert whole.dtype == np.float32


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_every_sequence_may_have_its_own_positions(backend, rng):
    x, frequencies = rng.normal(size=(3, 5, 2, 6)), np.array([1.0, 0.3, 0.01])
    positions = np.array([[0, 1, 2, 3, 4], [0, 0, 0, 1, 2], [7, 8, 9, 10, 11]])
    cos, sin = rotary_tables(positions, frequencies, 1.5, dtype=np.float64)
    with tl.backend(backend):
        y = rotate(x, cos, sin, axis=1)
        heads_first = rotate(x.swapaxes(1, 2), cos[:, None], sin[:, None])
        np.testing.assert_array_equal(heads_first.numpy().swapaxes(1, 2), y.data)
        gradcheck(lambda x: rotate(x, cos, sin, axis=1), x, order=2)
    for n, row in enumerate(positions):
        for t, position in enumerate(row):
            turned = 1.5 * (x[n, t, :, :3] + 1j * x[n, t, :, 3:]) * np.exp(1j * position * frequencies)
            np.testing.assert_allclose(y.data[n, t], np.concatenate([turned.real, turned.imag], -1), rtol=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("axis", [-2, 1])
def test_gradient(backend, axis, rng):
    with tl.backend(backend):
        gradcheck(lambda x: rotary(x, 100.0, offset=2, axis=axis), rng.normal(size=(2, 3, 2, 4)), order=2)


@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (2, 7, 3, 34), (3, 16, 2, 32)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("own", [True, False])
def test_kernel(shape, dtype, own, rng):
    x = rng.normal(size=shape).astype(dtype)
    angles = rng.normal(size=(shape[0] if own else 1, shape[1], shape[3] // 2))
    cos, sin = np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)
    out = np.full_like(x, np.nan)
    kernels.rotate(x, cos, sin, out)
    a, b = np.split(x.astype(np.float64), 2, axis=-1)
    c, s = cos[:, :, None].astype(np.float64), sin[:, :, None].astype(np.float64)
    expected = np.concatenate([a * c - b * s, b * c + a * s], axis=-1)
    np.testing.assert_allclose(out, expected, rtol=0, atol=4 * np.finfo(dtype).eps * abs(x).max())


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "D even", lambda: rotary(np.ones((2, 3)))),
        (ValueError, r"\(..., 2, 2\)", lambda: rotate(np.ones((2, 4)), np.ones((3, 2)), np.ones((3, 2)))),
        (ValueError, "last axis is the channels", lambda: rotary(np.ones((2, 4)), axis=-1)),
        (TypeError, "floating", lambda: rotary(np.ones((2, 4), int))),
        (np.exceptions.AxisError, "out of bounds", lambda: rotary(np.ones((2, 4)), axis=-3)),
    ],
)
def test_what_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call()
