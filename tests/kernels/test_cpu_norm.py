"""The normalisation kernels against their definitions in float64."""

import numpy as np
import pytest
from kernel_checks import DTYPES, SHAPES, assert_close, assert_vjp, poisoned

from tinyllm.kernels.cpu.norm import add_layer_norm, add_rms_norm, layer_norm, layer_norm_vjp, rms_norm, rms_norm_vjp

EPS = 1e-5


def layer(x, weight, bias, eps=EPS):
    out, mean, rstd = (
        poisoned(*x.shape, dtype=x.dtype),
        poisoned(len(x), dtype=x.dtype),
        poisoned(len(x), dtype=x.dtype),
    )
    layer_norm(x, weight, bias, eps, out, mean, rstd)
    return out, mean, rstd


def layer_vjp(g, x, weight, mean, rstd):
    outputs = [poisoned(*shape, dtype=x.dtype) for shape in (x.shape, weight.shape, weight.shape)]
    layer_norm_vjp(g, x, weight, mean, rstd, *outputs)
    return outputs


def rms(x, weight, eps=EPS):
    out, rstd = poisoned(*x.shape, dtype=x.dtype), poisoned(len(x), dtype=x.dtype)
    rms_norm(x, weight, eps, out, rstd)
    return out, rstd


def rms_vjp(g, x, weight, rstd):
    outputs = [poisoned(*shape, dtype=x.dtype) for shape in (x.shape, weight.shape)]
    rms_norm_vjp(g, x, weight, rstd, *outputs)
    return outputs


