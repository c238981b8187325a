"""How gradients add up: of slices without arrays of full size, and in memory that nobody else has seen."""

from collections.abc import Callable

import numpy as np
import pytest

import tinyllm as tl
from tinyllm.autograd.sparse import Sparse, add_in_place, plus

INDICES = {
    "slices": [(slice(0, 2),), (slice(1, 4), slice(None, None, 2)), (Ellipsis, slice(2, 3))],
    "numbers": [(0,), (-1, 2), (0, 0)],
    "numbers of every axis, and a new one": [(1, 2), (None, 3), (slice(None), None, 1)],
    "arrays": [(np.array([0, 0, 3]),), (np.array([1, 1]), np.array([2, 2]))],
    "masks": [(np.arange(20).reshape(4, 5) % 3 == 0,), (np.array([True, False, True, True]),)],
}


@pytest.mark.parametrize("kind", INDICES)
@pytest.mark.parametrize("also_whole", ["no", "before", "after"])
def test_slices_of_one_tensor(kind: str, also_whole: str, rng: np.random.Generator) -> None:
    """Each element's gradient is the sum of what its slices got, computed here by NumPy."""
    x = tl.tensor(rng.normal(size=(4, 5)), requires_grad=True)
    base = x * 1.0  # not a leaf: its gradient goes on
    weights = [rng.normal(size=x.data[i].shape) for i in INDICES[kind]]
    parts = [tl.sum(base[i] * w) for i, w in zip(INDICES[kind], weights, strict=True)]
    expected = np.zeros((4, 5))
    for i, w in zip(INDICES[kind], weights, strict=True):
        np.add.at(expected, i, w)
    if also_whole != "no":
        parts.insert(0 if also_whole == "before" else len(parts), tl.sum(base * base))
        expected += 2 * x.data
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    total.backward(retain_graph=True)
    np.testing.assert_allclose(x.grad.data, expected, rtol=1e-12)
    steps = list(tl.backward_steps(total, retain_graph=True))  # the same when every step is looked at
    for step in steps:
        for g, t in zip(step.in_grads, step.node.inputs, strict=True):
            assert g is None or g.data.shape == t.shape
    np.testing.assert_allclose(x.grad.data, 2 * expected, rtol=1e-12)


def test_a_step_shows_the_gradient_of_its_own_slice_only() -> None:
    x = tl.tensor(np.arange(4.0), requires_grad=True)
    y = tl.sum(x[:2]) + 3 * tl.sum(x[1:])
    shown = [s.in_grads[0] for s in tl.backward_steps(y) if s.node.op.name == "getitem"]
    np.testing.assert_array_equal(shown[0].data + shown[1].data, [1, 4, 3, 3])
    assert sorted(g.numpy().tolist() for g in shown) == [[0, 3, 3, 3], [1, 1, 0, 0]]
    np.testing.assert_array_equal(x.grad.data, [1, 4, 3, 3])


def test_slices_differentiate_twice() -> None:
    x = tl.tensor([1.0, 2.0, 3.0], requires_grad=True)
    g = tl.grad(lambda t: tl.sum(tl.grad(lambda u: tl.sum(u[:2] ** 3 * u[1:]))(t) * np.array([1.0, 2.0, 3.0])))(x)
    # u0^3 u1 + u1^3 u2 has the Hessian [[6 u0 u1, 3 u0^2, 0], [3 u0^2, 6 u1 u2, 3 u1^2], [0, 3 u1^2, 0]]
    hessian = np.array([[12.0, 3, 0], [3, 36, 12], [0, 12, 0]])
    np.testing.assert_allclose(g.data, hessian @ [1.0, 2.0, 3.0])


def test_a_loop_over_time_takes_linear_memory(peak_of: Callable[[Callable[[], None]], int]) -> None:
    """Were each slice's gradient written out, this would take 100 arrays of the whole."""
    x = tl.tensor(np.ones((100, 5000)), requires_grad=True)
    state = tl.tensor(np.zeros(5000))
    for t in range(100):
        state = state + x[t]
    loss = tl.sum(state)
    peak = peak_of(loss.backward)
    assert (x.grad.data == 1).all()
    assert peak < 4 * x.data.nbytes


def test_adding_in_place_touches_nothing_that_was_handed_out() -> None:
    """`x` is used three times; the gradients that the steps handed over stay as they were."""
    x = tl.tensor(np.arange(3.0), requires_grad=True)
    y = tl.sum((x * 1) + (x * 2) + (x * 4))
    seen = []
    for step in tl.backward_steps(y):
        for g in (step.out_grad, *step.in_grads):
            if g is not None:
                seen.append((g, g.numpy()))
    for g, copy in seen:
        np.testing.assert_array_equal(g.data, copy)
    np.testing.assert_array_equal(x.grad.data, [7, 7, 7])


def test_sparse() -> None:
    def add_to(array: np.ndarray) -> None:
        array[1] += 5

    sparse, dense = Sparse((3,), np.dtype("f4"), add_to), tl.tensor(np.ones(3, np.float32))
    assert sparse.shape == (3,)
    assert sparse.dtype == np.float32
    for total, expected in (
        (plus(sparse, dense), [1, 6, 1]),
        (plus(dense, sparse), [1, 6, 1]),
        (plus(sparse, sparse), [0, 10, 0]),
        (plus(dense, dense), [2, 2, 2]),
    ):
        np.testing.assert_array_equal(total.data, expected)
        add_in_place(total, sparse)
        add_in_place(total, dense)
        np.testing.assert_array_equal(total.data, np.add(expected, [1, 6, 1]))
    np.testing.assert_array_equal(sparse.data, [0, 5, 0])
    np.testing.assert_array_equal((sparse * dense).data, [0, 5, 0])
    np.testing.assert_array_equal(dense.data, [1, 1, 1])


def test_large_results_come_from_memory_used_before() -> None:
    x = tl.tensor(np.ones((500, 1000), np.float32))
    first = tl.exp(x)
    address = first.data.__array_interface__["data"][0]
    del first
    assert (x + x).data.__array_interface__["data"][0] == address


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, bool])
def test_large_equals_small(dtype: type, rng: np.random.Generator) -> None:
    """What goes through buffers and threads is what NumPy computes, for any layout and broadcasting."""
    a = rng.integers(0, 2 if dtype is bool else 50, size=(300, 200)).astype(dtype)
    b = rng.integers(0, 2 if dtype is bool else 50, size=(300, 200)).astype(dtype)
    for x, y in ((a, b), (a.T, b.T), (a, b[:1]), (a[:, :1], b), (a, b[0]), (a[::2], b[::2]), (a[:0], b[:0])):
        for ours, theirs in (
            (tl.add, np.add),
            (tl.maximum, np.maximum),
            (tl.less, np.less),
            (tl.multiply, np.multiply),
        ):
            got, expected = ours(x, y).data, theirs(x, y)
            assert got.dtype == expected.dtype
            np.testing.assert_array_equal(got, expected)
