"""The encoder-decoder against torch.nn.Transformer in float64: outputs and every gradient."""

import math

import numpy as np
import pytest
from tiny_transformer import OPTIONS, tiny_transformer

import tinyllm as tl
from tinyllm.nn import sinusoids

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]  # torch warns of its own slow paths

BOUND = 1e-9
PADDING = [None, "left", "right"]


@pytest.fixture
def torch():
    peer = pytest.importorskip("torch", reason="PyTorch is not installed")
    peer.set_num_threads(1)  # of its threads the smallest models have nothing but the wait
    return peer


def relative(found, expected):
    """The largest difference, relative to the largest value."""
    expected = expected.detach().numpy() if hasattr(expected, "detach") else expected
    return np.abs(np.asarray(getattr(found, "data", found)) - expected).max() / np.abs(expected).max()


def peer(torch, model):
    """torch.nn.Transformer with the model's weights."""
    c = model.config
    theirs = torch.nn.Transformer(
        d_model=c.d_model,
        nhead=c.nhead,
        num_encoder_layers=c.num_encoder_layers,
        num_decoder_layers=c.num_decoder_layers,
        dim_feedforward=c.dim_feedforward,
        dropout=0.0,
        activation=c.activation,
        layer_norm_eps=c.layer_norm_eps,
        batch_first=True,
        norm_first=c.norm_first,
        bias=c.bias,
        dtype=torch.float64,
    )
    names = {name for name, _ in theirs.named_parameters()}
    ours = {name: torch.tensor(w) for name, w in model.state_dict().items() if name in names}
    theirs.load_state_dict(ours)  # strict: every name is there, with its shape
    return theirs


def masked(rng, padding, shape):
    mask = np.ones(shape, int)
    if padding:
        mask[1, slice(0, 2) if padding == "left" else slice(shape[1] - 2, None)] = 0
    return mask


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("padding", PADDING)
def test_the_stack_and_all_its_gradients_are_torchs(torch, options, padding, rng):
    ours = tiny_transformer(**options)
    theirs = peer(torch, ours)
    source, target = rng.normal(size=(3, 6, 12)), rng.normal(size=(3, 5, 12))
    mask = masked(rng, padding, (3, 6))
    g = rng.normal(size=(3, 5, 12))
    x, y = (tl.tensor(a, requires_grad=True) for a in (source, target))
    visible = None if padding is None else mask[:, None, None, :].astype(bool)
    found = ours.decoder(y, ours.encoder(x, visible), visible)
    found.backward(g)
    tx, ty = (torch.tensor(a, requires_grad=True) for a in (source, target))
    hidden = torch.tensor(mask == 0)
    causal = torch.nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    expected = theirs(
        tx, ty, tgt_mask=causal, src_key_padding_mask=hidden, memory_key_padding_mask=hidden, tgt_is_causal=True
    )
    expected.backward(torch.tensor(g))
    assert relative(found, expected) < BOUND
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    mine = {name: p.grad for name, p in ours.named_parameters() if name in gradients}
    assert mine.keys() == gradients.keys()
    largest = max(float(e.abs().max()) for e in gradients.values())
    for name, g in mine.items():
        assert np.abs(g.data - gradients[name].numpy()).max() < BOUND * largest, name
    real = mask == 1  # of a padding position nothing is asked
    assert relative(x.grad.data[real], tx.grad.numpy()[real]) < BOUND
    assert relative(y.grad.data, ty.grad) < BOUND


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_whole_model_is_torchs_between_embeddings_and_head(torch, options, smoothing, rng):
    ours = tiny_transformer(label_smoothing=smoothing, **options).train()
    c, theirs = ours.config, peer(torch, ours)
    source, labels = rng.integers(11, size=(3, 6)), rng.integers(13, size=(3, 5))
    labels[0, 3:] = -100
    mask = masked(rng, "right", (3, 6))
    w = {name: torch.tensor(p.numpy(), requires_grad=True) for name, p in ours.named_parameters()}

    def embedded(ids, side):
        ids = torch.tensor(ids)
        table = w.get(f"{side}_embedding.weight", w["src_embedding.weight"])
        places = w.get(f"{side}_positions.weight")
        if places is None:
            places = torch.tensor(sinusoids(12, 12, dtype="float64"))
        return table[ids] * math.sqrt(12) + places[: ids.shape[1]]

    before = np.concatenate([np.full((3, 1), 1), np.where(labels < 0, 0, labels)[:, :-1]], axis=1)
    hidden = torch.tensor(mask == 0)
    causal = torch.nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    states = theirs(
        embedded(source, "src"),
        embedded(before, "tgt"),
        tgt_mask=causal,
        src_key_padding_mask=hidden,
        memory_key_padding_mask=hidden,
    )
    head = w.get("generator.weight", w.get("tgt_embedding.weight", w["src_embedding.weight"]))
    logits = states @ head.T
    loss = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), torch.tensor(labels), ignore_index=-100, label_smoothing=smoothing
    )
    loss.backward()
    batch = {"input_ids": source, "attention_mask": mask, "labels": labels}
    out = ours(**batch)
    assert relative(out.logits, logits) < BOUND
    expected = {name: p.grad for name, p in theirs.named_parameters()}
    expected |= {name: p.grad for name, p in w.items() if p.grad is not None}
    assert expected.keys() == w.keys()
    largest = max(float(e.abs().max()) for e in expected.values())
    for found in (out.loss, ours.loss(batch)):
        assert relative(found.data, loss) < BOUND
        ours.zero_grad()
        found.backward()
        for name, p in ours.named_parameters():
            assert np.abs(p.grad.data - expected[name].numpy()).max() < BOUND * largest, (name, c)


def test_its_first_weights_follow_torchs_laws(torch):
    """Xavier's uniform law for every matrix: the largest value is just below the bound that torch draws to."""
    ours = tl.models.Transformer(src_vocab_size=99, tgt_vocab_size=99, d_model=64, rng=np.random.default_rng(0))
    theirs = torch.nn.Transformer(d_model=64, batch_first=True)
    for name, p in theirs.named_parameters():
        mine = dict(ours.named_parameters())[name].data
        if mine.ndim == 2:
            assert abs(np.abs(mine).max() / p.abs().max().item() - 1) < 0.01, name
            assert abs(mine.std() / p.std().item() - 1) < 0.05, name
