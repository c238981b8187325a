"""The engine's laws: who owns memory, what may be done twice, what is refused, and what the tape keeps alive."""

import gc
import math
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinyllm as tl
from tinyllm.autograd.operands import broadcast_shape
from tinyllm.autograd.tape import Op, apply, reachable

T = tl.tensor
attend = tl.scaled_dot_product_attention


def leaf(*shape: int, seed: int = 0, dtype: str = "float64") -> tl.Tensor:
    return T(np.random.default_rng(seed).normal(size=shape).astype(dtype), requires_grad=True)


# -- size of the graph -----------------------------------------------------------------------------------------------


def test_long_chain() -> None:
    x = T(1.0, requires_grad=True)
    y = x
    for _ in range(20_000):
        y = y + 1e-4
    y.backward()
    assert x.grad.item() == 1.0


def test_long_chain_can_be_dropped() -> None:
    y = T(1.0, requires_grad=True)
    for _ in range(60_000):
        y = -y
    del y  # freed without recursion that ends the process


def test_many_paths() -> None:
    x = T(1.0, requires_grad=True)
    y = x
    for _ in range(30):
        y = y + y
    y.backward()
    assert x.grad.item() == 2.0**30


def test_repeated_use_adds_up() -> None:
    x = T([2.0, 3.0], requires_grad=True)
    tl.sum(x * x * x).backward()
    np.testing.assert_array_equal(x.grad.data, [12.0, 27.0])


# -- what is refused -------------------------------------------------------------------------------------------------


def test_released_graph() -> None:
    x = leaf(2)
    y = tl.exp(x)
    z = tl.sum(y)
    z.backward()
    with pytest.raises(RuntimeError, match=r"(?s)(sum|exp).*released.*retain_graph"):
        z.backward()
    with pytest.raises(RuntimeError, match=r"exp.*released"):
        tl.sum(y * 2).backward()
    np.testing.assert_array_equal(x.grad.data, np.exp(x.data))  # the failures changed nothing


def test_retained_graph_can_be_used_again() -> None:
    x = leaf(2)
    z = tl.sum(tl.exp(x))
    z.backward(retain_graph=True)
    z.backward()
    np.testing.assert_array_equal(x.grad.data, 2 * np.exp(x.data))


def test_stale_value_is_named() -> None:
    x, w = leaf(2), leaf(2, seed=1)
    y = tl.sum(x * w)
    w.assign_([1.0, 2.0])
    w.assign_([3.0, 2.0])
    with pytest.raises(RuntimeError, match=r"(?s)multiply.*version 0.*version 2"):
        y.backward()
    assert x.grad is None


@pytest.mark.parametrize(
    "other",
    [
        lambda x: x.detach(),
        lambda x: x.detach()[0],
        lambda x: tl.transpose(x.detach()),
        lambda x: tl.reshape(x.detach(), (-1,)),
        lambda x: x.detach()[:, ::2],
        lambda x: tl.flip(x.detach()),
        lambda x: tl.swapaxes(x.detach(), 0, 1)[1],
        lambda x: tl.identity(x.detach()),
        lambda x: tl.squeeze(x.detach()),
        lambda x: tl.einsum("ij->ji", x.detach()),
        lambda x: tl.einsum("ii->i", x.detach()),
        lambda x: tl.split(x.detach(), 2)[0],
    ],
)
def test_stale_value_through_a_view(other) -> None:
    """Whatever shares the memory shares the version, in both directions."""
    for assign_to_view in (True, False):
        base = T(np.arange(1.0, 5.0).reshape(2, 2))
        p = T(1.0, requires_grad=True)
        view = other(base)
        if not np.shares_memory(view.data, base.data):  # a copy has a version of its own
            continue
        used, written = (base, view) if assign_to_view else (view, base)
        if not written._storage.array.flags.writeable:  # a view that cannot be assigned to
            continue
        y = tl.sum(p * used)
        written.assign_(np.zeros(written.shape))
        with pytest.raises(RuntimeError, match=r"multiply.*overwritten"):
            y.backward()


def test_stale_output() -> None:
    x = leaf(2)
    y = tl.exp(x)
    z = tl.sum(y)
    y.assign_([0.0, 0.0])
    with pytest.raises(RuntimeError, match="overwritten"):
        z.backward()


def test_a_fresh_value_after_assignment() -> None:
    x = leaf(2)
    x.assign_([1.0, 2.0])
    tl.sum(x * x).backward()
    np.testing.assert_array_equal(x.grad.data, [2.0, 4.0])


def test_stale_bounds_of_clip() -> None:
    low = T([0.0, 0.0])
    x = T([1.0, -1.0], requires_grad=True)
    y = tl.sum(tl.clip(x, low))
    low.assign_([5.0, -5.0])
    with pytest.raises(RuntimeError, match=r"clip.*overwritten"):
        y.backward()


def test_clashing_shapes_are_drawn() -> None:
    with pytest.raises(ValueError, match="add") as e:
        leaf(2, 3, 4) + leaf(5, 4)
    assert str(e.value).splitlines()[1:] == ["    2  3  4", "       5  4", "       ^"]
    assert "-2" in str(e.value).splitlines()[0]
    with pytest.raises(ValueError, match="multiply") as e:
        T(np.ones((10, 3))) * np.ones((7, 100))
    assert str(e.value).splitlines()[1:] == ["    10    3", "     7  100", "    ^^  ^^^"]


