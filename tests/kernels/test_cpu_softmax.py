"""Softmax and log-softmax kernels against their definitions in float64."""

import numpy as np
import pytest
from kernel_checks import DTYPES, SHAPES, assert_close, assert_vjp, poisoned

from tinyllm.kernels.cpu.softmax import log_softmax, log_softmax_vjp, softmax, softmax_vjp


def softmax_reference(x):
    x = x.astype(float)
    e = np.exp(x - x.max(axis=-1, keepdims=True, initial=-np.inf))
    return e / e.sum(axis=-1, keepdims=True)


def log_softmax_reference(x):
    x = x.astype(float)
    x = x - x.max(axis=-1, keepdims=True, initial=-np.inf)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def apply(kernel, *inputs):
    out = poisoned(*inputs[0].shape, dtype=inputs[0].dtype)
    kernel(*inputs, out)
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_definition(shape, dtype, rng):
    x, g = (4 * rng.normal(size=shape)).astype(dtype), rng.normal(size=shape).astype(dtype)
    y = apply(softmax, x)
    assert_close(y, softmax_reference(x), scale=0, ulps=24)
    assert_close(apply(softmax_vjp, g, y), y * (g - np.sum(g.astype(float) * y, -1, keepdims=True)))
    y = apply(log_softmax, x)
    assert_close(y, log_softmax_reference(x), scale=8)
    total = np.sum(g.astype(float), -1, keepdims=True)
    assert_close(
        apply(log_softmax_vjp, g, y), g - np.exp(y.astype(float)) * total, scale=np.abs(g).sum(-1, keepdims=True)
    )


def test_vjp_is_the_slope(rng):
    x, g = rng.normal(size=(3, 13)), rng.normal(size=(3, 13))
    for kernel, vjp in ((softmax, softmax_vjp), (log_softmax, log_softmax_vjp)):
        assert_vjp(lambda x, kernel=kernel: apply(kernel, x), x, g, apply(vjp, g, apply(kernel, x)), rng)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cols", [1, 3, 16, 17, 64, 129])
def test_masked_with_minus_infinity(cols, dtype, rng):
    x = rng.normal(size=(cols, cols)).astype(dtype)
    x[np.triu_indices(cols, 1)] = -np.inf
    y = apply(softmax, x)
    assert np.all(np.triu(y, 1) == 0)
    assert_close(y, softmax_reference(x), scale=0, ulps=24)
    logs = apply(log_softmax, x)
    assert np.all(np.isneginf(logs[np.triu_indices(cols, 1)]))
    assert np.all(np.triu(apply(softmax_vjp, np.ones_like(x), y), 1) == 0)
    assert np.all(np.isfinite(apply(log_softmax_vjp, x * 0 + 1 if cols == 1 else np.ones_like(x), logs)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cols", [1, 5, 40])
def test_rows_without_a_softmax_are_nan_and_leave_others_alone(cols, dtype, rng):
    x = rng.normal(size=(5, cols)).astype(dtype)
    x[0] = -np.inf
    x[1, cols // 2] = np.nan
    x[2, cols // 2] = -np.nan
    x[3, cols // 2] = np.inf
    for kernel in (softmax, log_softmax):
        y = apply(kernel, x)
        assert np.all(np.isnan(y[0]))
        assert np.all(np.isnan(y[1:3]))
        assert np.isnan(y[3, cols // 2])
        assert np.all(np.isfinite(y[4]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_numbers_lose_no_digits(dtype):
    # Whole numbers, exact after any shift that float32 can hold.
    x = np.arange(40).reshape(2, 20).astype(dtype)
    for shift in (1e6, -1e6):
        np.testing.assert_array_equal(apply(log_softmax, x + x.dtype.type(shift)), apply(log_softmax, x))
        np.testing.assert_array_equal(apply(softmax, x + x.dtype.type(shift)), apply(softmax, x))
    big = np.array([[np.finfo(dtype).max, -np.finfo(dtype).max, 0]], dtype)
    np.testing.assert_array_equal(apply(softmax, big), [[1, 0, 0]])
