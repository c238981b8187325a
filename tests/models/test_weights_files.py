"""Weights in several files, in half the bytes, and mapped: what is written is read, and each damage is named."""

import json

import numpy as np
import pytest

from tinyllm import safetensors
from tinyllm.errors import CheckpointError
from tinyllm.models import Llama, LlamaConfig, from_pretrained
from tinyllm.models.folder import read_weights, write_folder

SIZES = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture
def model(rng):
    return Llama(LlamaConfig(**SIZES), rng=rng).eval()


def bfloat16(x):
    """The nearest bfloat16 to each number, by looking at both neighbours; ties to the even one."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    down = (bits & 0xFFFF0000).view(np.float32)
    up = ((bits & 0xFFFF0000) + 0x10000).view(np.float32)
    with np.errstate(invalid="ignore"):
        low, high = np.abs(x.astype(np.float64) - down), np.abs(x.astype(np.float64) - up)
    even = (down.view(np.uint32) >> 16) % 2 == 0
    return np.where((low < high) | ((low == high) & even), down, up)


def test_bfloat16_is_rounded_to_the_nearest(tmp_path, rng):
    x = rng.normal(size=1000).astype(np.float32) * 10.0 ** rng.integers(-40, 38, 1000)
    ties = (np.arange(64, dtype=np.uint32) << 15 | 0x3F800000).view(np.float32)
    x = np.concatenate([x.astype(np.float32), ties, np.array([0.0, -0.0, np.inf, -np.inf], np.float32)])
    safetensors.save(tmp_path / "m", {"x": x}, dtype="bfloat16")
    y = safetensors.load(tmp_path / "m")[0]["x"]
    np.testing.assert_array_equal(y[:-2], bfloat16(x[:-2]))
    np.testing.assert_array_equal(y[-2:], x[-2:])
    safetensors.save(tmp_path / "m", {"x": np.array([np.nan, -np.nan, 1], np.float32)}, dtype="bfloat16")
    assert np.isnan(safetensors.load(tmp_path / "m")[0]["x"]).tolist() == [True, True, False]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_only_floats_are_rounded(tmp_path, rng, dtype):
    x, ids = rng.normal(size=(3, 5)), np.arange(3)
    safetensors.save(tmp_path / "m", {"x": x, "ids": ids}, dtype=dtype)
    held = safetensors.load(tmp_path / "m")[0]
    assert held["ids"].dtype == np.int64
    expected = bfloat16(x.astype(np.float32)) if dtype == "bfloat16" else x.astype(dtype)
    np.testing.assert_array_equal(held["x"], expected)


def test_what_is_too_large_or_no_dtype(tmp_path):
    for dtype, value in (("float16", 7e4), ("bfloat16", 3.4e38), ("float32", 1e39)):
        with pytest.raises(CheckpointError, match=rf"w\[1\] is .*too large for {dtype}"):
            safetensors.save(tmp_path / "m", {"w": np.array([1.0, value])}, dtype=dtype)
    with pytest.raises(TypeError, match="did you mean 'float16'"):
        safetensors.save(tmp_path / "m", {}, dtype="flot16")
    assert list(tmp_path.iterdir()) == []


def test_mapped_arrays_are_those_that_are_read(tmp_path, rng):
    tensors = {"a": rng.normal(size=(3, 4)), "b": np.arange(5, dtype="i1"), "c": np.zeros((0, 2)), "d": np.array(3.0)}
    safetensors.save(tmp_path / "m", tensors)
    before = (tmp_path / "m").read_bytes()
    mapped = safetensors.load(tmp_path / "m", mapped=True)[0]
    for name, array in safetensors.load(tmp_path / "m")[0].items():
        np.testing.assert_array_equal(mapped[name], array)
        assert mapped[name].dtype == array.dtype
        assert not mapped[name].flags.owndata
    mapped["a"][:] = 7
    assert (tmp_path / "m").read_bytes() == before
    safetensors.save(tmp_path / "m", {})  # a file that is replaced leaves the map whole
    assert mapped["a"].sum() == 84


def test_a_model_keeps_mapped_weights_and_saves_where_it_came_from(tmp_path, model):
    model.save_pretrained(tmp_path)
    again = from_pretrained(tmp_path)
    assert not again.model.norm.weight._storage.array.flags.owndata
    again.model.norm.weight.assign_(np.full(16, 2.0))
    again.save_pretrained(tmp_path)
    assert from_pretrained(tmp_path).model.norm.weight.data.tolist() == [2.0] * 16


def test_adopted_values_are_not_shared_where_they_do_not_fit(model):
    state = model.state_dict()
    other = Llama(LlamaConfig(**SIZES), rng=np.random.default_rng(1), dtype="float64")
    other.load_state_dict(state, copy=False)  # another dtype: converted
    state["model.norm.weight"][:] = 9
    assert other.model.norm.weight.data.max() < 9
    frozen = {name: array.copy() for name, array in state.items()}
    for array in frozen.values():
        array.flags.writeable = False
    model.load_state_dict(frozen, copy=False)  # nobody else's memory to write to: copied
    model.model.norm.weight.assign_(np.zeros(16))
    assert frozen["model.norm.weight"].max() == 9


# -- several files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_several_files_hold_what_one_holds(tmp_path, model, dtype):
    model.save_pretrained(tmp_path / "one", dtype=dtype)
    model.save_pretrained(tmp_path / "many", dtype=dtype, shard_bytes=3000)
    assert not (tmp_path / "many" / "model.safetensors").exists()
    one, many = read_weights(tmp_path / "one"), read_weights(tmp_path / "many")
    assert one.keys() == many.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], many[name])
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert files == [f"model-{n + 1:05}-of-{len(files):05}.safetensors" for n in range(len(files))]
    assert index["metadata"]["total_size"] == sum(a.size for a in one.values()) * (2 if dtype else 4)
    for file in files:
        held = safetensors.load(tmp_path / "many" / file)[0]
        assert len(held) == 1 or sum(a.size for a in held.values()) * (2 if dtype else 4) <= 3000
    assert json.loads((tmp_path / "many" / "config.json").read_text())["dtype"] == (dtype or "float32")


def test_what_is_saved_last_is_what_is_read(tmp_path, model):
    for how in ({"shard_bytes": 3000}, {}, {"shard_bytes": 3000}):
        model.model.norm.weight.assign_(model.model.norm.weight.data + 1)
        model.save_pretrained(tmp_path, **how)
        np.testing.assert_array_equal(read_weights(tmp_path)["model.norm.weight"], model.model.norm.weight.data)


def damaged(change):
    """A function that changes the index of a folder with two files, each with one tensor."""

    def apply(folder):
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        change(index, folder)
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return apply


FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda index, folder: (folder / SECOND).unlink(), f"{SECOND} is missing"),
        (lambda index, folder: index.pop("weight_map"), "'weight_map' should be an object"),
        (lambda index, folder: index.update(weight_map={}), "'weight_map' should be an object"),
        (lambda index, folder: index["weight_map"].update(a="../x"), r"a should be in a file of this folder.*'\.\./x'"),
        (lambda index, folder: index["weight_map"].update(a="/etc/passwd"), "should be in a file of this folder"),
        (lambda index, folder: index["weight_map"].update(a=3), "is said to be in 3"),
        (lambda index, folder: index["weight_map"].update(a="x" * 300), "should be in a file of this folder"),
        (lambda index, folder: index["weight_map"].update(a=SECOND), "a is not in it"),
        (lambda index, folder: index["weight_map"].update(c=SECOND), "c is not in it"),
        (lambda index, folder: index["weight_map"].pop("b"), ""),
        (
            lambda index, folder: safetensors.save(folder / SECOND, {"b": np.ones(9), "z": np.ones(1)}),
            "z is in it, but .* does not say so",
        ),
        (lambda index, folder: (folder / SECOND).write_bytes(b"x"), f"{SECOND}: 1 bytes are too few"),
        (
            lambda index, folder: safetensors.save(folder / SECOND, {"b": np.array([[1.0, np.nan]])}),
            r"b\[0, 1\] is nan; a model with such weights is broken",
        ),
    ],
)
def test_an_index_that_disagrees(tmp_path, change, match):
    write_folder(tmp_path, {}, {"a": np.ones(9), "b": np.ones(9)}, shard_bytes=80)
    assert sorted(p.name for p in tmp_path.glob("*.safetensors")) == [FIRST, SECOND]
    damaged(change)(tmp_path)
    if not match:  # a file that nothing is said of is not looked at
        assert list(read_weights(tmp_path)) == ["a"]
        return
    with pytest.raises(CheckpointError, match=match):
        read_weights(tmp_path)


@pytest.mark.peers
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_transformers_reads_our_files_and_we_read_its(tmp_path, model, rng, dtype):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    model.save_pretrained(tmp_path / "ours", dtype=dtype, shard_bytes=3000)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "ours", dtype=getattr(torch, dtype))
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="3KB")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").exists()
    ours, again = read_weights(tmp_path / "ours"), read_weights(tmp_path / "theirs")
    assert ours.keys() == again.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, again[name])
        np.testing.assert_array_equal(array.astype(np.float32), theirs.state_dict()[name].float().numpy())