@given(hnp.array_shapes(min_dims=0, max_dims=4, max_side=3), hnp.array_shapes(min_dims=0, max_dims=4, max_side=3))
def test_broadcast_shape_is_numpys(a: tuple, b: tuple) -> None:
    try:
        expected = np.broadcast_shapes(a, b)
    except ValueError:
        with pytest.raises(ValueError, match=r"\^"):
            broadcast_shape("add", a, b)
    else:
        assert broadcast_shape("add", a, b) == expected


def test_backward_needs_a_cotangent() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\).*cotangent"):
        tl.exp(leaf(2, 3)).backward()
    tl.exp(leaf(1, 1)).backward()  # one element has the obvious one


@pytest.mark.parametrize("g", [np.ones(3), np.ones((3, 1)), np.ones((1, 2, 3)), 1.0])
def test_cotangent_of_the_wrong_shape(g) -> None:
    x = leaf(2, 3)
    with pytest.raises(ValueError, match=r"cotangent has shape .*\(2, 3\)"):
        tl.exp(x).backward(g)
    assert x.grad is None


def test_integers_have_no_gradient() -> None:
    with pytest.raises(TypeError, match="int64"):
        T([1, 2], requires_grad=True)
    with pytest.raises(TypeError, match="bool"):
        T([True]).requires_grad = True
    with pytest.raises(TypeError, match="int64"):
        tl.sum(T([1, 2])).backward()
    with pytest.raises(TypeError, match=r"int64|integer"):
        tl.grad(lambda x: tl.sum(x * 2.5))(3)
    with pytest.raises(TypeError, match=r"int64|integer"):
        tl.value_and_grad(lambda a, x: tl.sum(a * x), argnums=1)(2.0, np.array([1, 2]))


def test_backward_of_a_constant() -> None:
    with pytest.raises(ValueError, match="requires_grad"):
        tl.sum(T([1.0])).backward()
    with tl.no_grad():
        y = tl.sum(leaf(2))
    with pytest.raises(ValueError, match="requires_grad"):
        y.backward()


def test_requires_grad_is_for_leaves() -> None:
    y = tl.exp(leaf(2))
    with pytest.raises(ValueError, match="detach"):
        y.requires_grad = False
    assert not y.detach().requires_grad


@pytest.mark.parametrize("data", ["text", None, [1j], [[1.0], [1.0, 2.0]], object()])
def test_what_is_no_tensor(data) -> None:
    with pytest.raises((TypeError, ValueError)):
        T(data)


def test_complex_numbers_are_refused_everywhere() -> None:
    with pytest.raises(TypeError, match="complex"):
        tl.astype(T([1.0]), complex)


def test_wrong_rules_are_named() -> None:
    narrow = Op("narrow", lambda xp, x: x * 2.0, (lambda g, y, x: g.astype("float32"),))
    flat = Op("flat", lambda xp, x: x * 2.0, (lambda g, y, x: tl.sum(g),))
    for op in (narrow, flat):
        with pytest.raises(AssertionError, match=op.name):
            apply(op, leaf(3)).backward(np.ones(3))


# -- the walk back ---------------------------------------------------------------------------------------------------


def test_steps_go_from_the_latest_node_to_the_first() -> None:
    x = leaf(2, 3)
    y = tl.sum(tl.exp(x) * 2.0)
    steps = list(tl.backward_steps(y))
    assert [s.node.op.name for s in steps] == ["sum", "multiply", "exp"]
    assert [s.node.seq for s in steps] == sorted((s.node.seq for s in steps), reverse=True)
    assert steps[0].out_grad.item() == 1.0
    assert steps[1].in_grads[1] is None  # nobody asked for the constant's
    np.testing.assert_array_equal(steps[-1].in_grads[0].data, x.grad.data)
    for s in steps:
        assert s.node.op.name in str(s)


def test_an_abandoned_walk_changes_nothing() -> None:
    x = leaf(2)
    y = tl.sum(tl.exp(x) * x)
    for n in range(3):
        walk = tl.backward_steps(y)
        for _ in range(n + 1):
            next(walk)
        assert x.grad is None
        assert tl.is_recording()
        walk.close()
        assert x.grad is None
    y.backward()
    np.testing.assert_allclose(x.grad.data, np.exp(x.data) * (1 + x.data), rtol=1e-15)


def test_grad_appears_at_the_end_only() -> None:
    x = leaf(2)
    walk = tl.backward_steps(tl.sum(x * 3.0))
    for _ in walk:
        assert x.grad is None
    assert x.grad is not None


def test_a_failing_walk_changes_nothing() -> None:
    def fails(g, y, x):
        raise FloatingPointError("in a rule")

    a, b = leaf(2), leaf(2)
    bad = Op("bad", lambda xp, x: x * 1.0, (fails,))
    y = tl.sum(b * apply(bad, a))
    with pytest.raises(FloatingPointError):
        y.backward()
    assert a.grad is None
    assert b.grad is None
    assert tl.is_recording()


def test_gradients_accumulate() -> None:
    x = leaf(3)
    for _ in range(3):
        tl.sum(x * 2.0).backward()
    np.testing.assert_array_equal(x.grad.data, [6.0, 6.0, 6.0])


