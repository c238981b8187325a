"""What operations cost: products by their closed forms, unknown operations by their arrays, views nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyllm as tl
from tinyllm.autograd.arrays import LARGE
from tinyllm.profile import Call, Limits, Recorder, backward_cost, forward_cost
from tinyllm.profile.costs import BYTES, FLOPS, visible_pairs


def array(*shape, dtype="float32"):
    return np.zeros(shape, dtype)


def test_a_product_is_two_operations_per_multiply_add():
    call = Call("matmul", [array(5, 3, 4), array(4, 7)], array(5, 3, 7), {})
    assert forward_cost(call).flops == 2 * 5 * 3 * 4 * 7
    assert forward_cost(call).bytes == 4 * (5 * 3 * 4 + 4 * 7 + 5 * 3 * 7)


@pytest.mark.parametrize(("needs", "products"), [((True, True), 2), ((False, True), 1), ((True, False), 1)])
def test_a_gradient_that_nobody_needs_is_not_counted(needs, products):
    call = Call("linear", [array(6, 3), array(5, 3)], array(6, 5), {}, needs)
    assert backward_cost(call, 0).flops == products * forward_cost(call).flops == products * 2 * 6 * 3 * 5


@given(T=st.integers(1, 9), S=st.integers(1, 9), limit=st.none() | st.integers(0, 9))
def test_attention_counts_the_pairs_that_its_mask_shows(T, S, limit):
    call = Call("", [array(2, 3, T, 4), array(2, 3, S, 4)], array(1), {"limit": limit})
    seen = np.ones((T, S)) if limit is None else np.tri(T, S, limit)
    assert visible_pairs(call) == 2 * 3 * seen.sum()


def test_packed_attention_costs_as_much_as_the_other():
    q = array(2, 3, 5, 4)
    apart = Call("scaled_dot_product_attention", [q, q, q], array(2, 3, 5, 4), {"limit": 0})
    packed = Call("self_attention", [array(2, 5, 3 * 12)], array(2, 5, 12), {"limit": 0, "n_head": 3})
    assert forward_cost(packed) == forward_cost(apart)
    assert backward_cost(packed, 3 * q.nbytes).flops == backward_cost(apart, 3 * q.nbytes).flops


def test_an_unknown_operation_moves_its_arrays_and_a_view_moves_nothing():
    x = array(8, 4)
    assert vars(forward_cost(Call("unheard of", [x, array(3)], array(8, 4), {}))) == {"flops": 0, "bytes": 4 * 67}
    assert vars(forward_cost(Call("reshape", [x], x.reshape(32), {}))) == {"flops": 0, "bytes": 0}
    assert backward_cost(Call("unheard of", [x], array(8, 4), {}), x.nbytes).bytes == 3 * x.nbytes


def test_embedding_reads_rows_not_the_table():
    call = Call("embedding", [array(10_000, 8), array(5, dtype="int64")], array(5, 8), {"padding_idx": None})
    assert forward_cost(call).bytes < 1000


def recorded(f, *arrays):
    recorder = Recorder()
    leaves = [tl.tensor(a, requires_grad=True) for a in arrays]
    with recorder.listening():
        y = f(*leaves)
        for _ in tl.backward_steps(y, np.ones(y.shape, "float32")):
            pass
    return recorder.tallies


def test_small_operations_and_the_fused_one_make_the_same_products():
    x, w = array(6, 3), array(5, 3)
    fused = recorded(lambda x, w: tl.linear(x, w), x, w)
    small = recorded(lambda x, w: x @ w.mT, x, w)
    assert fused["linear", "numpy"].cost.flops == small["matmul", "numpy"].cost.flops == 3 * 2 * 6 * 3 * 5


def test_every_rule_is_for_an_operation_that_exists():
    x, ids = array(4, 8), np.zeros(4, "int64")
    q = array(1, 2, 3, 4)
    recorder = Recorder()
    with recorder.listening():
        tl.cross_entropy(tl.log_softmax(tl.softmax(x)), ids)
        tl.linear(tl.layer_norm(tl.rms_norm(tl.gelu(x), 8), 8), x)
        tl.embedding(ids, tl.swiglu(x, tl.silu(x)))
        tl.nn.grouped_linear(x, [x, x], [len(x), 0])
        tl.nn.rotary(tl.scaled_dot_product_attention(q, q, q, is_causal=True))
        tl.self_attention(array(1, 3, 24), 2, is_causal=True)
        tl.linear_cross_entropy(x, x, ids)
        h = array(3, 2)
        tl.rnn(array(4, 3, 5), array(2, 5), array(2, 2), array(2), array(2), h)
        tl.lstm(array(4, 3, 5), array(8, 5), array(8, 2), array(8), array(8), h, h)
        tl.gru(array(4, 3, 5), array(6, 5), array(6, 2), array(6), array(6), h)
    primitives = {"matmul", "dropout", "add_at", "sum_to", "getitem", "take_along_axis", "sigmoid", "softplus"}
    fused = {name for name, _ in recorder.tallies}
    assert {name for name, rule in (FLOPS | BYTES).items() if rule[1]} <= fused
    assert {name for name in FLOPS if not hasattr(tl, name)} <= primitives | fused


def test_who_listens_hears_each_operation_once_and_then_no_more():
    tallies = recorded(lambda x: tl.sum(tl.exp(x) * x), array(LARGE))
    assert {name: t.calls for (name, _), t in tallies.items()} == {"exp": 1, "multiply": 1, "sum": 1}
    assert all(t.forward > 0 and t.backward > 0 for t in tallies.values())
    assert tl.autograd.tape.watcher is None
    # multiply's rule multiplies twice
    assert tallies["multiply", "numpy"].cost.flops >= 3 * LARGE


def test_the_nearer_limit_binds():
    limits = Limits(flops=100.0, bytes=10.0, threads=1)
    assert limits.bound(1000, 1) == "sgemm"
    assert limits.bound(1, 1000) == "copy"
    assert limits.shortest(1000, 1) == 10
    assert limits.shortest(1, 1000) == 100


def test_limits_are_measured():
    limits = Limits.measure(seconds=0.02, size=128, megabytes=4)
    assert 1e6 < limits.bytes < 1e13
    assert 1e7 < limits.flops < 1e15
