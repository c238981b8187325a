"""Every derivative against measured slopes, to second order; the table of cases is in gradient_cases.py."""

import numpy as np
import pytest
from check import check
from gradient_cases import CASES, FUSED, NO_DERIVATIVE, Case

import tinyllm as tl

BACKENDS = ["numpy", "numba"]


def on_backends(cases: list[Case]) -> list:
    """Each case, and those of fused operations under both backends."""
    return [
        pytest.param(c, b, id=f"{i}-{c.id}-{b}")
        for i, c in enumerate(cases)
        for b in (BACKENDS if c.op in FUSED else BACKENDS[:1])
    ]


@pytest.mark.parametrize(("case", "backend"), on_backends(CASES))
@pytest.mark.parametrize("order", [1, 2])
def test_derivative(case: Case, backend: str, order: int) -> None:
    with tl.backend(backend):
        check(case.f, *case.arrays, order=order)


@pytest.mark.parametrize(("case", "backend"), on_backends(CASES))
def test_derivative_of_views(case: Case, backend: str) -> None:
    """The same on operands that are not contiguous: every second element, reversed, of a transpose."""
    arrays = [np.repeat(a.T, 2, axis=-1)[..., ::-1] if a.ndim else a for a in case.arrays]

    def of_views(*xs: tl.Tensor) -> tl.Tensor:
        views = [x[..., ::-2].T if x.ndim else x for x in xs]
        for v, a in zip(views, case.arrays, strict=True):
            assert v.shape == a.shape
        return case.f(*views)

    with tl.backend(backend):
        check(of_views, *arrays, entries=1)


@pytest.mark.parametrize(("case", "backend"), on_backends([c for c in CASES if len(c.arrays) > 1]))
def test_each_argument_alone(case: Case, backend: str) -> None:
    """An argument's gradient does not depend on whether the others, constants now, have one too."""
    with tl.backend(backend):
        together = [tl.tensor(a, requires_grad=True) for a in case.arrays]
        y = case.f(*together)
        g = np.random.default_rng(0).normal(size=y.shape)
        y.backward(g)
        for i, expected in enumerate(together):
            alone = [tl.tensor(a, requires_grad=i == j) for j, a in enumerate(case.arrays)]
            z = case.f(*alone)
            np.testing.assert_array_equal(z.data, y.data)
            z.backward(g)
            np.testing.assert_allclose(alone[i].grad.data, expected.grad.data, rtol=1e-13, atol=1e-14)
            assert all(t.grad is None for j, t in enumerate(alone) if j != i)