def test_backward_of_a_leaf() -> None:
    x = leaf(3)
    x.backward(np.arange(3.0))
    np.testing.assert_array_equal(x.grad.data, [0.0, 1.0, 2.0])


def test_only_leaves_keep_their_gradient() -> None:
    x = leaf(3)
    y = tl.exp(x)
    tl.sum(y).backward()
    assert y.grad is None
    assert x.grad is not None
    assert not x.grad.requires_grad


def test_frozen_leaves_get_no_gradient() -> None:
    x, w = leaf(3), leaf(3, seed=1)
    w.requires_grad = False
    tl.sum(x * w).backward()
    assert w.grad is None
    np.testing.assert_array_equal(x.grad.data, w.data)


ALIASING = {
    "sum of two": (lambda a, b: a + b, (3,)),
    "views": (lambda a, b: tl.reshape(a, (3, 1)).T + b[None], (1, 3)),
    "broadcast": (lambda a, b: tl.sum(a) + tl.sum(b), ()),
    "identity": (lambda a, b: tl.identity(a) + tl.identity(b), (3,)),
    "concatenate": (lambda a, b: tl.concatenate([a, b]), (6,)),
    "slices": (lambda a, b: tl.concatenate([a, b])[:3] + b, (3,)),
}


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", ALIASING)
def test_gradients_share_no_memory(name: str, create_graph: bool) -> None:
    f, shape = ALIASING[name]
    a, b = leaf(3), leaf(3, seed=1)
    g = T(np.ones(shape))
    f(a, b).backward(g, create_graph=create_graph)
    arrays = [a.grad._storage.array, b.grad._storage.array, g._storage.array, a._storage.array, b._storage.array]
    for i in range(2):
        assert arrays[i].flags.writeable
        assert not any(np.shares_memory(arrays[i], other) for j, other in enumerate(arrays) if j != i)
    first = b.grad.numpy()
    a.grad._storage.array[...] = 7.0
    np.testing.assert_array_equal(b.grad.data, first)
    np.testing.assert_array_equal(g.data, np.ones(shape))


def test_the_leaf_as_its_own_cotangent() -> None:
    x = leaf(3)
    before = x.numpy()
    tl.identity(x).backward(x)
    np.testing.assert_array_equal(x.grad.data, before)
    assert not np.shares_memory(x.grad._storage.array, x._storage.array)
    assert not x.grad.requires_grad


# -- memory ----------------------------------------------------------------------------------------------------------


@contextmanager
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


FREED = {
    "never differentiated": lambda x: tl.sum(tl.tanh(x @ x) * 2.0),
    "softmax": lambda x: tl.sum(tl.softmax(x) * x),
    "attention": lambda x: tl.sum(tl.scaled_dot_product_attention(x, x, x)),
    "checkpoint": lambda x: tl.sum(tl.checkpoint(tl.exp, x)),
    "vjp": lambda x: tl.sum(tl.vjp(tl.exp, x)[1](np.ones(x.shape))[0]),
    "gradient of a gradient": lambda x: tl.sum(tl.grad(lambda y: tl.sum(y * y * y))(x)),
    "jvp": lambda x: tl.sum(tl.jvp(tl.exp, (x,), (np.ones(x.shape),))[1]),
}


@pytest.mark.parametrize("name", FREED)
def test_no_reference_cycles(name: str) -> None:
    """Memory goes when the last reference goes, without the collector."""
    for backward in (False, True):
        with no_collector():
            x = leaf(3, 3)
            y = FREED[name](x)
            middle = [weakref.ref(t) for node in reachable(y) for t in node.inputs if t.node is not None]
            middle.append(weakref.ref(y))
            assert len(middle) > 1
            if backward:
                y.backward()
            del y
            assert [r() for r in middle if r() is not None] == []
            alive = weakref.ref(x)
            del x
            assert alive() is None
            found = gc.collect()
            assert found == 0


def test_backward_lets_go_of_the_tape() -> None:
    with no_collector():
        x = leaf(3)
        y = tl.exp(x)
        inner = weakref.ref(y)
        z = tl.sum(y)
        del y
        assert inner() is not None
        z.backward()
        assert inner() is None
        assert z.item() == pytest.approx(float(np.sum(np.exp(x.data))))


def test_nothing_is_recorded_for_constants() -> None:
    with no_collector():
        x = T(np.ones(3))
        y = tl.exp(x) * 2
        assert y.node is None
        with tl.no_grad():
            assert tl.exp(leaf(3)).node is None


# -- ownership -------------------------------------------------------------------------------------------------------


def test_constructors_copy() -> None:
    a = np.ones(3)
    t = T(a, requires_grad=True)
    u = T(t)
    a[0] = 7.0
    t.assign_([2.0, 2.0, 2.0])
    np.testing.assert_array_equal(t.data, [2.0, 2.0, 2.0])
    np.testing.assert_array_equal(u.data, [1.0, 1.0, 1.0])
    assert not u.requires_grad


