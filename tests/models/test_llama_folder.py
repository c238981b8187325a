"""Folders of Llama and its kin: what is saved is loaded bit for bit, and what does not fit is refused by name."""

import json

import numpy as np
import pytest
from tiny_llama import tiny

import tinyllm as tl
from tinyllm import safetensors
from tinyllm.errors import CheckpointError, ConfigError

KINDS = ["Llama", "Mistral", "Mixtral"]
MORE = {
    "Llama": {"attention_bias": True, "mlp_bias": True, "rope_parameters": {"rope_type": "linear", "factor": 2.0}},
    "Mistral": {"sliding_window": 5, "tie_word_embeddings": True},
    "Mixtral": {"router_z_loss_coef": 0.1, "expert_capacity_factor": 1.5, "router_jitter_noise": 0.1},
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def folder(tmp_path, kind):
    tiny(kind, dtype="float32").save_pretrained(tmp_path / "run")
    return tmp_path / "run"


def edit_config(folder, remove=(), **changes):
    path = folder / "config.json"
    kept = {k: v for k, v in json.loads(path.read_text()).items() if k not in remove}
    path.write_text(json.dumps(kept | changes))


def edit_weights(folder, change):
    path = folder / "model.safetensors"
    weights, _ = safetensors.load(path)
    weights = change({name: np.array(w) for name, w in weights.items()})
    safetensors.save(path, weights)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_saved_is_loaded_bit_for_bit(tmp_path, kind, dtype):
    model = tiny(kind, dtype=dtype, num_key_value_heads=1, eos_token_id=[3, 4], **MORE[kind])
    model.save_pretrained(tmp_path)
    loaded = tl.models.from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    assert not loaded.training
    state, other = model.state_dict(), loaded.state_dict()
    assert list(state) == list(other)
    for name in state:
        assert other[name].dtype == dtype
        np.testing.assert_array_equal(other[name], state[name])
    ids = np.arange(8).reshape(2, 4)
    np.testing.assert_array_equal(loaded(ids).logits.data, model(ids).logits.data)


def test_the_names_are_the_published_ones(folder, kind):
    weights, _ = safetensors.load(folder / "model.safetensors")
    block = {
        "input_layernorm.weight": (12,),
        "post_attention_layernorm.weight": (12,),
        **{f"self_attn.{part}_proj.weight": (12, 12) for part in "qkvo"},
    }
    if kind == "Mixtral":
        block["block_sparse_moe.gate.weight"] = (4, 12)
        for e in range(4):
            shapes = {"w1": (10, 12), "w2": (12, 10), "w3": (10, 12)}
            block |= {f"block_sparse_moe.experts.{e}.{name}.weight": shape for name, shape in shapes.items()}
    else:
        shapes = {"gate_proj": (10, 12), "up_proj": (10, 12), "down_proj": (12, 10)}
        block |= {f"mlp.{name}.weight": shape for name, shape in shapes.items()}
    expected = {f"model.layers.{i}.{name}": shape for i in range(2) for name, shape in block.items()}
    expected |= {"model.embed_tokens.weight": (13, 12), "model.norm.weight": (12,), "lm_head.weight": (13, 12)}
    assert {name: w.shape for name, w in weights.items()} == expected


def test_old_files_are_understood(folder):
    expected = tl.models.from_pretrained(folder)
    edit_config(
        folder, remove=["rope_parameters", "head_dim"], rope_theta=200.0, rope_scaling={"type": "linear", "factor": 2.0}
    )
    edit_config(folder, pretraining_tp=1, torch_dtype="float16", use_cache=True, rope_interleaved=False)
    edit_weights(folder, lambda w: w | {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, "f4")})
    loaded = tl.models.from_pretrained(folder)
    assert loaded.config.rope_parameters == {"rope_type": "linear", "rope_theta": 200.0, "factor": 2.0}
    assert loaded.config.head_dim == 4
    assert list(loaded.state_dict()) == list(expected.state_dict())


def test_what_a_file_leaves_out_is_as_published(folder, kind):
    edit_config(folder, remove=["rope_parameters", "sliding_window", "bos_token_id", "eos_token_id", "rms_norm_eps"])
    config = tl.models.from_pretrained(folder).config
    assert config.rope_parameters["rope_theta"] == (1e6 if kind == "Mixtral" else 1e4)
    assert config.rms_norm_eps == (1e-5 if kind == "Mixtral" else 1e-6)
    assert config.sliding_window == (4096 if kind == "Mistral" else None)
    assert (config.bos_token_id, config.eos_token_id) == (1, 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rope_parameters": {"rope_type": "longrope"}}, "longrope"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "alpha": 3}}, "alpha"),
        ({"rope_parameters": 3}, "must be an object"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_interleaved": True}, "rope_interleaved=True"),
        ({"hidden_act": "gelu_10"}, "gelu_10"),
        ({"num_key_value_heads": 2}, "num_key_value_heads=2"),
        ({"rms_norm_epz": 1e-3}, "rms_norm_epz.*rms_norm_eps"),
        ({"layer_types": ["sliding_attention"]}, "layer_types"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"vocab_size": "13"}, "vocab_size"),
    ],
)
def test_settings_that_cannot_be_obeyed_are_refused(folder, changes, said):
    edit_config(folder, **changes)
    with pytest.raises(ConfigError, match=said) as error:
        tl.models.from_pretrained(folder)
    assert str(folder / "config.json") in str(error.value)


@pytest.mark.parametrize("kind", ["Llama"], indirect=True)
def test_a_window_is_no_setting_of_llama(folder):
    edit_config(folder, sliding_window=None)
    tl.models.from_pretrained(folder)
    edit_config(folder, sliding_window=3)
    with pytest.raises(ConfigError, match="sliding_window=3 cannot be obeyed"):
        tl.models.from_pretrained(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"vocab_size": 10**12},
        {"num_hidden_layers": 10**9},
        {"intermediate_size": 10**12},
        {"hidden_size": 3 * 10**11, "head_dim": None},
        {"num_attention_heads": 3 * 10**10, "num_key_value_heads": 3},
        {"head_dim": 10**12},
        {"num_local_experts": 10**10},
    ],
)
def test_a_configuration_beyond_its_weights_allocates_nothing(folder, kind, changes):
    edit_config(folder, **changes)
    if "num_local_experts" in changes and kind != "Mixtral":
        with pytest.raises(ConfigError, match="num_local_experts"):
            tl.models.from_pretrained(folder)
        return
    with pytest.raises(CheckpointError, match="do not belong together"):
        tl.models.from_pretrained(folder)


def test_weights_that_do_not_fit_are_refused(folder):
    edit_weights(folder, lambda w: w | {"model.norm.weight": np.ones(13, "f4")})
    with pytest.raises(CheckpointError, match=r"model.norm.weight: shape \(13,\), expected \(12,\)"):
        tl.models.from_pretrained(folder)
    edit_weights(folder, lambda w: {name: x for name, x in w.items() if "q_proj" not in name})
    with pytest.raises(CheckpointError, match=r"layers.0.self_attn.q_proj.weight is missing"):
        tl.models.from_pretrained(folder)


def test_the_class_must_be_the_folders(folder, kind):
    other = KINDS[KINDS.index(kind) - 1]
    with pytest.raises(CheckpointError, match=f"model_type is '{kind.lower()}'"):
        getattr(tl.models, other).from_pretrained(folder)
