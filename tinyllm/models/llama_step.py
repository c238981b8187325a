"""Tokens through a Llama outside the tape, some kernels for each block: what `llama.py` computes, without its steps.

Writing asks for one token at a time, and each is little work for many operations: a few tokens go through
`tinyllm.kernels.cpu.decoder_block`, which reads the weights once. A prompt is large products of matrices: many tokens
go through `tinyllm.kernels.cpu.prompt_block`, which holds them as columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tinyllm import buffers, threads
from tinyllm.autograd import is_recording
from tinyllm.autograd.fused import scaled_dot_product_attention
from tinyllm.autograd.settings import compiles
from tinyllm.autograd.tensor import Storage, Tensor
from tinyllm.models.cache import KVCache
from tinyllm.nn import RMSNorm, merge_heads

if TYPE_CHECKING:
    from tinyllm.models.llama import Block, Context, Decoder

_FEW = 12  # tokens, up to which a kernel that reads the weights once is faster than products of matrices
_WORTH = 1 << 16  # elements of a matrix, from which the kernels are worth loading Numba for
_GRAIN = 1 << 20  # elements of the weights, which a thread reads in 150 us, while waking it costs 30
_MOVED = 1 << 17  # elements that are normed, turned or transposed in 40 to 80 us
_MULTIPLIED = 6_000_000  # multiply-adds of 120 us


def suits(decoder: Decoder, x: Tensor, cache: KVCache | None) -> bool:
    """Whether `blocks` does the work for the embedded tokens x (B, T, C)."""
    config, array = decoder.config, x._storage.array
    return (
        not is_recording()
        and (cache is not None or not _are_few(x))
        and array.size > 0
        and config.hidden_size * config.intermediate_size >= _WORTH
        and config.hidden_act in ("silu", "swish")
        and not (config.attention_bias or config.mlp_bias)
        and not (decoder.training and config.attention_dropout)
        and type(array) is np.ndarray
        and compiles(array)
    )


def _are_few(x: Tensor) -> bool:
    return x.shape[0] * x.shape[1] <= _FEW


def blocks(decoder: Decoder, x: Tensor, context: Context) -> list[Tensor]:
    """The stream (B, T, C) before the first block and after each."""
    return (_few if _are_few(x) else _many)(decoder, x, context)


# -- a few tokens ------------------------------------------------------------------------------------------------------


def _few(decoder: Decoder, x: Tensor, context: Context) -> list[Tensor]:
    B, T, C = x.shape
    stream = x._storage.array.reshape(B * T, C)
    cos, sin = _turns(context, (B, T, decoder.config.D // 2))
    states = [x]
    for block in decoder.layers:
        stream = _few_through(block, stream, (cos, sin), context, B, T)
        states.append(Tensor._wrap(Storage(stream.reshape(B, T, C))))
    return states


def _turns(context: Context, shape: tuple[int, int, int]) -> tuple[np.ndarray, ...]:
    """Cosines and sines (B T, D/2) of the tokens."""
    return tuple(np.ascontiguousarray(np.broadcast_to(t, shape)).reshape(-1, shape[-1]) for t in context.turn)


def _few_through(
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


# -- many tokens -------------------------------------------------------------------------------------------------------


def _many(decoder: Decoder, x: Tensor, context: Context) -> list[Tensor]:
    B, T, C = x.shape
    cos, sin = (np.ascontiguousarray(t.T) for t in _turns(context, (B, T, decoder.config.D // 2)))
    states, stream = [x], _across(x._storage.array.reshape(B * T, C))
    for block in decoder.layers:
        stream = _many_through(block, stream, (cos, sin), context, B, T)
        states.append(Tensor._wrap(Storage(stream.T.reshape(B, T, C))))
    return states


def _across(rows: np.ndarray) -> np.ndarray:
    """The matrix (n, m) as (m, n)."""
    from tinyllm.kernels.cpu.blocks import transpose

    out = buffers.empty(rows.shape[::-1], rows.dtype)
    threads.parallel(lambda i, j: transpose(rows[i:j], out[:, i:j]), len(rows), 1 + _MOVED // rows.shape[1])
    return out


def _many_through(
    block: Block, stream: np.ndarray, turns: tuple[np.ndarray, np.ndarray], context: Context, B: int, T: int
) -> np.ndarray:
    """The stream (C, B T) after the block."""
    from tinyllm.kernels.cpu import prompt_block as kernels
    from tinyllm.models.llama import allowed

    attention, mlp, config = block.self_attn, block.mlp, block.self_attn.config
    C, tokens = stream.shape
    D, H, shared = config.D, config.queries // config.D, config.keys // config.D

    def new(rows: int) -> np.ndarray:
        return buffers.empty((rows, tokens), stream.dtype)

    def divided(work: Callable[[int, int], None], rows: int, width: int) -> None:
        """Rows of a product whose other factor has so many."""
        threads.parallel(work, rows, 1 + _MULTIPLIED // (width * tokens))

    def normed(x: np.ndarray, norm: RMSNorm) -> np.ndarray:
        out, eps = new(C), float(config.rms_norm_eps)
        weight = _array(norm.weight)
        threads.parallel(lambda i, j: kernels.norm(x, weight, eps, out, i, j), tokens, 1 + _MOVED // C)
        return out

    x, heads = normed(stream, block.input_layernorm), new(config.queries + 2 * config.keys)
    weights = tuple(_array(p.weight) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
    divided(lambda i, j: kernels.project(x, weights, heads, i, j), len(heads), C)

    q = buffers.empty((B, H, T, D), stream.dtype)
    shape = (B, shared, T, D)
    if context.cache is None:
        keys, values, begin, end = *(buffers.empty(shape, stream.dtype) for _ in range(2)), 0, 0
    else:
        keys, values, begin, end = context.cache.reserve(attention.layer, shape, shape, stream)
    threads.parallel(
        lambda i, j: kernels.place(heads, turns, q, keys, values, end, i, j), H + 2 * shared, 1 + _MOVED // (D * tokens)
    )
    k, v = (Tensor._wrap(Storage(t[:, :, begin : end + T])) for t in (keys, values))
    S = end + T - begin
    mask = allowed(context.visible, T, S, config.sliding_window)
    y = scaled_dot_product_attention(
        Tensor._wrap(Storage(q)), k, v, mask, is_causal=True, enable_gqa=True, offset=S - T
    )
    merged = _across(merge_heads(y)._storage.array.reshape(tokens, config.queries))
    weight, after = _array(attention.o_proj.weight), new(C)
    divided(lambda i, j: kernels.add_product(stream, weight, merged, after, i, j), C, config.queries)

    x, inner = normed(after, block.post_attention_layernorm), new(config.intermediate_size)
    gates = (_array(mlp.gate_proj.weight), _array(mlp.up_proj.weight))
    divided(lambda i, j: kernels.gate(x, gates, inner, i, j), len(inner), 2 * C)
    down, out = _array(mlp.down_proj.weight), new(C)
    divided(lambda i, j: kernels.add_product(after, down, inner, out, i, j), C, len(inner))
    return out


def _array(parameter: Tensor) -> np.ndarray:
    return parameter._storage.array