MUTATED = {
    "multiply": (lambda x, a: x * a, lambda: np.array([1.0, 2.0, 3.0])),
    "reflected": (lambda x, a: a * x, lambda: np.array([1.0, 2.0, 3.0])),
    "matmul": (lambda x, a: x @ a, lambda: np.eye(3)),
    "where": (lambda x, a: tl.where(a, x, 0.0), lambda: np.array([True, False, True])),
    "masked_fill": (lambda x, a: tl.masked_fill(x, a, 0.0), lambda: np.array([True, False, True])),
    "index": (lambda x, a: x[a], lambda: np.array([0, 0, 2])),
    "index in a tuple": (lambda x, a: x[(None, a)], lambda: np.array([0, 0, 2])),
    "boolean index": (lambda x, a: x[a], lambda: np.array([True, False, True])),
    "take_along_axis": (lambda x, a: tl.take_along_axis(x, a), lambda: np.array([0, 0, 2])),
    "add_at": (lambda x, a: tl.add_at(x, a, (3,)), lambda: np.array([0, 0, 2])),
    "embedding": (lambda x, a: tl.embedding(a, x[:, None]), lambda: np.array([0, 0, 2])),
    "clip": (lambda x, a: tl.clip(x, a), lambda: np.array([-9.0, 9.0, -9.0])),
    "cross_entropy": (lambda x, a: tl.cross_entropy(x[None], a), lambda: np.array([1])),
    "attention mask": (lambda x, a: attend(x[:, None], x[:, None], x[:, None], a), lambda: np.eye(3, dtype=bool)),
    "concatenate": (lambda x, a: tl.concatenate([x, a]) ** 2, lambda: np.ones(3)),
    "repeat": (lambda x, a: tl.repeat(x, a), lambda: np.array([0, 1, 2])),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATED)
def test_operands_may_change_after_the_forward_pass(name: str) -> None:
    """NumPy operands, masks and indices are read once, when the operation is computed."""
    f, make = MUTATED[name]
    grads = []
    for mutate in (False, True):
        x, a = leaf(3), make()
        y = f(x, a)
        if mutate:
            a[...] = a.reshape(-1)[::-1].reshape(a.shape) == 0 if a.dtype == bool else 1 - a
        y.backward(np.arange(1.0, y.size + 1).reshape(y.shape))
        grads.append(x.grad.numpy())
    np.testing.assert_array_equal(grads[0], grads[1])


def test_the_cotangent_may_change_between_steps() -> None:
    x, g = leaf(3), np.ones(3)
    walk = tl.backward_steps(tl.exp(tl.identity(x)), g)
    next(walk)
    g[...] = 9.0
    list(walk)
    np.testing.assert_array_equal(x.grad.data, np.exp(x.data))


def test_data_is_read_only_and_numpy_is_a_copy() -> None:
    t = T(np.ones(3))
    with pytest.raises(ValueError, match="read-only"):
        t.data[0] = 2.0
    copy = t.numpy()
    copy[0] = 2.0
    assert t.data[0] == 1.0
    zero_d = T(1.0)
    with pytest.raises(ValueError, match="read-only"):
        zero_d.data[...] = 2.0
    with pytest.raises(AttributeError):
        t.data = np.zeros(3)


def test_assign_checks_the_shape() -> None:
    t = T(np.ones((2, 3)))
    for wrong in (np.ones(3), 1.0, np.ones((3, 2))):
        with pytest.raises(ValueError, match=r"\(2, 3\)"):
            t.assign_(wrong)
    assert t.assign_(T(np.zeros((2, 3)))) is t
    assert t.data.sum() == 0.0


def test_numpy_never_detaches() -> None:
    x = leaf(3)
    for convert in (np.asarray, np.array, np.exp, np.sum, lambda t: np.asarray([t, t]), lambda t: np.add(t, 1)):
        with pytest.raises(TypeError):
            convert(x)
    with pytest.raises(TypeError, match="detach"):
        np.asarray(x)
    np.testing.assert_array_equal(np.asarray(x.detach()), x.data)
    with pytest.raises(TypeError):
        np.asarray(tl.exp(x))


def test_asarray_obeys_copy() -> None:
    t = T([1.0, 2.0])
    with pytest.raises(ValueError, match="copy"):
        np.asarray(t, copy=False)
    a = np.asarray(t)
    b = np.array(t, dtype="float32")
    assert b.dtype == np.float32
    if a.flags.writeable:
        a[0] = 9.0
    assert t.data[0] == 1.0


BINARY = {
    "+": (lambda a, b: a + b),
    "-": (lambda a, b: a - b),
    "*": (lambda a, b: a * b),
    "/": (lambda a, b: a / b),
    "**": (lambda a, b: a**b),
    "@": (lambda a, b: a @ b),
    "==": (lambda a, b: a == b),
    "!=": (lambda a, b: a != b),
    "<": (lambda a, b: a < b),
    "<=": (lambda a, b: a <= b),
    ">": (lambda a, b: a > b),
    ">=": (lambda a, b: a >= b),
}


@pytest.mark.parametrize("sign", [*BINARY, "&", "|"])
def test_operators_with_arrays_on_either_side(sign: str) -> None:
    if sign in BINARY:
        f, a, b = BINARY[sign], np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])
    else:
        f = (lambda a, b: a & b) if sign == "&" else (lambda a, b: a | b)
        a, b = np.array([True, True, False]), np.array([True, False, False])
    for y in (f(T(a), T(b)), f(a, T(b)), f(T(a), b)):
        assert type(y) is tl.Tensor
        np.testing.assert_array_equal(y.data, f(a, b))


