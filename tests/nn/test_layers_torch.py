"""Layers equal torch.nn's, forward and in every gradient, in float64."""

import numpy as np
import pytest

import tinyllm as tl
from tinyllm import nn

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch", reason="PyTorch is not installed")


def copy_in(ours: nn.Module, theirs, names: dict[str, str] | None = None) -> None:
    """Random parameters, the same in both; `names` maps their names to ours."""
    state = {}
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
            state[(names or {}).get(name, name)] = p.numpy()
    ours.load_state_dict(state)


def agree(ours, theirs, inputs: list[np.ndarray], call_ours, call_theirs, names=None, atol: float = 1e-12) -> None:
    """One random cotangent through both: outputs, gradients of inputs and of parameters."""
    copy_in(ours, theirs, names)
    given = [tl.tensor(x, requires_grad=True) for x in inputs]
    other = [torch.tensor(x, requires_grad=True) for x in inputs]
    y, z = call_ours(*given), call_theirs(*other)
    np.testing.assert_allclose(y.data, z.detach().numpy(), rtol=1e-11, atol=atol)
    g = np.random.default_rng(1).normal(size=y.shape)
    y.backward(g)
    z.backward(torch.tensor(g))
    for a, b in zip(given, other, strict=True):
        np.testing.assert_allclose(a.grad.data, b.grad.numpy(), rtol=1e-10, atol=atol)
    grads = {name: p.grad.data for name, p in ours.named_parameters()}
    for name, p in theirs.named_parameters():
        np.testing.assert_allclose(
            grads[(names or {}).get(name, name)], p.grad.numpy(), rtol=1e-10, atol=atol, err_msg=name
        )


@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias, rng):
    ours = nn.Linear(5, 3, bias, rng=rng, dtype=np.float64)
    theirs = torch.nn.Linear(5, 3, bias, dtype=torch.float64)
    agree(ours, theirs, [rng.normal(size=(2, 4, 5))], ours, theirs)


@pytest.mark.parametrize("shape", [7, (3, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm(shape, bias, rng):
    ours = nn.LayerNorm(shape, 1e-3, bias, dtype=np.float64)
    theirs = torch.nn.LayerNorm(shape, 1e-3, bias=bias, dtype=torch.float64)
    agree(ours, theirs, [rng.normal(size=(2, *ours.normalized_shape))], ours, theirs)


@pytest.mark.parametrize("eps", [None, 1e-3])
def test_rms_norm(eps, rng):
    ours, theirs = nn.RMSNorm(7, eps, dtype=np.float64), torch.nn.RMSNorm(7, eps, dtype=torch.float64)
    agree(ours, theirs, [rng.normal(size=(2, 3, 7))], ours, theirs)


@pytest.mark.parametrize("padding_idx", [None, 2, -1])
def test_embedding(padding_idx, rng):
    ours = nn.Embedding(6, 4, padding_idx, rng=rng, dtype=np.float64)
    theirs = torch.nn.Embedding(6, 4, padding_idx, dtype=torch.float64)
    ids = np.array([[0, 2, 2], [5, 1, 5]])
    agree(ours, theirs, [], lambda: ours(ids), lambda: theirs(torch.tensor(ids)))


@pytest.mark.parametrize("name", ["relu", "gelu", "gelu_new", "silu", "tanh", "sigmoid"])
def test_feed_forward(name, rng):
    functions = {
        "relu": torch.nn.ReLU(),
        "gelu": torch.nn.GELU(),
        "gelu_new": torch.nn.GELU(approximate="tanh"),
        "silu": torch.nn.SiLU(),
        "tanh": torch.nn.Tanh(),
        "sigmoid": torch.nn.Sigmoid(),
    }
    ours = nn.FeedForward(4, 9, name, rng=rng, dtype=np.float64)
    theirs = torch.nn.Sequential(
        torch.nn.Linear(4, 9, dtype=torch.float64), functions[name], torch.nn.Linear(9, 4, dtype=torch.float64)
    )
    names = {"0.weight": "up.weight", "0.bias": "up.bias", "2.weight": "down.weight", "2.bias": "down.bias"}
    agree(ours, theirs, [rng.normal(size=(2, 3, 4))], ours, theirs, names)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["self", "causal", "cross", "cross_values", "additive", "padding"])
def test_multi_head_attention(kind, bias, rng):
    B, T, S, C, H = 2, 5, 4, 12, 3
    ours = nn.MultiHeadAttention(C, H, bias=bias, rng=rng, dtype=np.float64)
    theirs = torch.nn.MultiheadAttention(C, H, bias=bias, batch_first=True, dtype=torch.float64)
    x, source, values = (rng.normal(size=(B, n, C)) for n in (T, S, S))
    if kind == "self":
        agree(ours, theirs, [x], ours, lambda q: theirs(q, q, q)[0])
    elif kind == "causal":  # torch's bool mask is True where attention is *not* allowed
        forbidden = torch.tensor(~np.tri(T, dtype=bool))
        agree(ours, theirs, [x], lambda q: ours(q, is_causal=True), lambda q: theirs(q, q, q, attn_mask=forbidden)[0])
    elif kind == "cross":
        agree(ours, theirs, [x, source], ours, lambda q, k: theirs(q, k, k)[0])
    elif kind == "cross_values":
        agree(ours, theirs, [x, source, values], ours, lambda q, k, v: theirs(q, k, v)[0])
    elif kind == "additive":
        mask = rng.normal(size=(T, S))
        agree(
            ours,
            theirs,
            [x, source],
            lambda q, k: ours(q, k, attn_mask=mask),
            lambda q, k: theirs(q, k, k, attn_mask=torch.tensor(mask))[0],
        )
    else:
        real = np.array([[True] * 4, [True] * 2 + [False] * 2])
        agree(
            ours,
            theirs,
            [x, source],
            lambda q, k: ours(q, k, attn_mask=real[:, None, :]),
            lambda q, k: theirs(q, k, k, key_padding_mask=torch.tensor(~real))[0],
        )


@pytest.mark.parametrize("shape", [(5, 3), (8, 4, 3), (8, 4, 3, 2)])
def test_fans(shape):
    assert nn.init.fans(shape) == torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))


def test_names_and_shapes_are_torchs(rng):
    pairs = [
        (nn.Linear(3, 2, rng=rng), torch.nn.Linear(3, 2)),
        (nn.Embedding(3, 2, rng=rng), torch.nn.Embedding(3, 2)),
        (nn.LayerNorm(3), torch.nn.LayerNorm(3)),
        (nn.RMSNorm(3), torch.nn.RMSNorm(3)),
        (nn.MultiHeadAttention(4, 2, rng=rng), torch.nn.MultiheadAttention(4, 2)),
        (
            nn.Sequential(nn.Linear(3, 2, rng=rng), nn.LayerNorm(2)),
            torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2)),
        ),
    ]
    for ours, theirs in pairs:
        expected = {name: tuple(p.shape) for name, p in theirs.named_parameters()}
        assert {name: p.shape for name, p in ours.named_parameters()} == expected
