"""Forward values against NumPy: every operation that NumPy has, on shapes, axes and dtypes that hypothesis draws."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinyllm as tl

T = tl.tensor
attend = tl.scaled_dot_product_attention
FLOATS = ["float64", "float32"]
NUMBERS = [*FLOATS, "float16", "int64", "int32", "int8", "uint8"]
DTYPES = [*NUMBERS, "bool"]


def elements(dtype: str) -> st.SearchStrategy:
    kind = np.dtype(dtype).kind
    if kind == "b":
        return st.booleans()
    if kind in "iu":
        return st.integers(0 if kind == "u" else -9, 9)
    return st.integers(-36, 36).map(lambda n: n / 4)


@st.composite
def arrays(draw, dtypes=DTYPES, shape=None, min_dims: int = 0, min_side: int = 0) -> np.ndarray:
    dtype = draw(st.sampled_from(dtypes))
    if shape is None:
        shape = draw(hnp.array_shapes(min_dims=min_dims, max_dims=3, min_side=min_side, max_side=4))
    return draw(hnp.arrays(dtype, shape, elements=elements(dtype)))


@st.composite
def pairs(draw, dtypes=DTYPES) -> tuple[np.ndarray, np.ndarray]:
    shapes = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, min_dims=0, max_dims=3, min_side=0, max_side=4))
    return tuple(draw(arrays(dtypes, shape)) for shape in shapes.input_shapes)


def axes_of(a: np.ndarray) -> st.SearchStrategy:
    """None, a number or a tuple of numbers, from the front or the back."""
    if a.ndim == 0:
        return st.sampled_from([None, ()])
    numbers = st.integers(-a.ndim, a.ndim - 1)
    several = st.lists(numbers, unique_by=lambda i: i % a.ndim, max_size=a.ndim).map(tuple)
    return st.one_of(st.none(), numbers, several)


def same(result: tl.Tensor, expected, rtol: float = 0.0) -> None:
    """Equal values, shape and dtype; `rtol` is in units of the dtype's precision, for another order of arithmetic."""
    expected = np.asarray(expected)
    assert type(result) is tl.Tensor
    assert result.shape == expected.shape
    assert result.dtype == expected.dtype
    if rtol and expected.dtype.kind == "f":
        eps = float(np.finfo(expected.dtype).eps)
        np.testing.assert_allclose(result.data, expected, rtol=rtol * eps, atol=rtol * eps)
    else:
        np.testing.assert_array_equal(result.data, expected)


def numpy_or_error(f, *args):
    """NumPy's result, or the error it raises, with its warnings silent as ours are made so."""
    try:
        return f(*args), None
    except (TypeError, ValueError, OverflowError) as error:
        return None, error


def both(name: str, *arrays, rtol: float = 0.0, **options) -> None:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, error = numpy_or_error(lambda: getattr(np, name)(*arrays, **options))
        if error is not None:
            with pytest.raises((TypeError, ValueError, OverflowError)):
                getattr(tl, name)(*(T(a) for a in arrays), **options)
            return
        same(getattr(tl, name)(*(T(a) for a in arrays), **options), expected, rtol)


UNARY = [
    "abs",
    "ceil",
    "cos",
    "exp",
    "expm1",
    "floor",
    "invert",
    "isfinite",
    "isnan",
    "log",
    "log1p",
    "negative",
    "round",
]
UNARY += ["sign", "sin", "sqrt", "tanh", "zeros_like", "ones_like", "copy"]


@pytest.mark.parametrize("name", UNARY)
@given(a=arrays())
def test_functions_of_one_array(name: str, a: np.ndarray) -> None:
    both(name, a)