@pytest.mark.parametrize("number", [2, 2.0, np.float64(2), np.float32(2), np.int64(2)])
def test_operators_with_numbers_on_either_side(number) -> None:
    a = np.array([1.0, 2.0], dtype="float32")
    for sign, f in BINARY.items():
        if sign != "@":
            for y, expected in ((f(T(a), number), f(a, 2)), (f(number, T(a)), f(2, a))):
                assert type(y) is tl.Tensor
                np.testing.assert_array_equal(y.data, expected)
                assert y.dtype == expected.dtype


def test_python_protocols() -> None:
    t = T([[1.0, 2.0], [3.0, 4.0]])
    assert len(t) == 2
    assert [row.data.tolist() for row in t] == [[1.0, 2.0], [3.0, 4.0]]
    assert float(t[0, 0]) == 1.0
    assert int(T(3)) == 3
    assert [10, 20, 30][T(1)] == 20
    assert bool(T(True))
    assert 3.0 in t[1]
    assert 5.0 not in t[1]
    assert abs(T(-1.0)).item() == 1.0
    assert len({t, t.detach()}) == 2  # hashed by identity
    with pytest.raises(TypeError):
        len(T(1.0))
    with pytest.raises(TypeError):
        iter(T(1.0)).__next__()
    with pytest.raises(ValueError, match="ambiguous"):
        bool(t)
    with pytest.raises((TypeError, ValueError)):
        float(t)
    with pytest.raises(TypeError):
        [1, 2][T(1.0)]
    with pytest.raises(AttributeError):
        _ = t.no_such_name
    t += 1
    assert t.data[0, 0] == 2.0


def test_augmented_assignment_does_not_change_the_operand() -> None:
    x = T([1.0])
    y = x
    y += 1
    assert x.data[0] == 1.0


def test_transpose_methods_take_what_numpy_takes() -> None:
    a = np.arange(6.0).reshape(1, 2, 3)
    for axes in ((), (None,), ((2, 0, 1),), (2, 0, 1)):
        np.testing.assert_array_equal(T(a).transpose(*axes).data, a.transpose(*axes))
    np.testing.assert_array_equal(T(a[0, 0]).transpose(0).data, a[0, 0])
    for shape in ((-1,), (3, 2), ((3, -1),)):
        np.testing.assert_array_equal(T(a).reshape(*shape).data, a.reshape(*shape))


# -- functions of functions ------------------------------------------------------------------------------------------


def test_third_derivatives() -> None:
    for x in (0.3, 1.7):
        g = tl.grad(tl.grad(tl.grad(tl.sin)))
        assert g(x).item() == pytest.approx(-math.cos(x), rel=1e-14)
        g = tl.grad(tl.grad(tl.grad(lambda x: x**4)))
        assert g(x).item() == pytest.approx(24 * x, rel=1e-14)
        t = math.tanh(x)
        g = tl.grad(tl.grad(tl.grad(tl.tanh)))
        assert g(x).item() == pytest.approx(-2 * (1 - t * t) * (1 - 3 * t * t), rel=1e-12)


def test_perturbations_are_not_confused() -> None:
    inner = tl.grad(lambda x: x * tl.grad(lambda y: x + y)(1.0))
    assert inner(3.0).item() == 1.0
    assert tl.grad(lambda x: x * tl.grad(lambda y: x * y)(2.0))(3.0).item() == 6.0  # d(x * x)
    assert tl.grad(lambda x: tl.grad(lambda y: x * x * y * y)(x))(2.0).item() == pytest.approx(6 * 2.0**2)


def test_gradients_do_not_touch_grad() -> None:
    x, w = leaf(3), leaf(3, seed=1)
    found = tl.grad(lambda a: tl.sum(a * w))(x)
    assert x.grad is None
    assert w.grad is None
    np.testing.assert_array_equal(found.data, w.data)


def test_gradients_reach_captured_parameters() -> None:
    """The gradient norm as a loss: what `f` captures is differentiated when the result is."""
    w, x = leaf(3), T([1.0, 2.0, 3.0])
    penalty = tl.sum(tl.grad(lambda a: tl.sum(a * a * w))(x) ** 2)
    penalty.backward()
    np.testing.assert_allclose(w.grad.data, 8 * x.data**2 * w.data, rtol=1e-14)


def test_argnums_and_keywords() -> None:
    def f(a, b, *, c=1.0):
        return tl.sum(a * b * b) * c

    a, b = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    np.testing.assert_array_equal(tl.grad(f)(a, b).data, b * b)
    np.testing.assert_array_equal(tl.grad(f, argnums=1)(a, b, c=2.0).data, 4 * a * b)
    np.testing.assert_array_equal(tl.grad(f, argnums=-1)(a, b).data, 2 * a * b)
    da, db = tl.grad(f, argnums=(0, 1))(a, b)
    np.testing.assert_array_equal(da.data, b * b)
    np.testing.assert_array_equal(db.data, 2 * a * b)
    value, (one,) = tl.value_and_grad(f, argnums=(1,))(a, b)
    assert value.item() == float(np.sum(a * b * b))
    np.testing.assert_array_equal(one.data, db.data)
    assert not value.requires_grad


