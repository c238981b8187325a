"""The compiled mask of dropout is NumPy's, bit for bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyllm as tl
from tinyllm.autograd.ops.dropout import dropout_factor
from tinyllm.autograd.random import Key

dropout = pytest.importorskip("tinyllm.kernels.cpu.dropout", reason="Numba is not installed").dropout

words = st.integers(0, 2**32)


@given(
    rows=st.integers(1, 9),
    width=st.integers(1, 37),
    p=st.floats(0.01, 0.99),
    key=st.builds(Key, seed=st.integers(0, 2**63 - 1), step=words, layer=words, sample=words),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_the_same_numbers(rows: int, width: int, p: float, key: Key, dtype: type) -> None:
    x = np.random.default_rng(0).normal(size=(rows, width)).astype(dtype)
    out = np.empty_like(x)
    halves = np.array([key.seed & 0xFFFFFFFF, key.seed >> 32, key.step, key.layer], dtype=np.uint64)
    dropout(x, halves, key.sample, p, 1 / (1 - p), out)
    np.testing.assert_array_equal(out, x * dropout_factor(np, key, x.shape, p, x.dtype))


@pytest.mark.parametrize("threads", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [(5000,), (70, 100), (12, 64, 33), (1, 9001), (9001, 1)])
def test_the_operation_on_both_backends(threads: int, shape: tuple[int, ...]) -> None:
    before = tl.get_num_threads()
    tl.set_num_threads(threads)
    try:
        x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        g = np.random.default_rng(2).normal(size=shape).astype(np.float32)
        results = []
        for backend in ("numpy", "numba"):
            with tl.backend(backend), tl.random_scope(3, step=4, sample=5):
                a = tl.tensor(x, requires_grad=True)
                y = tl.dropout(a, 0.3)
                y.backward(g)
            results.append((y.data, a.grad.data))
        for plain, compiled in zip(*results, strict=True):
            np.testing.assert_array_equal(plain, compiled)
    finally:
        tl.set_num_threads(before)


def test_what_is_not_finite_is_treated_alike() -> None:
    x = np.full((80, 80), np.inf)
    x[::2] = np.nan
    x[::3] = -0.0
    with np.errstate(invalid="ignore"):
        results = []
        for backend in ("numpy", "numba"):
            with tl.backend(backend):
                results.append(tl.dropout(x, 0.5, rng=np.random.default_rng(0)).numpy())
    np.testing.assert_array_equal(*results)
    np.testing.assert_array_equal(*(np.signbit(y[np.isfinite(y)]) for y in results))