BINARY = ["add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "equal", "not_equal", "less"]
BINARY += ["less_equal", "greater", "greater_equal", "bitwise_and", "bitwise_or"]


@pytest.mark.parametrize("name", BINARY)
@given(ab=pairs())
def test_functions_of_two_arrays(name: str, ab) -> None:
    both(name, *ab)


@pytest.mark.parametrize("name", ["add", "multiply", "subtract", "divide", "maximum"])
@given(ab=pairs(FLOATS))
def test_the_same_with_gradients(name: str, ab) -> None:
    """Broadcasting and conversion on the edge of the tape change no value."""
    a, b = ab
    with np.errstate(all="ignore"):
        y = getattr(tl, name)(T(a, requires_grad=True), T(b, requires_grad=True))
        same(y, getattr(np, name)(a, b))
        assert y.requires_grad
        y.backward(np.ones(y.shape))


@given(pairs(NUMBERS), st.data())
def test_where_and_masked_fill(ab, data) -> None:
    a, b = ab
    mask = data.draw(arrays(["bool"], np.broadcast_shapes(a.shape, b.shape)))
    same(tl.where(T(mask), T(a), T(b)), np.where(mask, a, b))
    same(tl.where(mask, T(a), b), np.where(mask, a, b))
    same(tl.masked_fill(T(mask.astype("float32")), mask, 2), np.where(mask, 2, mask.astype("float32")))


REDUCTIONS = ["sum", "mean", "var", "std", "max", "min", "prod"]


@pytest.mark.parametrize("name", REDUCTIONS)
@given(a=arrays([d for d in DTYPES if d != "float16"]), data=st.data())
def test_reductions(name: str, a: np.ndarray, data) -> None:
    axis, keepdims = data.draw(axes_of(a)), data.draw(st.booleans())
    if name in ("var", "std") and a.dtype == bool:
        return  # NumPy refuses to subtract booleans
    both(name, a, axis=axis, keepdims=keepdims, rtol=400 if name in ("mean", "var", "std", "prod", "sum") else 0)
    method = getattr(T(a), name, None)
    if method is not None and a.size:
        np.testing.assert_array_equal(
            method(axis=axis, keepdims=keepdims).data, getattr(tl, name)(T(a), axis=axis, keepdims=keepdims).data
        )


@given(arrays(FLOATS, min_dims=1, min_side=2), st.integers(0, 1))
def test_var_with_ddof(a: np.ndarray, ddof: int) -> None:
    both("var", a, axis=-1, ddof=ddof, rtol=100)
    both("std", a, axis=0, ddof=ddof, rtol=100)


@pytest.mark.parametrize("name", ["argmax", "argmin", "cumsum"])
@given(a=arrays(min_dims=1, min_side=1), data=st.data())
def test_along_one_axis(name: str, a: np.ndarray, data) -> None:
    axis = data.draw(st.one_of(st.none(), st.integers(-a.ndim, a.ndim - 1)))
    both(name, a, axis=axis)


@given(arrays(["float64", "float32", "int64"]), st.data())
def test_logsumexp(a: np.ndarray, data) -> None:
    axis, keepdims = data.draw(axes_of(a)), data.draw(st.booleans())
    with np.errstate(all="ignore"):
        expected = np.log(np.sum(np.exp(a), axis=axis, keepdims=keepdims))
    same(tl.logsumexp(T(a), axis=axis, keepdims=keepdims), expected, rtol=50)


def test_logsumexp_at_the_ends() -> None:
    inf = np.inf
    x = np.array([[-inf, -inf], [inf, 1.0], [1000.0, 1000.0], [-1000.0, -inf], [np.nan, 1.0]])
    expected = [-inf, inf, 1000 + math.log(2), -1000.0, np.nan]
    np.testing.assert_array_equal(tl.logsumexp(T(x), axis=1).data, expected)
    assert tl.logsumexp(T([inf, 1000.0])).item() == inf


@pytest.mark.parametrize("ord", [None, 0, 1, 2, 3, 0.5, -1, -2.5, np.inf, -np.inf])
@given(a=arrays([*FLOATS, "int64"], min_dims=1, min_side=1), data=st.data())
def test_norm(ord, a: np.ndarray, data) -> None:
    axis = data.draw(st.integers(-a.ndim, a.ndim - 1))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.linalg.norm(a, ord=ord, axis=axis, keepdims=True)
        same(tl.norm(T(a), ord, axis=axis, keepdims=True), expected, rtol=60)
        same(tl.norm(T(a), ord), np.linalg.norm(a.reshape(-1), ord=ord), rtol=60)


# -- shape -----------------------------------------------------------------------------------------------------------


@given(arrays(), st.data())
def test_moving_elements(a: np.ndarray, data) -> None:
    t = T(a)
    order = data.draw(st.permutations(range(a.ndim)))
    same(tl.transpose(t), np.transpose(a))
    same(tl.transpose(t, order), np.transpose(a, order))
    same(t.T, a.T)
    same(tl.flip(t), np.flip(a))
    same(tl.squeeze(t), np.squeeze(a))
    same(tl.expand_dims(t, (0, -1)), np.expand_dims(a, (0, -1)))
    same(tl.roll(t, 3), np.roll(a, 3))
    same(tl.tile(t, (2, 1)), np.tile(a, (2, 1)))
    same(tl.repeat(t, 2), np.repeat(a, 2))
    same(tl.broadcast_to(t, (2, *a.shape)), np.broadcast_to(a, (2, *a.shape)))
    same(tl.reshape(t, (a.size,)), a.reshape(a.size))
    same(tl.stack([t, t], axis=-1), np.stack([a, a], axis=-1))
    same(tl.outer(t, t), np.outer(a, a))
    same(tl.identity(t), a)
    if a.ndim:
        axis = data.draw(st.integers(-a.ndim, a.ndim - 1))
        n = a.shape[axis]
        same(tl.flip(t, axis), np.flip(a, axis))
        same(tl.roll(t, -2, axis), np.roll(a, -2, axis))
        same(tl.swapaxes(t, axis, 0), np.swapaxes(a, axis, 0))
        same(
            tl.concatenate([t, t, t[:0] if axis % a.ndim == 0 else t], axis),
            np.concatenate([a, a, a[:0] if axis % a.ndim == 0 else a], axis),
        )
        same(tl.repeat(t, list(range(n)), axis), np.repeat(a, list(range(n)), axis))
        same(tl.pad(t, 2), np.pad(a, 2))
        same(tl.pad(t, (1, 2), constant_values=1), np.pad(a, (1, 2), constant_values=1))
        for cuts in ([1], [0, 2, 2], [5]):
            for p, q in zip(tl.split(t, cuts, axis), np.split(a, cuts, axis), strict=True):
                same(p, q)
        if n:
            for p, q in zip(tl.split(t, n, axis), np.split(a, n, axis), strict=True):
                same(p, q)
    if a.ndim >= 2:
        same(t.mT, a.mT)
        for k in (-1, 0, 1):
            same(tl.tril(t, k), np.tril(a, k))
            same(tl.triu(t, k), np.triu(a, k))


@pytest.mark.parametrize("mode", ["edge", "reflect", "symmetric", "wrap"])
@given(a=arrays(min_dims=1, min_side=2), before=st.integers(0, 4), after=st.integers(0, 4))
def test_pad_modes(mode: str, a: np.ndarray, before: int, after: int) -> None:
    same(tl.pad(T(a), (before, after), mode=mode), np.pad(a, (before, after), mode=mode))


@given(arrays(min_dims=1), st.data())
def test_basic_indices(a: np.ndarray, data) -> None:
    index = data.draw(hnp.basic_indices(a.shape, allow_newaxis=True))
    same(T(a)[index], a[index])


@given(arrays(min_dims=1, min_side=1), st.data())
def test_array_indices(a: np.ndarray, data) -> None:
    integers = data.draw(hnp.integer_array_indices(a.shape))
    same(T(a)[integers], a[integers])
    same(T(a)[tuple(T(i) for i in integers)], a[integers])
    mask = data.draw(hnp.arrays(bool, a.shape))
    same(T(a)[mask], a[mask])
    same(T(a)[T(mask)], a[mask])
    first = data.draw(st.lists(st.integers(-len(a), len(a) - 1), max_size=4))
    same(T(a)[first], a[np.array(first, dtype=int)])


@given(arrays(NUMBERS, min_dims=1, min_side=1), st.data())
def test_sorting(a: np.ndarray, data) -> None:
    axis = data.draw(st.integers(-a.ndim, a.ndim - 1))
    same(tl.argsort(T(a), axis), np.argsort(a, axis=axis, kind="stable"))
    same(tl.sort(T(a), axis), np.sort(a, axis=axis))
    k = data.draw(st.integers(0, a.shape[axis]))
    ascending = np.moveaxis(np.sort(a, axis=axis), axis, -1)
    for largest, order in ((True, ascending[..., ::-1]), (False, ascending)):
        values, indices = tl.topk(T(a), k, axis, largest)
        same(values, np.moveaxis(order[..., :k], -1, axis))
        same(tl.take_along_axis(T(a), indices, axis), values.data)
    places = np.argsort(-a if a.dtype.kind == "f" else a, axis=axis)
    same(tl.take_along_axis(T(a), places, axis), np.take_along_axis(a, places, axis))


@given(st.lists(st.integers(0, 4), max_size=5))
def test_one_hot(ids: list) -> None:
    same(tl.one_hot(np.array(ids, dtype=int), 5), np.eye(5)[np.array(ids, dtype=int)])
    same(
        tl.one_hot(np.array([ids], dtype=int), 5, dtype="float32"),
        np.eye(5, dtype="float32")[np.array([ids], dtype=int)],
    )


@given(st.data())
def test_adjoints_of_picking(data) -> None:
    """<pick(x), y> = <x, put(y)>: the scatters are the adjoints of the gathers."""
    x = data.draw(arrays(["int64"], min_dims=1, min_side=1))
    index = data.draw(hnp.integer_array_indices(x.shape))
    y = data.draw(arrays(["int64"], x[index].shape))
    assert np.sum(x[index] * y) == np.sum(x * tl.add_at(T(y), index, x.shape).data)
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    places = np.argsort(x, axis=axis) // 2
    z = data.draw(arrays(["int64"], places.shape))
    put = tl.add_along_axis(T(z), places, x.shape, axis).data
    assert np.sum(np.take_along_axis(x, places, axis) * z) == np.sum(x * put)


# -- products --------------------------------------------------------------------------------------------------------


@given(
    st.data(), hnp.mutually_broadcastable_shapes(signature="(n?,k),(k,m?)->(n?,m?)", min_side=0, max_side=3, max_dims=2)
)
def test_matmul(data, shapes) -> None:
    a, b = (data.draw(arrays(["float64", "float32", "int64"], s)) for s in shapes.input_shapes)
    expected = np.matmul(a, b)
    same(tl.matmul(T(a), T(b)), expected, rtol=50)
    same(T(a) @ b, expected, rtol=50)
    same(a @ T(b), expected, rtol=50)


@pytest.mark.parametrize(
    ("spec", "shapes"),
    [
        ("ij,jk", [(2, 3), (3, 2)]),
        ("ji", [(2, 3)]),
        ("b a", [(2, 3)]),
        ("...ij,...jk", [(2, 1, 2, 3), (4, 3, 2)]),
        ("ij...,jk...->ik...", [(2, 3, 2), (3, 2, 1)]),
        ("ii", [(3, 3)]),
        ("iji->j", [(2, 3, 2)]),
        ("i,i->i", [(1,), (3,)]),
        ("i,i->i", [(1,), (0,)]),
        ("i,i->i", [(0,), (1,)]),
        (",", [(), ()]),
        ("->", [()]),
        ("ab,cd,b->", [(2, 3), (2, 2), (3,)]),
        ("ij,ij,ij->ij", [(2, 3)] * 3),
        ("Ab,bA->A", [(2, 3), (3, 2)]),
    ],
)
@pytest.mark.parametrize("dtypes", [("float64",), ("float32", "int64"), ("int64",)])
def test_einsum(spec: str, shapes: list, dtypes: tuple) -> None:
    xs = [(10 * np.random.default_rng(i).normal(size=s)).astype(dtypes[i % len(dtypes)]) for i, s in enumerate(shapes)]
    same(tl.einsum(spec, *(T(x) for x in xs)), np.einsum(spec, *xs), rtol=2000)


@pytest.mark.parametrize(
    ("spec", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (4, 2)]),
        ("ij->k", [(2, 3)]),
        ("ij->ii", [(2, 3)]),
        ("ij", [(2,)]),
        ("i,j", [(2,)]),
        ("ii->i", [(2, 3)]),
        ("i", [(2, 3)]),
    ],
)
def test_einsum_that_does_not_fit(spec: str, shapes: list) -> None:
    with pytest.raises(ValueError, match="einsum"):
        tl.einsum(spec, *(np.ones(s) for s in shapes))


