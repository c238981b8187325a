"""The samples' encoder against PyTorch's, its faults mended there too."""

import numpy as np
import pytest

import tinyllm as tl
from tinyllm.samples.c002b_encoder_classifier import TransformerModel as Encoder
from tinyllm.samples.c004_transformer_language_model import TransformerModel as LanguageModel

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch", reason="the samples are written in PyTorch")

NAMES = {
    "self_attn.in_proj_weight": "attention.in_proj_weight",
    "self_attn.in_proj_bias": "attention.in_proj_bias",
    "self_attn.out_proj": "attention.out_proj",
    "linear1": "feed_forward.up",
    "linear2": "feed_forward.down",
}


def torch_encoder(layers, channels, hidden):
    """torch.nn.TransformerEncoder with the weights of our layers."""
    layer = torch.nn.TransformerEncoderLayer(channels, 4, hidden, batch_first=True)
    theirs = torch.nn.TransformerEncoder(layer, len(layers), enable_nested_tensor=False).eval()
    state = {}
    for i, ours in enumerate(layers):
        values = ours.state_dict()
        for name in theirs.layers[i].state_dict():
            renamed = name
            for theirs_name, ours_name in NAMES.items():
                renamed = renamed.replace(theirs_name, ours_name)
            state[f"layers.{i}.{name}"] = torch.tensor(values[renamed])
    theirs.load_state_dict(state)
    return theirs


def randomised(model, rng):
    for p in model.parameters():
        p.assign_(p.data + 0.1 * rng.normal(size=p.shape))
    return model.eval()


@pytest.mark.parametrize("causal", [False, True])
def test_encoder_equals_torch(rng, causal):
    kind = LanguageModel if causal else Encoder
    ours = kind(30, 16, 24, 2, 0.1, 4, rng=rng) if causal else kind(30, 16, 24, 7, 2, 4, rng=rng)
    randomised(ours, rng)
    ids = rng.integers(0, 30, size=(3, 6))
    head = ours.decoder if causal else ours.fc
    with tl.no_grad():
        x = ours.positions(ours.embedding(ids)).numpy()
        result = ours(ids).numpy()
    mask = torch.nn.Transformer.generate_square_subsequent_mask(6) if causal else None
    with torch.no_grad():
        theirs = torch_encoder(ours.encoder, 16, 24)(torch.tensor(x), mask=mask, is_causal=causal).numpy()
    np.testing.assert_allclose(result, theirs @ head.weight.data.T + head.bias.data, rtol=1e-4, atol=1e-4)
