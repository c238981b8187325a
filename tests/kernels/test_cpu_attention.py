"""Tiled attention against its definition in float64: shapes around the tiles, every kind of mask, groups, dropout."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_checks import DTYPES, assert_close

import tinyllm as tl
from tinyllm.autograd import fused
from tinyllm.autograd.ops.dropout import dropout_factor
from tinyllm.autograd.random import Key, uniform
from tinyllm.kernels.cpu import attention as kernels
from tinyllm.kernels.cpu.compile import jit
from tinyllm.kernels.cpu.gemm import gemm, loops
from tinyllm.kernels.cpu.philox import uniforms

KERNEL = fused.attention._numba()
T = kernels.QUERIES
# (B, H, T, D), heads of k and v, S, E: around the edges of tiles and strips.
SHAPES = [
    ((1, 1, 16, 1), 1, 1, 1),
    ((2, 3, 17, 5), 3, 33, 7),
    ((1, 2, 31, 8), 2, 31, 8),
    ((1, 4, 65, 32), 2, 65, 32),
    ((2, 2, T + 1, 16), 1, kernels.KEYS + 1, 24),
    ((1, 1, 2 * T + 3, 3), 1, 2 * kernels.KEYS - 1, 2),
]
MASKS = ("none", "boolean", "boolean padding", "added", "added padding", "added own")


def drawn(rng, shape, kv_heads, S, E, dtype):
    B, H, queries, D = shape
    shapes = [(B, H, queries, D), (B, kv_heads, S, D), (B, kv_heads, S, E), (B, H, queries, E)]
    return [rng.normal(size=s).astype(dtype) for s in shapes]


def a_mask(kind, rng, B, H, queries, S, dtype):
    if kind == "none":
        return None
    shape = {"padding": (B, 1, 1, S), "own": (B, H, queries, S)}.get(kind.split()[-1], (queries, S))
    allowed = rng.random(shape) < 0.7
    allowed[..., 0, :] &= "padding" in kind  # a query that sees nothing
    return allowed if kind.startswith("boolean") else np.where(allowed, rng.normal(size=shape), -np.inf).astype(dtype)


def definition(g, q, k, v, mask=None, *, scale, limit, dropout_p, key):
    """Result and cotangents in float64, with all weights laid out."""
    dtype = q.dtype
    g, q, k, v = (x.astype(float) for x in (g, q, k, v))
    G = q.shape[1] // k.shape[1]
    kv_heads = k.shape
    k, v = np.repeat(k, G, axis=1), np.repeat(v, G, axis=1)
    s = scale * q @ k.swapaxes(-1, -2)
    if mask is not None:
        s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask.astype(float)
    if limit is not None:
        s = np.where(np.tri(*s.shape[-2:], k=limit, dtype=bool), s, -np.inf)
    top = s.max(axis=-1, keepdims=True, initial=-np.inf)
    e = np.exp(s - np.where(np.isneginf(top), 0, top))
    total = e.sum(axis=-1, keepdims=True)
    p = e / np.where(total == 0, 1, total)
    factor = 1.0 if key is None else dropout_factor(np, key, p.shape, dropout_p, dtype).astype(float)
    y = (p * factor) @ v
    dp = (g @ v.swapaxes(-1, -2)) * factor
    ds = scale * p * (dp - (dp * p).sum(axis=-1, keepdims=True))

    def shared(x):
        return x.reshape(*kv_heads[:2], G, *x.shape[-2:]).sum(axis=2)

    return y, ds @ k, shared(ds.swapaxes(-1, -2) @ q), shared((p * factor).swapaxes(-1, -2) @ g)


def both(g, q, k, v, mask=None, **how):
    y, saved = KERNEL.forward(q, k, v, *([] if mask is None else [mask]), **how)
    grads = KERNEL.vjp((True, True, True, False), g, y, saved, q, k, v, *([] if mask is None else [mask]), **how)
    return y, *grads[:3]


def plain(**changes):
    return {"scale": 0.3, "limit": None, "dropout_p": 0.0, "key": None, **changes}


def assert_right(results, g, q, k, v, mask=None, **how):
    for actual, expected in zip(results, definition(g, q, k, v, mask, **how), strict=True):
        assert_close(actual, expected, ulps=64, scale=max(1.0, np.abs(expected).max(initial=0)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", MASKS)
def test_equals_the_definition(kind, dtype, rng):
    for shape, kv_heads, S, E in SHAPES:
        q, k, v, g = drawn(rng, shape, kv_heads, S, E, dtype)
        mask = a_mask(kind, rng, *shape[:3], S, dtype)
        for limit in (None, 0, 40) if kind in ("none", "added padding") else (None, S - shape[2]):
            how = plain(limit=limit)
            assert_right(both(g, q, k, v, mask, **how), g, q, k, v, mask, **how)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_draws_the_factors_of_the_plain_rung(dtype, rng):
    for shape, kv_heads, S, E in SHAPES[1:]:
        q, k, v, g = drawn(rng, shape, kv_heads, S, E, dtype)
        how = plain(limit=3, dropout_p=0.3, key=Key(2**40 + 7, 5, 3, 11))
        assert_right(both(g, q, k, v, **how), g, q, k, v, **how)


def test_dropout_without_leading_axes_numbers_queries_as_samples(rng):
    q, k, v, _ = (x[0, 0] for x in drawn(rng, (1, 1, 21, 8), 1, 30, 8, "float64"))
    how = plain(dropout_p=0.5, key=Key(3))
    numpy = fused.attention._numpy()
    tiled, stored = KERNEL.forward(q, k, v, **how)[0], numpy.forward(q, k, v, **how)[0]
    np.testing.assert_allclose(tiled, stored, atol=1e-14)


def test_uniform_numbers_are_those_of_the_engine():
    @jit
    def draw(key, sample, begin, end, out):
        return uniforms(key, sample, begin, end, out)

    key = Key(2**63 - 5, 2**31, 7, 0)
    expected = uniform(np, key._replace(sample=9), (1, 1000))[0]
    words = np.array([key.seed & 0xFFFFFFFF, key.seed >> 32, key.step, key.layer], np.uint64)
    for begin, end in ((0, 1), (3, 8), (517, 530), (2, 1000)):
        out = np.empty(end - begin + 6, np.float32)
        at = draw(words, np.uint64(9), begin, end, out)
        np.testing.assert_array_equal(out[at : at + end - begin], expected[begin:end])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("product", [gemm, jit(loops)])
def test_products_of_strided_and_transposed_matrices(product, dtype, rng):
    big = rng.normal(size=(40, 50)).astype(dtype)
    for m, n, k in ((5, 2, 3), (2, 7, 2), (16, 17, 18)):
        for a in (big[:m, :k], big[1 : k + 1, 2 : m + 2].T):
            for b in (big[3 : k + 3, 1 : n + 1], big[:n, :k].T):
                out = rng.normal(size=(20, 30)).astype(dtype)
                expected = 0.5 * (a.astype(float) @ b) - 2 * out[1 : m + 1, :n].astype(float)
                before = out.copy()
                product(a.dtype.type(0.5), a, b, a.dtype.type(-2), out[1 : m + 1, :n])
                assert_close(out[1 : m + 1, :n], expected, ulps=64, scale=4.0)
                out[1 : m + 1, :n] = before[1 : m + 1, :n]
                np.testing.assert_array_equal(out, before)
                out[:] = np.nan
                product(a.dtype.type(1), a, b, a.dtype.type(0), out[:m, :n])
                assert_close(out[:m, :n], a.astype(float) @ b, ulps=64, scale=4.0)


def test_other_layouts_give_the_same_bits(rng):
    q, k, v, g = drawn(rng, (2, 2, 40, 8), 2, 40, 8, "float32")
    expected = both(g, q, k, v, **plain(limit=0))
    packed = np.stack([q, k, v], axis=2).transpose(0, 3, 2, 1, 4).copy()  # (B, T, 3, H, D)
    parts = [packed[:, :, i].swapaxes(1, 2) for i in range(3)]
    frozen = [x.copy() for x in (g, *parts)]
    for x in frozen:
        x.flags.writeable = False
    fortran = [np.asfortranarray(x) for x in (g, q, k, v)]
    backwards = [np.ascontiguousarray(x[..., ::-1])[..., ::-1] for x in (g, q, k, v)]
    for given_arrays in ((g, *parts), frozen, fortran, backwards):
        for actual, same in zip(both(*given_arrays, **plain(limit=0)), expected, strict=True):
            np.testing.assert_array_equal(actual, same)
    constant = np.broadcast_to(np.float32(1), g.shape)
    for actual, same in zip(both(constant, q, k, v, **plain()), both(constant.copy(), q, k, v, **plain()), strict=True):
        np.testing.assert_array_equal(actual, same)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("T", [3, 20])
def test_packed_is_the_same_operation(T, backend, rng):
    H, D = 3, 8
    packed = rng.normal(size=(2, T, 3 * H * D)).astype("float32")
    g = rng.normal(size=(2, T, H * D)).astype("float32")
    mask = np.where(rng.random((2, 1, T, T)) < 0.7, 0.5, -np.inf).astype("float32")

    def run(f, with_mask_slope):
        x, m = tl.tensor(packed, requires_grad=True), tl.tensor(mask, requires_grad=with_mask_slope)
        with tl.backend(backend), tl.random_scope(3):
            y = f(x, m)
            y.backward(g)
        return [y.numpy(), x.grad.numpy(), *([m.grad.numpy()] if with_mask_slope else [])]

    def unpacked(x, m):
        q, k, v = (tl.nn.split_heads(part, H) for part in tl.split(x, 3, axis=-1))
        return tl.nn.merge_heads(tl.scaled_dot_product_attention(q, k, v, m, 0.2, is_causal=True, scale=0.7))

    for with_mask_slope in (False, True):
        ours = run(lambda x, m: tl.self_attention(x, H, m, 0.2, is_causal=True, scale=0.7), with_mask_slope)
        for actual, expected in zip(ours, run(unpacked, with_mask_slope), strict=True):
            np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_keys_beyond_the_diagonal_change_nothing(dtype, rng):
    q, k, v, g = drawn(rng, (1, 1, 150, 8), 1, 150, 8, dtype)
    before = both(g, q, k, v, **plain(limit=0))
    k[:, :, 100:], v[:, :, 100:], g[:, :, 100:] = 1e4, 1e4, 0
    after = both(g, q, k, v, **plain(limit=0))
    np.testing.assert_array_equal(after[0][:, :, :100], before[0][:, :, :100])
    np.testing.assert_array_equal(after[2][:, :, 100:], 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_scores(dtype, rng):
    q, k, v, g = drawn(rng, (1, 1, 16, 4), 1, 40, 4, dtype)
    q[..., 0], k[..., 0] = 1e6, np.linspace(-1, 1, 40)  # the weights are all but one-hot
    assert_right(both(g, q, k, v, **plain(scale=1.0)), g, q, k, v, **plain(scale=1.0))
    mask = np.where(np.arange(40) < 3, np.finfo(dtype).max, -np.inf).astype(dtype)
    y = both(g, 0 * q, k, v, mask, **plain())[0]
    np.testing.assert_allclose(y, np.broadcast_to(v[:, :, :3].mean(axis=2, keepdims=True), y.shape), rtol=1e-5)
    v[0, 0, 7, 2] = q[0, 0, 5, 1] = np.nan
    y, dq, _, _ = both(g, q, k, v, **plain())
    assert np.isnan(y[..., 2]).all()
    assert np.isnan(y[0, 0, 5]).all()
    assert np.isnan(dq[0, 0, 5]).all()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(16, 300), st.integers(1, 600),
    st.integers(1, 40), st.integers(1, 40), st.integers(-50, 400), st.integers(0, 2**32),
)  # fmt: skip
def test_any_shape(B, kv_heads, G, queries, S, D, E, limit, seed):
    rng = np.random.default_rng(seed)
    q, k, v, g = drawn(rng, (B, kv_heads * G, queries, D), kv_heads, S, E, "float64")
    assert_right(both(g, q, k, v, **plain(limit=limit)), g, q, k, v, **plain(limit=limit))


def test_memory_grows_with_the_length_not_its_square(rng, peak_of):
    T, D = 8192, 8
    q, k, v, g = drawn(rng, (1, 1, T, D), 1, T, D, "float32")
    both(g[:, :, :16], q[:, :, :16], k[:, :, :16], v[:, :, :16], **plain(limit=0))
    # without the tiles inside the kernels, which are smaller than 1 MB whatever the length
    peak = peak_of(lambda: both(g, q, k, v, **plain(limit=0)))
    assert peak < 16 * T * D * 4 < T * T * 4 / 50


@pytest.mark.parametrize("n", [1, 2, 4, 8])
@pytest.mark.parametrize(("times"), [3, pytest.param(100, marks=pytest.mark.slow)])
def test_same_bits_for_any_number_of_threads(n, times, rng):
    q, k, v, g = drawn(rng, (1, 4, 300, 16), 2, 300, 16, "float32")
    how = plain(limit=0, dropout_p=0.1, key=Key(1))
    before = tl.get_num_threads()
    tl.set_num_threads(1)
    expected = both(g, q, k, v, **how)
    try:
        tl.set_num_threads(n)
        for _ in range(times):
            for actual, same in zip(both(g, q, k, v, **how), expected, strict=True):
                np.testing.assert_array_equal(actual, same)
    finally:
        tl.set_num_threads(before)


def test_another_process_finds_the_compiled_kernel_and_the_product_it_calls(tmp_path):
    program = (
        "import numpy as np; from tinyllm.kernels.cpu.compile import jit; from tinyllm.kernels.cpu.gemm import gemm; "
        "a = np.arange(6.0).reshape(2, 3); out = np.empty((2, 2)); gemm(1.0, a, a.T, 0.0, out); "
        "print(out.sum(), sum(gemm.stats.cache_hits.values()))"
    )
    root = Path(tl.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "NUMBA_CACHE_DIR": str(tmp_path)}
    for hits in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["83.0", hits]
