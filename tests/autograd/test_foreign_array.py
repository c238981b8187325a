"""The engine on arrays that are not NumPy's: everything runs there, stays there, and gives NumPy's numbers."""

import numpy as np
import pytest
from foreign import Foreign, to_foreign
from gradient_cases import CASES, NO_DERIVATIVE, Case

import tinyllm as tl
from tinyllm.autograd.tape import reachable

# Operations on foreign arrays take foreign operands; some cases of these mix in NumPy arrays as values.
HOST_OPERANDS = {
    "add",
    "add_along_axis",
    "clip",
    "concatenate",
    "cross_entropy",
    "masked_fill",
    "multiply",
    "power",
    "take_along_axis",
    "where",
}


def test_the_class_refuses_conversion() -> None:
    x = to_foreign([1.0, 2.0])
    for f in (np.asarray, np.exp, lambda x: np.add(x, 1), lambda x: x + np.ones(2), lambda x: np.ones(2) * x):
        with pytest.raises(TypeError):
            f(x)
    xp = x.__array_namespace__()
    with pytest.raises(TypeError, match="among foreign"):
        xp.add(x, np.ones(2))
    with pytest.raises(TypeError, match="among foreign"):
        xp.where(np.array([True, False]), x, x)
    assert type(xp.exp(x)) is Foreign
    assert xp.exp(x).get().tolist() == np.exp([1.0, 2.0]).tolist()


def test_a_tensor_of_foreign_arrays() -> None:
    a = to_foreign([1.0, np.nan, 3.0])
    t = tl.tensor(a, requires_grad=True)
    a[0] = 9.0
    assert type(t._storage.array) is Foreign
    assert t.numpy()[0] == 1.0
    assert type(t.numpy()) is np.ndarray
    assert t.shape == (3,)
    assert "NaN: 1 of 3" in repr(t)
    assert type(tl.tensor(to_foreign(np.arange(100.0)))._storage.array) is Foreign
    assert "range" in repr(tl.tensor(to_foreign(np.arange(100.0))))
    t.assign_(to_foreign([2.0, 2.0, 2.0]))
    assert t.numpy().tolist() == [2.0, 2.0, 2.0]
    assert tl.tensor(to_foreign(2.5)).item() == 2.5


@pytest.mark.parametrize("case", [pytest.param(c, id=f"{i}-{c.id}") for i, c in enumerate(CASES)])
def test_forward_and_backward(case: Case) -> None:
    try:
        compare_with_numpy(case)
    except TypeError as error:
        if case.op not in HOST_OPERANDS or "among foreign" not in str(error):
            raise
        pytest.skip("the case itself has a NumPy operand, which must be moved first")


def compare_with_numpy(case: Case) -> None:
    here = [tl.tensor(a, requires_grad=True) for a in case.arrays]
    there = [tl.tensor(to_foreign(a), requires_grad=True) for a in case.arrays]
    y, z = case.f(*here), case.f(*there)
    assert type(z._storage.array) is Foreign
    assert z.dtype == y.dtype
    np.testing.assert_allclose(z.numpy(), y.numpy(), rtol=1e-14, atol=1e-14)
    for node in reachable(z):
        assert type(node.out.array) is Foreign, f"{node.op.name} left the device"
    g = np.random.default_rng(0).normal(size=y.shape)
    for create_graph in (False, True):
        y.backward(g, retain_graph=True, create_graph=create_graph)
        z.backward(to_foreign(g), retain_graph=True, create_graph=create_graph)
    for a, b in zip(here, there, strict=True):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None:
            assert type(b.grad._storage.array) is Foreign
            np.testing.assert_allclose(b.grad.numpy(), a.grad.numpy(), rtol=1e-13, atol=1e-13)


MOVED = {
    "where": (tl.where, np.array([[True], [False]])),
    "masked_fill": (lambda m, x, v: tl.masked_fill(x, m, v), np.array([True, False, True])),
    "take_along_axis": (lambda i, x, y: tl.take_along_axis(x, i) + y, np.array([[2, 0, 2], [1, 1, 1]])),
    "add_along_axis": (lambda i, x, y: tl.add_along_axis(x, i, (2, 4)), np.array([[2, 0, 3], [1, 1, 1]])),
    "getitem": (lambda i, x, y: x[i] * y[:1], np.array([1, 1, 0])),
    "clip": (lambda b, x, y: tl.clip(x, b), np.array([-0.5, 0.1, 0.2])),
    "cross_entropy": (lambda i, x, y: tl.cross_entropy(x, i), np.array([1, 2])),
    "embedding": (lambda i, x, y: tl.embedding(i, x), np.array([1, 1, 0])),
    "attention": (lambda m, x, y: tl.scaled_dot_product_attention(x, y, y, m), np.array([[True, False], [True, True]])),
    "power": (lambda e, x, y: x**e, np.array([1, 2, 3])),
    "concatenate": (lambda c, x, y: tl.concatenate([c, x, y], axis=1), np.ones((2, 1))),
}


@pytest.mark.parametrize("name", MOVED)
def test_with_an_operand_that_was_moved(name: str) -> None:
    f, constant = MOVED[name]
    arrays = [np.random.default_rng(i).normal(size=(2, 3)) for i in range(2)]
    results = []
    for move in (np.array, to_foreign):
        xs = [tl.tensor(move(a), requires_grad=True) for a in arrays]
        y = f(tl.tensor(move(constant)), *xs)
        assert type(y._storage.array) is type(move(constant))
        tl.sum(y * y).backward()
        results.append([y.numpy()] + [x.grad.numpy() for x in xs if x.grad is not None])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", sorted(NO_DERIVATIVE))
def test_without_derivative(name: str) -> None:
    a = np.arange(6.0).reshape(2, 3) - 2
    f = NO_DERIVATIVE[name]
    z = f(tl.tensor(to_foreign(a)))
    assert type(z._storage.array) is Foreign
    np.testing.assert_array_equal(z.numpy(), f(tl.tensor(a)).numpy())


def test_functions_of_functions() -> None:
    x, v = np.linspace(-1, 1, 4), np.array([1.0, 2.0, -1.0, 0.5])

    def f(x):
        return tl.sum(tl.tanh(x) ** 2 * tl.exp(x))

    for g in (
        lambda x, v: tl.grad(f)(x),
        lambda x, v: tl.hessian_vector_product(f, x, v),
        lambda x, v: tl.jvp(tl.sin, (x,), (v,))[1],
        lambda x, v: tl.grad(lambda x: tl.checkpoint(f, x))(x),
    ):
        there = g(tl.tensor(to_foreign(x)), tl.tensor(to_foreign(v)))
        assert type(there._storage.array) is Foreign
        np.testing.assert_allclose(there.numpy(), g(x, v).numpy(), rtol=1e-14)


def test_the_same_random_numbers() -> None:
    x = np.ones((5, 7))
    with tl.random_scope(3, 1):
        here = tl.dropout(tl.tensor(x), 0.3)
    with tl.random_scope(3, 1):
        there = tl.dropout(tl.tensor(to_foreign(x)), 0.3)
    np.testing.assert_array_equal(there.numpy(), here.numpy())
