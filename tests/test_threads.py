"""The pool of threads: order, errors, nesting, who may call it, and that it leaves everything as it was."""

import _thread
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import tinyllm as tl
from tinyllm import threads


@pytest.fixture(autouse=True)
def _same_number_afterwards():
    before = tl.get_num_threads()
    yield
    tl.set_num_threads(before)


@pytest.fixture(params=[1, 2, 4, 8])
def n(request: pytest.FixtureRequest) -> int:
    tl.set_num_threads(request.param)
    return request.param


# -- the setting -------------------------------------------------------------------------------------------------------


def test_the_number_of_threads() -> None:
    tl.set_num_threads(3)
    assert tl.get_num_threads() == 3
    tl.set_num_threads(np.int64(2))
    assert tl.get_num_threads() == 2


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", True, None])
def test_a_wrong_number_of_threads(wrong: object) -> None:
    before = tl.get_num_threads()
    with pytest.raises(ValueError, match="at least 1"):
        tl.set_num_threads(wrong)  # type: ignore[arg-type]
    assert tl.get_num_threads() == before


# -- each and parallel -------------------------------------------------------------------------------------------------


def test_results_are_in_order(n: int) -> None:
    def slow_first(i: int) -> int:
        time.sleep(0.01 if i == 0 else 0)
        return i * i

    assert threads.each(slow_first, range(20)) == [i * i for i in range(20)]
    assert threads.each(slow_first, []) == []


def test_pieces_run_side_by_side() -> None:
    tl.set_num_threads(4)
    meeting = threading.Barrier(4)
    threads.each(lambda i: meeting.wait(timeout=10), range(4))  # none gets past alone


@pytest.mark.parametrize("size", [0, 1, 2, 7, 64, 1001])
@pytest.mark.parametrize("grain", [1, 10, 5000])
def test_ranges_make_up_the_whole(n: int, size: int, grain: int) -> None:
    ranges = threads.parallel(lambda i, j: (i, j), size, grain)
    assert len(ranges) <= n
    assert [i for begin, end in ranges for i in range(begin, end)] == list(range(size))
    assert len(ranges) == 1 or all(end - begin >= grain for begin, end in ranges)


def test_ranges_depend_on_nothing_but_size_and_threads(n: int) -> None:
    assert len({tuple(threads.parallel(lambda i, j: (i, j), 1003, 1)) for _ in range(50)}) == 1


def test_the_first_error_is_raised_when_the_running_pieces_are_done() -> None:
    tl.set_num_threads(2)
    begun, finished = [], []
    failing = threading.Event()

    def work(i: int) -> None:
        begun.append(i)
        if i == 0:
            failing.wait(10)
            time.sleep(0.05)
            finished.append(i)
        elif i == 1:
            failing.set()
            raise KeyError("one")
        else:
            finished.append(i)

    with pytest.raises(KeyError, match="one"):
        threads.each(work, range(50))
    assert sorted(begun) == [0, 1]  # no further piece
    assert finished == [0]  # and nobody is still writing
    assert threads.each(abs, [-1, -2, -3]) == [1, 2, 3]  # the pool is as good as new


def test_an_error_on_one_thread(n: int) -> None:
    def fail(i: int) -> None:
        raise ZeroDivisionError(i)

    for _ in range(20):
        with pytest.raises(ZeroDivisionError):
            threads.each(fail, range(5))
    assert threads.get_num_threads() == n  # not taken for being inside a piece


def test_an_interrupt_of_the_caller_waits_for_the_workers() -> None:
    tl.set_num_threads(2)
    caller = threading.current_thread()
    wrote = []
    together = threading.Barrier(2)

    def work(i: int) -> None:
        together.wait(10)
        if threading.current_thread() is caller:
            raise KeyboardInterrupt
        time.sleep(0.1)
        wrote.append(i)

    with pytest.raises(KeyboardInterrupt):
        threads.each(work, range(2))
    seen = len(wrote)
    time.sleep(0.2)
    assert len(wrote) == seen == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals come otherwise there")
