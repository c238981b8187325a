"""The masked softmax of attention against its definition in float64, with every kind of mask."""

import numpy as np
import pytest
from kernel_checks import DTYPES, SIZES, assert_close, assert_vjp, poisoned

from tinyllm.kernels.cpu.attention import masked_softmax, masked_softmax_vjp


def reference(scores, scale, offset, mask, mask_index):
    """Weights with the mask laid out in full; rows that see nothing are zeros."""
    _, queries, keys = scores.shape
    z = scale * scores.astype(float)
    if mask is not None:
        chosen = mask[mask_index]
        z = np.where(chosen, z, -np.inf) if mask.dtype == bool else z + chosen
    z = np.where(np.arange(keys) <= np.arange(queries)[:, None] + offset, z, -np.inf)
    largest = z.max(axis=-1, keepdims=True, initial=-np.inf)
    e = np.exp(z - np.where(np.isneginf(largest), 0, largest))
    total = e.sum(axis=-1, keepdims=True)
    return e / np.where(total == 0, 1, total)


def vjp_reference(g, y, scale):
    g, y = g.astype(float), y.astype(float)
    return scale * y * (g - np.sum(g * y, axis=-1, keepdims=True))


def masks(kind, n, queries, keys, dtype, rng):
    """(mask, mask_index) of a kind: shared by all, one per pair of rows, or the same for all queries."""
    if kind == "none":
        return None, np.zeros(n, np.int64)
    count, rows = {"shared": (1, queries), "own": (2, queries), "padding": (2, 1)}[kind.split()[1]]
    allowed = rng.random((count, rows, keys)) < 0.7
    allowed[0, 0] = False
    mask = (
        allowed
        if kind.startswith("boolean")
        else np.where(allowed, rng.normal(size=allowed.shape), -np.inf).astype(dtype)
    )
    return mask, np.arange(n) // 2 % count


KINDS = ["none", *(f"{kind} {shape}" for kind in ("boolean", "added") for shape in ("shared", "own", "padding"))]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_definition(kind, dtype, rng):
    for queries, keys in [(t, t) for t in SIZES] + [(1, 33), (7, 3), (5, 64), (3, 129)]:
        for offset in sorted({0, keys - queries, keys, -2}):
            mask, index = masks(kind, 4, queries, keys, dtype, rng)
            scores, g = (3 * rng.normal(size=(2, 4, queries, keys))).astype(dtype)
            y = scores.copy()
            masked_softmax(y, 0.3, offset, mask, index)
            expected = reference(scores, 0.3, offset, mask, index)
            assert_close(y, expected, scale=1e-3, ulps=48)
            assert np.all(y[expected == 0] == 0)
            out = poisoned(*g.shape, dtype=dtype)
            masked_softmax_vjp(g, y, 0.3, offset, out)
            assert_close(out, vjp_reference(g, y, 0.3), ulps=24)
            assert np.all(out[y == 0] == 0)
            masked_softmax_vjp(g, y, 0.3, offset, g)
            np.testing.assert_array_equal(g, out)


def test_vjp_is_the_slope_in_scores_and_added_mask(rng):
    scores, g, mask = rng.normal(size=(3, 2, 5, 9))
    index = np.arange(2)

    def weights(scores, mask):
        y = scores.copy()
        masked_softmax(y, 0.7, 3, mask, index)
        return y

    out = poisoned(*g.shape, dtype="float64")
    masked_softmax_vjp(g, weights(scores, mask), 0.7, 3, out)
    assert_vjp(lambda scores: weights(scores, mask), scores, g, out, rng)
    masked_softmax_vjp(g, weights(scores, mask), 1.0, 3, out)
    assert_vjp(lambda mask: weights(scores, mask), mask, g, out, rng)


@pytest.mark.parametrize("dtype", DTYPES)
def test_keys_beyond_the_diagonal_are_never_used(dtype, rng):
    scores = rng.normal(size=(2, 33, 33)).astype(dtype)
    poisonous = scores.copy()
    poisonous[:, ~np.tri(33, dtype=bool)] = np.nan
    index = np.zeros(2, np.int64)
    masked_softmax(scores, 0.5, 0, None, index)
    masked_softmax(poisonous, 0.5, 0, None, index)
    np.testing.assert_array_equal(poisonous, scores)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf])
def test_nan_is_not_mistaken_for_a_masked_row(bad, dtype):
    for keys in (1, 5, 20):
        scores = np.full((1, 2, keys), -np.inf, dtype)
        scores[0, 1, 0] = bad
        masked_softmax(scores, 1.0, keys, None, np.zeros(1, np.int64))
        assert np.all(scores[0, 0] == 0)
        assert np.isnan(scores[0, 1, 0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_scores_do_not_overflow(dtype):
    scores = np.array([[[1e30, -1e30, 1e30, 0]]], dtype)
    masked_softmax(scores, 2.0, 4, None, np.zeros(1, np.int64))
    np.testing.assert_array_equal(scores, [[[0.5, 0, 0.5, 0]]])
