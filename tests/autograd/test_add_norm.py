"""A sum and its norm in one pass: the same as one after the other, forward and backward."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyllm as tl
from tinyllm.autograd import tape

NORMS = {
    "layer_norm": (tl.add_layer_norm, tl.layer_norm, 2),
    "rms_norm": (tl.add_rms_norm, tl.rms_norm, 1),
}


def both_ways(name, shape, axes, dtype, seed=0, backend="numba", residual=None):
    """Results and all gradients, of the two in one pass and one after the other."""
    joint, norm, affine = NORMS[name]
    rng = np.random.default_rng(seed)
    last = shape[len(shape) - axes :]
    arrays = [rng.normal(size=shape), rng.normal(size=shape if residual is None else residual)]
    arrays += [rng.normal(size=last) for _ in range(affine)]
    cotangents = [tl.tensor(rng.normal(size=shape), dtype) for _ in range(2)]
    found = []
    for one_pass in (True, False):
        x, y, *weights = (tl.tensor(a, dtype, requires_grad=True) for a in arrays)
        with tl.backend(backend):
            if one_pass:
                total, normed = joint(x, y, last, *weights, eps=0.1)
            else:
                total = x + y
                normed = norm(total, last, *weights, eps=0.1)
            tl.sum(total * cotangents[0] + normed * cotangents[1]).backward()
        found.append([total, normed, *(t.grad for t in (x, y, *weights))])
    return found


def assert_same(found):
    """The sum to the bit; the rest but for the order in which a row is added up."""
    for i, (one_pass, apart) in enumerate(zip(*found, strict=True)):
        assert one_pass.dtype == apart.dtype
        atol = 0 if i == 0 else 64 * np.finfo(apart.dtype).eps * max(1, np.abs(apart.data).max())
        np.testing.assert_allclose(one_pass.data, apart.data, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NORMS)
@given(st.lists(st.integers(1, 19), min_size=1, max_size=4), st.integers(1, 3), st.integers(0, 99))
def test_the_same_as_one_after_the_other(name, dtype, shape, axes, seed):
    assert_same(both_ways(name, tuple(shape), min(axes, len(shape)), dtype, seed))


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("name", NORMS)
def test_divided_among_threads(name, threads):
    before = tl.get_num_threads()
    tl.set_num_threads(threads)
    try:
        assert_same(both_ways(name, (3000, 67), 1, "float32"))
    finally:
        tl.set_num_threads(before)


@pytest.mark.parametrize("name", NORMS)
def test_where_no_kernel_does_it(name):
    assert_same(both_ways(name, (3, 4, 5), 1, "float64", backend="numpy"))
    assert_same(both_ways(name, (3, 4, 5), 2, "float64", residual=(4, 1)))  # shapes that have to meet


@pytest.mark.parametrize("name", NORMS)
def test_gradcheck(name, rng):
    joint, _, affine = NORMS[name]
    x, y = rng.normal(size=(2, 3, 5))
    mix = rng.normal(size=(2, 3, 5))

    def f(x, y, *weights):
        total, normed = joint(x, y, 5, *weights, eps=0.1)
        return mix[0] * total + mix[1] * normed

    with tl.backend("numba"):
        tl.testing.gradcheck(f, x, y, *rng.normal(size=(affine, 5)), order=2)


@pytest.mark.parametrize("name", NORMS)
def test_rows_that_lie_apart(name, rng):
    joint, norm, _ = NORMS[name]
    x, y = tl.tensor(rng.normal(size=(7, 6))).T, tl.tensor(rng.normal(size=(6, 14)))[:, ::2]
    with tl.backend("numba"):
        total, normed = joint(x, y, 7)
        np.testing.assert_array_equal(total.data, x.data + y.data)
        np.testing.assert_allclose(normed.data, norm(total, 7).data, atol=1e-14)


@pytest.mark.parametrize("name", NORMS)
def test_the_tape_holds_the_two_operations(name, rng):
    joint, _, _ = NORMS[name]
    x, y = (tl.tensor(rng.normal(size=(2, 5)), requires_grad=True) for _ in range(2))
    with tl.backend("numba"):
        total, normed = joint(x, y, 5)
        assert [node.op.name for node in tape.reachable(normed)] == [name, "add"]
        assert total.node is normed.node.inputs[0].node
        with tl.no_grad():
            assert all(t.is_leaf for t in joint(x, y, 5))


@pytest.mark.parametrize("name", NORMS)
def test_what_does_not_fit(name):
    joint, _, _ = NORMS[name]
    x = np.ones((2, 5))
    with pytest.raises(ValueError, match="normalized_shape"), tl.backend("numba"):
        joint(x, x, 4)
    with pytest.raises(TypeError, match="floating"):
        joint(np.ones((2, 5), int), np.ones((2, 5), int), 5)
    with pytest.raises(ValueError, match="broadcast"):
        joint(x, np.ones(4), 5)
