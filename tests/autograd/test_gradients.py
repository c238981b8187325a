"""Every derivative against measured slopes, to second order; the table of cases is in cases.py."""

import numpy as np
import pytest
from cases import CASES, FUSED, NO_DERIVATIVE, Case
from check import check

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


def test_every_operation_has_a_case() -> None:
    exported = set(tl.autograd.ops.__all__) | FUSED
    covered = {c.op for c in CASES} | set(NO_DERIVATIVE)
    assert exported - covered == set(), "operations without a case in cases.py"
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
        assert node.kernel == (backend if backend in node.op.impls else "numpy")
        g = tl.tensor(np.random.default_rng(0).normal(size=node.out.array.shape))
        inputs = [tl.tensor(t.data, requires_grad=need) for t, need in zip(node.inputs, node.needs, strict=True)]
        y_ref = node.op.ref(*inputs, **node.params)
        np.testing.assert_allclose(node.out.array, y_ref.data, rtol=1e-12, atol=1e-13)
        y_ref.backward(g)
        for d, t in zip(node.op.vjp(node, g, create_graph=False), inputs, strict=True):
            if d is not None:
                np.testing.assert_allclose(d.data, t.grad.data, rtol=1e-11, atol=1e-12)