def test_ctrl_c_while_waiting_for_the_workers() -> None:
    tl.set_num_threads(2)
    caller = threading.current_thread()
    wrote = []
    together = threading.Barrier(2)

    def work(i: int) -> None:
        together.wait(10)
        if threading.current_thread() is not caller:
            time.sleep(0.05)  # the caller is waiting by now
            _thread.interrupt_main()
            time.sleep(0.1)
            wrote.append(i)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
    try:
        with pytest.raises(KeyboardInterrupt):
            threads.each(work, range(2))
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(wrote) == 1


def test_nested_work_is_serial() -> None:
    tl.set_num_threads(4)

    def outer(i: int) -> bool:
        me = threading.current_thread()
        inner = threads.each(lambda _: threading.current_thread() is me, range(8))
        ranges = threads.parallel(lambda i, j: (i, j), 100)
        return all(inner) and threads.get_num_threads() == 1 and ranges == [(0, 100)]

    assert all(threads.each(outer, range(8)))
    assert threads.get_num_threads() == 4


def test_one_piece_alone_may_be_divided_further() -> None:
    tl.set_num_threads(3)
    assert threads.each(lambda i: threads.get_num_threads(), [0]) == [3]


def test_many_threads_of_the_user_at_once() -> None:
    tl.set_num_threads(3)
    results = {}

    def user(name: int) -> None:
        results[name] = [threads.each(lambda i: (name, i), range(6)) for _ in range(50)]

    users = [threading.Thread(target=user, args=(name,)) for name in range(5)]
    for t in users:
        t.start()
    for t in users:
        t.join(60)
    for name in range(5):
        assert results[name] == [[(name, i) for i in range(6)]] * 50


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    tl.set_num_threads(2)
    threads.each(abs, range(4))  # the parent's threads are there
    child = os.fork()
    if child == 0:
        ok = False
        try:
            meeting = threading.Barrier(2)
            threads.each(lambda i: meeting.wait(timeout=10), range(2))
            a = np.ones((300, 300), np.float32)
            ok = threads.matmul(a, a)[0, 0] == 300
        finally:
            os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def run(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=100
    ).stdout


def test_idle_threads_sleep() -> None:
    used = run(
        "import time, numpy as np, tinyllm as tl\n"
        "from tinyllm import threads\n"
        "tl.set_num_threads(4)\n"
        "a = np.ones((700, 700), np.float32)\n"
        "for _ in range(5): threads.matmul(a, a); threads.each(lambda i: sum(range(10000)), range(8))\n"
        "begin = time.process_time(); time.sleep(0.5); print(time.process_time() - begin)\n"
    )
    assert float(used) < 0.05


def test_a_process_ends_though_threads_wait() -> None:
    assert (
        run("import tinyllm as tl; from tinyllm import threads; tl.set_num_threads(3); threads.each(abs, [1, 2, 3])")
        == ""
    )


# -- matrix products ---------------------------------------------------------------------------------------------------

SHAPES = [
    ((5, 7), (7, 3)),
    ((700, 100), (100, 300)),
    ((100, 300), (300, 700)),
    ((3, 200, 100), (3, 100, 300)),
    ((1, 300, 100), (1, 100, 300)),
    ((2, 5, 100, 120), (100, 120, 100)[1:]),
    ((4, 1, 100, 120), (3, 120, 110)),
    ((120,), (120, 40)),
    ((400, 1000), (1000,)),
    ((3, 90, 2000), (2000,)),
    ((0, 5), (5, 3)),
    ((2000, 0), (0, 2000)),
]