# -- dtypes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [3, 3.0, True, np.float64(3), np.float32(3), np.float16(3), np.int64(3), np.int8(3)])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_numbers_are_weak(number, dtype: str) -> None:
    t = T(np.ones(2, dtype))
    for y in (
        t * number,
        number * t,
        t + number,
        number - t,
        t**number,
        number / t,
        tl.maximum(t, number),
        tl.where(t > 0, t, number),
    ):
        assert y.dtype == dtype
    for y in (
        tl.mean(t),
        tl.var(t),
        tl.std(t),
        tl.norm(t),
        tl.sigmoid(t),
        tl.silu(t),
        tl.elu(t),
        tl.leaky_relu(t),
        tl.softplus(t),
        tl.relu(t),
    ):
        assert y.dtype == dtype
    x = T(np.ones(2, dtype), requires_grad=True)
    y = tl.sum(x * number + tl.sqrt(x) / number)
    y.backward()
    assert x.grad.dtype == dtype


def test_arrays_of_no_axes_are_strong() -> None:
    """As in NumPy, an array of float64 counts as such even when it is 0-d."""
    assert (T(np.ones(2, "float32")) * np.array(3.0)).dtype == np.float64
    assert (T(np.ones(2, "float32")) * T(3.0)).dtype == np.float64
    assert (T(np.ones(2, "float32")) * T(3.0, dtype="float32")).dtype == np.float32


