"""GELU, SiLU, SwiGLU, embeddings, Adam's steps and the sum of squares against float64 NumPy."""

import math

import numpy as np
import pytest
from kernel_checks import DTYPES, SHAPES, SIZES, assert_close, assert_vjp, poisoned

from tinyllm.kernels.cpu.activation import (
    bias_gelu_erf,
    bias_gelu_erf_vjp,
    bias_gelu_tanh,
    bias_gelu_tanh_vjp,
    bias_silu,
    bias_silu_vjp,
    bias_swiglu,
    bias_swiglu_vjp,
    gelu_erf,
    gelu_erf_vjp,
    gelu_tanh,
    gelu_tanh_vjp,
    silu,
    silu_vjp,
    swiglu,
    swiglu_vjp,
)
from tinyllm.kernels.cpu.adamw import adam, adamw, sum_of_squares
from tinyllm.kernels.cpu.embedding import embedding, embedding_vjp

erf = np.vectorize(math.erf, otypes=[float])


def erf_reference(x):
    below = (1 + erf(x / math.sqrt(2))) / 2
    return x * below, below + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def tanh_reference(x):
    u = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    return x * (1 + np.tanh(u)) / 2, (1 + np.tanh(u) + x / np.cosh(np.minimum(np.abs(u), 300)) ** 2 * slope) / 2


def silu_reference(x):
    with np.errstate(over="ignore"):
        s = 1 / (1 + np.exp(-x))
    return x * s, s * (1 + x * (1 - s))


