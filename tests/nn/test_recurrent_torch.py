"""Recurrent layers equal torch.nn's in float64: outputs, states, and every gradient, with every option."""

import itertools

import numpy as np
import pytest

import tinyllm as tl
from tinyllm import nn

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch", reason="PyTorch is not installed")

B, T, I, H = 4, 7, 5, 6
LENGTHS = np.array([7, 2, 1, 5])
KINDS = {
    "tanh": (nn.RNN, torch.nn.RNN, {}),
    "relu": (nn.RNN, torch.nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (nn.LSTM, torch.nn.LSTM, {}),
    "gru": (nn.GRU, torch.nn.GRU, {}),
}
OPTIONS = list(itertools.product((1, 2), (False, True), (False, True), (False, True)))


def both(kind: str, layers: int, bidirectional: bool, rng: np.random.Generator):
    """Our layer and torch's with the same parameters."""
    ours, theirs, more = KINDS[kind]
    a = ours(I, H, layers, bidirectional, rng=rng, dtype=np.float64, **more)
    b = theirs(I, H, layers, bidirectional=bidirectional, batch_first=True, dtype=torch.float64, **more)
    assert {n: p.shape for n, p in a.named_parameters()} == {n: tuple(p.shape) for n, p in b.named_parameters()}
    b.load_state_dict({name: torch.tensor(p.numpy()) for name, p in a.named_parameters()})
    return a, b


def run_torch(model, x, state, lengths):
    """Torch's output, padded with zeros to T, and its states."""
    if lengths is None:
        return model(x, state)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    y, end = model(packed, state)
    return torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0], end


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("layers", "bidirectional", "with_lengths", "with_state"), OPTIONS)
def test_outputs_states_and_gradients(kind, layers, bidirectional, with_lengths, with_state, backend, rng):
    a, b = both(kind, layers, bidirectional, rng)
    states = 2 if kind == "lstm" else 1
    lengths = LENGTHS if with_lengths else None
    arrays = [rng.normal(size=(B, T, I))]
    if with_state:
        arrays += [rng.normal(size=(layers * (1 + bidirectional), B, H)) for _ in range(states)]
    ours = [tl.tensor(v, requires_grad=True) for v in arrays]
    theirs = [torch.tensor(v, requires_grad=True) for v in arrays]

    def packed(given):
        return (tuple(given[1:]) if states == 2 else given[1]) if with_state else None

    with tl.backend(backend):
        y, end = a(ours[0], packed(ours), lengths)
    z, end_z = run_torch(b, theirs[0], packed(theirs), lengths)
    ends, ends_z = (end, end_z) if states == 2 else ((end,), (end_z,))
    loss = other = 0.0
    for p, q in zip((y, *ends), (z, *ends_z), strict=True):
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-10, atol=1e-10)
        g = rng.normal(size=p.shape)
        loss, other = loss + tl.sum(p * g), other + (q * torch.tensor(g)).sum()
    loss.backward()
    other.backward()
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.grad.data, q.grad.numpy(), rtol=1e-10, atol=1e-10)
    grads = dict(b.named_parameters())
    for name, p in a.named_parameters():
        np.testing.assert_allclose(p.grad.data, grads[name].grad.numpy(), rtol=1e-10, atol=1e-10, err_msg=name)


def test_first_weights_follow_the_same_law(rng):
    ours, theirs = nn.LSTM(50, 100, rng=rng), torch.nn.LSTM(50, 100)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert np.abs(p.data).max() <= 0.1
        assert np.std(p.data) == pytest.approx(q.std().item(), rel=0.15)


def test_full_size_in_float32(rng):
    """H=256, T=64: the compiled kernels, several strips, against torch's own float64."""
    a, b = nn.LSTM(256, 256, rng=rng), torch.nn.LSTM(256, 256, batch_first=True, dtype=torch.float64)
    b.load_state_dict({name: torch.tensor(p.numpy().astype(float)) for name, p in a.named_parameters()})
    x, g = rng.normal(size=(2, 3, 64, 256)).astype(np.float32)
    y, _ = a(x)
    y.backward(g)
    z, _ = b(torch.tensor(x.astype(float)))
    z.backward(torch.tensor(g.astype(float)))
    np.testing.assert_allclose(y.data, z.detach().numpy(), atol=2e-6)
    grads = dict(b.named_parameters())
    for name, p in a.named_parameters():
        exact = grads[name].grad.numpy()
        np.testing.assert_allclose(p.grad.data, exact, atol=1e-5 * np.abs(exact).max(), err_msg=name)
