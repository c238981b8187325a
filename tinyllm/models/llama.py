"""Llama: RMSNorm, rotary positions, SwiGLU and shared heads of keys (Touvron et al. 2023; Grattafiori et al. 2024).

Mistral (Jiang et al. 2023) is the same with a sliding window. Parameters bear the names and shapes of the published
checkpoints, so that loading one is a copy.
"""

from __future__ import annotations

import math
from functools import partial
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from tinyllm.autograd import checkpoint
from tinyllm.autograd.fused import scaled_dot_product_attention, swiglu
from tinyllm.autograd.fused.rotary import rotate
from tinyllm.autograd.ops import swapaxes
from tinyllm.autograd.tensor import Tensor
from tinyllm.models import llama_step
from tinyllm.models.cache import KVCache
from tinyllm.models.causal import CausalLM, RouterLoss, Table
from tinyllm.models.llama_config import LlamaConfig, MistralConfig
from tinyllm.nn import Linear, Module, RMSNorm, activation, merge_heads
from tinyllm.nn.rope import Rope, Tables


class Context(NamedTuple):
    """What all blocks of one forward pass know.

    Attributes
    ----------
    turn : cosines and sines (1 or B, T, D/2) of the positions of the ids
    visible : (B, 1, 1, S + T) booleans, the keys that are not padding; None where all are
    cache : KVCache or None
    """

    turn: Tables
    visible: np.ndarray | None
    cache: KVCache | None


class Attention(Module):
    """Causal self-attention (F-ATTN) in H heads of queries, groups of which share a head of keys and values."""

    def __init__(self, config: LlamaConfig, layer: int, rng: np.random.Generator, dtype: DTypeLike) -> None:
        C, std, bias = config.hidden_size, config.initializer_range, config.attention_bias
        self.config, self.layer = config, layer
        self.q_proj = Linear(C, config.queries, bias, std=std, rng=rng, dtype=dtype)
        self.k_proj = Linear(C, config.keys, bias, std=std, rng=rng, dtype=dtype)
        self.v_proj = Linear(C, config.keys, bias, std=std, rng=rng, dtype=dtype)
        self.o_proj = Linear(config.queries, C, bias, std=into_stream(config), rng=rng, dtype=dtype)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        B, T, _ = x.shape
        D, p = self.config.D, self.config.attention_dropout if self.training else 0.0
        q, k, v = (project(x).reshape(B, T, -1, D) for project in (self.q_proj, self.k_proj, self.v_proj))
        q, k = (rotate(t, *context.turn, axis=1) for t in (q, k))
        q, k, v = (swapaxes(t, 1, 2) for t in (q, k, v))  # (B, H, T, D), and (B, H / G, T, D) twice
        if context.cache is not None:
            k, v = context.cache.append(self.layer, k, v)  # (B, H / G, S, D)
        S = k.shape[-2]
        mask = allowed(context.visible, T, S, self.config.sliding_window)
        y = scaled_dot_product_attention(q, k, v, mask, p, is_causal=True, enable_gqa=True, offset=S - T)
        return self.o_proj(merge_heads(y))


def allowed(visible: np.ndarray | None, T: int, S: int, window: int | None) -> np.ndarray | None:
    """Which of the last S positions the last T of them may see, besides being causal; None where all of them.

    `visible` (B, 1, 1, at least S) marks tokens that are not padding; of `window` positions a token is the last.
    """
    mask = None if visible is None else visible[..., -S:]
    if window is None or window >= S:
        return mask
    near = np.arange(S - T, S)[:, None] - np.arange(S) < window  # (T, S)
    return near if mask is None else near & mask


