"""A Llama from llama2.c's file format, version 0: seven sizes, then float32 weights in one order.

Source: A. Karpathy's llama2.c, the function that writes "legacy" files; TinyStories models are published in it.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from tinyllm.errors import CheckpointError, ConfigError
from tinyllm.models.folder import refuse_broken
from tinyllm.models.gguf import filled, halves_of_pairs
from tinyllm.models.llama import Llama
from tinyllm.models.llama_config import LlamaConfig

_HEADER = struct.Struct("<7i")


def load_llama2c(path: str | os.PathLike[str], dtype: DTypeLike | None = None) -> Llama:
    """The Llama in a ``.bin`` file of llama2.c.

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
        If there is no such file, or its size is not what its header says.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(data) < _HEADER.size:
        raise CheckpointError(f"{path}: {len(data)} bytes are too few for a file of llama2.c; was it cut off?")
    C, F, L, H, G, V, T = _HEADER.unpack_from(data)
    try:
        config = LlamaConfig(
            vocab_size=abs(V),
            hidden_size=C,
            intermediate_size=F,
            num_hidden_layers=L,
            num_attention_heads=H,
            num_key_value_heads=G,
            max_position_embeddings=T,
            rms_norm_eps=1e-5,
            tie_word_embeddings=V > 0,  # the sign says so
            bos_token_id=1,
            eos_token_id=2,
        )
    except ConfigError as error:
        raise CheckpointError(f"{path}: this is no file of llama2.c: {error}") from None
    Q, K, D = config.queries, config.keys, config.D
    order = [
        ("model.embed_tokens", (abs(V), C)),
        ("input_layernorm", (L, C)),
        ("self_attn.q_proj", (L, Q, C)),
        ("self_attn.k_proj", (L, K, C)),
        ("self_attn.v_proj", (L, K, C)),
        ("self_attn.o_proj", (L, C, Q)),
        ("post_attention_layernorm", (L, C)),
        ("mlp.gate_proj", (L, F, C)),
        ("mlp.down_proj", (L, C, F)),
        ("mlp.up_proj", (L, F, C)),
        ("model.norm", (C,)),
        ("", (2, T, D // 2)),  # cosines and sines, which are computed here
    ] + ([] if V > 0 else [("lm_head", (-V, C))])
    sizes = [int(np.prod(shape, dtype=object)) for _, shape in order]
    if _HEADER.size + 4 * sum(sizes) != len(data):
        raise CheckpointError(
            f"{path}: by its header the file has {_HEADER.size + 4 * sum(sizes)} bytes, but it has {len(data)}: "
            "it was cut off, or is no file of llama2.c, version 0"
        )
    weights: dict[str, np.ndarray] = {}
    numbers = np.frombuffer(data, "<f4", offset=_HEADER.size)
    for (name, shape), part in zip(order, np.split(numbers, np.cumsum(sizes)[:-1]), strict=True):
        values = part.reshape(shape)
        refuse_broken(path, name, values)
        if name in ("self_attn.q_proj", "self_attn.k_proj"):
            values = values[:, halves_of_pairs(shape[1] // D, D)]
        if name.startswith(("model.", "lm_head")):
            weights[f"{name}.weight"] = values
        elif name:
            weights |= {f"model.layers.{layer}.{name}.weight": values[layer] for layer in range(L)}
    return filled(config, weights, path, dtype)
