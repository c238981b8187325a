"""Model folders: what is saved is loaded bit for bit, and what is damaged or foreign is refused by name."""

import json

import numpy as np
import pytest
from tiny_gpt import tiny_gpt

import tinyllm as tl
from tinyllm import safetensors
from tinyllm.errors import CheckpointError, ConfigError
from tinyllm.models import GPT


@pytest.fixture
def folder(tmp_path):
    tiny_gpt(dtype="float32").save_pretrained(tmp_path / "run")
    return tmp_path / "run"


def edit_config(folder, remove=(), **changes):
    path = folder / "config.json"
    settings = {k: v for k, v in json.loads(path.read_text()).items() if k not in remove}
    path.write_text(json.dumps(settings | changes))


def edit_weights(folder, change):
    path = folder / "model.safetensors"
    weights, _ = safetensors.load(path)
    safetensors.save(path, change(weights) or weights)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("load", [GPT.from_pretrained, tl.models.from_pretrained])
def test_what_is_saved_is_loaded_bit_for_bit(tmp_path, load, dtype):
    model = tiny_gpt(dtype=dtype, tie_word_embeddings=False, n_inner=7, activation_function="relu", eos_token_id=3)
    model.save_pretrained(tmp_path / "a" / "b")
    loaded = load(tmp_path / "a" / "b")
    assert type(loaded) is GPT
    assert loaded.config == model.config
    assert not loaded.training
    state, other = model.state_dict(), loaded.state_dict()
    assert list(state) == list(other)
    for name in state:
        assert other[name].dtype == dtype
        np.testing.assert_array_equal(other[name], state[name])
    ids = np.arange(8).reshape(2, 4)
    np.testing.assert_array_equal(loaded(ids).logits.data, model(ids).logits.data)
    model.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "a" / "b" / name).read_bytes()


def test_the_dtype_asked_for_is_given(folder):
    assert {p.dtype for p in GPT.from_pretrained(folder, dtype="float64").parameters()} == {np.dtype("float64")}
    assert {p.dtype for p in GPT.from_pretrained(folder, dtype=np.float32).parameters()} == {np.dtype("float32")}


def test_half_precision_is_widened(folder):
    expected = GPT.from_pretrained(folder).state_dict()
    edit_weights(folder, lambda w: {name: x.astype("f2") for name, x in w.items()})
    for name, x in GPT.from_pretrained(folder).state_dict().items():
        assert x.dtype == np.float32
        np.testing.assert_array_equal(x, expected[name].astype("f2"))


def test_a_loaded_model_can_be_trained(folder):
    model = GPT.from_pretrained(folder)
    ids = np.arange(8).reshape(2, 4)
    model(ids, labels=ids).loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_names_are_the_published_ones(folder):
    weights, metadata = safetensors.load(folder / "model.safetensors")
    assert metadata == {"format": "pt"}
    assert {name: x.shape for name, x in weights.items() if ".h.1." not in name} == {
        "transformer.wte.weight": (13, 12),
        "transformer.wpe.weight": (10, 12),
        "transformer.h.0.ln_1.weight": (12,),
        "transformer.h.0.ln_1.bias": (12,),
        "transformer.h.0.attn.c_attn.weight": (12, 36),
        "transformer.h.0.attn.c_attn.bias": (36,),
        "transformer.h.0.attn.c_proj.weight": (12, 12),
        "transformer.h.0.attn.c_proj.bias": (12,),
        "transformer.h.0.ln_2.weight": (12,),
        "transformer.h.0.ln_2.bias": (12,),
        "transformer.h.0.mlp.c_fc.weight": (12, 48),
        "transformer.h.0.mlp.c_fc.bias": (48,),
        "transformer.h.0.mlp.c_proj.weight": (48, 12),
        "transformer.h.0.mlp.c_proj.bias": (12,),
        "transformer.ln_f.weight": (12,),
        "transformer.ln_f.bias": (12,),
    }