@pytest.mark.parametrize(
    "name", ["add", "multiply", "divide", "power", "maximum", "where", "matmul", "concatenate", "einsum", "clip"]
)
@pytest.mark.parametrize("other", ["float64", "float32", "float16", "int64", "int8", "bool"])
def test_gradients_have_the_dtype_of_their_tensor(name: str, other: str) -> None:
    a = T(np.full(3, 0.5, "float32"), requires_grad=True)
    b = T(np.ones(3, other), requires_grad=np.dtype(other).kind == "f")
    f = {
        "where": lambda: tl.where(np.array([True, False, True]), a, b),
        "concatenate": lambda: tl.concatenate([a, b]),
        "einsum": lambda: tl.einsum("i,i->i", a, b),
        "clip": lambda: tl.clip(a, b.detach()),
    }.get(name, lambda: getattr(tl, name)(a, b))
    tl.sum(f()).backward()
    assert a.grad.dtype == a.dtype
    assert b.grad is None or b.grad.dtype == b.dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_construction_keeps_the_dtype(dtype: str) -> None:
    a = np.ones((2, 3), dtype)
    same(T(a), a)
    same(T(a.T), a.T)
    same(T(a, dtype="float64"), a.astype("float64"))
    same(tl.astype(T(a), "int32"), a.astype("int32"))
    assert T(a).numpy().dtype == dtype


