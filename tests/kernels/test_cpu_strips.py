"""Products with a matrix in strips of columns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_checks import DTYPES

from tinyllm.autograd.fused.recurrent.compiled import strips_of
from tinyllm.kernels.cpu.blocks import DEPTH, UNPACKED
from tinyllm.kernels.cpu.strips import times_steps, times_strips


@pytest.mark.parametrize("dtype", DTYPES)
@given(rows=st.integers(1, 5), depth=st.sampled_from([1, 7, DEPTH, DEPTH + 3]), columns=st.integers(1, 200))
def test_the_product_is_that_of_the_whole_matrix(dtype, rows, depth, columns):
    rng = np.random.default_rng(columns)
    a, w, out = (rng.normal(size=shape).astype(dtype) for shape in ((rows, depth), (depth, columns), (rows, columns)))
    for matrix in (w, np.asfortranarray(w)):
        strips = strips_of(matrix, rows)
        fresh, more, steps = np.full_like(out, np.nan), out.copy(), np.zeros((2, rows + 2, columns), dtype)
        times_strips(a, strips, a.dtype.type(0), fresh)
        times_strips(a, strips, a.dtype.type(1), more)
        times_steps(np.stack([a, 2 * a]), strips, 1, steps)
        close = {"rtol": 0, "atol": 1e-4 if dtype == "float32" else 1e-11}
        np.testing.assert_allclose(fresh, a @ w, **close)
        np.testing.assert_allclose(steps[:, 1:-1], [a @ w, 2 * a @ w], **close)
        assert not steps[:, [0, -1]].any()  # the rows of others
        np.testing.assert_allclose(more, out + a @ w, **close)


def test_strips_are_narrow_enough_for_products_that_are_not_packed():
    matrix = np.zeros((DEPTH, 1024), np.float32)
    widths = [strips_of(matrix, rows).shape[2] for rows in (8, 61, 122, 10**4)]
    assert widths == [64, 64, 32, 1024]
    assert 61 * DEPTH * 64 <= UNPACKED < 62 * DEPTH * 64
