"""Llama, Mistral and Mixtral against transformers, and against a restatement in float64: numbers and every gradient.

transformers computes norms, routers and the angles of rotary positions in float32 whatever the model is, so that it
can only tell to some 1e-6; the restatement tells to 1e-9.
"""

import json

import numpy as np
import pytest
from restated_llama import restated_loss
from tiny_llama import SCALINGS, tiny

import tinyllm as tl

pytestmark = [
    pytest.mark.peers,
    # transformers and torch warn about themselves
    pytest.mark.filterwarnings("ignore"),
]

LLAMA = [
    {},
    {"tie_word_embeddings": True},
    {"num_key_value_heads": 1},
    {"num_attention_heads": 6, "num_key_value_heads": 2},
    {"head_dim": 8},
    {"attention_bias": True},
    {"mlp_bias": True},
    {"hidden_act": "gelu"},
    {"hidden_act": "relu", "mlp_bias": True},
    {"rms_norm_eps": 1e-2},
    {"num_hidden_layers": 1},
    *({"rope_parameters": scaling, "max_position_embeddings": 6} for scaling in SCALINGS),
]
MISTRAL = [{"sliding_window": None}, {"sliding_window": 1}, {"sliding_window": 3, "num_key_value_heads": 1}]
MIXTRAL = [
    {},
    {"num_experts_per_tok": 1},
    {"num_experts_per_tok": 4},
    {"num_local_experts": 1, "num_experts_per_tok": 1},
    {"sliding_window": 3, "hidden_act": "gelu_pytorch_tanh"},
    {"router_aux_loss_coef": 0.0, "tie_word_embeddings": True, "num_key_value_heads": 1},
]
OPTIONS = [(kind, each) for kind, all in (("Llama", LLAMA), ("Mistral", MISTRAL), ("Mixtral", MIXTRAL)) for each in all]


def drawn(seed):
    """A combination of options."""
    rng = np.random.default_rng(seed)
    kind = ("Llama", "Mistral", "Mixtral")[seed % 3]
    heads = int(rng.choice([2, 4, 6]))
    settings = {
        "num_attention_heads": heads,
        "num_key_value_heads": int(rng.choice([n for n in (1, 2, heads) if heads % n == 0])),
        "head_dim": int(rng.choice([4, 6, 10])),
        "tie_word_embeddings": bool(rng.random() < 0.5),
        "hidden_act": str(rng.choice(["silu", "gelu", "relu"])),
        "rms_norm_eps": float(rng.choice([1e-6, 1e-3])),
        "num_hidden_layers": int(rng.integers(1, 4)),
        "rope_parameters": SCALINGS[rng.integers(len(SCALINGS))],
        "max_position_embeddings": int(rng.choice([5, 16])),
    }
    if kind == "Llama":
        settings |= {"attention_bias": bool(rng.random() < 0.5), "mlp_bias": bool(rng.random() < 0.5)}
    else:
        settings |= {"sliding_window": rng.choice([None, 2, 5])}
    if kind == "Mixtral":
        settings |= {"num_local_experts": 5, "num_experts_per_tok": int(rng.integers(1, 4))}
    return kind, settings


OPTIONS += [drawn(seed) for seed in range(9)]


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.fixture
def transformers():
    peer = pytest.importorskip("transformers", reason="transformers is not installed")
    peer.utils.logging.set_verbosity_error()
    return peer


