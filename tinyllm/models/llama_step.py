"""New tokens through a Llama with a cache, a kernel for each block: what `llama.py` computes, without its steps.

Writing asks for one token at a time, and each is little work for many operations. Where nothing is recorded and there
are few tokens, the blocks of a Llama go through `tinyllm.kernels.cpu.decoder_block`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tinyllm import threads
from tinyllm.autograd import is_recording
from tinyllm.autograd.settings import compiles
from tinyllm.autograd.tensor import Storage, Tensor
from tinyllm.models.cache import KVCache

if TYPE_CHECKING:
    from tinyllm.models.llama import Block, Context, Decoder

_TOKENS = 8  # up to which a kernel that reads the weights once is faster than products of matrices
_WORTH = 1 << 16  # elements of a matrix, from which the kernel is worth loading Numba for
_GRAIN = 1 << 20  # elements of the weights, which a thread reads in 150 us, while waking it costs 30


def suits(decoder: Decoder, x: Tensor, cache: KVCache | None) -> bool:
    """Whether `blocks` does the work for the embedded tokens x (B, T, C)."""
    config, array = decoder.config, x._storage.array
    return (
        cache is not None
        and not is_recording()
        and array.size <= _TOKENS * config.hidden_size
        and config.hidden_size * config.intermediate_size >= _WORTH
        and config.hidden_act in ("silu", "swish")
        and not (config.attention_bias or config.mlp_bias)
        and type(array) is np.ndarray
        and compiles(array)
    )


def blocks(decoder: Decoder, x: Tensor, context: Context) -> list[Tensor]:
    """The stream (B, T, C) before the first block and after each."""
    B, T, C = x.shape
    stream = x._storage.array.reshape(B * T, C)
    D = decoder.config.D
    cos, sin = (np.ascontiguousarray(np.broadcast_to(t, (B, T, D // 2))).reshape(B * T, D // 2) for t in context.turn)
    states = [x]
    for block in decoder.layers:
        stream = _block(block, stream, (cos, sin), context, B, T)
        states.append(Tensor._wrap(Storage(stream.reshape(B, T, C))))
    return states


def _block(
    block: Block, stream: np.ndarray, turns: tuple[np.ndarray, np.ndarray], context: Context, B: int, T: int
) -> np.ndarray:
    from tinyllm.kernels.cpu import decoder_block
    from tinyllm.models.llama import allowed

    attention, mlp, config = block.self_attn, block.mlp, block.self_attn.config
    assert context.cache is not None
    shape = (B, config.keys // config.D, T, config.D)
    keys, values, begin, end = context.cache.reserve(attention.layer, shape, shape, stream)
    mask = allowed(context.visible, T, end + T - begin, config.sliding_window)
    if mask is None:
        masks, which = np.empty((0, 0, 0), stream.dtype), np.empty(0, np.int64)
    else:  # (1 or B, T or 1, S), and which of them each head takes
        four = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)[:, 0]
        masks = np.where(four, stream.dtype.type(0), stream.dtype.type(-np.inf))
        heads = config.queries // config.D
        which = np.repeat(np.arange(B) % len(masks), heads)
    eps = float(config.rms_norm_eps)
    stream = decoder_block.attend(
        stream,
        _array(block.input_layernorm.weight),
        eps,
        tuple(_array(p.weight) for p in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)),
        turns,
        1 / math.sqrt(config.D),
        *(keys, values, begin, end, masks, which),
    )
    weight = _array(block.post_attention_layernorm.weight)
    gates = tuple(_array(p.weight) for p in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
    inner = config.intermediate_size
    added = threads.parallel(
        lambda i, j: decoder_block.feed(stream, weight, eps, gates, i, j),
        inner,
        1 + _GRAIN * inner // (3 * gates[0].size),
    )
    for part in added:
        stream += part
    return stream


def _array(parameter: Tensor) -> np.ndarray:
    return parameter._storage.array