def draw(shape, dtype, rng):
    x, g = rng.normal(size=(2, *shape)).astype(dtype)
    weight, bias = rng.normal(size=(2, shape[1])).astype(dtype)
    return 2 * x + 1, g, weight, bias


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_layer_norm_equals_the_definition(shape, dtype, rng):
    x, g, weight, bias = draw(shape, dtype, rng)
    out, mean, rstd = layer(x, weight, bias)
    deviation = x - x.astype(float).mean(axis=1, keepdims=True)
    factor = 1 / np.sqrt((deviation**2).mean(axis=1, keepdims=True) + EPS)
    h = deviation * factor
    # Rounding of the mean is magnified by the factor, which is 316 for rows of one or of equal numbers.
    rounding = 4 * np.maximum(1, factor) * np.abs(weight).max() * (1 + np.abs(h))
    assert_close(out, h * weight + bias, scale=rounding)
    assert_close(mean, x.astype(float).mean(axis=1), scale=4)
    assert_close(rstd, factor[:, 0], scale=factor[:, 0] ** 2)
    dx, dweight, dbias = layer_vjp(g, x, weight, mean, rstd)
    u = g.astype(float) * weight
    dx_scale = 4 * factor**2 * np.abs(u).max(axis=1, keepdims=True)
    expected = (u - u.mean(axis=1, keepdims=True) - h * (u * h).mean(axis=1, keepdims=True)) * factor
    assert_close(dx, expected, ulps=32, scale=np.maximum(dx_scale, 1))
    assert_close(dweight, (g * h).sum(axis=0), scale=np.sum(np.abs(g) * rounding, axis=0))
    assert_close(dbias, g.astype(float).sum(axis=0), scale=np.abs(g).sum(axis=0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_rms_norm_equals_the_definition(shape, dtype, rng):
    x, g, weight, _ = draw(shape, dtype, rng)
    out, rstd = rms(x, weight)
    factor = 1 / np.sqrt((x.astype(float) ** 2).mean(axis=1, keepdims=True) + EPS)
    h = x * factor
    assert_close(out, h * weight)
    assert_close(rstd, factor[:, 0], scale=0)
    dx, dweight = rms_vjp(g, x, weight, rstd)
    u = g.astype(float) * weight
    expected = (u - h * (u * h).mean(axis=1, keepdims=True)) * factor
    assert_close(dx, expected, ulps=32, scale=factor * (1 + h**2) * np.abs(u).max(axis=1, keepdims=True))
    assert_close(dweight, (g * h).sum(axis=0), scale=np.abs(g * h).sum(axis=0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_sum_and_its_norm(shape, dtype, rng):
    x, y, weight, bias = draw(shape, dtype, rng)
    total, out, mean, rstd = (poisoned(*s, dtype=dtype) for s in (shape, shape, shape[:1], shape[:1]))
    add_layer_norm(x, y, weight, bias, 0.1, total, out, mean, rstd)
    np.testing.assert_array_equal(total, x + y)
    for actual, expected in zip((out, mean, rstd), layer(total, weight, bias, 0.1), strict=True):
        assert_close(actual, expected.astype(float), scale=64)
    add_rms_norm(x, y, weight, 0.1, total, out, rstd)
    np.testing.assert_array_equal(total, x + y)
    for actual, expected in zip((out, rstd), rms(total, weight, 0.1), strict=True):
        assert_close(actual, expected.astype(float), scale=64)


def test_vjps_are_the_slopes(rng):
    x, g, weight, bias = draw((4, 7), "float64", rng)
    _, mean, rstd = layer(x, weight, bias)
    dx, dweight, dbias = layer_vjp(g, x, weight, mean, rstd)
    assert_vjp(lambda x: layer(x, weight, bias)[0], x, g, dx, rng)
    assert_vjp(lambda weight: layer(x, weight, bias)[0], weight, g, dweight, rng)
    assert_vjp(lambda bias: layer(x, weight, bias)[0], bias, g, dbias, rng)
    dx, dweight = rms_vjp(g, x, weight, rms(x, weight)[1])
    assert_vjp(lambda x: rms(x, weight)[0], x, g, dx, rng)
    assert_vjp(lambda weight: rms(x, weight)[0], weight, g, dweight, rng)


def test_a_large_mean_does_not_cancel(rng):
    # In float32 the mean of squares minus the squared mean would have no correct digit here.
    x = (rng.integers(-8, 9, size=(3, 64)) + 2.0**16).astype(np.float32)
    out, _, _ = layer(x, np.ones(64, np.float32), np.zeros(64, np.float32))
    deviation = x - x.astype(float).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(out, deviation / np.sqrt((deviation**2).mean(axis=1, keepdims=True) + EPS), atol=5e-3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_constant_rows_give_the_bias_and_eps_is_inside_the_root(dtype):
    x, ones = np.full((2, 5), 3, dtype), np.ones(5, dtype)
    out, _, rstd = layer(x, ones, 2 * ones, eps=0.25)
    np.testing.assert_array_equal(out, 2)
    np.testing.assert_array_equal(rstd, 2)
    _, rstd = rms(0 * x, ones, eps=0.25)
    np.testing.assert_array_equal(rstd, 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_stays_in_its_row(dtype, rng):
    x, _, weight, bias = draw((3, 20), dtype, rng)
    x[1, 4] = np.nan
    for out in (layer(x, weight, bias)[0], rms(x, weight)[0]):
        assert np.all(np.isnan(out[1]))
        assert np.all(np.isfinite(out[[0, 2]]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 2, 8, 17])
@pytest.mark.parametrize("huge", [np.inf, -np.inf, "largest"])
def test_squares_that_overflow_have_a_reciprocal_root_of_0(huge, size, dtype):
    x = np.ones((2, size), dtype)
    x[0, 0] = np.finfo(dtype).max if huge == "largest" else huge
    _, rstd = rms(x, np.ones(size, dtype))
    np.testing.assert_array_equal(rstd == 0, [True, False])
    if huge == "largest" and size > 1:  # a mean of inf makes the deviations of layer_norm NaN
        _, _, rstd = layer(x, np.ones(size, dtype), np.zeros(size, dtype))
        np.testing.assert_array_equal(rstd == 0, [True, False])