@pytest.mark.parametrize(("a", "b"), SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_products(n: int, a: tuple, b: tuple, dtype: str, rng: np.random.Generator) -> None:
    x, y = (rng.integers(-3, 4, shape).astype(dtype) for shape in (a, b))  # exact in each dtype
    product = threads.matmul(x, y)
    assert product.dtype == dtype
    np.testing.assert_array_equal(product, np.matmul(x, y))
    for _ in range(3):
        np.testing.assert_array_equal(threads.matmul(x, y), product)


def test_products_of_views_and_into_views(n: int, rng: np.random.Generator) -> None:
    x, y = rng.integers(-3, 4, (300, 500)).astype(np.float32), rng.integers(-3, 4, (600, 500)).astype(np.float32)
    expected = x[::2] @ y.T
    np.testing.assert_array_equal(threads.matmul(x[::2], y.T), expected)
    whole = np.full((150, 1300), 9, np.float32)
    out = whole[:, 100:700]
    assert threads.matmul(x[::2], y.T, out=out) is out
    np.testing.assert_array_equal(out, expected)
    assert (whole[:, :100] == 9).all()
    assert (whole[:, 700:] == 9).all()


def test_products_are_the_same_bits_every_time(n: int, rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(333, 257)).astype(np.float32), rng.normal(size=(257, 311)).astype(np.float32)
    assert len({threads.matmul(x, y).tobytes() for _ in range(20)}) == 1


def test_clashing_shapes() -> None:
    with pytest.raises(ValueError, match="matmul"):
        threads.matmul(np.ones((300, 300)), np.ones((200, 300)))


# -- BLAS --------------------------------------------------------------------------------------------------------------

blas = threads._openblas()


@pytest.mark.skipif(blas is None, reason="NumPy's BLAS is not its own OpenBLAS")
@pytest.mark.parametrize("mine", [1, 2, 3])
def test_blas_is_as_it_was(mine: int, n: int) -> None:
    get, set_ = blas
    before = get()
    try:
        set_(mine)
        with threads.blas_on_caller():
            assert get() == 1
            with threads.blas_on_caller():
                assert get() == 1
            assert get() == 1
        assert get() == mine
        assert set(threads.each(lambda i: get(), range(4))) == {1}
        assert get() == mine

        def fail(i: int) -> None:
            raise KeyError

        with pytest.raises(KeyError):
            threads.each(fail, range(4))
        assert get() == mine
        a = np.ones((400, 400), np.float32)
        threads.matmul(a, a)
        with pytest.raises(ValueError, match="matmul"):
            threads.matmul(a, a[:5])
        assert get() == mine
    finally:
        set_(before)


@pytest.mark.skipif(blas is None, reason="NumPy's BLAS is not its own OpenBLAS")
def test_blas_when_two_threads_hold_it_in_turns() -> None:
    get, set_ = blas
    before = get()
    first, second = threading.Event(), threading.Event()

    def hold() -> None:
        with threads.blas_on_caller():
            first.set()
            second.wait(10)

    other = threading.Thread(target=hold)
    try:
        set_(2)
        with threads.blas_on_caller():
            other.start()
            first.wait(10)
        assert get() == 1  # the other one still holds it
        second.set()
        other.join(10)
        assert get() == 2
    finally:
        set_(before)


# -- what is built on it -----------------------------------------------------------------------------------------------


def test_a_large_operation_is_the_same_on_any_number_of_threads(n: int, rng: np.random.Generator) -> None:
    """Element by element nothing depends on how the work was cut, not even a rounding."""
    x = rng.normal(size=(1200, 600)).astype(np.float32)
    bias = rng.normal(size=600).astype(np.float32)
    column = rng.normal(size=(1200, 1)).astype(np.float32)
    a = tl.tensor(x, requires_grad=True)
    y = tl.tanh(a * 2 + bias) * column
    np.testing.assert_array_equal(y.data, np.tanh(x * 2 + bias) * column)
    tl.sum(y).backward()
    np.testing.assert_allclose(a.grad.data, 2 * column * (1 - np.tanh(x * 2 + bias) ** 2), rtol=1e-4, atol=1e-6)
