"""GPT against transformers' GPT2LMHeadModel: numbers, gradients, folders both ways, generation."""

import json

import numpy as np
import pytest
from tiny_gpt import tiny_gpt

import tinyllm as tl
from tinyllm.models import GPT

pytestmark = [
    pytest.mark.peers,
    # transformers and torch warn about themselves
    pytest.mark.filterwarnings("ignore"),
]

OPTIONS = [
    {},
    {"tie_word_embeddings": False},
    {"n_inner": 7, "activation_function": "relu"},
    {"activation_function": "gelu", "scale_attn_weights": False},
    {"activation_function": "gelu_pytorch_tanh", "n_head": 1},
    {"activation_function": "silu", "scale_attn_by_inverse_layer_idx": True, "n_layer": 3},
    {"activation_function": "swish", "layer_norm_epsilon": 1e-2},
    {"activation_function": "tanh", "n_head": 12, "reorder_and_upcast_attn": True},
    {"activation_function": "sigmoid", "tie_word_embeddings": False, "scale_attn_by_inverse_layer_idx": True},
]


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.fixture
def transformers():
    peer = pytest.importorskip("transformers", reason="transformers is not installed")
    peer.utils.logging.set_verbosity_error()
    return peer


def relative(found, expected):
    """The largest difference, relative to the largest value."""
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.fixture
def pair(torch, transformers, tmp_path):
    """Both libraries' models of one folder, which tinyllm wrote."""

    def make(dtype, **settings):
        ours = tiny_gpt(dtype=dtype, **settings)
        ours.save_pretrained(tmp_path / dtype)
        theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / dtype)
        assert theirs.dtype == getattr(torch, dtype)
        return ours, theirs.eval()

    return make


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("float64", 1e-9)])
@pytest.mark.parametrize("settings", OPTIONS)
@pytest.mark.parametrize("padding", [None, "left", "right"])
def test_logits_loss_and_every_gradient_are_theirs(pair, torch, settings, dtype, bound, padding, rng):
    ours, theirs = pair(dtype, **settings)
    ids = rng.integers(13, size=(3, 8))
    mask = np.ones_like(ids)
    if padding:
        pad = slice(0, 3) if padding == "left" else slice(5, 8)
        mask[1, pad] = 0
    # What a padding position predicts is nobody's business, and the libraries differ there.
    labels = np.where(mask == 1, ids, -100)
    if padding == "left":
        labels[1, 3] = -100
    labels[0, 4] = -100
    positions = np.maximum(mask.cumsum(1) - 1, 0)
    given = {"attention_mask": torch.tensor(mask), "position_ids": torch.tensor(positions)} if padding else {}
    out = ours(ids, attention_mask=mask, labels=labels, output_hidden_states=True)
    expected = theirs(torch.tensor(ids), labels=torch.tensor(labels), output_hidden_states=True, **given)
    real = mask == 1
    assert relative(out.logits.data[real], expected.logits.detach().numpy()[real]) < bound
    assert len(out.hidden_states) == len(expected.hidden_states)
    for found, state in zip(out.hidden_states, expected.hidden_states, strict=True):
        assert relative(found.data[real], state.detach().numpy()[real]) < bound
    # Their loss is computed in float32 whatever the model is: for float64, the same sum from their logits.
    shifted = torch.nn.functional.pad(torch.tensor(labels), (0, 1), value=-100)[:, 1:]
    loss = torch.nn.functional.cross_entropy(expected.logits.transpose(1, 2), shifted)
    assert relative(out.loss.item(), expected.loss.item()) < 1e-5
    assert relative(out.loss.item(), loss.item()) < bound
    out.loss.backward()
    loss.backward()
    gradients = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    assert set(gradients) == {name for name, _ in ours.named_parameters()}
    for name, p in ours.named_parameters():
        assert relative(p.grad.data, gradients[name]) < bound, name


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_transformers_saved_is_loaded(torch, transformers, tmp_path, tied, dtype, rng):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=13, n_positions=10, n_embd=12, n_layer=2, n_head=3, tie_word_embeddings=tied
    )
    theirs = transformers.GPT2LMHeadModel(config).to(getattr(torch, dtype)).eval()
    theirs.save_pretrained(tmp_path)
    ours = tl.models.from_pretrained(tmp_path)
    assert type(ours) is GPT
    assert ours.config.resid_pdrop == 0.1
    ids = rng.integers(13, size=(2, 7))
    expected = theirs.float()(torch.tensor(ids)).logits.detach().numpy()
    assert relative(ours(ids).logits.data, expected) < 1e-5
    # and back again
    ours.save_pretrained(tmp_path / "again")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert type(again) is transformers.GPT2LMHeadModel
    np.testing.assert_array_equal(again(torch.tensor(ids)).logits.detach().numpy(), expected)


def test_the_bare_model_is_loaded_too(torch, transformers, tmp_path, rng):
    config = transformers.GPT2Config(vocab_size=13, n_positions=10, n_embd=12, n_layer=2, n_head=3)
    theirs = transformers.GPT2Model(config).eval()
    theirs.save_pretrained(tmp_path)
    ids = rng.integers(13, size=(2, 7))
    found = tl.models.from_pretrained(tmp_path)(ids, output_hidden_states=True).hidden_states[-1]
    assert relative(found.data, theirs(torch.tensor(ids)).last_hidden_state.detach().numpy()) < 1e-5


def test_every_key_that_transformers_writes_is_known(transformers, tmp_path):
    transformers.GPT2Config(vocab_size=13, n_embd=12, n_head=3, num_labels=5, pad_token_id=1).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    assert tl.models.GPTConfig.from_dict(settings).pad_token_id == 1


@pytest.mark.parametrize("settings", [{}, {"repetition_penalty": 1.4}, {"no_repeat_ngram": 2}])
def test_greedy_generation_is_theirs(pair, torch, settings, rng):
    ours, theirs = pair("float64", n_positions=40)
    ids, mask = rng.integers(1, 13, size=(3, 6)), np.ones((3, 6), int)
    mask[1, :3] = 0
    ids[1, :3] = ids[1, 3]  # their penalties count what is under the padding
    names = {"no_repeat_ngram": "no_repeat_ngram_size"}
    theirs_settings = {names.get(k, k): v for k, v in settings.items()}
    if settings.get("no_repeat_ngram"):
        mask[1], ids[1] = 1, rng.integers(1, 13, size=6)
    expected = theirs.generate(
        torch.tensor(ids),
        attention_mask=torch.tensor(mask),
        max_new_tokens=20,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
        **theirs_settings,
    )
    found = tl.generate(ours, ids, 20, attention_mask=mask, **settings)
    np.testing.assert_array_equal(found, expected.numpy())
