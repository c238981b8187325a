"""The GGUF reader: every kind of block, llama.cpp's order of rows, and one kind of error for whatever a file holds."""

import struct

import numpy as np
import pytest
from gguf_files import gguf_bytes, settings_of, tensors_of, tiny

import tinyllm as tl
from tinyllm import gguf
from tinyllm.errors import CheckpointError, ConfigError, TinyLLMError

KINDS = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"]


def written(tmp_path, settings, tensors, **options):
    data, held = gguf_bytes(settings, tensors, **options)
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    return path, held


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_block(tmp_path, rng, kind, version):
    x = rng.normal(size=(5, 64)).astype(np.float32)
    path, held = written(tmp_path, {}, {"x": (x, kind)}, version=version)
    y = gguf.read(path).tensors["x"].decode()
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, held["x"])
    assert np.abs(y - x).max() < {"F32": 1e-9, "F16": 2e-3, "BF16": 2e-2, "Q8_0": 2e-2}.get(kind, 0.5)
    rows = np.array([3, 0, 4, 1, 2])
    np.testing.assert_array_equal(gguf.read(path).tensors["x"].decode(rows), held["x"][rows])


def test_blocks_by_hand(tmp_path):
    """One block of each kind, from the description of the format."""
    q = bytes(range(16))  # low halves 0..15, high halves 0
    cases = {
        2: (struct.pack("<e", 0.5) + q, [(n - 8) / 2 for n in range(16)] + [-4.0] * 16),
        3: (struct.pack("<ee", 0.5, -1) + q, [n / 2 - 1 for n in range(16)] + [-1.0] * 16),
        8: (struct.pack("<e32b", 0.25, *range(-16, 16)), [n / 4 for n in range(-16, 16)]),
    }
    for number, (block, values) in cases.items():
        decoded = np.empty((1, 32), np.float32)
        gguf.KINDS[number].decode(np.frombuffer(block, np.uint8)[None], decoded)
        assert decoded[0].tolist() == values


def test_settings_of_every_type(tmp_path):
    settings = {
        "a": ("u32", 7),
        "b": ("i32", -7),
        "c": ("f32", 0.5),
        "d": ("bool", True),
        "e": "é",
        "f": ["x", "", "猫"],
        "g": [("i32", 1), ("i32", -2)],
        "h": ("u64", 1 << 40),
        "i": ("f64", 0.1),
        "j": [],
    }
    path, _ = written(tmp_path, settings, {})
    found = gguf.read(path)
    got = [
        found.get(n, k)
        for n, k in zip("abcdefghij", [int, int, float, bool, str, list, list, int, float, list], strict=True)
    ]
    assert got == [7, -7, 0.5, True, "é", ["x", "", "猫"], [1, -2], 1 << 40, 0.1, []]
    assert found.get("none", int, 3) == 3
    with pytest.raises(CheckpointError, match="setting a is '7'; expected: str"):
        found.get("a", str)
    with pytest.raises(CheckpointError, match="setting none is missing"):
        found.get("none", int)


