"""Writes small GGUF files, for the tests of the reader: the inverse of what it does, in the format's own words."""

import struct

import numpy as np

from tinyllm.models import Llama, LlamaConfig

TYPES = {"u32": (4, "I"), "i32": (5, "i"), "f32": (6, "f"), "bool": (7, "?"), "u64": (10, "Q"), "f64": (12, "d")}
KIND = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8, "BF16": 30}


def text(value):
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def setting(value):
    """The type and value of a setting: (type, number), a string, or a list of either."""
    if isinstance(value, str | bytes):
        return struct.pack("<I", 8) + text(value)
    if isinstance(value, list):
        if value and isinstance(value[0], tuple):
            number, code = TYPES[value[0][0]]
            return struct.pack(f"<IIQ{len(value)}{code}", 9, number, len(value), *(v for _, v in value))
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    number, code = TYPES[value[0]]
    return struct.pack(f"<I{code}", number, value[1])


def quantized(array, kind):
    """The bytes of an array in this kind, rounded simply; and the numbers that they stand for."""
    x = np.ascontiguousarray(array, np.float32)
    if kind == "F32":
        return x.tobytes(), x
    if kind == "F16":
        return x.astype("<f2").tobytes(), x.astype("<f2").astype(np.float32)
    if kind == "BF16":
        upper = (x.view(np.uint32) >> 16).astype("<u2")
        return upper.tobytes(), (upper.astype(np.uint32) << 16).view(np.float32)
    blocks = x.reshape(-1, 32)
    low = blocks.min(axis=1, keepdims=True).astype("<f2")
    if kind == "Q4_1":
        d = ((blocks.max(axis=1, keepdims=True) - low) / 15).astype("<f2")
        q = np.clip(np.round((blocks - low) / np.maximum(d, 1e-6)), 0, 15).astype(np.uint8)
        head, back = [d, low], q * d.astype(np.float32) + low.astype(np.float32)
    elif kind == "Q4_0":
        d = (np.abs(blocks).max(axis=1, keepdims=True) / 8).astype("<f2")
        q = np.clip(np.round(blocks / np.maximum(d, 1e-6)) + 8, 0, 15).astype(np.uint8)
        head, back = [d], (q.astype(np.float32) - 8) * d.astype(np.float32)
    else:
        d = (np.abs(blocks).max(axis=1, keepdims=True) / 127).astype("<f2")
        q = np.clip(np.round(blocks / np.maximum(d, 1e-6)), -127, 127).astype(np.int8)
        head, back = [d], q.astype(np.float32) * d.astype(np.float32)
    packed = q if kind == "Q8_0" else q[:, :16] | (q[:, 16:] << 4)
    parts = [part.view(np.uint8) for part in head] + [packed.view(np.uint8)]
    return np.concatenate(parts, axis=1).tobytes(), back.reshape(x.shape)


def gguf_bytes(settings, tensors, version=3, alignment=32):
    """A whole file of ``settings`` and ``tensors`` (name -> (array, kind)), and what its tensors hold."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(settings))
    head += b"".join(text(name) + setting(value) for name, value in settings.items())
    values, held = b"", {}
    for name, (array, kind) in tensors.items():
        data, held[name] = quantized(array, kind)
        axes = array.shape[::-1]
        head += text(name) + struct.pack(f"<I{len(axes)}QIQ", len(axes), *axes, KIND[kind], len(values))
        values += data + bytes(-len(data) % alignment)
    return head + bytes(-len(head) % alignment) + values, held


def pairs(array, heads):
    """Rows of queries or keys in llama.cpp's order, in which the channels of a rotary pair are side by side."""
    D = len(array) // heads
    return array.reshape(heads, 2, D // 2, -1).swapaxes(1, 2).reshape(array.shape)


HERE = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def tiny(rng, **options):
    """A Llama of two blocks, whose rows are whole blocks of 32."""
    options = {"num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 96, "rms_norm_eps": 1e-5, **options}
    config = LlamaConfig(
        hidden_size=64, intermediate_size=96, num_attention_heads=4, max_position_embeddings=64, **options
    )
    model = Llama(config, rng=rng).eval()
    for p in model.parameters():
        p.assign_(p.data + rng.normal(scale=0.2, size=p.shape))
    return model


def settings_of(config):
    return {
        "general.architecture": "llama",
        "general.name": "tiny",
        "general.quantization_version": ("u32", 2),
        "llama.block_count": ("u32", config.num_hidden_layers),
        "llama.context_length": ("u32", config.max_position_embeddings),
        "llama.embedding_length": ("u32", config.hidden_size),
        "llama.feed_forward_length": ("u32", config.intermediate_size),
        "llama.attention.head_count": ("u32", config.num_attention_heads),
        "llama.attention.head_count_kv": ("u32", config.num_key_value_heads),
        "llama.attention.layer_norm_rms_epsilon": ("f32", config.rms_norm_eps),
        "llama.rope.freq_base": ("f32", config.rope_parameters["rope_theta"]),
        "llama.rope.dimension_count": ("u32", config.D),
        "llama.vocab_size": ("u32", config.vocab_size),
    }


def tensors_of(model, kind="F32"):
    """A model's weights under llama.cpp's names and in its order; norms are F32, as everywhere."""
    found = {}
    for name, array in model.state_dict().items():
        name = name.removesuffix(".weight")
        if name in OUTSIDE:
            found[f"{OUTSIDE[name]}.weight"] = array, kind if array.ndim == 2 else "F32"
            continue
        _, _, number, part = name.split(".", 3)
        heads = {
            "self_attn.q_proj": model.config.num_attention_heads,
            "self_attn.k_proj": model.config.num_key_value_heads,
        }
        if part in heads:
            array = pairs(array, heads[part])
        found[f"blk.{number}.{HERE[part]}.weight"] = array, kind if array.ndim == 2 else "F32"
    return found
