"""The cache: what it returns is what has been appended, whatever happened to it between."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyllm as tl
from tinyllm.models.cache import KVCache

H, D = 2, 3


def pair(rng, batch, count):
    return tuple(tl.tensor(rng.normal(size=(batch, H, count, D))) for _ in range(2))


steps = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 90)),
    st.tuples(st.just("reorder"), st.lists(st.integers(0, 1), min_size=1, max_size=4)),
    st.tuples(st.just("crop"), st.integers(0, 64)),
)


@given(st.lists(steps, min_size=1, max_size=8), st.sampled_from([None, 1, 5, 70]), st.booleans())
def test_it_holds_what_was_appended(plan, window, recording):
    """Against arrays that are put together, picked from and cut anew at every step."""
    rng = np.random.default_rng(0)
    cache, batch = KVCache(2, window), 2
    plain = [[np.zeros((batch, H, 0, D))] * 2 for _ in range(2)]
    last = 0  # positions that came with the last append can be taken back, and 64 more
    with tl.enable_grad() if recording else tl.no_grad():
        for what, value in plan:
            if what == "append":
                last = value
                for layer in range(2):
                    new = pair(rng, batch, value)
                    found = cache.append(layer, *new)
                    plain[layer] = [
                        np.concatenate([p, n.numpy()], axis=2) for p, n in zip(plain[layer], new, strict=True)
                    ]
                    seen = plain[layer][0].shape[2]
                    held = seen if window is None else min(seen, window - 1 + value)
                    for f, p in zip(found, plain[layer], strict=True):
                        np.testing.assert_array_equal(f.numpy(), p[:, :, seen - held :])
            elif what == "reorder" and cache.batch is not None:
                rows = [r % batch for r in value]
                cache.reorder(rows)
                plain = [[p[rows] for p in layer] for layer in plain]
                batch = len(rows)
            elif what == "crop":
                length = max(0, cache.length - min(value, last))
                last = max(0, last - (cache.length - length))
                cache.crop(length)
                plain = [[p[:, :, :length] for p in layer] for layer in plain]
            assert cache.length == plain[0][0].shape[2]
            assert cache.batch in (None, batch)


def test_a_step_does_not_copy_what_is_held():
    """Buffers are replaced when they are full alone: a handful of times in a thousand steps."""
    rng = np.random.default_rng(0)
    cache, buffers = KVCache(1), set()
    with tl.no_grad():
        for _ in range(1000):
            k, _ = cache.append(0, *pair(rng, 1, 1))
            buffers.add(k._storage.array.base.ctypes.data)
    assert len(buffers) < 10
    assert cache.nbytes < 2 * 2 * 1000 * H * D * 8


def test_a_window_bounds_the_memory():
    rng = np.random.default_rng(0)
    cache, sizes = KVCache(1, window=10), []
    with tl.no_grad():
        for _ in range(2000):
            cache.append(0, *pair(rng, 1, 1))
            sizes.append(cache.nbytes)
    assert cache.length == 2000
    assert max(sizes) <= 2 * 2 * (10 + 2 * 64) * H * D * 8


def test_64_positions_can_be_taken_back_from_a_window():
    rng = np.random.default_rng(0)
    for length in range(100, 300, 7):
        cache = KVCache(1, window=5)
        with tl.no_grad():
            for _ in range(length):
                cache.append(0, *pair(rng, 1, 1))
            cache.crop(length - 64)
            assert cache.append(0, *pair(rng, 1, 1))[0].shape[2] == 5


def test_gradients_reach_through_the_cache(rng):
    first, second = (tl.tensor(rng.normal(size=(1, H, 2, D)), requires_grad=True) for _ in range(2))
    cache = KVCache(1)
    cache.append(0, first, first)
    k, v = cache.append(0, second, second)
    (k * 2 + v).sum().backward()
    np.testing.assert_array_equal(first.grad.data, np.full(first.shape, 3.0))
    np.testing.assert_array_equal(second.grad.data, np.full(second.shape, 3.0))


def test_what_was_recorded_is_never_written_to(rng):
    cache = KVCache(1)
    k, _ = cache.append(0, *pair(rng, 1, 3))
    before = k.numpy()
    cache.crop(1)
    with tl.no_grad():
        cache.append(0, *pair(rng, 1, 2))
    np.testing.assert_array_equal(k.data, before)


def test_the_source_is_projected_once(rng):
    calls = []

    def project():
        calls.append(1)
        return pair(rng, 2, 4)

    cache = KVCache(1)
    first = cache.of_source(0, project)
    assert cache.of_source(0, project) is first
    cache.reorder([1, 1, 0])
    np.testing.assert_array_equal(cache.of_source(0, project)[0].data, first[0].data[[1, 1, 0]])
    assert len(calls) == 1


def test_misuse(rng):
    cache = KVCache(2)
    with tl.no_grad():
        for layer in range(2):
            cache.append(layer, *pair(rng, 2, 3))
        with pytest.raises(ValueError, match=r"layer 0.*\(1, 2, 1, 3\).*reorder"):
            cache.append(0, *pair(rng, 1, 1))
        with pytest.raises(IndexError):
            cache.reorder([2])
        with pytest.raises(ValueError, match=r"holds 3 positions.*4"):
            cache.crop(4)
        with pytest.raises(ValueError, match="at least 1"):
            KVCache(1, window=0)
        windowed = KVCache(1, window=4)
        for _ in range(300):
            windowed.append(0, *pair(rng, 1, 1))
        with pytest.raises(ValueError, match="300 to 100"):
            windowed.crop(100)
