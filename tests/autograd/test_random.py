"""Random numbers that can be drawn again: known answers, and the laws that sharding and replay stand on."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyllm as tl
from tinyllm.autograd.random import Key, next_key, philox, random_scope, uniform

ALL = 0xFFFFFFFF
# Random123's kat_vectors for philox4x32-10: counter, key, output.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ALL,) * 4, (ALL, ALL), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_known_answers(counter: tuple, key: tuple, expected: tuple) -> None:
    assert tuple(int(w) for w in philox(np, counter, key)) == expected


def test_philox_of_arrays() -> None:
    """Counters in an array give what each gives alone."""
    many = philox(np, tuple(np.array([c[i] for c, _, _ in KNOWN[:1] * 2]) for i in range(4)), (0, 0))
    for words, expected in zip(many, KNOWN[0][2], strict=True):
        assert words.tolist() == [expected] * 2


KEYS = st.builds(Key, st.integers(0, 2**64 - 1), st.integers(0, 2**31), st.integers(0, 1000), st.integers(0, 2**31))


@given(KEYS, st.tuples(st.integers(1, 6), st.integers(0, 5), st.integers(1, 5)), st.data())
def test_a_shard_draws_its_own_rows(key: Key, shape: tuple, data) -> None:
    whole = uniform(np, key, shape)
    assert whole.shape == shape
    assert whole.dtype == np.float32
    start = data.draw(st.integers(0, shape[0] - 1))
    stop = data.draw(st.integers(start, shape[0]))
    part = uniform(np, key._replace(sample=key.sample + start), (stop - start, *shape[1:]))
    np.testing.assert_array_equal(part, whole[start:stop])
    assert (whole >= 0).all()
    assert (whole < 1).all()


@given(KEYS, st.sampled_from(["seed", "step", "layer", "sample"]))
def test_every_part_of_the_key_counts(key: Key, part: str) -> None:
    other = key._replace(**{part: getattr(key, part) + 1})
    assert (uniform(np, key, (1, 16)) != uniform(np, other, (1, 16))).any()
    assert (uniform(np, key, (16,)) == uniform(np, key, (16,))).all()


def test_the_upper_half_of_the_seed_counts() -> None:
    assert (uniform(np, Key(1), (1, 8)) != uniform(np, Key(1 + 2**32), (1, 8))).any()


def test_scalars_and_single_axes() -> None:
    assert uniform(np, Key(1), ()).shape == ()
    assert uniform(np, Key(1), (0, 3)).shape == (0, 3)
    np.testing.assert_array_equal(uniform(np, Key(1), (5,)), uniform(np, Key(1), (5, 1))[:, 0])


def chi_square(counts: np.ndarray) -> float:
    """How many standard deviations Pearson's statistic is away from its mean."""
    expected = counts.sum() / counts.size
    statistic = np.sum((counts - expected) ** 2 / expected)
    df = counts.size - 1
    return float((statistic - df) / np.sqrt(2 * df))