BIG = {
    "softmax": lambda x, w: tl.softmax(x * 3, axis=1),
    "log_softmax": lambda x, w: tl.log_softmax(x),
    "gelu": lambda x, w: tl.gelu(x),
    "gelu tanh": lambda x, w: tl.gelu(x, "tanh"),
    "gelu with bias": lambda x, w: tl.gelu(x, bias=w),
    "gelu tanh with bias": lambda x, w: tl.gelu(x, "tanh", bias=w),
    "silu": lambda x, w: tl.silu(x),
    "swiglu": lambda x, w: tl.swiglu(x, tl.flip(x)),
    "swiglu with biases": lambda x, w: tl.swiglu(x, tl.flip(x), gate_bias=w, up_bias=-w),
    "silu with bias": lambda x, w: tl.silu(x, bias=w),
    "layer_norm": lambda x, w: tl.layer_norm(x, 65, w, w * w),
    "rms_norm": lambda x, w: tl.rms_norm(x, 65, w),
    "cross_entropy": lambda x, w: tl.cross_entropy(x, np.arange(3 * 37).reshape(3, 37) % 60, label_smoothing=0.1),
    "linear_cross_entropy": lambda x, w: tl.linear_cross_entropy(x * w, x[0], np.arange(3 * 37).reshape(3, 37) % 37),
    "embedding": lambda x, w: tl.embedding(np.arange(40) % 7, x[0]),
    "linear": lambda x, w: tl.linear(x, x[1]),
    "rnn": lambda x, w: tl.rnn(
        0.3 * x, 0.1 * x[0], 0.1 * x[0, :, :37], w[:37], w[5:42], x[0, :, :37], lengths=np.arange(37) % 3 + 1
    ),
    "lstm": lambda x, w: tl.lstm(
        0.3 * x, 0.1 * x[0, :36], 0.1 * x[0, :36, :9], w[:36], w[5:41], x[0, :, :9], x[1, :, :9]
    ),
    "gru": lambda x, w: tl.gru(
        0.3 * x, 0.1 * x[0, :36], 0.1 * x[0, :36, :12], w[:36], w[5:41], x[0, :, :12], reverse=True
    ),
    "attention": lambda x, w: tl.scaled_dot_product_attention(x, x[:, :29] * w, x[:, :29], is_causal=True),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", BIG)
def test_backends_agree_on_larger_arrays(name: str, dtype: str) -> None:
    """Sizes that are no multiple of any tile, as read-only, broadcast and strided operands too."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(3, 37, 65)), rng.normal(size=65)
    views = {
        "plain": lambda t: t,
        "strided": lambda t: tl.flip(tl.swapaxes(tl.swapaxes(t, 0, 2), 0, 2)),
        "broadcast": lambda t: tl.broadcast_to(t[:1], (3, 37, 65)),
    }
    for view in views.values():
        results = []
        for backend, kind in (("numpy", "float64"), ("numpy", dtype), ("numba", dtype)):
            with tl.backend(backend):
                a, b = tl.tensor(x, kind, requires_grad=True), tl.tensor(w, kind, requires_grad=True)
                y = BIG[name](view(a), b)
                y.backward(np.random.default_rng(1).normal(size=y.shape))
                results.append([y, a.grad, *([b.grad] if b.grad is not None else [])])
        eps = float(np.finfo(dtype).eps)
        for exact, *others in zip(*results, strict=True):
            for other in others:
                assert other.dtype == dtype
                scale = np.abs(exact.data).max()
                np.testing.assert_allclose(other.data, exact.data, rtol=200 * eps, atol=200 * eps * scale)


def test_every_operation_has_a_case() -> None:
    exported = set(tl.autograd.ops.__all__) | FUSED
    covered = {c.op for c in CASES} | set(NO_DERIVATIVE)
    assert exported - covered == set(), "operations without a case in gradient_cases.py"
    assert covered - exported == set(), "cases of operations that are not exported"


@pytest.mark.parametrize("name", sorted(NO_DERIVATIVE))
def test_no_gradient_flows(name: str) -> None:
    x = tl.tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    y = NO_DERIVATIVE[name](x)
    assert not y.requires_grad
    assert y.node is None


@pytest.mark.parametrize(("case", "backend"), on_backends([c for c in CASES if c.op in FUSED]))
def test_fused_equals_its_reference(case: Case, backend: str) -> None:
    """A fused operation's value and gradients are those of `ref`, the small operations that define it."""
    leaves = [tl.tensor(a, requires_grad=True) for a in case.arrays]
    with tl.backend(backend):
        y = case.f(*leaves)
    fused = [n for n in tl.autograd.tape.reachable(y) if n.op.ref is not None]
    for node in fused:
        if node.inputs[0].size:
            assert node.kernel == (backend if backend in node.op.impls else "numpy")
        g = tl.tensor(np.random.default_rng(0).normal(size=node.out.array.shape))
        inputs = [tl.tensor(t.data, requires_grad=need) for t, need in zip(node.inputs, node.needs, strict=True)]
        y_ref = node.op.ref(*inputs, **node.params)
        np.testing.assert_allclose(node.out.array, y_ref.data, rtol=1e-12, atol=1e-13)
        y_ref.backward(g)
        for d, t in zip(node.op.vjp(node, g, create_graph=False), inputs, strict=True):
            if d is not None:
                np.testing.assert_allclose(d.data, t.grad.data, rtol=1e-11, atol=1e-12)
