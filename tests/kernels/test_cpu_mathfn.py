"""exp, tanh, the sigmoid and erf of the kernels, against the C library's in a wider type."""

import math

import numpy as np
import pytest
from kernel_checks import DTYPES, poisoned

from tinyllm.kernels.cpu import mathfn
from tinyllm.kernels.cpu.compile import jit


@jit
def exp_of(x, out):
    for i in range(x.size):
        out[i] = mathfn.exp(x[i])


@jit
def tanh_of(x, out):
    for i in range(x.size):
        out[i] = mathfn.tanh(x[i])


@jit
def sigmoid_of(x, out):
    for i in range(x.size):
        out[i] = mathfn.sigmoid(x[i])


@jit
def erf_of(x, out):
    for i in range(x.size):
        out[i] = mathfn.erf(x[i])


def sigmoid(x):
    e = np.exp(-abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


erf = np.vectorize(math.erf, otypes=[float])
CASES = {
    "exp": (exp_of, np.exp, 1.1),
    "tanh": (tanh_of, np.tanh, 3),
    "sigmoid": (sigmoid_of, sigmoid, 3),
    "erf": (erf_of, erf, 5),
}


def numbers_of_every_exponent(count):
    """`count` finite float32 numbers, evenly spread over bit patterns, and so over signs and exponents."""
    x = np.linspace(0, 2**32 - 1, count).astype(np.uint32).view(np.float32)
    return x[np.isfinite(x)]


@pytest.mark.parametrize("name", CASES)
def test_float32_error_is_within_the_stated_units_in_the_last_place(name):
    kernel, reference, bound = CASES[name]
    x = np.concatenate([numbers_of_every_exponent(200_003), np.linspace(-20, 20, 20_001, dtype=np.float32)])
    out = poisoned(x.size, dtype="float32")
    kernel(x, out)
    with np.errstate(over="ignore", under="ignore"):
        expected = reference(x.astype(float))
        overflow = np.abs(expected) > np.finfo(np.float32).max
        unit = np.spacing(np.abs(expected[~overflow]).astype(np.float32))
    assert np.all(np.isposinf(out[overflow]))
    assert np.max(np.abs(out[~overflow] - expected[~overflow]) / unit) <= bound


WIDE = pytest.mark.skipif(np.finfo(np.longdouble).nmant < 60, reason="no type wider than float64 here")


@WIDE
@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid"])
def test_float64_error_is_within_the_stated_units_in_the_last_place(name, rng):
    kernel, reference, bound = CASES[name]
    x = rng.integers(0, 2**64, 200_003, dtype=np.uint64).view(np.float64)  # of every sign and exponent
    x = np.concatenate([x[np.isfinite(x)], np.linspace(-750, 712, 50_001), np.linspace(-40, 40, 50_001)])
    out = poisoned(x.size, dtype="float64")
    kernel(x, out)
    with np.errstate(over="ignore", under="ignore"):
        expected = reference(x.astype(np.longdouble))
    overflow = np.abs(expected) > np.finfo(float).max
    unit = np.spacing(np.abs(expected[~overflow]).astype(float))
    assert np.all(np.isposinf(out[overflow]))
    assert np.max(np.abs(out[~overflow] - expected[~overflow]) / unit) <= bound


def test_float64_erf_is_the_c_library():
    x = np.concatenate([np.linspace(-30, 30, 2001), [-700.0, 1e-300, -1e-9, 700.0]])
    out = poisoned(x.size, dtype="float64")
    erf_of(x, out)
    np.testing.assert_array_equal(out, erf(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_limits_and_nan(dtype):
    x = np.array([-np.inf, np.inf, np.nan, -np.nan, 0.0], dtype)
    for kernel, expected in (
        (exp_of, [0, np.inf, np.nan, np.nan, 1]),
        (tanh_of, [-1, 1, np.nan, np.nan, 0]),
        (sigmoid_of, [0, 1, np.nan, np.nan, 0.5]),
        (erf_of, [-1, 1, np.nan, np.nan, 0]),
    ):
        out = poisoned(x.size, dtype=dtype)
        kernel(x, out)
        np.testing.assert_array_equal(out, np.array(expected, dtype))


def test_exp_of_float64_underflows_gradually_and_overflows_where_it_should():
    x = np.array([-746, -745.1, -720, 709.78, 709.79])
    out = poisoned(x.size, dtype="float64")
    exp_of(x, out)
    assert out[0] == 0
    assert out[1] == 2.0**-1074
    assert 0 < out[2] < np.finfo(float).tiny
    assert np.isfinite(out[3])
    assert np.isposinf(out[4])


def test_exp_underflows_gradually_and_overflows_where_it_should():
    x = np.array([-104, -103.9, -88, 88.72, 88.73], np.float32)
    out = poisoned(x.size, dtype="float32")
    exp_of(x, out)
    tiny = np.float32(2.0**-149)
    assert out[0] == 0
    assert out[1] == tiny
    assert 0 < out[2] < np.finfo(np.float32).tiny
    assert np.isfinite(out[3])
    assert np.isposinf(out[4])


@pytest.mark.parametrize("name", ["tanh", "erf"])
def test_bounded_by_one_and_odd(name):
    x = np.linspace(0, 12, 100_001, dtype=np.float32)
    up, down = poisoned(x.size, dtype="float32"), poisoned(x.size, dtype="float32")
    CASES[name][0](x, up)
    CASES[name][0](-x, down)
    assert up.max() == 1
    np.testing.assert_array_equal(up, -down)
