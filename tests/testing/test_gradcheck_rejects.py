"""Wrong backward passes of every kind are rejected, and the message says what is wrong with them."""

import importlib
import math

import numpy as np
import pytest

import tinyllm as tl
from tinyllm.testing import GradCheckError, gradcheck

RNG = np.random.default_rng(5)
X, WIDE, SQUARE = RNG.normal(size=(3, 4)), RNG.normal(size=(40, 30)), RNG.normal(size=(5, 5))
WEIGHT = RNG.normal(size=4)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_vjp(g, x):
    y = softmax(x)
    return (y * (g - (g * y).sum(axis=-1, keepdims=True)),)


def log_softmax(x):
    return np.log(softmax(x))


def layer_norm(x, weight, bias):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * weight + bias


def layer_norm_vjp(without=""):
    def vjp(g, x, weight, bias):
        centred = x - x.mean(axis=-1, keepdims=True)
        rstd = 1 / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
        normed, u = centred * rstd, g * weight
        mean = u.mean(axis=-1, keepdims=True) if "mean" not in without else 0
        along = normed * (u * normed).mean(axis=-1, keepdims=True) if "variance" not in without else 0
        dweight = (g * normed).sum(axis=0) if "sum" not in without else (g * normed)[0]
        dbias = g.sum(axis=0) if "broadcast" not in without else g * 1
        return (u - mean - along) * rstd, dweight, dbias

    return vjp


def gelu(x):
    return 0.5 * x * (1 + tl.erf(x / math.sqrt(2)).numpy())


def tanh_gelu_vjp(g, x):
    t = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    return (g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope),)


def cos_but(change):
    def vjp(g, x):
        d = g * np.cos(x)
        return (change(d),)

    return vjp