@pytest.mark.parametrize("tied", [True, False])
def test_a_llama_is_the_same_from_a_gguf_file(tmp_path, rng, tied):
    model = tiny(rng, tie_word_embeddings=tied, rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    path, _ = written(tmp_path, settings_of(model.config), tensors_of(model))
    again = tl.models.from_pretrained(path)
    assert again.config == model.config or again.config.rms_norm_eps != model.config.rms_norm_eps  # float32 in the file
    ids = rng.integers(0, 96, (2, 9))
    # The order of channels within a head changes what is summed first, and the file has eps in float32.
    np.testing.assert_allclose(again(ids).logits.data, model(ids).logits.data, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_quantised_llama_computes_with_the_decoded_weights(tmp_path, rng, kind):
    model = tiny(rng)
    path, held = written(tmp_path, settings_of(model.config), tensors_of(model, kind))
    again = tl.models.from_pretrained(path)
    np.testing.assert_array_equal(again.model.layers[1].mlp.up_proj.weight.data, held["blk.1.ffn_up.weight"])
    assert np.isfinite(again(rng.integers(0, 96, (1, 5))).logits.data).all()
    assert tl.models.from_pretrained(path, dtype="float64").model.norm.weight.dtype == np.float64


def test_float32_weights_stay_in_the_file(tmp_path, rng):
    path, _ = written(tmp_path, {}, {"x": (rng.normal(size=(4, 8)), "F32")})
    before = path.read_bytes()
    x = gguf.read(path).tensors["x"].decode()
    assert not x.flags.owndata
    x[:] = 0  # one's own copy of the page
    assert path.read_bytes() == before


# -- refused -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"general.architecture": "mamba"}, "architecture is 'mamba', which is unknown; known: llama"),
        ({"general.architecture": ("u32", 1)}, "general.architecture is '1'; expected: str"),
        ({"llama.block_count": ("u32", 3)}, "block_count is 3, but there are weights of 2 blocks"),
        ({"llama.embedding_length": ("u32", 1 << 20)}, "dimension_count=16 cannot be obeyed; only 262144"),
        ({"llama.vocab_size": ("u32", 10**9)}, "by the file's settings"),
        ({"llama.vocab_size": ("u64", 10**12)}, "by the file's settings"),
        ({"llama.feed_forward_length": ("u32", 0)}, "intermediate_size"),
        ({"llama.feed_forward_length": ("u64", 10**12)}, "by the file's settings"),
        ({"llama.attention.head_count": ("u32", 0)}, "dimension_count=16 cannot"),
        ({"llama.rope.dimension_count": ("u32", 8)}, "rope.dimension_count=8 cannot be obeyed; only 16"),
        ({"llama.rope.scaling.type": "longrope", "llama.rope.scaling.factor": ("f32", 2)}, "longrope"),
        ({"llama.expert_count": ("u32", 8)}, "expert_count=8 cannot be obeyed"),
        ({"llama.logit_scale": ("f32", 8)}, "llama.logit_scale is unknown"),
        ({"split.count": ("u32", 2)}, "one part of several"),
        ({"general.alignment": ("u32", 0)}, "general.alignment is 0"),
    ],
)
def test_settings_that_cannot_be_obeyed(tmp_path, rng, change, match):
    model = tiny(rng)
    path, _ = written(tmp_path, settings_of(model.config) | change, tensors_of(model))
    with pytest.raises((CheckpointError, ConfigError), match=match) as error:
        tl.models.from_pretrained(path)
    assert str(error.value).count(str(path)) == 1


def test_weights_that_do_not_belong(tmp_path, rng):
    model = tiny(rng)
    tensors = tensors_of(model)
    for change, match in (
        ({"blk.0.attn_q.bias": (np.zeros(64, np.float32), "F32")}, "attn_q.bias is unknown to a Llama"),
        ({"rope_freqs.weight": (np.zeros(8, np.float32), "F32")}, "rope_freqs.weight is unknown"),
        ({"blk.1.ffn_up.weight": (np.zeros((3, 64), np.float32), "F32")}, "mlp.up_proj.weight: shape"),
        ({"output_norm.weight": (np.full(64, np.nan, np.float32), "F32")}, "output_norm.weight: number 0 is nan"),
        ({"token_embd.weight": (np.full((96, 64), np.inf, np.float32), "F16")}, "token_embd.weight: number 0 is inf"),
    ):
        path, _ = written(tmp_path, settings_of(model.config), tensors | change)
        with pytest.raises(CheckpointError, match=match):
            tl.models.from_pretrained(path)
    del tensors["blk.1.attn_q.weight"]
    path, _ = written(tmp_path, settings_of(model.config), tensors)
    with pytest.raises(CheckpointError, match=r"missing: model.layers.1.self_attn.q_proj.weight"):
        tl.models.from_pretrained(path)


HEAD = b"GGUF" + struct.pack("<I", 3)


def entry(name=b"x", axes=(32,), kind=0, offset=0):
    return struct.pack("<Q", len(name)) + name + struct.pack(f"<I{len(axes)}QIQ", len(axes), *axes, kind, offset)


def with_tensors(*entries, values=bytes(256)):
    head = HEAD + struct.pack("<QQ", len(entries), 0) + b"".join(entries)
    return head + bytes(-len(head) % 32) + values


