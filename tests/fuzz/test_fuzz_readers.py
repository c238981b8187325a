"""Readers of model files, held against thousands of damaged ones: they load, or raise our error; no crash, no hang,
and no memory beyond what a file of that size can mean.
"""

import gc
import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from gguf_files import gguf_bytes, settings_of, tensors_of, tiny
from mutations import damaged_bytes, damaged_json, deadline

import tinyllm as tl
from tinyllm import gguf, safetensors
from tinyllm.errors import TinyLLMError
from tinyllm.models.folder import read_weights, write_folder
from tinyllm.text import ByteLevelBPE, load_tokenizer

MIB = 1 << 20
ROOM = 192 * MIB  # that the process may grow by: a file of some KiB that means more was believed


@contextmanager
def little_memory():
    """The process cannot ask for much more memory than it has, so that an absurd size is a MemoryError."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        yield
        return
    gc.collect()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def hammer(count, damage, whole, path, use, seed=0):
    """Write `count` damaged versions of the bytes `whole` to `path` and `use` each; how many were refused."""
    use()  # the whole file is fine, and whatever is loaded once is loaded
    refused = 0
    with little_memory():
        for number in range(count):
            data = damage(np.random.default_rng([seed, number]), whole)
            path.write_bytes(data)
            try:
                with deadline(10):
                    use()
            except TinyLLMError as error:
                refused += 1
                said = str(error)
            except BaseException as error:
                raise AssertionError(f"damaged file number {number} (seed {seed}): {error!r:.300}") from error
            else:
                said = ""
            assert len(said) < 20_000
    path.write_bytes(whole)
    return refused


def used_safetensors(folder):
    path = folder / "m.safetensors"
    tensors = {"a": np.arange(6.0).reshape(2, 3), "b": np.arange(3, dtype="i4"), "c": np.array([True, False])}
    safetensors.save(path, tensors | {"h": np.ones(4, "f2")}, {"format": "pt"})
    turn = iter(range(1 << 60))

    def use():
        for array in safetensors.load(path, mapped=next(turn) % 2 == 0)[0].values():
            array.sum()

    return damaged_bytes, path, use


def used_gguf(folder):
    path = folder / "m.gguf"
    rng = np.random.default_rng(0)
    settings = {
        "general.alignment": ("u32", 32),
        "a": "text",
        "b": ["x", "猫"],
        "c": [("f32", 0.5)] * 3,
        "d": ("bool", 1),
    }
    tensors = {kind: (rng.normal(size=(2, 32)), kind) for kind in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1")}
    path.write_bytes(gguf_bytes(settings, tensors)[0])

    def use():
        for tensor in gguf.read(path).tensors.values():
            tensor.decode()

    return damaged_bytes, path, use


def used_gguf_model(folder):
    """A whole model with its tokenizer."""
    path = folder / "model.gguf"
    model = tiny(np.random.default_rng(0), vocab_size=32, num_hidden_layers=1)
    pieces = ["<unk>", "<s>", "</s>", "▁", "a", "b", "▁a", "ab", "<0x41>", *(f"x{n}" for n in range(23))]
    settings = settings_of(model.config) | {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": [("f32", -float(n)) for n in range(32)],
        "tokenizer.ggml.token_type": [("i32", kind) for kind in [2, 3, 3, 1, 1, 1, 1, 1, 6] + [1] * 23],
        "tokenizer.ggml.bos_token_id": ("u32", 1),
        "tokenizer.ggml.unknown_token_id": ("u32", 0),
    }
    path.write_bytes(gguf_bytes(settings, tensors_of(model, "Q4_0"))[0])

    def use():
        tokenizer = load_tokenizer(path)
        tokenizer.decode(tokenizer.encode("ab a"))
        tl.models.from_pretrained(path)

    return damaged_bytes, path, use


def used_byte_level(folder):
    tokenizer = ByteLevelBPE.train(["the cat sat on the mat"], 262, ["<|end|>"])
    path = tokenizer.save(folder / "tokenizer.json")
    spec = json.loads(path.read_text("utf-8"))
    spec["normalizer"] = {
        "type": "Sequence",
        "normalizers": [{"type": "NFC"}, {"type": "Strip", "strip_left": True, "strip_right": False}],
    }
    spec["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {
                "type": "Split",
                "pattern": {"Regex": r"\p{N}{1,3}|[^\r\n\p{L}]?\p{L}+"},
                "behavior": "Isolated",
                "invert": False,
            },
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ],
    }
    spec["post_processor"] = {"type": "RobertaProcessing", "sep": ["<|end|>", 261], "cls": ["<|end|>", 261]}
    path.write_text(json.dumps(spec), "utf-8")
    return damaged_json, path, lambda: tokenized(path)


def used_sentence_pieces(folder):
    path = folder / "tokenizer.json"
    names = ["<unk>", "<s>", "▁", "a", "b", "c", "ab", "▁a", "▁ab", "<0x41>"]
    spec = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": n, "content": names[n], "special": True, "normalized": n == 1} for n in (0, 1)],
        "normalizer": {"type": "Prepend", "prepend": "▁"},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [{"type": "ByteFallback"}, {"type": "Metaspace", "replacement": "▁"}],
        },
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {name: index for index, name in enumerate(names)},
            "merges": [["a", "b"], ["▁", "a"], ["▁", "ab"]],
        },
    }
    path.write_text(json.dumps(spec), "utf-8")
    return damaged_json, path, lambda: tokenized(path)


def tokenized(path):
    tokenizer = load_tokenizer(path)
    ids = tokenizer.encode("the cat 12345\r\n ab<s>猫 \x1c a  b", "ab")
    tokenizer.decode(ids)


def folder_model(folder, **how):
    model = tiny(np.random.default_rng(0), vocab_size=8, num_hidden_layers=1)
    write_folder(folder, model.config.to_dict(), model.state_dict(), **how)


def used_config(folder):
    folder_model(folder)
    return damaged_json, folder / "config.json", lambda: tl.models.from_pretrained(folder)


def used_index(folder):
    folder_model(folder, shard_bytes=30_000)
    return damaged_json, folder / "model.safetensors.index.json", lambda: read_weights(folder)


def used_shard(folder):
    folder_model(folder, shard_bytes=30_000, dtype="bfloat16")
    path = sorted(folder.glob("model-*.safetensors"))[-1]
    return damaged_bytes, path, lambda: read_weights(folder)


def used_tokenizer_config(folder):
    ByteLevelBPE.train(["the cat"], 258, ["<|end|>"]).save(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(
        json.dumps({"eos_token": {"content": "<|end|>"}, "bos_token": "<|end|>", "chat_template": "{{ 1 }}"})
    )
    return damaged_json, path, lambda: load_tokenizer(folder)


READERS = {name.removeprefix("used_"): value for name, value in list(globals().items()) if name.startswith("used_")}
QUICK, SLOW = 2_000, 100_000


@pytest.mark.parametrize("reader", READERS)
def test_damaged_files(tmp_path, reader):
    damage, path, use = READERS[reader](tmp_path)
    # A GGUF file's bytes are damaged by "gguf"; of those with a whole model a part does in the quick tier.
    count = QUICK // 4 if reader == "gguf_model" else QUICK
    refused = hammer(count, damage, path.read_bytes(), path, use)
    assert refused > count // 50  # the damage is real


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_a_hundred_thousand_damaged_files(tmp_path, reader):
    damage, path, use = READERS[reader](tmp_path)
    refused = hammer(SLOW, damage, path.read_bytes(), path, use, seed=1)
    print(f"{reader}: {refused:,} of {SLOW:,} refused")
    assert refused > SLOW // 50