def test_old_files_are_understood(folder):
    """No prefix, causal masks as buffers, and a copy of the tied head."""
    expected = GPT.from_pretrained(folder).state_dict()

    def age(weights):
        old = {name.removeprefix("transformer."): x for name, x in weights.items()}
        old |= {f"h.{i}.attn.bias": np.tri(10, dtype="u1")[None, None] for i in range(2)}
        old |= {f"h.{i}.attn.masked_bias": np.float32([-1e4]) for i in range(2)}
        return old | {"lm_head.weight": weights["transformer.wte.weight"]}

    edit_weights(folder, age)
    loaded = GPT.from_pretrained(folder).state_dict()
    assert all((loaded[name] == expected[name]).all() for name in expected)


def test_other_names_of_settings_are_obeyed(folder):
    expected = GPT.from_pretrained(folder).config
    names = {"hidden_size": 12, "max_position_embeddings": 10, "num_attention_heads": 3, "num_hidden_layers": 2}
    edit_config(folder, remove=("n_embd", "n_positions", "n_head", "n_layer"), **names)
    assert GPT.from_pretrained(folder).config == expected


def test_dropout_that_a_file_leaves_out_is_gpt2s(folder):
    edit_config(folder, remove=("resid_pdrop", "embd_pdrop", "attn_pdrop"))
    config = GPT.from_pretrained(folder).config
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.1, 0.1, 0.1)


def test_settings_that_change_nothing_are_passed_over(folder):
    edit_config(
        folder, _name_or_path="x", n_ctx=10, summary_type="mean", torch_dtype="float16", top_k=50, id2label={"0": "A"}
    )
    edit_config(folder, task_specific_params={"text-generation": {"do_sample": True}}, add_cross_attention=False)
    GPT.from_pretrained(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"add_cross_attention": True}, "add_cross_attention=True"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder=True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"activation_function": "gelu_10"}, "gelu_10"),
        ({"layer_norm_epsilom": 1e-3}, "layer_norm_epsilom.*layer_norm_epsilon"),
        ({"rotary_dim": 4}, "rotary_dim"),
        ({"hidden_size": 24}, "hidden_size=24 contradicts n_embd=12"),
        ({"n_head": 5}, "n_head=5"),
        ({"vocab_size": "13"}, "vocab_size"),
    ],
)
def test_settings_that_cannot_be_obeyed_are_refused(folder, changes, said):
    edit_config(folder, **changes)
    with pytest.raises(ConfigError, match=said) as error:
        GPT.from_pretrained(folder)
    assert str(folder / "config.json") in str(error.value)


def nan(weights):
    weights["transformer.h.1.mlp.c_fc.weight"][3, 4] = np.nan


def infinite(weights):
    weights["transformer.ln_f.bias"][2] = -np.inf


def renamed(weights):
    weights["transformer.h.1.ln_3.weight"] = weights.pop("transformer.h.1.ln_2.weight")


def transposed(weights):
    weights["transformer.h.0.attn.c_attn.weight"] = weights["transformer.h.0.attn.c_attn.weight"].T


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (nan, r"transformer.h.1.mlp.c_fc.weight\[3, 4\] is nan"),
        (infinite, r"transformer.ln_f.bias\[2\] is -inf"),
        (renamed, r"(?s)missing: transformer.h.1.ln_2.weight.*unexpected: transformer.h.1.ln_3.weight"),
        (transposed, r"c_attn.weight.*\(36, 12\).*\(12, 36\)"),
        (lambda w: {n: x for n, x in w.items() if "wpe" not in n}, "wpe.weight is missing; this is no GPT-2"),
        (lambda w: {n: x for n, x in w.items() if ".h.1." not in n}, "n_layer=2.*1 blocks"),
        (lambda w: w | {"transformer.wte.weight": np.zeros((14, 12), "f4")}, r"vocab_size=13.*\(14, 12\)"),
        (lambda w: w | {"lm_head.weight": np.zeros((13, 12), "f4")}, "lm_head.weight differs.*tie_word_embeddings"),
        (lambda w: w | {"transformer.ln_f.bias": np.zeros(12, "i8")}, "ln_f.bias holds int64"),
        (lambda w: w | {"score.weight": np.zeros((2, 12), "f4")}, "unexpected: transformer.score.weight"),
        (lambda w: {"embeddings.weight": np.zeros((2, 12), "f4")}, "no GPT-2"),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder, damage, said):
    edit_weights(folder, damage)
    with pytest.raises(CheckpointError, match=said) as error:
        GPT.from_pretrained(folder)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    "changes", [{"vocab_size": 10**12}, {"n_layer": 10**9}, {"n_positions": 10**12}, {"n_inner": 10**12}]
)
def test_a_configuration_beyond_its_weights_allocates_nothing(folder, changes):
    edit_config(folder, **changes)
    with pytest.raises(CheckpointError, match=f"{next(iter(changes)).removeprefix('n_')}.*do not belong together"):
        GPT.from_pretrained(folder)