def relative(found, expected, scale=None):
    """The largest difference, relative to the largest value."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return np.abs(found - expected).max() / (scale or np.abs(expected).max() or 1.0)


def batch(padding, rng):
    """Ids, mask, labels and positions (3, 8) of rows of which the second is padded."""
    ids, mask = rng.integers(13, size=(3, 8)), np.ones((3, 8), int)
    if padding == "left":
        mask[1, :3] = 0
    elif padding == "right":
        mask[1, 5:] = 0
    labels = np.where(mask == 1, ids, -100)
    if padding == "left":
        labels[1, 3] = -100  # what a padding position predicts is nobody's business
    labels[0, 4] = -100
    return ids, mask, labels, np.maximum(mask.cumsum(1) - 1, 0)


def load(transformers, folder):
    """Their model; their quick kernels of experts want float32 and sizes of another scale."""
    return transformers.AutoModelForCausalLM.from_pretrained(folder, experts_implementation="eager").eval()


def theirs_as_ours(gradients):
    """Their gradients by our names: transformers 5 stacks the experts in memory (in files it does not)."""
    found = {}
    for name, g in gradients.items():
        name = name.replace(".mlp.gate.", ".block_sparse_moe.gate.")
        start = name.replace(".mlp.experts.", ".block_sparse_moe.experts.").rpartition(".")[0]
        if name.endswith(".gate_up_proj"):
            for e, both in enumerate(g):
                found[f"{start}.{e}.w1.weight"], found[f"{start}.{e}.w3.weight"] = np.split(both, 2)
        elif name.endswith("experts.down_proj"):
            found |= {f"{start}.{e}.w2.weight": each for e, each in enumerate(g)}
        else:
            found[name] = g
    return found


@pytest.mark.parametrize(("padding", "dtype"), [("left", "float32"), ("right", "float64")])
@pytest.mark.parametrize(("kind", "settings"), OPTIONS)
def test_transformers_agrees(torch, transformers, tmp_path, kind, settings, dtype, padding, rng):
    ours = tiny(kind, dtype=dtype, **settings)
    ours.save_pretrained(tmp_path)
    theirs = load(transformers, tmp_path)
    assert type(theirs).__name__ == f"{kind}ForCausalLM"
    assert theirs.dtype == getattr(torch, dtype)
    ids, mask, labels, positions = batch(padding, rng)
    out = ours(ids, attention_mask=mask, labels=labels, output_hidden_states=True)
    expected = theirs(
        torch.tensor(ids),
        labels=torch.tensor(labels),
        attention_mask=torch.tensor(mask),
        position_ids=torch.tensor(positions),
        output_hidden_states=True,
        **({"output_router_logits": True} if kind == "Mixtral" else {}),
    )
    real = mask == 1
    assert relative(out.logits.data[real], expected.logits.detach()[real]) < 1e-5
    for found, state in zip(out.hidden_states, expected.hidden_states, strict=True):
        assert relative(found.data[real], state.detach()[real]) < 1e-5
    assert relative(out.loss.item(), expected.loss.item()) < 1e-5
    if kind == "Mixtral":
        assert relative(out.aux_loss.item(), expected.aux_loss.item()) < 1e-5
    out.loss.backward()
    expected.loss.backward()
    gradients = theirs_as_ours({name: p.grad.numpy() for name, p in theirs.named_parameters()})
    assert set(gradients) == {name for name, _ in ours.named_parameters()}
    largest = max(np.abs(g).max() for g in gradients.values())
    for name, p in ours.named_parameters():
        assert relative(p.grad.data, gradients[name], largest) < 1e-5, name


@pytest.mark.parametrize(("kind", "settings"), OPTIONS)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_a_restatement_in_float64_agrees(torch, kind, settings, padding, rng):
    if kind == "Mixtral":
        settings = settings | {"router_z_loss_coef": 0.02}
    ours = tiny(kind, **settings)
    ids, mask, labels, positions = batch(padding, rng)
    given = {"position_ids": positions} if padding == "right" else {}
    out = ours(ids, attention_mask=mask, labels=labels, **given)
    p = {name: torch.tensor(value, requires_grad=True) for name, value in ours.state_dict().items()}
    logits, loss = restated_loss(torch, ours.config, p, ids, mask, positions, labels)
    real = mask == 1
    assert relative(out.logits.data[real], logits.detach()[real]) < 1e-12
    assert relative(out.loss.item(), loss.item()) < 1e-12
    out.loss.backward()
    loss.backward()
    largest = max(float(q.grad.abs().max()) for q in p.values())
    for name, ours_p in ours.named_parameters():
        assert relative(ours_p.grad.data, p[name].grad, largest) < 1e-9, name


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Mixtral"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("tied", [True, False])
def test_what_transformers_saved_is_loaded(torch, transformers, tmp_path, kind, dtype, tied, rng):
    torch.manual_seed(0)
    shape = {key: value for key, value in tiny(kind).config.to_dict().items() if key not in ("architectures", "dtype")}
    config = getattr(transformers, f"{kind}Config")(**shape | {"tie_word_embeddings": tied})
    config._experts_implementation = "eager"
    theirs = getattr(transformers, f"{kind}ForCausalLM")(config).to(getattr(torch, dtype)).eval()
    theirs.save_pretrained(tmp_path)
    ours = tl.models.from_pretrained(tmp_path)
    assert type(ours).__name__ == kind
    ids = rng.integers(13, size=(2, 7))
    expected = theirs.float()(torch.tensor(ids)).logits.detach().numpy()
    assert relative(ours(ids).logits.data, expected) < 1e-5
    # and back again
    ours.save_pretrained(tmp_path / "again")
    again = load(transformers, tmp_path / "again")
    assert type(again) is type(theirs)
    for (name, p), (other, q) in zip(again.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(p, q)


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Mixtral"])
@pytest.mark.parametrize("rope", [{}, *SCALINGS])
def test_every_key_that_transformers_writes_is_obeyed(transformers, tmp_path, kind, rope):
    given = {"rope_theta": 77.0, "rope_type": "default"} | rope
    config = getattr(transformers, f"{kind}Config")(hidden_size=16, num_attention_heads=8, rope_parameters=given)
    config.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    ours = getattr(tl.models, f"{kind}Config").from_dict(settings)
    for key, value in given.items():
        assert ours.rope_parameters[key] == value
    assert ours.rms_norm_eps == config.rms_norm_eps
    assert ours.num_key_value_heads == config.num_key_value_heads
    assert ours.sliding_window == getattr(config, "sliding_window", None)


@pytest.mark.parametrize(("kind", "window"), [("Llama", None), ("Mistral", 3), ("Mixtral", None)])
def test_greedy_generation_is_theirs(torch, transformers, tmp_path, kind, window, rng):
    ours = tiny(kind, max_position_embeddings=40, **{"sliding_window": window} if window else {})
    ours.save_pretrained(tmp_path)
    theirs = load(transformers, tmp_path)
    ids, mask = rng.integers(1, 13, size=(3, 6)), np.ones((3, 6), int)
    mask[1, :3] = 0
    expected = theirs.generate(
        torch.tensor(ids),
        attention_mask=torch.tensor(mask),
        max_new_tokens=20,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )
    np.testing.assert_array_equal(tl.generate(ours, ids, 20, attention_mask=mask), expected.numpy())
