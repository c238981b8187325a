"""A mixture of experts: its gate, its sorting, its losses, and what it drops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyllm as tl
from tinyllm.nn.moe import Routing
from tinyllm.testing import gradcheck

MoE, balance_loss, router_z_loss = tl.nn.MoE, tl.nn.balance_loss, tl.nn.router_z_loss


def layer(E=4, k=2, C=3, inner=5, seed=0, **settings):
    """A mixture with large random weights."""
    rng = np.random.default_rng(seed)
    return MoE(C, inner, E, k, std=1.0, out_std=1.0, rng=rng, dtype=np.float64, **settings).eval()


def silu(x):
    return x / (1 + np.exp(-x))


def literal(moe, x):
    """Token by token, expert by expert."""
    y = np.zeros_like(x)
    for t, token in enumerate(x):
        scores = moe.gate.weight.data @ token
        best = np.argsort(-scores, kind="stable")[: moe.top_k]
        gates = np.exp(scores[best] - scores[best].max())
        for gate, e in zip(gates / gates.sum(), best, strict=True):
            w1, w2, w3 = (getattr(moe.experts[e], name).weight.data for name in ("w1", "w2", "w3"))
            y[t] += gate * (w2 @ (silu(w1 @ token) * (w3 @ token)))
    return y


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@settings(max_examples=20)
@given(N=st.integers(1, 7), E=st.integers(1, 5), C=st.integers(1, 4), data=st.data())
def test_equals_token_by_token(backend, N, E, C, data):
    moe = layer(E, data.draw(st.integers(1, E)), C, 2, seed=N)
    x = np.random.default_rng(E).normal(size=(N, C))
    with tl.backend(backend):
        y, routing = moe(tl.tensor(x))
    np.testing.assert_allclose(y.data, literal(moe, x), rtol=1e-12, atol=1e-13)
    assert routing.counts.sum() == N * moe.top_k
    assert routing.dropped == 0
    np.testing.assert_array_equal(routing.counts, np.bincount(routing.chosen.reshape(-1), minlength=E))


@pytest.mark.parametrize(
    ("k", "given"), [(1, {}), (2, {"capacity_factor": 0.6}), (2, {"jitter": 0.3}), (3, {"hidden_act": "gelu"})]
)
def test_gradient(k, given, rng):
    moe = layer(E=3, k=k, C=2, inner=2, **given)
    moe.train(bool(set(given) & {"capacity_factor", "jitter"}))
    tokens = np.array([True] * 5 + [False])
    linears = [moe.gate] + [linear for e in moe.experts for linear in (e.w1, e.w2, e.w3)]

    def f(x, *weights):
        for linear, weight in zip(linears, weights, strict=True):
            vars(linear)["weight"] = weight  # what is computed cannot be assigned as a parameter
        with tl.random_scope(3):
            y, routing = moe(x, tokens)
        losses = tl.stack([balance_loss([routing]), router_z_loss([routing])])
        return tl.concatenate([y.reshape(-1), losses])

    gradcheck(f, rng.normal(size=(6, 2)), *(linear.weight.numpy() for linear in linears))


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_grouped_linear_is_a_product_for_each_group(backend, rng):
    counts, x = [2, 0, 3], rng.normal(size=(5, 4))
    weights = rng.normal(size=(3, 2, 4))
    with tl.backend(backend):
        y = tl.nn.grouped_linear(x, list(weights), counts)
        gradcheck(lambda x, *w: tl.nn.grouped_linear(x, w, counts), x, *weights, order=2)
    np.testing.assert_allclose(y.data, np.concatenate([x[:2] @ weights[0].T, x[2:] @ weights[2].T]), rtol=1e-14)
    unused = [tl.tensor(w, requires_grad=True) for w in weights]
    tl.nn.grouped_linear(x, unused, counts).sum().backward()
    assert not unused[1].grad.data.any()
    assert tl.nn.grouped_linear(x[:0], list(weights), [0, 0, 0]).shape == (0, 2)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: tl.nn.grouped_linear(np.ones((5, 4)), [np.ones((2, 4))], [4]), "sum to 5"),
        (lambda: tl.nn.grouped_linear(np.ones((5, 4)), [np.ones((2, 3))], [5]), "weights of one shape"),
        (lambda: tl.nn.grouped_linear(np.ones((5, 4)), [np.ones((2, 4))] * 2, [6, -1]), "2 counts"),
        (lambda: layer(E=2, k=3), "top_k=3"),
        (lambda: layer(E=2, k=0), "top_k=0"),
        (lambda: layer(jitter=1.0), "jitter"),
        (lambda: layer(capacity_factor=0.0), "capacity_factor"),
    ],
)
def test_what_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_a_token_does_not_feel_the_others(rng):
    moe, x = layer(), rng.normal(size=(6, 3))
    whole = moe(tl.tensor(x))[0].numpy()
    order = rng.permutation(6)
    np.testing.assert_allclose(moe(tl.tensor(x[order]))[0].data, whole[order], rtol=1e-14)
    np.testing.assert_allclose(moe(tl.tensor(x[2:3]))[0].data, whole[2:3], rtol=1e-14)


def test_padding_is_read_by_nobody(rng):
    moe, x = layer(), rng.normal(size=(2, 3, 3))
    tokens = np.array([[True, True, False], [True, False, False]])
    y, routing = moe(tl.tensor(x), tokens)
    assert not y.data[~tokens].any()
    np.testing.assert_allclose(y.data[tokens], moe(tl.tensor(x[tokens]))[0].data, rtol=1e-14)
    assert routing.counts.sum() == 2 * 3
    alone = moe(tl.tensor(x[tokens]))[1]
    for loss in (balance_loss, router_z_loss):
        assert loss([routing]).item() == pytest.approx(loss([alone]).item(), rel=1e-14)
    nothing, routing = moe(tl.tensor(x), np.zeros((2, 3), bool))
    assert not nothing.data.any()
    assert balance_loss([routing]).item() == router_z_loss([routing]).item() == routing.counts.sum() == 0


# -- capacity ----------------------------------------------------------------------------------------------------------


def towards(scores, **settings):
    """A mixture of one channel per expert whose gate gives a token its channels as scores."""
    moe = layer(E=len(scores[0]), C=len(scores[0]), **settings)
    moe.gate.weight.assign_(np.eye(len(scores[0])))
    return moe, tl.tensor(np.array(scores, float))


def test_a_full_expert_drops_the_last_tokens():
    scores = [[9, 0, 0, 0], [8, 0, 1, 0], [0, 5, 0, 0], [7, 0, 0, 0]]
    moe, x = towards(scores, k=1, capacity_factor=2.0)  # at most ceil(2 * 1 * 4 / 4) = 2 tokens each
    whole = moe(x)[0].numpy()
    y, routing = moe.train()(x)
    np.testing.assert_array_equal(y.data[:3], whole[:3])
    assert not y.data[3].any()  # the third token of expert 0
    np.testing.assert_array_equal(routing.counts, [2, 1, 0, 0])
    assert routing.dropped == 1
    # in evaluation nothing is dropped, and the balance loss looks at what was wanted, not at what was read
    assert moe.eval()(x)[1].dropped == 0
    assert balance_loss([routing]).item() == balance_loss([moe(x)[1]]).item()


def test_a_dropped_choice_leaves_the_other():
    moe, x = towards([[5, 4, 0, 0], [5, 4, 0, 0], [5, 0, 4, 0]], k=2, capacity_factor=0.5)  # ceil(0.75) = 1 each
    y, routing = moe.train()(x)
    np.testing.assert_array_equal(routing.counts, [1, 1, 1, 0])
    assert routing.dropped == 3
    gate = 1 / (1 + np.exp(1.0))  # of the second choice, whose expert alone was free
    w1, w2, w3 = (getattr(moe.experts[2], name).weight.data for name in ("w1", "w2", "w3"))
    x2 = x.data[2]
    np.testing.assert_allclose(y.data[2], gate * (w2 @ (silu(w1 @ x2) * (w3 @ x2))), rtol=1e-12)
    assert not y.data[1].any()


@given(seed=st.integers(0, 40), at=st.integers(1, 9))
def test_what_is_dropped_does_not_depend_on_later_tokens(seed, at):
    moe = layer(capacity_factor=0.5).train()
    x = np.random.default_rng(seed).normal(size=(10, 3))
    changed = x.copy()
    changed[at:] = np.random.default_rng(seed + 1).normal(size=(10 - at, 3))
    np.testing.assert_array_equal(moe(tl.tensor(changed))[0].data[:at], moe(tl.tensor(x))[0].data[:at])


# -- losses ------------------------------------------------------------------------------------------------------------


def routed(logits, k):
    logits = np.array(logits, float)
    chosen = np.argsort(-logits, axis=-1, kind="stable")[:, :k]
    counts = np.bincount(chosen.reshape(-1), minlength=logits.shape[1])
    return Routing(tl.tensor(logits, requires_grad=True), chosen, np.ones(len(logits), bool), counts, 0)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_balance_loss_has_closed_forms(k):
    E = 4
    turns = np.array([np.roll(np.arange(E) < k, i) for i in range(E)])
    even = routed(30.0 * turns, k)  # each expert is chosen by k of the E tokens, with equal probability
    assert balance_loss([even]).item() == pytest.approx(k, rel=1e-9)
    collapsed = routed(30.0 * np.tile(np.arange(E) < k, (5, 1)), k)
    assert balance_loss([collapsed]).item() == pytest.approx(E, rel=1e-9)
    undecided = routed(np.zeros((5, E)), k)  # the same experts, but for no reason
    assert balance_loss([undecided]).item() == pytest.approx(k, rel=1e-9)
    assert balance_loss([even, collapsed]).item() == pytest.approx(
        E * (np.array([(k if e < k else 0) / k * 5 + k for e in range(E)]) / 9
             @ (np.array([5 / k * (e < k) + 1 for e in range(E)]) / 9))  # all tokens of both layers together
    )  # fmt: skip


def test_the_balance_loss_pushes_the_crowded_expert_down():
    routing = routed([[2.0, 1.0, 0.0], [2.0, 0.0, 1.0], [1.0, 3.0, 0.0]], 1)
    balance_loss([routing]).backward()
    assert (routing.logits.grad.data[:, 0] > 0).all()  # two of three tokens
    assert (routing.logits.grad.data[:, 2] < 0).all()  # none


def test_the_z_loss_is_the_mean_square_of_the_normalisers():
    logits = np.array([[0.0, 0.0], [1.0, 3.0]])
    expected = (np.log(2) ** 2 + np.logaddexp(1, 3) ** 2) / 2
    assert router_z_loss([routed(logits, 1)]).item() == pytest.approx(expected, rel=1e-14)
    assert router_z_loss([routed(logits, 1), routed(logits, 2)]).item() == pytest.approx(expected, rel=1e-14)


# -- noise -------------------------------------------------------------------------------------------------------------


def test_noise_is_reproducible_and_of_training_alone(rng):
    moe, x = layer(jitter=0.2), tl.tensor(rng.normal(size=(5, 3)))
    quiet = moe(x)[0].numpy()
    np.testing.assert_allclose(quiet, literal(moe, x.data), rtol=1e-12)
    moe.train()

    def noisy(seed, step):
        with tl.random_scope(seed, step):
            return moe(x)[1].logits.numpy()

    np.testing.assert_array_equal(noisy(1, 2), noisy(1, 2))
    assert (noisy(1, 2) != noisy(1, 3)).any()
    assert (noisy(1, 2) != noisy(2, 2)).any()
    inputs = np.linalg.lstsq(moe.gate.weight.data, noisy(1, 2).T, rcond=None)[0].T  # E > C: the input that it saw
    factors = inputs / x.data
    assert 0.8 <= factors.min() < 0.95 < 1.05 < factors.max() <= 1.2
