"""Products of matrices in blocks that BLAS multiplies where they lie."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_checks import DTYPES

import tinyllm as tl
from tinyllm.kernels.cpu import blocks

SIZES = st.sampled_from([1, 2, blocks.ROWS - 1, blocks.COLUMNS, blocks.COLUMNS + 1, 100, blocks.DEPTH, 300])


@pytest.mark.parametrize("dtype", DTYPES)
@given(m=SIZES, k=SIZES, n=SIZES, orders=st.sampled_from(["CC", "CF", "FC", "FF"]))
def test_the_product_is_that_of_numpy(dtype, m, k, n, orders):
    rng = np.random.default_rng(m + k + n)
    a, b = (
        np.asarray(rng.normal(size=shape), dtype, order) for shape, order in zip(((m, k), (k, n)), orders, strict=True)
    )
    out = np.full((m, n), np.nan, dtype)
    blocks.product(a, b, a.dtype.type(0), out)
    np.testing.assert_allclose(out, a @ b, rtol=0, atol=1e-3 if dtype == "float32" else 1e-11)


def test_windows_of_larger_matrices_are_multiplied_where_they_lie():
    rng = np.random.default_rng(0)
    a, b, out = rng.normal(size=(70, 90)), rng.normal(size=(90, 140)), np.zeros((80, 150))
    window = (slice(5, 65), slice(7, 137))
    blocks.product(a[:60, :80], b[:80, 3:133], 0.0, out[window])
    expected = np.zeros_like(out)
    expected[window] = a[:60, :80] @ b[:80, 3:133]
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-12)
    blocks.matmul(a[:60, :80], b[:80, 3:133], 1.0, out[window])
    expected[window] *= 2
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-12)


def test_only_what_stays_in_the_caches_is_cut_into_blocks(monkeypatch):
    a, b = np.zeros((300, 256), np.float32), np.zeros((256, 512), np.float32)
    monkeypatch.setattr(blocks, "UNPACKED", 10**6)
    assert blocks.ROWS * blocks.COLUMNS * blocks.DEPTH <= blocks.UNPACKED
    assert blocks.suits(a, b)
    assert blocks.suits(np.asfortranarray(a), np.asfortranarray(b))
    assert not blocks.suits(a, np.zeros((256, 513), np.float32))
    assert not blocks.suits(a, b.astype(np.float64))
    assert not blocks.suits(a[None], b)
    assert not blocks.suits(a[:, ::2], b[::2])
    monkeypatch.setattr(blocks, "UNPACKED", 0)
    assert not blocks.suits(a, b)  # a BLAS that copies small operands, too


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_library_multiplies_so(threads, monkeypatch):
    monkeypatch.setattr(blocks, "UNPACKED", 10**6)
    calls = []
    product = blocks.product
    monkeypatch.setattr(blocks, "product", lambda *given: calls.append(given[-1].shape) or product(*given))
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(400, 200)), rng.normal(size=(200, 301))
    before = tl.get_num_threads()
    try:
        tl.set_num_threads(threads)
        found = tl.tensor(a) @ tl.tensor(b)
        with tl.backend("numpy"):
            plain = tl.tensor(a) @ tl.tensor(b)
    finally:
        tl.set_num_threads(before)
    assert sum(m * n for m, n in calls) == 400 * 301
    assert len(calls) == threads
    np.testing.assert_allclose(found.numpy(), a @ b, rtol=0, atol=1e-11)
    np.testing.assert_allclose(plain.numpy(), a @ b, rtol=0, atol=1e-11)
