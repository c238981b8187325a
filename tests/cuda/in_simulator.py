"""What `test_cuda_simulator.py` runs in a process of its own, where kernels are plain Python."""

import inspect
import math
import re
import textwrap
from collections.abc import Callable
from typing import Any

import cuda_cases
import numpy as np
import pytest

from tinyllm.kernels.cuda import attention, matmul, rows
from tinyllm.kernels.cuda.compile import SIMULATED, Kernel, cuda, float32, int32, kernel
from tinyllm.kernels.cuda.intrinsics import (
    load4,
    mma_bf16,
    mma_tf32,
    shuffle_xor,
    store4,
    to_bf16x2,
    to_tf32,
    warp_max,
    warp_sum,
)
from tinyllm.kernels.cuda.simulator import RaceError

assert SIMULATED, "these tests are run by test_cuda_simulator.py"


# -- every kernel, forward and backward, against the engine in float64 -------------------------------------------------


@pytest.mark.parametrize("group", cuda_cases.TINY)
def test_kernels(group: str) -> None:
    for case in cuda_cases.all_cases(group):
        try:
            cuda_cases.run(case)
        except Exception as error:
            error.add_note(case.name)
            raise


def test_every_kernel_has_a_case() -> None:
    from tinyllm.kernels.cuda import activation, adamw, cross_entropy, embedding, norm, softmax

    launched: set[str] = set()

    def note(self: Kernel, *arguments: Any) -> None:
        launched.add(self.name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Kernel, "launch", note)
        for group in cuda_cases.TINY:
            for case in cuda_cases.all_cases(group):
                case.function(
                    *[a.start() if isinstance(a, cuda_cases.Out) else a for a in case.arguments], **case.options
                )
    modules = (activation, adamw, attention, cross_entropy, embedding, matmul, norm, rows, softmax)
    named = {x.name for module in modules for x in vars(module).values() if isinstance(x, Kernel)}
    assert named <= launched


def test_nothing_is_done_for_empty_arrays() -> None:
    out = np.zeros((0, 3), np.float32)
    matmul.matmul(np.zeros((0, 2), np.float32), np.zeros((2, 3), np.float32), out)
    q, k = np.zeros((2, 3, 4), np.float32), np.zeros((2, 0, 4), np.float32)
    out, lse = np.full_like(q, np.nan), np.full((2, 3), np.nan, np.float32)
    attention.attention(q, k, k, 1.0, 0, None, None, out, lse)
    assert (out == 0).all()
    assert (lse == -np.inf).all()


# -- no barrier can be left out ----------------------------------------------------------------------------------------

BARRIER = "cuda.syncthreads()"


def without_barrier(found: Kernel, number: int) -> Kernel:
    """The kernel, its how-manieth barrier removed."""
    source = textwrap.dedent(inspect.getsource(found.function))
    parts = source[source.index("def ") :].split(BARRIER)
    source = BARRIER.join(parts[: number + 1]) + "pass" + BARRIER.join(parts[number + 1 :])
    space = dict(vars(inspect.getmodule(found.function)), **inspect.getclosurevars(found.function).nonlocals)
    exec("from __future__ import annotations\n" + source, space)
    return Kernel(space[found.function.__name__], found.name)


def barriers(found: Kernel) -> range:
    return range(inspect.getsource(found.function).count(BARRIER))


def product(found: Kernel) -> Callable[[Kernel], None]:
    """A product that needs several tiles of sums, by a rung of the ladder."""
    threads = next(r[1] for r in matmul.RUNGS.values() if r[0] is found)
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=s).astype(np.float32) for s in ((4, 65), (65, 4)))

    def call(mutant: Kernel) -> None:
        out = np.full((4, 4), np.nan, np.float32)
        mutant[(1, 1), threads](a, b, out)
        np.testing.assert_allclose(out, a @ b, rtol=1e-1, atol=1e-1)

    return call


@pytest.mark.parametrize(
    ("found", "number"),
    [(r[0], i) for r in matmul.RUNGS.values() for i in barriers(r[0])],
    ids=lambda x: x.name if isinstance(x, Kernel) else str(x),
)
def test_a_product_needs_every_barrier(found: Kernel, number: int) -> None:
    call = product(found)
    call(found)
    with pytest.raises(RaceError):
        call(without_barrier(found, number))


ATTENTION = {
    "forward_kernel": lambda: attention.forward_kernel(32, attention.NO_MASK),
    "keys_kernel": lambda: attention.keys_kernel(32, attention.NO_MASK, True),
    "queries_kernel": lambda: attention.queries_kernel(32, attention.NO_MASK),
}