def test_a_missing_head_is_named(folder):
    edit_config(folder, tie_word_embeddings=False)
    with pytest.raises(CheckpointError, match=r"missing: lm_head\.weight"):
        GPT.from_pretrained(folder)


def test_truncated_weights_are_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model.safetensors: byte \d+: .*cut off"):
        GPT.from_pretrained(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "line 1, column 1"),
        (b'{"model_type": "gpt2", ', "line 1, column .*cut off"),
        (b"[1, 2]", "JSON object"),
        (b'{"a": "\xff"}', "byte 7: not UTF-8"),
        (b"[" * 100_000, "not a model's configuration"),
        (b"{}", "model_type is None"),
        (b'{"model_type": "bert"}', "model_type is 'bert'"),
    ],
)
def test_a_foreign_or_damaged_config_is_refused(folder, text, said):
    (folder / "config.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=said) as error:
        GPT.from_pretrained(folder)
    assert str(folder / "config.json") in str(error.value)


def test_missing_files_are_named(folder, tmp_path):
    for load in (GPT.from_pretrained, tl.models.from_pretrained):
        with pytest.raises(CheckpointError, match="no such folder"):
            load(tmp_path / "none")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"no model\.safetensors.*pytorch_model\.bin is not read"):
        GPT.from_pretrained(folder)
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors.index.json")
    with pytest.raises(CheckpointError, match=r"index.json: byte 0: not UTF-8"):
        GPT.from_pretrained(folder)
    (folder / "config.json").unlink()
    for load in (GPT.from_pretrained, tl.models.from_pretrained):
        with pytest.raises(CheckpointError, match=r"no config.json"):
            load(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": ["GPT5"]}, "'GPT5', which is unknown; known: .*GPT2LMHeadModel.*LlamaForCausalLM"),
        ({"architectures": ["GPT2ForSequenceClassification"]}, "unknown"),
        ({"architectures": None, "model_type": "gpt5"}, "'gpt5', which is unknown; known: .*gpt2.*llama"),
        ({"architectures": [], "model_type": None}, "names no model"),
    ],
)
def test_unknown_models_list_the_known(folder, changes, said):
    edit_config(folder, **changes)
    with pytest.raises(CheckpointError, match=said):
        tl.models.from_pretrained(folder)


def test_the_family_is_enough(folder):
    edit_config(folder, remove=["architectures"])
    assert type(tl.models.from_pretrained(folder)) is GPT


def test_a_failed_save_leaves_what_was_there(folder, monkeypatch):
    before = (folder / "model.safetensors").read_bytes()

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="disk is full"):
        tiny_gpt(seed=5, dtype="float32").save_pretrained(folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be made"):
        tiny_gpt().save_pretrained(tmp_path / "file" / "run")


def test_a_misspelt_model_is_an_attribute_error():
    with pytest.raises(AttributeError, match="GTP"):
        _ = tl.models.GTP
    assert set(dir(tl.models)) >= {"GPT", "GPTConfig", "NGram", "ModelOutput", "from_pretrained"}
    for name in dir(tl.models):
        assert getattr(tl.models, name) is not None
