"""Memory is used again, but never while anybody can still see it."""

import gc
import math
import os
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm import buffers
from tinyllm.buffers import Pool

LARGE = (300, 1000)  # 1.2 MB of float32


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def filled(pool: Pool, shape: tuple[int, ...], value: float, dtype: str = "float32") -> np.ndarray:
    array = pool.empty(shape, dtype)
    array[...] = value
    return array


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5, 7), (1 << 16,), (127, 1031), (2, 3, 50_000)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool", "float16"])
def test_an_array_like_numpys(shape: tuple[int, ...], dtype: str) -> None:
    array = buffers.empty(shape, dtype)
    assert type(array) is np.ndarray
    assert array.shape == shape
    assert array.dtype == dtype
    assert array.flags.c_contiguous
    assert array.flags.writeable
    array[...] = 1
    assert np.count_nonzero(array) == math.prod(shape)


def test_large_arrays_are_aligned() -> None:
    for n in (1 << 16, 100_001, 1_000_003):
        assert address(buffers.empty((n,), np.uint8)) % 64 == 0


def test_memory_is_used_again() -> None:
    pool = Pool()
    first = address(pool.empty(LARGE, np.float32))
    assert address(pool.empty(LARGE, np.float32)) == first
    assert address(pool.empty((1000, 150), np.float64)) == first  # as many bytes
    assert address(pool.empty((290, 1000), np.float32)) == first  # nearly as many


def test_small_arrays_are_not_kept() -> None:
    pool = Pool()
    pool.empty((10, 10), np.float32)
    assert pool.used_and_free() == (0, 0)


HOLDERS = {
    "itself": lambda a: a,
    "slice": lambda a: a[3:5, ::7],
    "element of a slice": lambda a: a[3][4:5],
    "transpose": lambda a: a.T,
    "reshape": lambda a: a.reshape(-1)[5:],
    "other dtype": lambda a: a.view(np.int32),
    "memoryview": memoryview,
    "slice of a memoryview": lambda a: memoryview(a.reshape(-1))[7:9],
    "frombuffer": lambda a: np.frombuffer(memoryview(a), np.float32),
    "broadcast": lambda a: np.broadcast_to(a[0], (4, 1000)),
    "strides": lambda a: np.lib.stride_tricks.sliding_window_view(a, 3, axis=0),
    "subclass": lambda a: a.view(np.matrix),
    "dlpack": lambda a: np.from_dlpack(a),
    "iterator": lambda a: a.flat,
    "ctypes": lambda a: a.ctypes,
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_who_shares_the_memory_keeps_it(holder: str) -> None:
    pool = Pool()
    array = filled(pool, LARGE, 1.0)
    used = address(array)
    held = HOLDERS[holder](array)
    del array
    gc.collect()
    others = [filled(pool, LARGE, 2.0) for _ in range(3)]
    assert used not in [address(a) for a in others]
    del held
    gc.collect()
    assert address(pool.empty(LARGE, np.float32)) == used


@pytest.mark.peers
def test_pytorch_keeps_it() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    pool = Pool()
    array = filled(pool, LARGE, 1.0)
    used = address(array)
    held = torch.from_numpy(array)[3:]
    del array
    assert used != address(pool.empty(LARGE, np.float32))
    del held
    assert used == address(pool.empty(LARGE, np.float32))


@given(
    st.lists(
        st.tuples(st.integers(1, 400_000), st.sampled_from(["f4", "f8", "u1"]), st.integers(0, 6), st.booleans()),
        max_size=60,
    )
)
def test_what_is_held_never_changes(program: list[tuple[int, str, int, bool]]) -> None:
    """Arrays are made, seen through views, and dropped in any order; each keeps its own number."""
    pool = Pool()
    held: list[tuple[np.ndarray, int]] = []
    most = 0
    for number, (size, dtype, drop, window) in enumerate(program, start=1):
        array = filled(pool, (size,), number, dtype)
        held.append((array[size // 3 : size // 3 + 1] if window else array, number))
        del array
        used, free = pool.used_and_free()
        most = max(most, used)
        assert used + free <= 1.5 * most + 2**22
        for _ in range(drop if len(held) > 5 else 0):
            held.pop(len(held) // 2)
        assert all((a == n).all() for a, n in held)
    held.clear()
    assert pool.used_and_free()[0] == 0


def test_threads_never_share_a_block() -> None:
    pool = Pool()
    wrong = []

    def work(name: int) -> None:
        rng = np.random.default_rng(name)
        for i in range(300):
            arrays = [filled(pool, (int(n),), name) for n in rng.integers(16_000, 40_000, size=3)]
            if i % 10 == 0:
                pool.clear()
            if any((a != name).any() for a in arrays):
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert pool.used_and_free()[0] == 0
    pool.clear()
    assert pool.used_and_free() == (0, 0)


def test_memory_does_not_grow_with_the_variety_of_shapes() -> None:
    """Who holds at most 4 MB (5 in blocks) takes no more than twice that and what is spare, whatever comes by."""
    pool = Pool()
    rng = np.random.default_rng(0)
    held: list[np.ndarray] = []
    most = 0
    for _ in range(2000):
        held.append(pool.empty((int(rng.integers(20_000, 250_000)),), np.float32))
        while sum(a.nbytes for a in held) > 4_000_000:
            held.pop(0)
        most = max(most, sum(pool.used_and_free()))
    assert most < 2 * (1 + 1 / 32) * 5_000_000 + 2**22


def test_steps_find_the_memory_of_those_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Activations that are let go one after the other make room for gradients of other lengths; nothing is new."""
    new: list[int] = []
    pages = buffers._pages
    monkeypatch.setattr(buffers, "_pages", lambda length: new.append(length) or pages(length))
    pool = Pool()

    def step() -> None:
        activations = [pool.empty((n,), np.float32) for n in (50_000, 150_000, 200_000) * 4]
        gradients = []
        while activations:
            activations.pop()
            gradients.append(pool.empty((60_000,), np.float32))

    step()
    assert new
    new.clear()
    for _ in range(5):
        step()
    assert not new


def test_more_than_there_is() -> None:
    with pytest.raises(MemoryError):
        Pool().empty((1 << 62,), np.uint8)


def test_what_waits_too_long_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool()
    now = pool.period
    monkeypatch.setattr("tinyllm.buffers.time.monotonic", lambda: now)
    kept = pool.empty(LARGE, np.float32)
    del kept
    pool.shelves[next(iter(pool.shelves))][0].free_since = now
    for seconds in (11, 22):  # unused for a whole period
        now += seconds
        small = pool.empty((1 << 16,), np.uint8)
        del small
    assert pool.used_and_free()[1] < 100_000


def test_clear() -> None:
    pool = Pool()
    held = filled(pool, LARGE, 3.0)
    pool.empty(LARGE, np.float32)
    used, free = pool.used_and_free()
    assert used == free > 0
    pool.clear()
    assert pool.used_and_free() == (used, 0)
    assert (held == 3).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_has_memory_of_its_own() -> None:
    held = buffers.empty(LARGE, np.float32)
    held[...] = 1
    buffers.empty(LARGE, np.float32)  # and a free block
    with buffers._pool.lock:  # as if another thread were at work
        child = os.fork()
        if child == 0:
            ok = False
            try:
                fresh = buffers.empty(LARGE, np.float32)
                more = buffers.empty((77_777,), np.float32)
                fresh[...], more[...] = 5, 5
                held[...] += 1
                ok = bool((held == 2).all())
            finally:
                os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (held == 1).all()
