"""The cross-entropy kernels against the definition in float64, and against PyTorch."""

import numpy as np
import pytest
from kernel_checks import DTYPES, SHAPES, assert_close, assert_vjp, poisoned

from tinyllm.kernels.cpu.cross_entropy import cross_entropy, cross_entropy_in_place, cross_entropy_vjp


def log_probabilities(logits):
    x = logits.astype(float)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def soft_targets(logits, target, weight, smoothing, ignore):
    """q (N, V) with loss = -sum_c q_c log p_c."""
    rows, classes = logits.shape
    q = np.tile(smoothing / classes * weight.astype(float), (rows, 1))
    for i, t in enumerate(target):
        if t == ignore:
            q[i] = 0
        else:
            q[i, t] += (1 - smoothing) * weight[t]
    return q


def forward(logits, *settings):
    losses, lse = poisoned(logits.shape[0], dtype=logits.dtype), poisoned(logits.shape[0], dtype=logits.dtype)
    cross_entropy(logits, *settings, losses, lse)
    return losses, lse


def backward(g, logits, *settings, lse):
    out = poisoned(*logits.shape, dtype=logits.dtype)
    cross_entropy_vjp(g, logits, *settings, lse, out)
    return out


def draw(shape, dtype, rng, ignore=-100):
    rows, classes = shape
    logits = (3 * rng.normal(size=shape)).astype(dtype)
    target = rng.integers(0, classes, size=rows)
    target[rows // 2 :: 3] = ignore
    return logits, target, rng.uniform(0.5, 2, size=classes).astype(dtype), rng.normal(size=rows).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[0]])
def test_equals_the_definition(shape, smoothing, dtype, rng):
    logits, target, weight, g = draw(shape, dtype, rng)
    settings = (target, weight, smoothing, -100)
    losses, lse = forward(logits, *settings)
    q, log_p = soft_targets(logits, *settings), log_probabilities(logits)
    assert_close(losses, -np.sum(q * log_p, axis=-1), ulps=32, scale=4)
    kept = target != -100
    assert_close(lse[kept], (logits - log_p)[kept, 0], scale=4)
    assert np.all(losses[~kept] == 0)
    expected = g[:, None] * (np.exp(log_p) * q.sum(axis=-1, keepdims=True) - q)
    assert_close(backward(g, logits, *settings, lse=lse), expected, ulps=64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[0]])
def test_in_place_gives_the_losses_and_their_derivatives(shape, smoothing, dtype, rng):
    logits, target, weight, _ = draw(shape, dtype, rng)
    settings = (target, np.ones_like(weight), smoothing, -100)
    expected, lse = forward(logits, *settings)
    slopes = backward(np.full(shape[0], 0.3, dtype), logits, *settings, lse=lse)
    losses, work = poisoned(shape[0], dtype=dtype), logits.copy()
    cross_entropy_in_place(work, target, smoothing, -100, 0.3, losses)
    assert_close(losses, expected, ulps=32, scale=4)
    assert_close(work, slopes, ulps=32)


def test_vjp_is_the_slope(rng):
    logits, target, weight, g = draw((6, 11), "float64", rng, ignore=2)
    settings = (target, weight, 0.2, 2)
    cotangent = backward(g, logits, *settings, lse=forward(logits, *settings)[1])
    assert_vjp(lambda x: forward(x, *settings)[0], logits, g, cotangent, rng)


@pytest.mark.parametrize("dtype", DTYPES)
def test_classes_ruled_out_cost_nothing_and_get_no_gradient(dtype, rng):
    logits, target, weight, g = draw((4, 33), dtype, rng)
    target[:] = 7
    logits[:, 8:] = -np.inf
    settings = (target, weight, 0.0, -100)
    losses, lse = forward(logits, *settings)
    assert_close(losses, -weight[7] * log_probabilities(logits[:, :8])[:, 7], scale=4)
    assert np.all(backward(g, logits, *settings, lse=lse)[:, 8:] == 0)
    settings = (target + 1, weight, 0.0, -100)
    assert np.all(np.isposinf(forward(logits, *settings)[0]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_large_shift_of_the_logits_loses_no_digits_of_the_loss(dtype):
    logits = np.arange(30).reshape(2, 15).astype(dtype)
    settings = (np.array([3, 14]), np.ones(15, dtype), 0.1, -100)
    expected, _ = forward(logits, *settings)
    shifted, lse = forward(logits + logits.dtype.type(1e6), *settings)
    np.testing.assert_array_equal(shifted, expected)
    assert np.all(np.isfinite(backward(np.ones(2, dtype), logits, *settings, lse=lse)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_stays_in_its_row(dtype, rng):
    logits, target, weight, g = draw((3, 20), dtype, rng)
    target[:] = 4
    logits[1, 9] = np.nan
    settings = (target, weight, 0.0, -100)
    losses, lse = forward(logits, *settings)
    out = backward(g, logits, *settings, lse=lse)
    assert np.isnan(losses[1])
    assert np.all(np.isnan(out[1]))
    assert np.all(np.isfinite(losses[[0, 2]]))
    assert np.all(np.isfinite(out[[0, 2]]))


@pytest.mark.peers
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_pytorch(smoothing, rng):
    torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    logits, target, weight, g = draw((9, 13), "float64", rng)
    settings = (target, weight, smoothing, -100)
    losses, lse = forward(logits, *settings)
    x = torch.tensor(logits, requires_grad=True)
    theirs = torch.nn.functional.cross_entropy(
        x, torch.tensor(target), torch.tensor(weight), label_smoothing=smoothing, reduction="none"
    )
    theirs.backward(torch.tensor(g))
    np.testing.assert_allclose(losses, theirs.detach().numpy(), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(backward(g, logits, *settings, lse=lse), x.grad.numpy(), rtol=1e-12, atol=1e-13)