GELUS = [(gelu_erf, gelu_erf_vjp, erf_reference), (gelu_tanh, gelu_tanh_vjp, tanh_reference)]
ALL = [*GELUS, (silu, silu_vjp, silu_reference)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kernel", "vjp", "reference"), ALL)
def test_an_activation_and_its_derivative(kernel, vjp, reference, dtype, rng):
    for size in (*SIZES, 0, 4099):
        x, g = (3 * rng.normal(size=(2, size))).astype(dtype)
        value, slope = reference(x.astype(float))
        out = poisoned(size, dtype=dtype)
        kernel(x, out)
        assert_close(out, value)
        out = poisoned(size, dtype=dtype)
        vjp(g, x, out)
        assert_close(out, g * slope, ulps=24, scale=8)


@pytest.mark.parametrize(("kernel", "vjp", "reference"), ALL)
def test_vjp_is_the_slope(kernel, vjp, reference, rng):
    x, g, out = rng.normal(size=31), rng.normal(size=31), poisoned(31, dtype="float64")

    def forward(x):
        y = poisoned(31, dtype="float64")
        kernel(x, y)
        return y

    vjp(g, x, out)
    assert_vjp(forward, x, g, out, rng)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kernel", "vjp", "reference"), ALL)
def test_an_activation_of_extreme_numbers_is_the_identity_or_nothing(kernel, vjp, reference, dtype):
    x = np.array([np.finfo(dtype).max / 2, 1e20, 50, -50, -1e20, -np.finfo(dtype).max / 2, np.nan], dtype)
    out, slope = poisoned(x.size, dtype=dtype), poisoned(x.size, dtype=dtype)
    kernel(x, out)
    vjp(np.ones_like(x), x, slope)
    np.testing.assert_allclose(out, np.where(x < 0, 0, x), rtol=0, atol=1e-19)
    np.testing.assert_allclose(slope, [1, 1, 1, 0, 0, 0, np.nan], rtol=0, atol=1e-19)


BIASED = [
    (bias_gelu_erf, bias_gelu_erf_vjp, gelu_erf, gelu_erf_vjp),
    (bias_gelu_tanh, bias_gelu_tanh_vjp, gelu_tanh, gelu_tanh_vjp),
    (bias_silu, bias_silu_vjp, silu, silu_vjp),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("kernel", "vjp", "plain", "plain_vjp"), BIASED)
def test_a_bias_is_added_first(kernel, vjp, plain, plain_vjp, shape, dtype, rng):
    x, g = rng.normal(size=(2, *shape)).astype(dtype)
    bias = rng.normal(size=shape[1]).astype(dtype)
    out, dx, expected, slope = (poisoned(*shape, dtype=dtype) for _ in range(4))
    dbias = poisoned(shape[1], dtype=dtype)
    kernel(x, bias, out)
    plain((x + bias).ravel(), expected.ravel())
    assert_close(out, expected)
    vjp(g, x, bias, dx, dbias)
    plain_vjp(g.ravel(), (x + bias).ravel(), slope.ravel())
    assert_close(dx, slope)
    assert_close(dbias, slope.astype(float).sum(axis=0), scale=np.abs(slope).sum(axis=0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_swiglu_is_silu_of_the_gate_times_the_rest(dtype, rng):
    for size in (*SIZES, 0, 4099):
        g, gate, up = (3 * rng.normal(size=(3, size))).astype(dtype)
        value, slope = silu_reference(gate.astype(float))
        out, dgate, dup = (poisoned(size, dtype=dtype) for _ in range(3))
        swiglu(gate, up, out)
        assert_close(out, value * up)
        swiglu_vjp(g, gate, up, dgate, dup)
        assert_close(dgate, g.astype(float) * up * slope, ulps=24, scale=64)
        assert_close(dup, g * value)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_swiglu_adds_its_biases_first(shape, dtype, rng):
    g, gate, up = rng.normal(size=(3, *shape)).astype(dtype)
    b, c = rng.normal(size=(2, shape[1])).astype(dtype)
    out, dgate, dup, expected, of_gate, of_up = (poisoned(*shape, dtype=dtype) for _ in range(6))
    db, dc = poisoned(shape[1], dtype=dtype), poisoned(shape[1], dtype=dtype)
    bias_swiglu(gate, up, b, c, out)
    swiglu((gate + b).ravel(), (up + c).ravel(), expected.ravel())
    assert_close(out, expected)
    bias_swiglu_vjp(g, gate, up, b, c, dgate, dup, db, dc)
    swiglu_vjp(g.ravel(), (gate + b).ravel(), (up + c).ravel(), of_gate.ravel(), of_up.ravel())
    for d, plain, total in ((dgate, of_gate, db), (dup, of_up, dc)):
        assert_close(d, plain)
        assert_close(total, plain.astype(float).sum(axis=0), scale=np.abs(plain).sum(axis=0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cols", SIZES)
def test_embedding_picks_rows_and_its_vjp_adds_up_equal_ids(cols, dtype, rng):
    ids = rng.integers(0, 5, size=64)  # ids repeat; row 5 and 6 are never picked
    g = rng.integers(-9, 10, size=(64, cols)).astype(dtype)  # whole numbers: sums are exact
    table = rng.integers(-9, 10, size=(7, cols)).astype(dtype)
    out = poisoned(64, cols, dtype=dtype)
    embedding(table, ids, out)
    np.testing.assert_array_equal(out, table[ids])
    expected = table.copy()
    np.add.at(expected, ids, g)
    for first, end in ((0, 3), (3, 3), (3, 7)):  # range by range
        embedding_vjp(g, ids, first, table[first:end])
    np.testing.assert_array_equal(table, expected)
    embedding_vjp(g[:0], ids[:0], 0, table)
    np.testing.assert_array_equal(table, expected)


def adam_reference(p, g, m, v, step, lr, beta1, beta2, eps, decay, decoupled):
    """Kingma and Ba's algorithm 1 as printed, with the decay of Loshchilov and Hutter's algorithm 2."""
    g = g if decoupled else g + decay * p
    p = p * (1 - lr * decay) if decoupled else p
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return p - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", [adamw, adam])
def test_steps_follow_the_papers(kernel, dtype, rng):
    lr, beta1, beta2, eps, decay = 1e-2, 0.9, 0.99, 1e-8, 0.3
    for size in (*SIZES, 0):
        p = rng.normal(size=size).astype(dtype)
        m, v = np.zeros_like(p), np.zeros_like(p)
        expected = p.astype(float), m.astype(float), v.astype(float)
        for step in range(1, 6):
            g = rng.normal(size=size).astype(dtype)
            g[::4] = 0
            before = g.copy()
            kernel(p, g, m, v, lr, beta1, beta2, eps, decay, 1 - beta1**step, 1 - beta2**step)
            expected = adam_reference(
                expected[0], g, expected[1], expected[2], step, lr, beta1, beta2, eps, decay, kernel is adamw
            )
            np.testing.assert_array_equal(g, before)
        for actual, wanted in zip((p, m, v), expected, strict=True):
            assert_close(actual, wanted, ulps=32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_to_do_changes_nothing(dtype, rng):
    p = rng.normal(size=33).astype(dtype)
    before = p.copy()
    for kernel in (adamw, adam):
        zeros = [np.zeros_like(p) for _ in range(3)]
        kernel(p, *zeros, 1e-2, 0.9, 0.99, 1e-8, 0.0, 0.1, 0.01)
        np.testing.assert_array_equal(p, before)


@pytest.mark.peers
@pytest.mark.parametrize("kernel", [adamw, adam])
def test_steps_equal_pytorch(kernel, rng):
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    p = rng.normal(size=50)
    theirs = torch.tensor(p.copy(), requires_grad=True)
    kind = torch.optim.AdamW if kernel is adamw else torch.optim.Adam
    optimiser = kind([theirs], lr=1e-2, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
    m, v = np.zeros_like(p), np.zeros_like(p)
    for step in range(1, 8):
        g = rng.normal(size=50)
        theirs.grad = torch.tensor(g.copy())
        optimiser.step()
        kernel(p, g, m, v, 1e-2, 0.9, 0.99, 1e-8, 0.1, 1 - 0.9**step, 1 - 0.99**step)
    np.testing.assert_allclose(p, theirs.detach().numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sum_of_squares_is_of_float64(dtype, rng):
    for size in (*SIZES, 0, 100_003):
        x = rng.normal(size=size).astype(dtype)
        np.testing.assert_allclose(sum_of_squares(x), np.sum(x.astype(float) ** 2), rtol=1e-13)
    assert sum_of_squares(np.array([1e30, 1e30], dtype)) == pytest.approx(2e60)
