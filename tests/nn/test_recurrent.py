"""Recurrent layers: laws that hold for every kind."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyllm as tl
from tinyllm import nn

KINDS = {
    "tanh": lambda *sizes, **more: nn.RNN(*sizes, **more),
    "relu": lambda *sizes, **more: nn.RNN(*sizes, nonlinearity="relu", **more),
    "lstm": lambda *sizes, **more: nn.LSTM(*sizes, **more),
    "gru": lambda *sizes, **more: nn.GRU(*sizes, **more),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def parts(state) -> list[tl.Tensor]:
    return list(state) if isinstance(state, tuple) else [state]


@pytest.fixture(params=["numpy", "numba"])
def backend(request):
    with tl.backend(request.param):
        yield request.param


@every_kind
def test_two_windows_with_the_state_between_are_one_text(kind, backend, rng):
    layer = KINDS[kind](3, 4, 2, rng=rng, dtype=np.float64)
    x = rng.normal(size=(2, 9, 3))
    whole, end = layer(x)
    first, state = layer(x[:, :5])
    second, last = layer(x[:, 5:], state)
    np.testing.assert_allclose(np.concatenate([first.data, second.data], axis=1), whole.data, atol=1e-13)
    for a, b in zip(parts(last), parts(end), strict=True):
        np.testing.assert_allclose(a.data, b.data, atol=1e-13)


@every_kind
def test_what_lies_behind_the_end_changes_nothing(kind, backend, rng):
    layer = KINDS[kind](3, 4, 2, True, rng=rng, dtype=np.float64)
    x = rng.normal(size=(3, 6, 3))
    lengths = np.array([6, 1, 4])
    other = x.copy()
    for b, n in enumerate(lengths):
        other[b, n:] = 100.0
    (y, state), (z, same) = layer(x, lengths=lengths), layer(other, lengths=lengths)
    np.testing.assert_array_equal(y.data, z.data)
    for a, b in zip(parts(state), parts(same), strict=True):
        np.testing.assert_array_equal(a.data, b.data)
    for b, n in enumerate(lengths):
        assert not y.data[b, n:].any()
        alone, end = layer(x[b : b + 1, :n])
        np.testing.assert_allclose(alone.data[0], y.data[b, :n], atol=1e-13)
        for p, q in zip(parts(end), parts(state), strict=True):
            np.testing.assert_allclose(p.data[:, 0], q.data[:, b], atol=1e-13)


@every_kind
def test_the_past_does_not_see_the_future(kind, rng):
    layer = KINDS[kind](3, 4, rng=rng)
    x = rng.normal(size=(1, 6, 3)).astype(np.float32)
    y, _ = layer(x)
    x[:, 4] += 1
    z, _ = layer(x)
    np.testing.assert_array_equal(y.data[:, :4], z.data[:, :4])
    assert np.all(y.data[:, 4:] != z.data[:, 4:]) or kind == "relu"


@every_kind
def test_the_reverse_direction_reads_the_reversed_text(kind, rng):
    layer = KINDS[kind](3, 4, 1, True, rng=rng, dtype=np.float64)
    forward = KINDS[kind](3, 4, rng=rng, dtype=np.float64)
    forward.load_state_dict(
        {n.removesuffix("_reverse"): p for n, p in layer.state_dict().items() if n.endswith("_reverse")}
    )
    x = rng.normal(size=(2, 5, 3))
    y, state = layer(x)
    z, end = forward(x[:, ::-1])
    np.testing.assert_allclose(y.data[:, :, 4:], z.data[:, ::-1], atol=1e-13)
    for a, b in zip(parts(state), parts(end), strict=True):
        np.testing.assert_allclose(a.data[1], b.data[0], atol=1e-13)


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.sampled_from(sorted(KINDS)))
def test_threads_share_the_sequences_without_a_trace(B, T, H, kind):
    """The rows that a thread works on are those of the whole, whoever works on the others."""
    rng = np.random.default_rng(B + 10 * T + 100 * H)
    layer = KINDS[kind](2, H, rng=rng, dtype=np.float64)
    x = rng.normal(size=(B, T, 2))
    y, _ = layer(x)
    for b in range(B):
        np.testing.assert_allclose(layer(x[b : b + 1])[0].data[0], y.data[b], atol=1e-13)


@every_kind
def test_two_threads_give_the_same_gradients_each_time(kind, rng):
    layer, x = KINDS[kind](64, 128, rng=rng, dtype=np.float64), rng.normal(size=(32, 20, 64))
    found = []
    before = tl.get_num_threads()
    for threads in (1, 2, 2):
        tl.set_num_threads(threads)
        try:
            y, _ = layer(x)
            y.backward(np.cos(np.arange(y.size)).reshape(y.shape))
        finally:
            tl.set_num_threads(before)
        found.append([y.data, *(p.grad.data for p in layer.parameters())])
        layer.zero_grad()
    for one, two, again in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-11)
        np.testing.assert_array_equal(two, again)


def test_dropout_works_between_layers_in_training_alone(rng):
    x = rng.normal(size=(2, 3, 4))
    one, two = nn.LSTM(4, 5, 1, dropout=0.5, rng=rng), nn.LSTM(4, 5, 2, dropout=0.5, rng=rng)
    np.testing.assert_array_equal(one(x)[0].data, one(x)[0].data)
    assert not np.array_equal(two(x)[0].data, two(x)[0].data)
    with tl.random_scope(3):
        a = two(x)[0].data
    with tl.random_scope(3, sample=1):
        b = two(x[1:])[0].data
    np.testing.assert_allclose(a[1], b[0], atol=1e-6)  # a sample's mask does not depend on the others
    two.eval()
    np.testing.assert_array_equal(two(x)[0].data, two(x)[0].data)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m(np.zeros((2, 3, 5))), r"x \(B, T, 4\).*\(2, 3, 5\)"),
        (lambda m: m(np.zeros((2, 0, 4))), "at least one step"),
        (lambda m: m(np.zeros((2, 3, 4)), lengths=[3, 0]), "2 whole numbers from 1 to 3"),
        (lambda m: m(np.zeros((2, 3, 4)), lengths=[3]), "2 whole numbers"),
        (lambda m: m(np.zeros((2, 3, 4)), lengths=[1.0, 2.0]), "whole numbers"),
        (lambda m: m(np.zeros((2, 3, 4)), (np.zeros((1, 2, 3)),) * 2), r"a pair of Tensors of shape \(1, 2, 6\)"),
        (lambda m: m(np.zeros((2, 3, 4)), (np.zeros((1, 2, 6)),)), "a pair"),
    ],
)
def test_what_does_not_fit_is_refused(call, words, rng):
    with pytest.raises(ValueError, match=words):
        call(nn.LSTM(4, 6, rng=rng))


def test_impossible_settings(rng):
    with pytest.raises(ValueError, match="at least 1"):
        nn.GRU(3, 0, rng=rng)
    with pytest.raises(ValueError, match="'tanh' or 'relu'"):
        nn.RNN(3, 2, nonlinearity="cosine", rng=rng)(np.zeros((1, 2, 3)))
    zeros = [np.zeros(shape) for shape in ((4, 3, 5), (8, 5), (8, 2), (8,), (8,), (3, 2), (3, 2))]
    tl.lstm(*zeros)
    with pytest.raises(ValueError, match=r"\(8, 5\), \(8, 2\), \(8,\), \(8,\), \(3, 2\), \(3, 2\); got \(8, 4\)"):
        tl.lstm(zeros[0], np.zeros((8, 4)), *zeros[2:])
    with pytest.raises(ValueError, match="the shapes"):
        tl.gru(*zeros[:6])
    with pytest.raises(ValueError, match="no length 0"):
        tl.rnn(np.zeros((0, 3, 5)), *zeros[1:6])