DAMAGED = {
    "empty": (b"", "too short"),
    "another format": (b"PK\x03\x04" + bytes(60), "expected GGUF"),
    "version 1": (b"GGUF" + struct.pack("<IQQ", 1, 0, 0) + bytes(9), "version 2 or 3"),
    "the other byte order": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(9), "version 2 or 3"),
    "more tensors than bytes": (HEAD + struct.pack("<QQ", 1 << 60, 0) + bytes(64), "1152921504606846976 tensors"),
    "more settings than bytes": (HEAD + struct.pack("<QQ", 0, 1 << 60) + bytes(64), "1152921504606846976 settings"),
    "a long name": (HEAD + struct.pack("<QQQ", 0, 1, 1 << 50) + bytes(64), "bytes of a setting's name"),
    "a setting of no type": (HEAD + struct.pack("<QQQ", 0, 1, 1) + b"a" + struct.pack("<I", 99) + bytes(9), "type 99"),
    "a name of no UTF-8": (HEAD + struct.pack("<QQQ", 0, 1, 1) + b"\xff" + bytes(64), "not UTF-8"),
    "a list of lists": (HEAD + struct.pack("<QQQ", 0, 1, 1) + b"a" + struct.pack("<IIQ", 9, 9, 1) + bytes(9), "type 9"),
    "a long list": (HEAD + struct.pack("<QQQ", 0, 1, 1) + b"a" + struct.pack("<IIQ", 9, 5, 1 << 61), "numbers of a"),
    "a long list of strings": (
        HEAD + struct.pack("<QQQ", 0, 1, 1) + b"a" + struct.pack("<IIQ", 9, 8, 1 << 61),
        "strings",
    ),
    "a setting twice": (
        HEAD + struct.pack("<QQ", 0, 2) + (struct.pack("<Q", 1) + b"a" + struct.pack("<II", 4, 1)) * 2,
        "twice",
    ),
    "no axis": (with_tensors(entry(axes=())), "0 axes"),
    "nine axes": (with_tensors(entry(axes=(1,) * 9)), "9 axes"),
    "an empty tensor": (with_tensors(entry(axes=(0, 4))), "it is empty"),
    "another quantisation": (with_tensors(entry(kind=12)), "type Q4_K, which is not read; known: BF16, F16, F32"),
    "no quantisation": (with_tensors(entry(kind=77)), "type 77"),
    "part of a block": (with_tensors(entry(axes=(33,), kind=2)), "rows of 33 numbers"),
    "beyond the end": (with_tensors(entry(axes=(1 << 40,))), "was it cut off"),
    "beyond all memory": (with_tensors(entry(axes=(1 << 63, 1 << 63))), "was it cut off"),
    "begins beyond the end": (with_tensors(entry(offset=1 << 20)), "was it cut off"),
    "an odd place": (with_tensors(entry(offset=4)), "no multiple of 32"),
    "overlap": (with_tensors(entry(axes=(16,)), entry(b"y", offset=32)), "y overlaps the tensor before it"),
    "a tensor twice": (with_tensors(entry(), entry(offset=128)), "the tensor 'x' comes twice"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_refused(tmp_path, what):
    data, match = DAMAGED[what]
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=match) as error:
        gguf.read(path)
    assert str(path) in str(error.value)


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        tl.models.from_pretrained(tmp_path / "none.gguf")
    with pytest.raises(CheckpointError, match="cannot be read"):
        gguf.read(tmp_path)


def test_cut_anywhere_it_is_refused(tmp_path, rng):
    data, _ = gguf_bytes({"a": "b", "c": [("i32", 1)] * 3, "d": ["x", "y"]}, {"x": (rng.normal(size=(2, 32)), "Q8_0")})
    path = tmp_path / "m.gguf"
    whole = data.rstrip(b"\0")  # the padding behind the last tensor belongs to nothing
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        with pytest.raises(TinyLLMError):
            gguf.read(path)


# -- llama2.c ----------------------------------------------------------------------------------------------------------


def test_llama2c_files_that_are_damaged(tmp_path):
    path = tmp_path / "m.bin"
    good = struct.pack("<7i", 8, 8, 1, 2, 1, 4, 4)
    for data, match in (
        (b"", "too few"),
        (good, "by its header the file has"),
        (good + bytes(8), "by its header the file has"),
        (struct.pack("<7i", 8, 8, 1 << 30, 2, 1, 1 << 30, 4), "by its header"),
        (struct.pack("<7i", 8, 8, 1, 3, 1, 4, 4), "no file of llama2.c"),
        (struct.pack("<7i", -8, 8, 1, 2, 1, 4, 4), "no file of llama2.c"),
    ):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=match):
            tl.models.from_pretrained(path)


def test_the_published_story(data_folder):
    """The greedy text of a trained model, character by character."""
    folder = data_folder / "stories260k"
    model = tl.models.from_pretrained(folder / "stories260K.bin")
    tokenizer = tl.text.load_tokenizer(folder / "tok512.bin")
    ids = tl.generate(model, [tokenizer.bos_token_id], max_new_tokens=256)
    assert tokenizer.decode(ids[0]) + "\n" == (folder / "golden_greedy.txt").read_text()
    assert tokenizer.encode(tokenizer.decode(ids[0])) == ids[0].tolist()
