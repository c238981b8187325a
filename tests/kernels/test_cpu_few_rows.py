"""The kernels of a few new tokens against float64: a product of few rows, attention of few queries."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_checks import DTYPES, assert_close, poisoned
from test_cpu_attention import MASKS, a_mask, definition, drawn

import tinyllm as tl
from tinyllm.autograd import arrays, fused
from tinyllm.kernels.cpu import few_rows

KERNEL = fused.attention._numba()
# (B, H, T, D), heads of k and v, S, E
SHAPES = [((1, 1, 1, 1), 1, 1, 1), ((2, 3, 1, 5), 3, 7, 4), ((1, 9, 1, 64), 3, 130, 64), ((2, 4, 5, 8), 2, 9, 8)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (1, 5, 7), (3, 4, 33), (8, 13, 129)])
def test_product(dtype, m, n, k, rng):
    x, w = rng.normal(size=(m, k)).astype(dtype), rng.normal(size=(n, k)).astype(dtype)
    out = poisoned(m, n, dtype=dtype)
    few_rows.product(x, w, out)
    exact = x.astype(float) @ w.astype(float).T
    assert_close(out, exact, scale=np.sqrt(k))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("causal", [False, True])
def test_attention_of_few_queries(dtype, mask, shape, causal, rng):
    (B, H, T, _), _, S, _ = shape
    q, k, v, g = drawn(rng, *shape, dtype)
    given_mask = a_mask(mask, rng, B, H, T, S, dtype)
    settings = {"scale": 0.7, "limit": S - T if causal else None, "dropout_p": 0.0, "key": None}
    y, saved = KERNEL.forward(q, k, v, given_mask, **settings)
    expected, *cotangents = definition(g, q, k, v, given_mask, **settings)
    assert_close(y, expected, ulps=64)
    more = () if given_mask is None else (given_mask,)
    found = KERNEL.vjp((True, True, True, False)[: 3 + len(more)], g, y, saved, q, k, v, *more, **settings)
    for d, exact in zip(found[:3], cotangents, strict=False):
        assert_close(d, exact, ulps=128, scale=4.0)


@given(st.integers(1, 5), st.sampled_from([(400, 400), (1, 140_000), (2100, 1024)]), st.booleans())
def test_a_product_of_few_rows_is_the_product(rows, shape, strided):
    """Whatever the number of rows, the size and the layout of either side decide."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(rows, 2 * shape[1]))[:, :: 2 if strided else 1][:, : shape[1]], rng.normal(size=shape)
    np.testing.assert_allclose(arrays.rows_times(x, w), x @ w.T, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(arrays.rows_times(x, np.asfortranarray(w)), x @ w.T, rtol=1e-10, atol=1e-10)
    with tl.backend("numpy"):
        np.testing.assert_array_equal(arrays.rows_times(x, w), tl.threads.matmul(x, w.T))
