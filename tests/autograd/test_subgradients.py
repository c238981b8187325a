"""Where a derivative does not exist the operation declares one, and is held to it here (PyTorch's choices)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyllm as tl

T = tl.tensor
INF = np.inf


def gradient(f, x, g=None) -> np.ndarray:
    x = T(x, requires_grad=True)
    y = f(x)
    y.backward(np.ones(y.shape) if g is None else g)
    return x.grad.numpy()


@pytest.mark.parametrize("name", ["max", "min"])
def test_ties_of_extremes_share_equally(name: str) -> None:
    f, s = getattr(tl, name), 1 if name == "max" else -1
    x = s * np.array([[3.0, 1.0, 3.0], [2.0, 2.0, 2.0], [0.0, -1.0, 5.0]])
    rows = np.array([[0.5, 0, 0.5], [1 / 3, 1 / 3, 1 / 3], [0, 0, 1]])
    g = np.array([2.0, 3.0, 5.0])
    np.testing.assert_allclose(gradient(lambda x: f(x, axis=1), x, g), rows * g[:, None], rtol=1e-15)
    tied = s * np.array([[1.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(gradient(f, tied), np.where(tied == s, 1 / 3, 0))


@given(st.lists(st.integers(0, 2), min_size=1, max_size=8))
def test_the_shares_of_an_extreme_sum_to_the_whole(values: list) -> None:
    for f in (tl.max, tl.min):
        assert gradient(f, np.array(values, dtype=float)).sum() == pytest.approx(1, rel=1e-14)


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_ties_of_two_share_equally(name: str) -> None:
    a, b = T([1.0, 2.0, 3.0], requires_grad=True), T([1.0, 3.0, 2.0], requires_grad=True)
    getattr(tl, name)(a, b).backward(np.array([2.0, 2.0, 2.0]))
    larger = np.array([1.0, 0.0, 2.0] if name == "maximum" else [1.0, 2.0, 0.0])
    np.testing.assert_array_equal(a.grad.data, larger)
    np.testing.assert_array_equal(b.grad.data, 2.0 - larger)
    x = T([4.0], requires_grad=True)
    getattr(tl, name)(x, x).backward(np.ones(1))
    assert x.grad.item() == 1.0


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (tl.relu, [0, 0, 1]),
        (tl.abs, [-1, 0, 1]),
        (lambda x: tl.leaky_relu(x, 0.1), [0.1, 0.1, 1]),
        (lambda x: tl.elu(x, 2.0), [2 * np.exp(-1), 2.0, 1]),
        (tl.sign, [0, 0, 0]),
        (tl.round, [0, 0, 0]),
        (tl.floor, [0, 0, 0]),
        (tl.ceil, [0, 0, 0]),
    ],
)
def test_at_zero(f, expected: list) -> None:
    np.testing.assert_allclose(gradient(f, [-1.0, 0.0, 1.0]), expected, rtol=1e-15)
    np.testing.assert_allclose(gradient(f, [-1.0, -0.0, 1.0]), expected, rtol=1e-15)


def test_round_with_halves() -> None:
    np.testing.assert_array_equal(gradient(lambda x: tl.round(x, 1), [0.25, 0.5, 1.5]), [0, 0, 0])


def test_clip_passes_on_its_bounds() -> None:
    x = [-2.0, -1.0, 0.0, 1.0, 2.0]
    np.testing.assert_array_equal(gradient(lambda x: tl.clip(x, -1.0, 1.0), x), [0, 1, 1, 1, 0])
    np.testing.assert_array_equal(gradient(lambda x: tl.clip(x, min=0.0), x), [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(gradient(lambda x: tl.clip(x, max=np.array([0.0])), x), [1, 1, 1, 0, 0])


@pytest.mark.parametrize("ord", [None, 2, 1, 3, 0.5, INF, -INF])
def test_norm_of_zero_has_the_gradient_zero(ord) -> None:
    np.testing.assert_array_equal(gradient(lambda x: tl.norm(x, ord), np.zeros(3)), np.zeros(3))
    rows = np.array([[0.0, 0.0], [3.0, 4.0]])
    found = gradient(lambda x: tl.norm(x, ord, axis=1), rows)
    np.testing.assert_array_equal(found[0], [0, 0])
    assert np.isfinite(found).all()
    if ord in (None, 2):
        np.testing.assert_allclose(found[1], [0.6, 0.8], rtol=1e-15)
    second = tl.grad(lambda x: tl.sum(tl.grad(lambda z: tl.norm(z, ord))(x)))(np.zeros(3))
    assert np.isfinite(second.data).all()


@pytest.mark.parametrize("ord", [3, 0.5, 1.5])
def test_norm_with_some_zeros(ord: float) -> None:
    x = np.array([0.0, 2.0, 0.0, -1.0])
    found = gradient(lambda x: tl.norm(x, ord), x)
    total = np.sum(np.abs(x) ** ord)
    expected = np.zeros(4)
    expected[[1, 3]] = total ** (1 / ord - 1) * np.abs(x[[1, 3]]) ** (ord - 1) * np.sign(x[[1, 3]])
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_std_of_equal_numbers() -> None:
    """0, so that a constant row trains on; as in PyTorch."""
    np.testing.assert_array_equal(gradient(tl.std, np.ones(4)), np.zeros(4))
    rows = np.array([[1.0, 1.0], [1.0, 3.0]])
    np.testing.assert_allclose(gradient(lambda x: tl.std(x, axis=1), rows), [[0, 0], [-0.5, 0.5]], atol=1e-15)


@given(st.lists(st.integers(-2, 2), min_size=1, max_size=7))
def test_prod_with_zeros(values: list) -> None:
    """The derivative by one factor is the product of the others, whether or not factors are zero."""
    x = np.array(values, dtype=float)
    others = [np.prod(np.delete(x, i)) for i in range(len(x))]
    np.testing.assert_array_equal(gradient(tl.prod, x), others)
    hessian = np.array(
        [[0.0 if i == j else np.prod(np.delete(x, [i, j])) for j in range(len(x))] for i in range(len(x))]
    )
    v = np.arange(1.0, len(x) + 1)
    np.testing.assert_allclose(tl.hessian_vector_product(tl.prod, x, v).data, hessian @ v, atol=1e-12)


def test_prod_of_nothing_is_a_constant() -> None:
    assert gradient(tl.prod, np.ones(0)).shape == (0,)
    assert tl.prod(T(np.ones(0))).item() == 1.0


@pytest.mark.parametrize(
    ("exponent", "slope"), [(1, 1.0), (2, 0.0), (3, 0.0), (0, 0.0), (1.0, 1.0), (2.5, 0.0), (0.0, 0.0)]
)
def test_power_at_zero(exponent: float, slope: float) -> None:
    assert gradient(lambda x: x**exponent, 0.0) == slope
    assert gradient(lambda x: x ** T(exponent), 0.0) == slope
    a, b = T(0.0, requires_grad=True), T(float(exponent), requires_grad=True)
    (a**b).backward()
    assert a.grad.item() == slope
    assert b.grad.item() == 0.0
    if exponent == int(exponent):
        assert gradient(lambda x: x**exponent, -2.0) == pytest.approx(exponent * (-2.0) ** (exponent - 1))


def test_second_derivative_of_a_power_at_zero() -> None:
    for n, expected in ((0, 0.0), (1, 0.0), (2, 2.0), (3, 0.0)):
        assert tl.grad(tl.grad(lambda x, n=n: x**n))(0.0).item() == expected


def test_where_shields_the_branch_not_taken() -> None:
    """The safe way to write a function with a hole: no NaN comes from the side that was not chosen."""
    f = lambda x: tl.where(x > 0, tl.log(tl.where(x > 0, x, 1.0)), 0.0)  # noqa: E731
    np.testing.assert_array_equal(gradient(f, [0.0, 2.0, -1.0]), [0, 0.5, 0])


def test_sort_and_topk_with_ties() -> None:
    """Equal values keep their order, and each gets the gradient of its own place."""
    x = [2.0, 1.0, 2.0, 1.0]
    np.testing.assert_array_equal(gradient(tl.sort, x, np.array([1.0, 2.0, 3.0, 4.0])), [3, 1, 4, 2])
    np.testing.assert_array_equal(tl.topk(T(x), 3)[1].data, [0, 2, 1])
    np.testing.assert_array_equal(gradient(lambda x: tl.topk(x, 3)[0], x, np.array([1.0, 2.0, 3.0])), [1, 3, 2, 0])


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_softmax_of_minus_infinity_alone_is_nan(backend: str) -> None:
    x = np.array([[-INF, -INF], [-INF, 0.0], [1.0, 1.0]])
    with tl.backend(backend):
        for f, rest in ((tl.softmax, [[0, 1], [0.5, 0.5]]), (tl.log_softmax, np.array([[-INF, 0], [-np.log(2)] * 2]))):
            y = f(T(x)).data
            assert np.isnan(y[0]).all()
            np.testing.assert_allclose(y[1:], rest, rtol=1e-15)
        kept = gradient(tl.softmax, x[1:], np.array([[1.0, 2.0], [3.0, 4.0]]))
        np.testing.assert_allclose(kept, [[0, 0], [-0.25, 0.25]], atol=1e-15)


MASKS = {
    "boolean": (np.array([[False, False, False], [True, False, True]]), {}),
    "additive": (np.array([[-INF, -INF, -INF], [0.0, -INF, 0.0]]), {}),
    "causal": (None, {"is_causal": True, "offset": -1}),
    "both": (np.array([[True, True, True], [True, False, True]]), {"is_causal": True, "offset": -1}),
}


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("name", MASKS)
def test_a_query_that_sees_nothing(name: str, backend: str) -> None:
    """Zeros, and no gradient, at first and second order."""
    mask, options = MASKS[name]
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s) for s in ((2, 4), (3, 4), (3, 5))]
    with tl.backend(backend):
        q, k, v = (T(a, requires_grad=True) for a in arrays)
        y = tl.scaled_dot_product_attention(q, k, v, mask, **options)
        np.testing.assert_array_equal(y.data[0], np.zeros(5))
        assert np.abs(y.data[1]).min() > 0
        y.backward(np.array([[1.0] * 5, [0.0] * 5]))  # only what comes through the dark row
        for t in (q, k, v):
            np.testing.assert_array_equal(t.grad.data, np.zeros(t.shape))
        y = lambda q, k, v: tl.sum(tl.scaled_dot_product_attention(q, k, v, mask, **options) ** 2)  # noqa: E731
        for d in tl.grad(
            lambda *xs: tl.sum(tl.concatenate([tl.reshape(d, -1) for d in tl.grad(y, (0, 1, 2))(*xs)])), (0, 1, 2)
        )(*arrays):
            assert np.isfinite(d.data).all()


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_an_additive_mask_has_a_gradient_also_where_it_is_dark(backend: str) -> None:
    rng = np.random.default_rng(0)
    q, k, v = (T(rng.normal(size=(2, 3))) for _ in range(3))
    mask = T([[-INF, -INF], [0.3, -INF]], requires_grad=True)
    with tl.backend(backend):
        tl.sum(tl.scaled_dot_product_attention(q, k, v, mask)).backward()
    np.testing.assert_allclose(mask.grad.data, np.zeros((2, 2)), atol=1e-16)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_ignored_places_have_no_gradient(backend: str) -> None:
    x = np.random.default_rng(0).normal(size=(3, 4))
    x[1] = INF  # whatever stands there
    with tl.backend(backend), np.errstate(invalid="ignore"):
        found = gradient(lambda x: tl.cross_entropy(x, [0, -100, 2]), x)
    np.testing.assert_array_equal(found[1], np.zeros(4))
    assert np.isfinite(found).all()


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_cross_entropy_where_nothing_counts(backend: str) -> None:
    x = T(np.ones((2, 3)), requires_grad=True)
    with tl.backend(backend), np.errstate(invalid="ignore"):
        assert np.isnan(tl.cross_entropy(x, [-100, -100]).item())
        assert tl.cross_entropy(x, [-100, -100], reduction="sum").item() == 0.0
        np.testing.assert_array_equal(tl.cross_entropy(x, [-100, -100], reduction="none").data, [0, 0])


def test_extremes_of_nan_are_nan() -> None:
    x = T([1.0, np.nan], requires_grad=True)
    for f in (tl.max, tl.min):
        assert np.isnan(f(x).item())
    assert np.isnan(tl.maximum(T([np.nan, 1.0]), T([1.0, np.nan])).data).all()
    assert np.isnan(tl.clip(T(np.nan), 0.0, 1.0).item())
    assert np.isnan(tl.relu(T(np.nan)).item())
