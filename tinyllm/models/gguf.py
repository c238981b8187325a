"""A Llama from a GGUF file: llama.cpp's names and settings, in Hugging Face's words."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tinyllm import gguf
from tinyllm.errors import CheckpointError, ConfigError, TinyLLMError, nearest
from tinyllm.models import loading
from tinyllm.models.llama import Llama
from tinyllm.models.llama_config import LlamaConfig
from tinyllm.threads import each

# Names of tensors: outside the blocks, and within block N, where they begin "blk.N." and "model.layers.N.".
_OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_INSIDE = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
# Settings of the architecture, after "llama.", that are read below; others are refused, because they would be passed
# over. Those that change nothing with a value are there with it.
_READ = {
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.freq_base",
    "rope.dimension_count",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "vocab_size",
}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "attention.causal": (True,),
    "rope.scaling.finetuned": (True, False),
    "use_parallel_residual": (False,),
}


def load_gguf(path: str | os.PathLike[str], dtype: DTypeLike | None = None) -> Llama:
    """The Llama in a GGUF file of the architecture "llama", its weights decoded.

    Parameters
    ----------
    path : path
    dtype : dtype, optional
        Of the parameters; float32 by default.

    Returns
    -------
    Llama
        In evaluation mode.

    Raises
    ------
    CheckpointError
        If the file is damaged, or holds another architecture, or its settings and weights do not belong together.
    ConfigError
        If a setting cannot be obeyed.
    """
    file = gguf.read(path)
    try:
        config = LlamaConfig.from_dict(_settings(file))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    named = {_name(name, file): tensor for name, tensor in file.tensors.items()}
    _check_sizes(config, named, file)
    decoded = each(lambda item: item[1].decode(_rows(item[0], config)), named.items())
    return filled(config, dict(zip(named, decoded, strict=True)), file.path, dtype)


def filled(config: LlamaConfig, weights: Mapping[str, np.ndarray], path: Any, dtype: DTypeLike | None) -> Llama:
    """A Llama with these weights, which it keeps; CheckpointError, with the file's name, where they do not fit."""
    model = Llama(config, rng=loading.NoDraws(), dtype=np.float32 if dtype is None else dtype)  # type: ignore[arg-type]
    try:
        model.load_state_dict(weights, copy=False)
    except TinyLLMError as error:
        raise CheckpointError(f"{path}: {error}") from None
    model.eval()
    return model


def _settings(file: gguf.GGUF) -> dict[str, Any]:
    """The file's settings as a config.json has them."""
    kind = file.get("general.architecture", str)
    if kind != "llama":
        raise CheckpointError(f"{file.path}: the architecture is {kind!r}, which is unknown; known: llama")
    for name, value in file.metadata.items():
        key = name.removeprefix("llama.")
        if not name.startswith("llama.") or key in _READ:
            continue
        if key not in _NEUTRAL:
            raise ConfigError(f"the setting {name} is unknown{nearest(key, _READ)}")
        if value not in _NEUTRAL[key]:
            raise ConfigError(f"{name}={value!r} cannot be obeyed; only {_NEUTRAL[key][0]!r} can")
    if file.get("split.count", int, 1) > 1:
        raise CheckpointError(f"{file.path}: this is one part of several; merge them into one file first")
    heads, channels = file.get("llama.attention.head_count", int), file.get("llama.embedding_length", int)
    head = file.get("llama.attention.key_length", int, channels // max(heads, 1))
    for name in ("llama.attention.value_length", "llama.rope.dimension_count"):
        if file.get(name, int, head) != head:
            raise ConfigError(f"{name}={file.metadata[name]} cannot be obeyed; only {head} can")
    rope: dict[str, Any] = {"rope_theta": file.get("llama.rope.freq_base", float, 10000.0)}
    scaling = file.get("llama.rope.scaling.type", str, "none")
    if scaling != "none":
        rope |= {"rope_type": scaling, "factor": file.get("llama.rope.scaling.factor", float)}
        if scaling == "yarn":
            original = "llama.rope.scaling.original_context_length"
            rope["original_max_position_embeddings"] = file.get(original, int)
    embeddings = file.tensors.get("token_embd.weight")
    rows = embeddings.shape[0] if embeddings is not None else 1
    return {
        "model_type": "llama",
        "vocab_size": file.get("llama.vocab_size", int, rows),
        "hidden_size": channels,
        "intermediate_size": file.get("llama.feed_forward_length", int),
        "num_hidden_layers": file.get("llama.block_count", int),
        "num_attention_heads": heads,
        "num_key_value_heads": file.get("llama.attention.head_count_kv", int, heads),
        "head_dim": head,
        "max_position_embeddings": file.get("llama.context_length", int),
        "rms_norm_eps": file.get("llama.attention.layer_norm_rms_epsilon", float),
        "rope_parameters": rope,
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "bos_token_id": file.get("tokenizer.ggml.bos_token_id", int, None),
        "eos_token_id": file.get("tokenizer.ggml.eos_token_id", int, None),
        "pad_token_id": file.get("tokenizer.ggml.padding_token_id", int, None),
    }


def _name(name: str, file: gguf.GGUF) -> str:
    """A tensor's name in Hugging Face's words."""
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    match name.split(".", 2):
        case ["blk", number, rest] if number.isdecimal() and rest in _INSIDE:
            return f"model.layers.{number}.{_INSIDE[rest]}"
    raise CheckpointError(f"{file.path}: the tensor {name} is unknown to a Llama; nothing here would use it")


def _check_sizes(config: LlamaConfig, tensors: Mapping[str, gguf.StoredTensor], file: gguf.GGUF) -> None:
    """Hold the settings against the weights before anything of their size is made."""
    C, F = config.hidden_size, config.intermediate_size
    expected = {
        "model.embed_tokens.weight": (config.vocab_size, C),
        "model.layers.0.self_attn.q_proj.weight": (config.queries, C),
        "model.layers.0.self_attn.k_proj.weight": (config.keys, C),
        "model.layers.0.mlp.gate_proj.weight": (F, C),
    }
    for name, shape in expected.items():
        found = tensors[name].shape if name in tensors else "missing"
        if found != shape:
            raise CheckpointError(
                f"{file.path}: by the file's settings {name} has the shape {shape}, but it is {found}"
            )
    blocks = len({name.split(".")[2] for name in tensors if name.startswith("model.layers.")})
    if blocks != config.num_hidden_layers:
        raise CheckpointError(
            f"{file.path}: llama.block_count is {config.num_hidden_layers}, but there are weights of {blocks} blocks"
        )


def _rows(name: str, config: LlamaConfig) -> np.ndarray | None:
    """The order of the rows of a matrix of queries or keys; None where it stays."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.key_value_heads}.get(name.split(".")[-2])
    return None if heads is None else halves_of_pairs(heads, config.D)


def halves_of_pairs(heads: int, D: int) -> np.ndarray:
    """Where the rows of queries or keys come from, whose channels were pairs side by side.

    A rotary position turns pairs of channels. In llama.cpp and llama2.c they are (0, 1), (2, 3), ...; here, as in
    Hugging Face's Llama, (0, D/2), (1, D/2 + 1), ... Scores do not change if queries and keys are reordered alike.
    """
    return np.arange(heads * D).reshape(heads, D // 2, 2).swapaxes(1, 2).reshape(-1)