@pytest.mark.parametrize(
    ("name", "number"), [(name, i) for name, make in ATTENTION.items() for i in barriers(make())], ids=str
)
def test_attention_needs_every_barrier(name: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = cuda_cases.Attention(1, 1, 33, 33, 4)
    cases = list(cuda_cases.attention_cases(cuda_cases.Draw(0), shape))
    case = cases[{"forward_kernel": 0, "keys_kernel": 2, "queries_kernel": 1}[name]]
    mutant = without_barrier(ATTENTION[name](), number)
    monkeypatch.setattr(attention, name, lambda *given: mutant)
    with pytest.raises(RaceError):
        cuda_cases.run(case)


# -- what the simulator finds ------------------------------------------------------------------------------------------


@kernel
def neighbours(x, out):
    """Each number plus the next, by way of shared memory."""
    shared = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    shared[t] = x[t]
    cuda.syncthreads()
    out[t] = shared[t] + shared[(t + 1) % 64]


def test_a_planted_race_is_found() -> None:
    x, out = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    neighbours[1, 64](x, out)
    np.testing.assert_array_equal(out, x + np.roll(x, -1))
    with pytest.raises(RaceError, match=r"shared array 0\[\d+\]: \w+ what thread \d+"):
        without_barrier(neighbours, 0)[1, 64](x, out)


@kernel
def all_into_one(x, out):
    """A sum without atomic additions."""
    out[0] += x[cuda.grid(1)]


@kernel
def all_added_to_one(x, out):
    """A sum with them."""
    cuda.atomic.add(out, 0, x[cuda.grid(1)])


@pytest.mark.parametrize(("blocks", "threads"), [(1, 8), (8, 1)])
def test_races_in_global_memory(blocks: int, threads: int) -> None:
    x, out = np.arange(8, dtype=np.float32), np.zeros(1, np.float32)
    all_added_to_one[blocks, threads](x, out)
    assert out[0] == 28
    with pytest.raises(RaceError, match=r"out\[0\]: reads what " + ("another block" if blocks > 1 else "thread 0")):
        all_into_one[blocks, threads](x, out)


def test_writing_the_same_in_turns_is_no_race() -> None:
    def body(x):
        if cuda.threadIdx.x == 0:
            x[0] = 1
        cuda.syncthreads()
        if cuda.threadIdx.x == 1:
            x[0] += 1

    x = np.zeros(1, np.float32)
    kernel(body)[1, 2](x)
    assert x[0] == 2


def test_a_barrier_that_not_all_come_to() -> None:
    def body(x):
        if cuda.threadIdx.x < 3:
            cuda.syncthreads()
        x[cuda.threadIdx.x] = 1

    with pytest.raises(RuntimeError, match=r"part ways at a barrier: 3 at syncthreads .* 5 at the end") as caught:
        kernel(body)[1, 8](np.zeros(8, np.float32))
    assert "in thread (0, 0, 0) of block (0, 0, 0)" in caught.value.__notes__


@pytest.mark.parametrize("index", ["-1", "8", "(0, 0)", "cuda.threadIdx.x + 1"])
def test_an_index_outside(index: str) -> None:
    space: dict[str, Any] = {"cuda": cuda, "__name__": __name__}
    exec(f"def body(x):\n    x[{index}] = 1\n", space)
    with pytest.raises(IndexError, match=r"x.* is outside its shape \(8,\)"):
        kernel(space["body"])[1, 8](np.zeros(8, np.float32))


def test_vectors_must_be_aligned() -> None:
    def body(x, j):
        store4(x, (0, j), *load4(x, (0, j)))

    x = np.zeros((2, 8), np.float32)
    kernel(body)[1, 1](x, 4)
    for j in (1, 6, 8):
        with pytest.raises(IndexError, match=r"not in one row or not aligned|outside its shape"):
            kernel(body)[1, 1](x, j)


def test_memory_is_full_of_nan_before_it_is_written() -> None:
    def body(out):
        out[0] = cuda.shared.array(3, float32)[1]
        out[1] = cuda.local.array(3, float32)[1]

    out = np.zeros(2, np.float32)
    kernel(body)[1, 1](out)
    assert np.isnan(out).all()


def test_two_shared_arrays_on_one_line_are_two() -> None:
    def body(out):
        a, b = cuda.shared.array(1, float32), cuda.shared.array(1, float32)
        a[0], b[0] = 1, 2
        out[0] = a[0]

    out = np.zeros(1, np.float32)
    kernel(body)[1, 1](out)
    assert out[0] == 1


# -- what stands in for the instructions -------------------------------------------------------------------------------


def in_a_warp(f: Callable[[int], Any]) -> list[Any]:
    """What each of 32 lanes gets."""
    results: list[Any] = [None] * 32

    def body(out):
        results[cuda.threadIdx.x] = f(cuda.threadIdx.x)

    kernel(body)[1, 32](np.zeros(1, np.float32))
    return results


def test_exchanges() -> None:
    assert in_a_warp(lambda i: shuffle_xor(i, 5)) == [i ^ 5 for i in range(32)]
    assert in_a_warp(lambda i: warp_sum(np.float32(i))) == [496] * 32
    assert in_a_warp(lambda i: warp_max(-abs(i - 7))) == [0] * 32
    assert in_a_warp(lambda i: (shuffle_xor(i, 1), shuffle_xor(-i, 2))) == [(i ^ 1, -(i ^ 2)) for i in range(32)]


def test_rounding() -> None:
    rng = np.random.default_rng(0)
    for x in rng.normal(size=100).astype(np.float32):
        tf32 = np.int32(to_tf32(x)).view(np.float32)
        assert abs(tf32 - x) <= 2.0**-11 * abs(x)
        assert math.frexp(tf32)[0] * 2**11 == int(math.frexp(tf32)[0] * 2**11)
        low, high = np.array([to_bf16x2(x, -x)], np.int32).view(np.uint16)
        near = (np.array([low, high], np.uint32) << np.uint32(16)).view(np.float32)
        assert (abs(near - [x, -x]) <= 2.0**-8 * abs(x)).all()
        assert (near * 2.0**7 == np.round(near * 2.0**7)).all() or abs(x) < 1


def test_tensor_cores() -> None:
    """The layout of the fragments, against a product of matrices."""
    rng = np.random.default_rng(1)
    a, b, c = (rng.integers(-8, 8, size=s).astype(np.float32) for s in ((16, 16), (16, 8), (16, 8)))

    def sums(i: int) -> tuple[Any, ...]:
        g, t = divmod(i, 4)
        return c[g, 2 * t], c[g, 2 * t + 1], c[g + 8, 2 * t], c[g + 8, 2 * t + 1]

    def tf32(i: int) -> Any:
        g, t = divmod(i, 4)
        left = tuple(to_tf32(a[r, k]) for r, k in ((g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4)))
        return mma_tf32(left, (to_tf32(b[t, g]), to_tf32(b[t + 4, g])), sums(i))

    def bf16(i: int) -> Any:
        g, t = divmod(i, 4)
        left = tuple(
            to_bf16x2(a[r, k], a[r, k + 1]) for r, k in ((g, 2 * t), (g + 8, 2 * t), (g, 2 * t + 8), (g + 8, 2 * t + 8))
        )
        return mma_bf16(left, tuple(to_bf16x2(b[k, g], b[k + 1, g]) for k in (2 * t, 2 * t + 8)), sums(i))

    for mma, expected in ((tf32, c + a[:, :8] @ b[:8]), (bf16, c + a @ b)):
        for i, (w, x, y, z) in enumerate(in_a_warp(mma)):
            g, t = divmod(i, 4)
            assert (w, x) == tuple(expected[g, 2 * t : 2 * t + 2])
            assert (y, z) == tuple(expected[g + 8, 2 * t : 2 * t + 2])


# -- the recipe in the package's docstring -----------------------------------------------------------------------------


def test_a_student_can_print_from_one_thread(capsys: pytest.CaptureFixture[str]) -> None:
    import tinyllm.kernels.cuda as package

    recipe = re.search(r"( +if cuda\.blockIdx.*\n +print.*\n)", package.__doc__)[1]
    source = textwrap.dedent(inspect.getsource(matmul.naive_kernel.function)).split("\n", 1)[1]
    line = "        out[i, j] = total\n"
    assert line in source
    indented = textwrap.indent(textwrap.dedent(recipe), " " * 8)
    space = dict(vars(matmul))
    exec("from __future__ import annotations\n" + source.replace(line, indented + line), space)
    a, b = np.full((1, 2), 2, np.float32), np.full((2, 32), 3, np.float32)
    Kernel(space["naive_kernel"], "with print")[(1, 1), (32, 1)](a, b, np.zeros((1, 32), np.float32))
    assert capsys.readouterr().out == "sum of thread 3: 12.0\n"


def test_int32_arrays() -> None:
    def body(out):
        shared = cuda.shared.array(2, int32)
        shared[0] = 7
        out[0], out[1] = shared[0], shared[1]

    out = np.zeros(2, np.int32)
    kernel(body)[1, 1](out)
    assert out.tolist() == [7, -1]