def test_vjp_can_be_pulled_many_times() -> None:
    y, pull = tl.vjp(lambda a, b: a * b, np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    np.testing.assert_array_equal(y.data, [3.0, 8.0])
    for g in (np.array([1.0, 0.0]), np.array([0.0, 1.0])):
        da, db = pull(g)
        np.testing.assert_array_equal(da.data, g * [3.0, 4.0])
        np.testing.assert_array_equal(db.data, g * [1.0, 2.0])
    with pytest.raises(ValueError, match="cotangent"):
        pull()
    with pytest.raises(ValueError, match="shape"):
        pull(np.ones(3))


def test_vjp_of_what_is_not_used() -> None:
    _, pull = tl.vjp(lambda a, b, i: a * 2.0, np.ones(2), np.ones(3), np.array([1]))
    da, db, di = pull(np.ones(2))
    np.testing.assert_array_equal(da.data, [2.0, 2.0])
    np.testing.assert_array_equal(db.data, np.zeros(3))
    np.testing.assert_array_equal(di.data, [0])


def test_vjp_needs_a_tensor() -> None:
    with pytest.raises(TypeError, match="Tensor"):
        tl.vjp(lambda x: 3.0, np.ones(2))


def test_jvp_against_differences() -> None:
    def f(a, b):
        return tl.softmax(a @ b) * tl.tanh(a)

    rng = np.random.default_rng(0)
    a, b, da, db = (rng.normal(size=(3, 3)) for _ in range(4))
    y, along = tl.jvp(f, (a, b), (da, db))
    h = 1e-6
    expected = (f(T(a + h * da), T(b + h * db)).data - f(T(a - h * da), T(b - h * db)).data) / (2 * h)
    np.testing.assert_array_equal(y.data, f(T(a), T(b)).data)
    np.testing.assert_allclose(along.data, expected, rtol=1e-7, atol=1e-9)


def test_jvp_and_vjp_are_adjoint() -> None:
    rng = np.random.default_rng(1)
    x, v, c = rng.normal(size=4), rng.normal(size=4), rng.normal(size=(4, 4))
    f = lambda x: tl.outer(tl.sin(x), tl.exp(x))  # noqa: E731
    along = tl.jvp(f, (x,), (v,))[1]
    (back,) = tl.vjp(f, x)[1](c)
    assert np.sum(along.data * c) == pytest.approx(np.sum(back.data * v), rel=1e-13)


def test_tangents_of_the_wrong_shape() -> None:
    with pytest.raises(ValueError, match=r"tangent|shape"):
        tl.jvp(lambda x: x * 2.0, (np.ones(3),), (np.ones(1),))
    with pytest.raises((ValueError, TypeError)):
        tl.jvp(lambda x, y: x * y, (np.ones(3), np.ones(3)), (np.ones(3),))
    with pytest.raises(ValueError, match="shape"):
        tl.hessian_vector_product(lambda x: tl.sum(x**3), np.ones(3), np.ones(1))


def test_jvp_nests() -> None:
    d = lambda f, x: tl.jvp(f, (x,), (np.ones(()),))[1]  # noqa: E731
    assert d(lambda x: d(tl.sin, x), 0.4).item() == pytest.approx(-math.sin(0.4), rel=1e-14)
    assert tl.grad(lambda x: d(lambda y: y**3, x))(2.0).item() == pytest.approx(12.0, rel=1e-14)


def test_hessian_vector_product() -> None:
    def f(x):
        return tl.sum(tl.exp(x[:-1]) * x[1:] ** 2) + tl.logsumexp(x)

    rng = np.random.default_rng(2)
    x, v = rng.normal(size=4), rng.normal(size=4)
    rows = [tl.grad(lambda a, i=i: tl.grad(f)(a)[i])(x).data for i in range(4)]
    hessian = np.stack(rows)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-14)
    np.testing.assert_allclose(tl.hessian_vector_product(f, x, v).data, hessian @ v, rtol=1e-13)
    e, s = np.exp(x), np.exp(x) / np.exp(x).sum()
    expected = np.diag(s) - np.outer(s, s)
    for i in range(3):
        expected[i, i] += e[i] * x[i + 1] ** 2
        expected[i + 1, i + 1] += 2 * e[i]
        expected[i, i + 1] += 2 * e[i] * x[i + 1]
        expected[i + 1, i] += 2 * e[i] * x[i + 1]
    np.testing.assert_allclose(hessian, expected, rtol=1e-12, atol=1e-13)


def test_create_graph_through_backward() -> None:
    x = T(2.0, requires_grad=True)
    (x**3).backward(create_graph=True)
    first = x.grad
    assert first.item() == pytest.approx(12.0)
    x.grad = None
    first.backward()
    assert x.grad.item() == pytest.approx(12.0)


# -- recording -------------------------------------------------------------------------------------------------------


def test_no_grad_and_enable_grad_nest() -> None:
    x = leaf(2)
    with tl.no_grad():
        assert not tl.is_recording()
        assert tl.exp(x).node is None
        with tl.enable_grad():
            assert tl.exp(x).node is not None
        assert not tl.is_recording()
        with pytest.raises(KeyError), tl.enable_grad():
            raise KeyError
        assert not tl.is_recording()
    assert tl.is_recording()


def test_gradients_inside_no_grad() -> None:
    with tl.no_grad():
        g = tl.grad(lambda x: x * x)(3.0)
        h = tl.hessian_vector_product(lambda x: tl.sum(x**3), np.array([2.0]), np.array([1.0]))
    assert g.item() == 6.0
    assert h.item() == 12.0
    assert g.node is None


