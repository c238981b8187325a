"""Operations divided among threads: the same bits from run to run for each number of them, the same numbers for all."""

import numpy as np
import pytest

import tinyllm as tl
from tinyllm.autograd.fused import rows

ROWS, COLS = 37, 129
IDS = np.random.default_rng(1).integers(0, ROWS, 2 * ROWS)
TARGET = np.where(np.arange(ROWS) % 5 == 3, -100, np.arange(ROWS))

OPERATIONS = {
    "layer_norm": lambda x, w: tl.layer_norm(x, COLS, w, w * w),
    "rms_norm": lambda x, w: tl.rms_norm(x, COLS, w),
    "softmax": lambda x, w: tl.softmax(x),
    "softmax over columns": lambda x, w: tl.softmax(x, axis=0),
    "log_softmax": lambda x, w: tl.log_softmax(x),
    "cross_entropy": lambda x, w: tl.cross_entropy(x, TARGET, label_smoothing=0.1, reduction="none"),
    "linear_cross_entropy": lambda x, w: tl.linear_cross_entropy(x * w, x, TARGET),
    "gelu": lambda x, w: tl.gelu(x),
    "gelu with bias": lambda x, w: tl.gelu(x, "tanh", bias=w),
    "silu": lambda x, w: tl.silu(x),
    "swiglu": lambda x, w: tl.swiglu(x, x * w),
    "swiglu with biases": lambda x, w: tl.swiglu(x, x * w, gate_bias=w, up_bias=-w),
    "silu with bias": lambda x, w: tl.silu(x, bias=w),
    "embedding": lambda x, w: tl.embedding(IDS, x * w),
}


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch):
    """Every thread gets a range, however small the array."""
    monkeypatch.setattr(rows, "_GRAIN", 1)
    before = tl.get_num_threads()
    yield
    tl.set_num_threads(before)


def results(name, dtype, threads):
    """Value and gradients on this number of threads."""
    rng = np.random.default_rng(0)
    x = tl.tensor(rng.normal(size=(ROWS, COLS)), dtype, requires_grad=True)
    w = tl.tensor(rng.normal(size=COLS), dtype, requires_grad=True)
    tl.set_num_threads(threads)
    with tl.backend("numba"):
        y = OPERATIONS[name](x, w)
        y.backward(np.random.default_rng(2).normal(size=y.shape))
    return [t.numpy() for t in (y, x.grad, w.grad) if t is not None]


def assert_repeats(name, dtype, times):
    alone = results(name, dtype, 1)
    for threads in (1, 2, 4, 8):
        first = results(name, dtype, threads)
        for one, shared in zip(alone, first, strict=True):
            eps = np.finfo(dtype).eps
            np.testing.assert_allclose(shared, one, rtol=64 * eps, atol=64 * eps * np.abs(one).max())
        for _ in range(times):
            for again, before in zip(results(name, dtype, threads), first, strict=True):
                np.testing.assert_array_equal(again, before)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_same_bits_again(name):
    assert_repeats(name, "float32", 3)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_same_bits_a_hundred_times(name, dtype):
    assert_repeats(name, dtype, 100)


@pytest.mark.parametrize("size", [0, 1, 3, 1000])
def test_ranges_cover_every_row_once(size):
    tl.set_num_threads(4)
    seen = rows.divided(lambda i, j: (i, j), np.empty((size, 3)))
    assert [n for i, j in seen for n in range(i, j)] == list(range(size))
    assert len(seen) == max(1, min(4, size))