def test_construction_of_python_values() -> None:
    same(T(1), np.array(1))
    same(T(1.5), np.array(1.5))
    same(T(True), np.array(True))
    same(T([[1, 2], [3, 4]]), np.array([[1, 2], [3, 4]]))
    same(T([]), np.array([]))
    same(T([np.float32(1)]), np.array([1], dtype="float32"))
    assert T(2.5).item() == 2.5
    assert isinstance(T(2).item(), int)


# -- functions that NumPy lacks --------------------------------------------------------------------------------------


def test_erf_is_exact() -> None:
    x = np.concatenate([np.linspace(-7, 7, 2001), [0.0, -0.0, 1e-300, 1e-10, 100.0, np.inf, -np.inf]])
    expected = np.array([math.erf(v) for v in x])
    found = tl.erf(T(x)).data
    assert np.max(np.abs(found - expected) / np.maximum(np.abs(expected), 1e-300)) < 2e-15
    assert math.isnan(tl.erf(T(np.nan)).item())
    assert tl.erf(T(np.float32(0.5))).dtype == np.float32


BIG = np.array([-1e300, -1000.0, -50.0, -1.0, -0.0, 0.0, 1.0, 50.0, 1000.0, 1e300])


def test_activations_at_the_ends() -> None:
    """No overflow, no warning (warnings are errors here), the right limits."""
    t = T(BIG)
    with np.errstate(over="ignore"):
        s = 1 / (1 + np.exp(-BIG))
    np.testing.assert_allclose(tl.sigmoid(t).data, s, rtol=1e-15)
    np.testing.assert_allclose(tl.silu(t).data, BIG * s, rtol=1e-15)
    np.testing.assert_allclose(tl.softplus(t).data, np.logaddexp(0, BIG), rtol=1e-15)
    np.testing.assert_array_equal(tl.relu(t).data, np.maximum(BIG, 0))
    np.testing.assert_array_equal(tl.leaky_relu(t).data, np.where(BIG > 0, BIG, 0.01 * BIG))
    np.testing.assert_allclose(tl.elu(t).data, np.where(BIG > 0, BIG, np.expm1(np.minimum(BIG, 0))), rtol=1e-15)
    for backend in ("numpy", "numba"):
        with tl.backend(backend):
            for approximate in ("none", "tanh"):
                with np.errstate(over="ignore"):
                    y = tl.gelu(t, approximate).data
                np.testing.assert_allclose(y[[0, 1, 8, 9]], [0, 0, 1000.0, 1e300], atol=1e-300)
    for name in ("sigmoid", "silu", "softplus", "relu", "leaky_relu", "elu"):
        x = T(BIG, requires_grad=True)
        tl.sum(getattr(tl, name)(x)).backward()
        assert np.isfinite(x.grad.data).all()


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("dtype", FLOATS)
@settings(max_examples=20)
@given(data=st.data())
def test_softmax_sums_to_one_and_ignores_shifts(backend: str, dtype: str, data) -> None:
    a = data.draw(arrays([dtype], min_dims=1, min_side=1))
    axis = data.draw(st.integers(-a.ndim, a.ndim - 1))
    with tl.backend(backend):
        y = tl.softmax(T(a), axis)
        assert y.dtype == dtype
        eps = float(np.finfo(dtype).eps)
        np.testing.assert_allclose(y.data.sum(axis), 1, rtol=8 * eps)
        np.testing.assert_allclose(tl.softmax(T(a + 64), axis).data, y.data, rtol=64 * eps)
        np.testing.assert_allclose(np.exp(tl.log_softmax(T(a), axis).data), y.data, rtol=64 * eps)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_fused_operations_on_empty_arrays(backend: str) -> None:
    e = lambda *s: T(np.zeros(s), requires_grad=True)  # noqa: E731
    with tl.backend(backend):
        for y, shape in (
            (tl.softmax(e(0, 3)), (0, 3)),
            (tl.softmax(e(3, 0)), (3, 0)),
            (tl.log_softmax(e(2, 0)), (2, 0)),
            (tl.gelu(e(0)), (0,)),
            (tl.layer_norm(e(0, 3), 3), (0, 3)),
            (tl.rms_norm(e(0, 3), 3), (0, 3)),
            (tl.linear(e(2, 0), e(4, 0)), (2, 4)),
            (tl.linear(e(2, 3), e(0, 3)), (2, 0)),
            (tl.embedding(np.zeros((2, 0), dtype=int), e(4, 3)), (2, 0, 3)),
            (tl.scaled_dot_product_attention(e(2, 0, 3), e(2, 4, 3), e(2, 4, 3)), (2, 0, 3)),
            (tl.scaled_dot_product_attention(e(2, 3, 3), e(2, 0, 3), e(2, 0, 3)), (2, 3, 3)),
            (tl.scaled_dot_product_attention(e(0, 3, 3), e(0, 4, 3), e(0, 4, 3), is_causal=True), (0, 3, 3)),
            (tl.cross_entropy(e(0, 3), np.zeros(0, dtype=int), reduction="none"), (0,)),
        ):
            assert y.shape == shape
            np.testing.assert_array_equal(y.data, np.zeros(shape))
            y.backward(np.ones(shape))