def test_settings_belong_to_a_thread() -> None:
    x = leaf(64, 64)
    seen = {}
    inside, go_on = threading.Event(), threading.Event()

    def other() -> None:
        with tl.no_grad(), tl.backend("numba"), tl.random_scope(1):
            inside.set()
            go_on.wait(10)
            seen["other"] = tl.is_recording()

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    seen["main"] = tl.is_recording()
    seen["kernel"] = tl.softmax(x[:2, :2]).node.kernel
    with pytest.raises(ValueError, match="seed"):
        tl.dropout(x)
    go_on.set()
    thread.join()
    assert seen == {"main": True, "other": False, "kernel": "numpy"}


def test_threads_have_tapes_of_their_own() -> None:
    w = leaf(8, 8)
    grads: list = [None] * 4
    expected = tl.grad(lambda w: tl.sum(tl.tanh(w @ w)))(w).data

    def work(i: int) -> None:
        for _ in range(10):
            own = T(w, requires_grad=True)
            tl.sum(tl.tanh(own @ own)).backward()
            grads[i] = own.grad.data

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for g in grads:
        np.testing.assert_array_equal(g, expected)


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match=r"cuda.*numpy.*numba"):
        tl.backend("cuda")


# -- checkpoint ------------------------------------------------------------------------------------------------------


def both_ways(f, *arrays, params=()) -> list[list[np.ndarray]]:
    """Values and gradients of `f` and of `f` checkpointed."""
    results = []
    for g in (f, lambda *xs: tl.checkpoint(f, *xs)):
        xs = [T(a, requires_grad=True) for a in arrays]
        for p in params:
            p.grad = None
        y = g(*xs)
        tl.sum(y * y).backward()
        results.append([y.numpy(), *(t.grad.numpy() for t in (*xs, *params))])
    return results


def assert_equal(results: list[list[np.ndarray]]) -> None:
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_checkpoint_equals_the_plain_computation() -> None:
    w, b = leaf(3, 4), leaf(4, seed=1)
    assert_equal(both_ways(lambda x, y: tl.tanh(x @ w + b) * y, np.eye(3), np.ones((3, 1)), params=(w, b)))


def test_checkpoint_captures_what_is_computed_before() -> None:
    w = leaf(3)
    scale = tl.exp(w)  # on the tape already, used inside
    x = leaf(3, seed=1)
    tl.sum(tl.checkpoint(lambda x: x * scale * scale, x)).backward()
    np.testing.assert_allclose(w.grad.data, 2 * x.data * np.exp(2 * w.data), rtol=1e-14)


def test_checkpoint_keeps_only_its_inputs() -> None:
    x = leaf(3)
    y = tl.checkpoint(lambda x: tl.exp(tl.sin(tl.exp(x))), x)
    assert [n.op.name for n in reachable(y)] == ["checkpoint"]
    assert y.node.inputs == (x,)


def test_nested_checkpoints() -> None:
    w = leaf(3, 3)

    def inner(x):
        return tl.tanh(x @ w)

    def outer(x):
        return tl.checkpoint(inner, tl.checkpoint(inner, x) * 2.0) + x

    def plain(x):
        return inner(inner(x) * 2.0) + x

    results = []
    for f in (plain, outer, lambda x: tl.checkpoint(outer, x)):
        w.grad = None
        x = T(np.eye(3), requires_grad=True)
        tl.sum(f(x)).backward()
        results.append((x.grad.numpy(), w.grad.numpy()))
    for r in results[1:]:
        np.testing.assert_array_equal(r[0], results[0][0])
        np.testing.assert_array_equal(r[1], results[0][1])


def noisy(x):
    return tl.dropout(tl.tanh(tl.dropout(x, 0.5)), 0.5) * x


def test_checkpoint_draws_the_same_mask_again() -> None:
    for wrap in (lambda x: tl.checkpoint(noisy, x), lambda x: tl.checkpoint(lambda z: tl.checkpoint(noisy, z), x)):
        grads = []
        for f in (noisy, wrap):
            x = leaf(8, 8)
            with tl.random_scope(7):
                y = f(x)
                after = tl.dropout(T(np.ones(50)), 0.5).numpy()
            tl.sum(y).backward()
            grads.append((y.numpy(), x.grad.numpy(), after))
        for a, b in zip(*grads, strict=True):
            np.testing.assert_array_equal(a, b)


def test_checkpoint_around_a_gradient_draws_the_same_masks() -> None:
    def f(x):
        slope = tl.grad(lambda z: tl.sum(tl.checkpoint(noisy, z)))(x)
        return tl.dropout(slope * x, 0.5)

    grads = []
    for g in (f, lambda x: tl.checkpoint(f, x)):
        x = leaf(6, 6)
        with tl.random_scope(3):
            y = g(x)
        tl.sum(y).backward()
        grads.append((y.numpy(), x.grad.numpy()))
    np.testing.assert_array_equal(grads[0][0], grads[1][0])
    np.testing.assert_allclose(grads[0][1], grads[1][1], rtol=1e-12)


def test_checkpoint_with_a_generator() -> None:
    """With `rng=` the generator has moved on by the time of backward; the mask is the first one's all the same."""
    grads = []
    for wrapped in (False, True):
        x, rng = leaf(8, 8), np.random.default_rng(0)
        f = lambda x, rng=rng: tl.dropout(x, 0.5, rng=rng) * x  # noqa: E731
        y = tl.checkpoint(f, x) if wrapped else f(x)
        tl.sum(y).backward()
        grads.append((y.numpy(), x.grad.numpy()))
    for a, b in zip(*grads, strict=True):
        np.testing.assert_array_equal(a, b)