def one_wrong(d):
    d.flat[d.size // 2] *= 1.001
    return d


def assigned(g, ids, w):
    d = np.zeros_like(w)
    d[ids] = g
    return None, d


IDS = np.array([0, 2, 2, 1, 0])
AFFINE = (X, WEIGHT, 2 * WEIGHT)
WRONG = {
    "sign": (np.sin, (X,), lambda g, x: (-g * np.cos(x),), "the sign is wrong"),
    "zero": (np.sin, (X,), lambda g, x: (0 * x,), "zero: the argument is detached"),
    "ones": (np.sin, (X,), lambda g, x: (np.cos(x),), "g is not used"),
    "squared cotangent": (np.sin, (X,), lambda g, x: (g * g * np.cos(x),), "not linear in"),
    "clipped cotangent": (np.sin, (X,), lambda g, x: (np.minimum(g, 1) * np.cos(x),), "not linear in"),
    "passed on": (np.sin, (X,), lambda g, x: (g * 1,), "g is passed on unchanged"),
    "x1.001": (np.sin, (X,), cos_but(lambda d: 1.001 * d), "1.001 times what it should be"),
    "x1.0000001": (np.sin, (X,), cos_but(lambda d: (1 + 1e-7) * d), "1 times what it should be"),
    "x2": (lambda x: x * x, (X,), lambda g, x: (g * x,), "one over 2: the derivative of a square"),
    "axis length": (
        lambda x: x.mean(axis=-1),
        (X,),
        lambda g, x: (np.repeat(g[:, None], 4, axis=1),),
        "4, the length of axis 1 of argument 0 (x)",
    ),
    "all elements": (
        np.mean,
        (WIDE[:8, :8],),
        lambda g, a: (np.full(a.shape, g),),
        "64, the number of elements of argument 0",
    ),
    "root": (
        lambda q, k: q @ k.T / math.sqrt(q.shape[-1]),
        (RNG.normal(size=(3, 7)), RNG.normal(size=(2, 7))),
        lambda g, q, k: (g @ k, g.T @ q),
        "the root of 7, the length of axis 1",
    ),
    "transposed": (
        lambda a, b: a @ b,
        (SQUARE, SQUARE[::-1] ** 2),
        lambda g, a, b: (g @ b.T, (a.T @ g).T.copy()),
        "transposed: exchanging axes 0 and 1",
    ),
    "transposed shape": (
        lambda a, b: a @ b,
        (X, SQUARE[:4]),
        lambda g, a, b: ((g @ b.T).T.copy(), a.T @ g),
        "transposed",
    ),
    "shifted": (np.sin, (WIDE,), cos_but(lambda d: np.roll(d, 1, axis=0)), "shifted by one"),
    "reversed": (np.sin, (X,), cos_but(lambda d: d[:, ::-1].copy()), "backwards along axis 1"),
    "one element": (np.sin, (X,), cos_but(one_wrong), "1 element is wrong, the 11 others"),
    "negative side": (
        np.sin,
        (X,),
        lambda g, x: (g * np.cos(x) * (x > 0),),
        "wrong exactly where the input is negative",
    ),
    "last row": (np.sin, (WIDE,), cos_but(lambda d: np.append(d[:-1], 0 * d[-1:], axis=0)), "last along axis 0"),
    "softmax sum": (softmax, (X,), lambda g, x: (g * softmax(x),), "softmax is y * (g - sum(g * y))"),
    "softmax sum, large": (softmax, (WIDE,), lambda g, x: (g * softmax(x),), "softmax is y * (g - sum(g * y))"),
    "log-softmax sum": (log_softmax, (X,), lambda g, x: (g * 1,), "g is passed on unchanged"),
    "beside -inf": (
        softmax,
        (np.array([[0.3, -np.inf, 1.0, -0.2], [0.1, 0.5, -0.7, 0.2]]),),
        lambda g, x: (np.where(np.isinf(x).any(-1, keepdims=True), g * softmax(x), softmax_vjp(g, x)[0]),),
        "wrong exactly where an entry of the same row is infinite",
    ),
    "nan beside -inf": (
        softmax,
        (np.array([[0.3, -np.inf, 1.0]]),),
        lambda g, x: (softmax_vjp(g, x)[0] + 0 * x,),
        "is NaN in 1 of 3 elements",
    ),
    "layer norm mean": (layer_norm, AFFINE, layer_norm_vjp("mean"), "a mean (or sum) over axis 1 is not subtracted"),
    "layer norm variance": (layer_norm, AFFINE, layer_norm_vjp("variance"), "the variance depends on x"),
    "layer norm both": (layer_norm, AFFINE, layer_norm_vjp("mean variance"), "both means over axis 1 are missing"),
    "layer norm sum": (layer_norm, AFFINE, layer_norm_vjp("sum"), "a sum is missing: argument 1 (weight)"),
    "layer norm broadcast": (layer_norm, AFFINE, layer_norm_vjp("broadcast"), "broadcasting not undone"),
    "gelu": (gelu, (X,), tanh_gelu_vjp, "the backward that of the tanh approximation"),
    "repeated index": (lambda ids, w: w[ids], (IDS, SQUARE), assigned, "names the element more than once"),
    "only unsymmetric": (
        lambda a: a @ a,
        (SQUARE,),
        lambda g, a: (g @ a + a @ g,),
        "is wrong",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_backward_passes_are_rejected_with_their_diagnosis(name):
    f, inputs, vjp, diagnosis = WRONG[name]
    with pytest.raises(GradCheckError) as caught:
        gradcheck(f, *inputs, vjp=vjp)
    message = str(caught.value)
    assert diagnosis in message
    assert len(message.splitlines()) < 24  # one screen


def test_the_message_names_argument_index_values_error_and_ratio():
    with pytest.raises(GradCheckError) as caught:
        gradcheck(np.sin, X, vjp=cos_but(one_wrong))
    (found,) = caught.value.mismatches
    assert found.argument.startswith("argument 0")
    assert (found.order, found.wrong, found.compared) == (1, 1, 12)
    assert found.index == (1, 2)
    assert found.claimed / found.numerical == pytest.approx(1.001, abs=1e-9)
    assert 0 < found.error < 1e-9
    for text in ("sin", "(1, 2)", "ratio", "estimated error"):
        assert text in str(caught.value)


def test_one_element_in_a_million_element_by_element():
    x = RNG.normal(size=10**6)
    with pytest.raises(GradCheckError, match=r"\(500000,\)"):
        gradcheck(np.sin, x, vjp=cos_but(one_wrong))


def test_one_element_in_a_million_behind_a_sum():
    x = RNG.normal(size=10**6)
    with pytest.raises(GradCheckError, match=r"\(500000,\)"):
        gradcheck(lambda x: np.sum(x * x), x, vjp=lambda g, x: (one_wrong(2 * g * x),))


def test_an_error_in_a_tiny_gradient_beside_a_large_one():
    scale = np.array([1e-12, 1e3])
    gradcheck(lambda x: x * scale, np.ones(2), vjp=lambda g, x: (g * scale,))
    with pytest.raises(GradCheckError):
        gradcheck(lambda x: x * scale, np.ones(2), vjp=lambda g, x: (g * np.array([1.001e-12, 1e3]),))


@pytest.mark.parametrize("factor", [1.001, -1.0, 0.0])
def test_float32_functions_by_the_order_of_the_remainder(factor):
    x = X.astype(np.float32)
    gradcheck(np.sin, x, vjp=lambda g, x: (g * np.cos(x),))
    with pytest.raises(GradCheckError):
        gradcheck(np.sin, x, vjp=lambda g, x: (np.float32(factor) * g * np.cos(x),))


def test_inputs_that_are_changed():
    def spoil(x):
        x += 1
        return x * 1

    with pytest.raises(GradCheckError, match=r"changed its argument 0 \(x\)"):
        gradcheck(spoil, X, vjp=lambda g, x: (g * 1,))

    def spoil_g(g, x):
        g *= 2
        return (g * 1,)

    with pytest.raises(GradCheckError, match="changed the cotangent"):
        gradcheck(lambda x: 2 * x, X, vjp=spoil_g)


def test_aliases_of_the_cotangent_of_inputs_and_of_each_other():
    with pytest.raises(GradCheckError, match="shares its memory with the cotangent g"):
        gradcheck(lambda a, b: a + b, X, X, vjp=lambda g, a, b: (g, g * 1))
    with pytest.raises(GradCheckError, match="shares its memory with the gradient of argument 1"):
        gradcheck(lambda a, b: a + b, X, X, vjp=lambda g, a, b: (d := g * 1, d.reshape(3, 4)))
    with pytest.raises(GradCheckError, match=r"shares its memory with argument 0 \(x\)"):
        gradcheck(lambda x: 0.5 * np.sum(x * x), np.ones(3), vjp=lambda g, x: (x,))

    def halves(g, a, b):  # two windows on one array that do not overlap
        whole = np.zeros((3, 8))
        whole[:, ::2], whole[:, 1::2] = g, 2 * g
        return whole[:, ::2], whole[:, 1::2]

    gradcheck(lambda a, b: a + 2 * b, X, X, vjp=halves)
    gradcheck(np.sum, X, vjp=lambda g, x: (np.broadcast_to(g, x.shape),))  # read-only: harmless


def test_functions_and_backward_passes_that_differ_between_runs():
    rng = np.random.default_rng(0)
    with pytest.raises(GradCheckError, match="not deterministic"):
        gradcheck(lambda x: x * rng.normal(), X, vjp=lambda g, x: (g * 1,))
    with pytest.raises(GradCheckError, match="differs between two runs"):
        gradcheck(np.sin, X, vjp=lambda g, x: (g * np.cos(x) * rng.normal(),))


@pytest.mark.parametrize(
    ("vjp", "said"),
    [
        (lambda g, x: (g.astype(np.float32),), "has dtype float32"),
        (lambda g, x: ((g * np.cos(x))[:1],), "has shape (1, 4)"),
        (lambda g, x: (g * np.nan,), "is NaN in 12 of 12"),
        (lambda g, x: (g * np.inf,), "is wrong"),
        (lambda g, x: (g, g), "one gradient (or None) for each of the 1 inputs, got 2 results"),
    ],
)
def test_shapes_dtypes_and_values_that_no_gradient_has(vjp, said):
    with pytest.raises(GradCheckError) as caught:
        gradcheck(np.sin, X, vjp=vjp)
    assert said in str(caught.value)


def test_wrong_rules_at_kinks_are_not_excused():
    for slope in (1.5, -0.1):
        with pytest.raises(GradCheckError):
            gradcheck(lambda x: np.maximum(x, 0), np.zeros(3), vjp=lambda g, x, slope=slope: (g * slope,))


def test_the_operation_to_blame_is_found_inside_a_function(monkeypatch):
    from tinyllm.autograd.ops import elementwise

    wrong = elementwise._tanh.__class__("tanh", elementwise._tanh.forward, (lambda g, y, x: g * (1 - y),))
    monkeypatch.setattr(elementwise, "_tanh", wrong)

    def model(x, w):
        return tl.sum(tl.exp(tl.tanh(x @ w)), axis=-1)

    with pytest.raises(GradCheckError, match="the gradient of tanh \\(inside model\\)"):
        gradcheck(model, X, SQUARE[:4])


def test_second_order_errors_are_found_when_the_first_order_is_right(monkeypatch):
    module = importlib.import_module("tinyllm.autograd.fused.softmax")
    op = module._softmax_op
    wrong = op.__class__(op.name, ref=lambda x, axis: module._softmax_ref(2 * x, axis) * 1, impls=op.impls)
    monkeypatch.setattr(module, "_softmax_op", wrong)
    gradcheck(tl.softmax, X)
    with pytest.raises(GradCheckError, match="the second derivative"):
        gradcheck(tl.softmax, X, order=2)


def test_misuse():
    with pytest.raises(ValueError, match="nothing to check"):
        gradcheck(lambda x: x, np.arange(3))
    with pytest.raises(TypeError, match="must return floating"):
        gradcheck(lambda x: x > 0, X, vjp=lambda g, x: (g,))
    with pytest.raises(TypeError, match="must return a Tensor"):
        gradcheck(lambda x: x.numpy(), X)
    with pytest.raises(ValueError, match="order must be 1 or 2"):
        gradcheck(tl.exp, X, order=3)
    with pytest.raises(ValueError, match="order=2 needs"):
        gradcheck(np.sin, X, vjp=lambda g, x: (g,), order=2)
    with pytest.raises(GradCheckError, match="itself gives NaN"):
        gradcheck(np.sqrt, -np.ones(2), vjp=lambda g, x: (g,))