@pytest.mark.parametrize("vary", ["within a row", "rows", "layers", "steps", "seeds"])
def test_uniform(vary: str) -> None:
    n = 1 << 16
    if vary == "within a row":
        u = uniform(np, Key(3), (1, n)).reshape(-1)
    elif vary == "rows":
        u = uniform(np, Key(3), (n,))
    else:
        field = vary[:-1]
        u = np.concatenate([uniform(np, Key(3)._replace(**{field: i}), (64, 4)).reshape(-1) for i in range(n // 256)])
    assert abs(chi_square(np.histogram(u, bins=256, range=(0, 1))[0])) < 4.5
    pairs = np.histogram2d(u[0::2], u[1::2], bins=16, range=[[0, 1], [0, 1]])[0]
    assert abs(chi_square(pairs.reshape(-1))) < 4.5
    low_bits = np.bincount((u.astype(np.float64) * 2**24).astype(np.int64) % 256, minlength=256)
    assert abs(chi_square(low_bits)) < 4.5
    assert abs(chi_square(np.histogram(u * 0.5, bins=256, range=(0, 1))[0])) > 100  # the test itself can fail


# -- dropout ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_statistics(p: float) -> None:
    n = 200_000
    y = tl.dropout(np.ones(n), p, rng=np.random.default_rng(0)).data
    kept = (y != 0).mean()
    assert abs(kept - (1 - p)) < 4.5 * np.sqrt(p * (1 - p) / n)
    np.testing.assert_array_equal(np.unique(y), [0, 1 / (1 - p)])


def test_dropout_at_its_ends() -> None:
    x = tl.tensor(np.arange(1.0, 5.0), requires_grad=True)
    np.testing.assert_array_equal(tl.dropout(x, 0.0).data, x.data)
    np.testing.assert_array_equal(tl.dropout(x, 0.7, training=False).data, x.data)
    y = tl.dropout(x, 1.0)
    np.testing.assert_array_equal(y.data, np.zeros(4))
    y.backward(np.ones(4))
    np.testing.assert_array_equal(x.grad.data, np.zeros(4))


def test_dropout_keeps_the_dtype() -> None:
    for dtype in ("float32", "float64", "float16"):
        assert tl.dropout(np.ones(4, dtype), 0.5, rng=np.random.default_rng(0)).dtype == dtype


def test_the_gradient_uses_the_same_mask() -> None:
    x = tl.tensor(np.ones((10, 10)), requires_grad=True)
    with random_scope(1):
        y = tl.dropout(x, 0.5)
    g = np.random.default_rng(0).normal(size=(10, 10))
    y.backward(g)
    np.testing.assert_array_equal(x.grad.data, g * y.data)


def masks(seed: int, step: int, sample: int = 0, rows: int = 8) -> list[np.ndarray]:
    with random_scope(seed, step, sample):
        return [tl.dropout(np.ones((rows, 5)), 0.5).numpy() for _ in range(3)]


def test_a_scope_can_be_replayed() -> None:
    first, again = masks(1, 2), masks(1, 2)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    for i in range(3):
        assert (first[i] != first[i - 1]).any()  # each draw of a step is another
        assert (first[i] != masks(1, 3)[i]).any()
        assert (first[i] != masks(2, 2)[i]).any()


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_any_sharding_of_a_batch_draws_the_same_masks(sizes: list) -> None:
    whole = masks(5, 9, rows=sum(sizes))
    starts = np.cumsum([0, *sizes[:-1]])
    parts = [masks(5, 9, sample=int(s), rows=n) for s, n in zip(starts, sizes, strict=True)]
    for i, mask in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([p[i] for p in parts]), mask)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_dropout_of_attention_shards_too(backend: str) -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(4, 2, 3, 2)) for _ in range(3))

    def attend(rows: slice) -> np.ndarray:
        with tl.backend(backend), random_scope(1, 1, rows.start):
            return tl.scaled_dot_product_attention(q[rows], k[rows], v[rows], dropout_p=0.5).numpy()

    whole = attend(slice(0, 4))
    np.testing.assert_allclose(np.concatenate([attend(slice(0, 1)), attend(slice(1, 4))]), whole, rtol=1e-14)
    assert (whole != tl.scaled_dot_product_attention(q, k, v).data).any()


def test_scopes_nest_and_end() -> None:
    with random_scope(1):
        outer = next_key()
        with random_scope(2, 5, 7):
            assert next_key() == Key(2, 5, 0, 7)
            assert next_key() == Key(2, 5, 1, 7)
        assert next_key() == outer._replace(layer=1)
        with pytest.raises(KeyError), random_scope(3):
            raise KeyError
        assert next_key() == outer._replace(layer=2)
    with pytest.raises(ValueError, match="seed"):
        next_key()


def test_a_generator_is_drawn_from_once() -> None:
    rng, twin = np.random.default_rng(4), np.random.default_rng(4)
    a = tl.dropout(np.ones(100), 0.5, rng=rng).data
    b = tl.dropout(np.ones(100), 0.5, rng=rng).data
    twin.integers(2**63)
    twin.integers(2**63)
    assert rng.integers(1000) == twin.integers(1000)
    assert (a != b).any()


def test_scopes_belong_to_a_thread() -> None:
    errors: list = []

    def work() -> None:
        try:
            next_key()
        except ValueError as error:
            errors.append(error)

    with random_scope(1):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert len(errors) == 1