def test_checkpoint_is_differentiable_twice() -> None:
    w = leaf(3, 3)

    def f(x):
        return tl.sum(tl.tanh(x @ w) ** 2)

    x = np.eye(3) * 0.3
    results = []
    for g in (f, lambda x: tl.checkpoint(f, x)):
        w.grad = None
        hvp = tl.hessian_vector_product(g, x, np.ones((3, 3)))
        penalty = tl.sum(tl.grad(g)(T(x)) ** 2)
        penalty.backward()
        results.append((hvp.numpy(), w.grad.numpy()))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-13)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-13)


def test_checkpoint_notices_stale_parameters() -> None:
    w, x = leaf(3), leaf(3, seed=1)
    y = tl.sum(tl.checkpoint(lambda x: x * w, x))
    w.assign_(np.zeros(3))
    with pytest.raises(RuntimeError, match=r"checkpoint.*overwritten"):
        y.backward()


def test_checkpoint_without_gradients() -> None:
    x = leaf(3)
    with tl.no_grad():
        assert tl.checkpoint(tl.exp, x).node is None
    assert tl.checkpoint(tl.exp, np.ones(3)).node is None
    y = tl.checkpoint(lambda a, ids: a[ids], x, np.array([2, 0]))
    y.backward(np.array([1.0, 2.0]))
    np.testing.assert_array_equal(x.grad.data, [2.0, 0.0, 1.0])


# -- repr ------------------------------------------------------------------------------------------------------------


def test_repr_flags_what_is_not_finite() -> None:
    assert "NaN: 1 of 8" in repr(T([np.nan, *range(7)]))
    assert "inf: 2 of 8" in repr(T([np.inf, -np.inf, *map(float, range(6))]))
    text = repr(T(np.linspace(-2, 3, 100).reshape(10, 10), dtype="float32"))
    for part in ("(10, 10)", "float32", "-2", "3"):
        assert part in text
    assert "NaN" not in text
    assert "exp" in repr(tl.exp(leaf(3)))
    assert "requires_grad" in repr(leaf(3))
    for t in (T(np.zeros((0, 3))), T(1.0), T(True), T([1, 2]), T(np.full(9, np.nan)), T(np.float16(1))):
        assert repr(t).startswith("Tensor(")


def test_print_tape(capsys: pytest.CaptureFixture) -> None:
    x, w = leaf(2, 3), T(np.ones((3, 4)))
    y = tl.sum(tl.softmax(x @ w))
    tl.print_tape(y)
    lines = capsys.readouterr().out.splitlines()
    nodes = reachable(y)[::-1]
    assert len(lines) == 1 + len(nodes)
    for line, node in zip(lines[1:], nodes, strict=True):
        assert line.split()[:2] == [str(node.seq), node.op.name]
        assert str(node.out.array.dtype) in line
        assert node.kernel in line
    y.backward()
    tl.print_tape(y)
    assert "released" in capsys.readouterr().out


def test_first_nonfinite_names_the_operation() -> None:
    from tinyllm.autograd.trace import first_nonfinite

    x = T([0.0, 1.0], requires_grad=True)
    with np.errstate(all="ignore"):
        y = tl.sum(tl.exp(tl.log(x) * -1.0) * 2.0)
        z = tl.sum(tl.sqrt(x - 0.5) + x)
        masked = tl.sum(tl.softmax(tl.masked_fill(x, np.array([True, False]), -np.inf)))
    assert first_nonfinite(y).op.name == "multiply"  # -inf of the logarithm is legal, +inf is not
    assert first_nonfinite(z).op.name == "sqrt"
    assert first_nonfinite(masked) is None


# -- random programs -------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from("+*-m"), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_random_graphs_equal_forward_mode(program: list) -> None:
    """The gradient of a random graph, with values used many times or never, equals its forward derivative."""
    a, b = 0.7, -1.3
    values = [(T(a, requires_grad=True), a, (1.0, 0.0)), (T(b, requires_grad=True), b, (0.0, 1.0))]
    leaves = [v[0] for v in values]
    for sign, i, j in program:
        (s, x, dx), (t, y, dy) = values[i % len(values)], values[j % len(values)]
        if sign == "+":
            values.append((s + t, x + y, tuple(p + q for p, q in zip(dx, dy, strict=True))))
        elif sign == "-":
            values.append((s - t, x - y, tuple(p - q for p, q in zip(dx, dy, strict=True))))
        elif sign == "*":
            values.append(
                (
                    tl.sin(s) * t,
                    math.sin(x) * y,
                    tuple(math.cos(x) * p * y + math.sin(x) * q for p, q in zip(dx, dy, strict=True)),
                )
            )
        else:
            values.append((tl.tanh(s), math.tanh(x), tuple((1 - math.tanh(x) ** 2) * p for p in dx)))
    result, value, derivative = values[-1]
    result.backward()
    assert result.item() == pytest.approx(value, rel=1e-12, abs=1e-12)
    for leaf_, d in zip(leaves, derivative, strict=True):
        found = 0.0 if leaf_.grad is None else leaf_.grad.item()
        assert found == pytest.approx(d, rel=1e-10, abs=1e-10)