class MLP(Module):
    """The gated feed-forward network, at every position alone."""

    def __init__(self, config: LlamaConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        C, inner, std, bias = config.hidden_size, config.intermediate_size, config.initializer_range, config.mlp_bias
        self.hidden_act = config.hidden_act
        self.gate_proj = Linear(C, inner, bias, std=std, rng=rng, dtype=dtype)
        self.up_proj = Linear(C, inner, bias, std=std, rng=rng, dtype=dtype)
        self.down_proj = Linear(inner, C, bias, std=into_stream(config), rng=rng, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        gate, up = self.gate_proj(x), self.up_proj(x)  # (B, T, inner)
        silu = self.hidden_act in ("silu", "swish")
        return self.down_proj(swiglu(gate, up) if silu else activation(self.hidden_act)(gate) * up)


class Block(Module):
    """Attention, then the network; each adds to the stream that passes by."""

    def __init__(self, config: LlamaConfig, layer: int, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.self_attn = Attention(config, layer, rng, dtype)
        self.mlp = MLP(config, rng, dtype)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype=dtype)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype=dtype)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.self_attn(self.input_layernorm(x), context)
        return x + self.mlp(self.post_attention_layernorm(x))


def into_stream(config: LlamaConfig) -> float:
    """The deviation of the first weights where a part adds to the residual stream, as in GPT-2."""
    return config.initializer_range / math.sqrt(2 * config.num_hidden_layers)


def context_of(
    rope: Rope, positions: np.ndarray, visible: np.ndarray | None, cache: KVCache | None, dtype: DTypeLike
) -> Context:
    """What the blocks are to know of ids at these positions (1 or B, T).

    Raises
    ------
    ValueError
        If a cache holds what these positions make wrong.
    """
    if rope.dynamic and cache is not None and cache.length and positions.max() >= rope.max_positions:
        raise ValueError(
            f"beyond max_position_embeddings={rope.max_positions} the rope_type 'dynamic' changes all angles with "
            "every token, so that nothing in the cache holds any longer: call the model without a cache"
        )
    return Context(rope.tables(positions, dtype), visible, cache)


class Decoder(Module):
    """Embeddings, blocks, and a final norm.

    Attributes
    ----------
    checkpoint_blocks : bool
        Keep only the input of each block, and compute the block again in backward: less memory, more time.
    """

    checkpoint_blocks = False

    def __init__(self, config: LlamaConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.config = config
        self.rope = Rope(config.D, config.rope_parameters, config.max_position_embeddings)
        self.embed_tokens = Table(config.vocab_size, config.hidden_size, config.initializer_range, rng, dtype)
        self.layers = [Block(config, layer, rng, dtype) for layer in range(config.num_hidden_layers)]
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype=dtype)

    def forward(
        self, ids: np.ndarray, positions: np.ndarray, visible: np.ndarray | None, cache: KVCache | None
    ) -> list[Tensor]:
        """Ids (B, T), positions (B or 1, T) -> the hidden states, layers + 1 times (B, T, C), the last one normed."""
        x = self.embed_tokens(ids)
        context = context_of(self.rope, positions, visible, cache, x.dtype)
        if llama_step.suits(self, x, cache):
            states = llama_step.blocks(self, x, context)
            return [*states[:-1], self.norm(states[-1])]
        states = [x]
        for block in self.layers:
            if self.checkpoint_blocks and cache is None:
                x = checkpoint(partial(block, context=context), x)
            else:
                x = block(x, context)
            states.append(x)
        states[-1] = self.norm(x)
        return states


class Llama(CausalLM):
    """A Llama language model: what `LlamaForCausalLM` is in transformers.

    Parameters
    ----------
    config : LlamaConfig
    rng : numpy Generator
        For the first weights: normal with deviation `initializer_range`; where a part adds to the residual stream, that
        over sqrt(2 num_hidden_layers). Biases start at 0.
    dtype : dtype
        float32 or float64.

    Notes
    -----
    Source: Touvron et al. 2023, "LLaMA: open and efficient foundation language models", section 2.2; Ainslie et al.
    2023 for the shared heads of keys and values.
    """

    config: LlamaConfig
    config_class: ClassVar[type[LlamaConfig]] = LlamaConfig
    published = "Llama"
    prefix, table = "model", "model.embed_tokens.weight"
    buffers = (".rotary_emb.inv_freq",)  # old files hold the frequencies
    sizes: ClassVar = {
        "model.embed_tokens.weight": ("vocab_size", "hidden_size"),
        "model.layers.0.self_attn.q_proj.weight": ("queries", "hidden_size"),
        "model.layers.0.self_attn.k_proj.weight": ("keys", "hidden_size"),
        "model.layers.0.mlp.up_proj.weight": ("intermediate_size", "hidden_size"),
    }
    lists: ClassVar = {"model.layers.": ("num_hidden_layers", "blocks")}

    def __init__(self, config: LlamaConfig, *, rng: np.random.Generator, dtype: DTypeLike = np.float32) -> None:
        self.config = config
        self.model = Decoder(config, rng, dtype)
        if not config.tie_word_embeddings:
            self.lm_head = Table(config.vocab_size, config.hidden_size, config.initializer_range, rng, dtype)

    def states(
        self, ids: np.ndarray, positions: np.ndarray, visible: np.ndarray | None, cache: KVCache | None
    ) -> tuple[list[Tensor], RouterLoss | None]:
        """The decoder's hidden states."""
        return self.model(ids, positions, visible, cache), None

    def head(self) -> Tensor:
        """The matrix (V, C) whose rows score the tokens."""
        return self.model.embed_tokens.weight if self.config.tie_word_embeddings else self.lm_head.weight

    @property
    def context_length(self) -> int:
        """The most tokens that the model is meant to see at once: rotary positions themselves have no end."""
        return self.config.max_position_embeddings

    def new_cache(self) -> KVCache:
        """An empty cache, for ``model(ids, cache=cache)``."""
        return KVCache(self.config.num_hidden_layers, self.config.sliding_window)


class Mistral(Llama):
    """A Mistral language model: what `MistralForCausalLM` is in transformers.

    Parameters
    ----------
    config : MistralConfig
    rng, dtype
        As for a `Llama`.

    Notes
    -----
    Source: Jiang et al. 2023, "Mistral 7B", section 2.
    """

    config: MistralConfig
    config_class = MistralConfig
    published = "Mistral"