# -- what is refused -------------------------------------------------------------------------------------------------


X = np.ones((2, 3))
REFUSED = [
    (ValueError, "reshape", lambda: tl.reshape(X, (4, 2))),
    (ValueError, "reshape", lambda: tl.reshape(X, (-1, -1))),
    (ValueError, "permutation", lambda: tl.transpose(X, (0, 0))),
    (ValueError, "axis", lambda: tl.sum(X, axis=2)),
    (ValueError, "twice", lambda: tl.sum(X, axis=(0, -2))),
    (ValueError, "length 1", lambda: tl.squeeze(X, 0)),
    (ValueError, "twice", lambda: tl.expand_dims(X, (0, 0))),
    (ValueError, "broadcast", lambda: tl.broadcast_to(X, (3, 3))),
    (ValueError, "sum_to", lambda: tl.sum_to(X, (3, 3))),
    (ValueError, "concatenate", lambda: tl.concatenate([])),
    (ValueError, "concatenate", lambda: tl.concatenate([X, np.ones((2, 2))])),
    (ValueError, "stack", lambda: tl.stack([X, np.ones((2, 2))])),
    (ValueError, "split", lambda: tl.split(X, 2, axis=1)),
    (ValueError, "pad", lambda: tl.pad(X, -1)),
    (ValueError, "pad.*mode", lambda: tl.pad(X, 1, mode="odd")),
    (ValueError, "matmul", lambda: tl.matmul(X, X)),
    (ValueError, "matmul", lambda: tl.matmul(X, 3.0)),
    (ValueError, r"(?s)matmul.*\^", lambda: tl.matmul(np.ones((2, 2, 3)), np.ones((4, 3, 2)))),
    (ValueError, "two axes", lambda: tl.tril(np.ones(3))),
    (IndexError, r"\(2, 3\)", lambda: tl.tensor(X)[2]),
    (IndexError, r"\(2, 3\)", lambda: tl.tensor(X)[0, 0, 0]),
    (TypeError, "float64", lambda: tl.tensor(X)[np.array([0.0])]),
    (ValueError, "topk", lambda: tl.topk(X, 4)),
    (IndexError, "5", lambda: tl.one_hot([5], 5)),
    (TypeError, "float64", lambda: tl.one_hot([1.0], 5)),
    (ValueError, "axis", lambda: tl.take_along_axis(X, np.zeros((2, 1), dtype=int), axis=5)),
    (ValueError, "take_along_axis", lambda: tl.take_along_axis(X, np.zeros((3, 1), dtype=int), axis=1)),
    (IndexError, "7", lambda: tl.embedding([7], X)),
    (IndexError, "-1", lambda: tl.embedding([-1], X)),
    (TypeError, "float64", lambda: tl.embedding([1.0], X)),
    (ValueError, "embedding", lambda: tl.embedding([1], np.ones(3))),
    (IndexError, "9", lambda: tl.cross_entropy(X, [0, 9])),
    (ValueError, "cross_entropy", lambda: tl.cross_entropy(X, [0, 1, 2])),
    (ValueError, "reduction", lambda: tl.cross_entropy(X, [0, 1], reduction="avg")),
    (ValueError, "label_smoothing", lambda: tl.cross_entropy(X, [0, 1], label_smoothing=1.5)),
    (ValueError, "weight", lambda: tl.cross_entropy(X, [0, 1], weight=[1.0])),
    (ValueError, "reduction", lambda: tl.mse_loss(X, X, reduction="batchmean")),
    (ValueError, "mse_loss", lambda: tl.mse_loss(X, X[0])),
    (ValueError, "approximate", lambda: tl.gelu(X, approximate="sigmoid")),
    (TypeError, "int64", lambda: tl.gelu([1, 2])),
    (TypeError, "int64", lambda: tl.softmax([1, 2])),
    (ValueError, "axis", lambda: tl.softmax(X, axis=2)),
    (ValueError, "normalized_shape", lambda: tl.layer_norm(X, 2)),
    (ValueError, "weight", lambda: tl.layer_norm(X, 3, weight=np.ones(2))),
    (ValueError, "normalized_shape", lambda: tl.rms_norm(X, (3, 2))),
    (ValueError, "linear", lambda: tl.linear(X, np.ones((3, 2)))),
    (ValueError, "bias", lambda: tl.linear(X, X, np.ones(3))),
    (ValueError, "dropout", lambda: tl.dropout(X, 1.5)),
    (ValueError, "seed", lambda: tl.dropout(X)),
    (ValueError, "attention", lambda: tl.scaled_dot_product_attention(X, np.ones((2, 2)), X)),
    (ValueError, "mask", lambda: tl.scaled_dot_product_attention(X, X, X, np.ones((3, 3)))),
    (TypeError, "mask", lambda: tl.scaled_dot_product_attention(X, X, X, np.ones((2, 2), dtype=int))),
    (ValueError, "heads", lambda: attend(np.ones((3, 2, 2)), *np.ones((2, 2, 2, 2)), enable_gqa=True)),
    (TypeError, "clip", lambda: tl.clip(X, tl.tensor(0.0, requires_grad=True))),
    (ValueError, "add_at", lambda: tl.add_at(np.ones(1), slice(0, 2), (3,))),
]  # fmt: skip


@pytest.mark.parametrize(("error", "text", "f"), [pytest.param(*r, id=f"{i}-{r[1]}") for i, r in enumerate(REFUSED)])
def test_misuse_is_refused_by_name(error: type, text: str, f) -> None:
    with pytest.raises(error, match=text):
        f()
