"""GPT-2: a causal Transformer whose blocks norm their input, not their output (Radford et al. 2019, section 2.3).

Parameters bear the names and shapes of the published checkpoints, so that loading one is a copy.
"""

from __future__ import annotations

import math
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinyllm.autograd import checkpoint
from tinyllm.autograd.fused import linear, scaled_dot_product_attention, self_attention
from tinyllm.autograd.ops import dropout, split
from tinyllm.autograd.tensor import Tensor
from tinyllm.models.cache import KVCache
from tinyllm.models.causal import CausalLM, Table
from tinyllm.models.gpt_config import GPTConfig
from tinyllm.models.inputs import positions_of
from tinyllm.nn import LayerNorm, Module, activation, init, merge_heads, split_heads


class Conv1D(Module):
    """An affine map whose `weight` is (in, out), the transpose of a Linear's: the layout of the checkpoints."""

    def __init__(self, inputs: int, outputs: int, std: float, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.weight = Tensor(init.normal((inputs, outputs), rng, std=std, dtype=dtype), requires_grad=True)
        self.bias = Tensor(init.zeros((outputs,), dtype=dtype), requires_grad=True)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return linear(x, self.weight.mT, self.bias)


class Attention(Module):
    """Causal self-attention (F-ATTN) in H heads."""

    def __init__(self, config: GPTConfig, layer: int, rng: np.random.Generator, dtype: DTypeLike) -> None:
        C, std = config.n_embd, config.initializer_range
        self.config, self.layer = config, layer
        self.c_attn = Conv1D(C, 3 * C, std, rng, dtype)
        self.c_proj = Conv1D(C, C, std / math.sqrt(2 * config.n_layer), rng, dtype)
        self.scale = 1 / math.sqrt(C // config.n_head) if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            self.scale /= layer + 1

    def forward(self, x: Tensor, visible: np.ndarray | None, cache: KVCache | None) -> Tensor:
        """(B, T, C) -> (B, T, C); `visible` (B, 1, 1, S) marks the keys that are not padding."""
        qkv, H, p = self.c_attn(x), self.config.n_head, self.config.attn_pdrop if self.training else 0.0  # (B, T, 3 C)
        if cache is None:
            y = self_attention(qkv, H, visible, p, is_causal=True, scale=self.scale)  # (B, T, C)
        else:
            q, k, v = (split_heads(part, H) for part in split(qkv, 3, axis=-1))  # (B, H, T, D)
            k, v = cache.append(self.layer, k, v)  # (B, H, S, D)
            before = k.shape[-2] - q.shape[-2]
            y = scaled_dot_product_attention(q, k, v, visible, p, is_causal=True, scale=self.scale, offset=before)
            y = merge_heads(y)
        return dropout(self.c_proj(y), self.config.resid_pdrop, self.training)


class MLP(Module):
    """The feed-forward network, at every position alone."""

    def __init__(self, config: GPTConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        std = config.initializer_range
        self.config = config
        self.c_fc = Conv1D(config.n_embd, config.inner, std, rng, dtype)
        self.c_proj = Conv1D(config.inner, config.n_embd, std / math.sqrt(2 * config.n_layer), rng, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        hidden = linear(x, self.c_fc.weight.mT)  # (B, T, inner)
        hidden = activation(self.config.activation_function)(hidden, bias=self.c_fc.bias)
        return dropout(self.c_proj(hidden), self.config.resid_pdrop, self.training)


class Block(Module):
    """Attention, then the network; each adds to the stream that passes by."""

    def __init__(self, config: GPTConfig, layer: int, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.ln_1 = LayerNorm(config.n_embd, config.layer_norm_epsilon, dtype=dtype)
        self.attn = Attention(config, layer, rng, dtype)
        self.ln_2 = LayerNorm(config.n_embd, config.layer_norm_epsilon, dtype=dtype)
        self.mlp = MLP(config, rng, dtype)

    def forward(self, x: Tensor, visible: np.ndarray | None, cache: KVCache | None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.attn(self.ln_1(x), visible, cache)
        return x + self.mlp(self.ln_2(x))


class Transformer(Module):
    """Embeddings, blocks, and a final norm.

    Attributes
    ----------
    checkpoint_blocks : bool
        Keep only the input of each block, and compute the block again in backward: less memory, more time.
    """

    checkpoint_blocks = False

    def __init__(self, config: GPTConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.config = config
        self.wte = Table(config.vocab_size, config.n_embd, config.initializer_range, rng, dtype)
        self.wpe = Table(config.n_positions, config.n_embd, config.initializer_range, rng, dtype)
        self.h = [Block(config, layer, rng, dtype) for layer in range(config.n_layer)]
        self.ln_f = LayerNorm(config.n_embd, config.layer_norm_epsilon, dtype=dtype)

    def forward(
        self, ids: np.ndarray, positions: np.ndarray, visible: np.ndarray | None, cache: KVCache | None
    ) -> list[Tensor]:
        """Ids (B, T), positions (B or 1, T) -> the hidden states, n_layer + 1 times (B, T, C), the last one normed."""
        x = dropout(self.wte(ids) + self.wpe(positions), self.config.embd_pdrop, self.training)
        states = [x]
        for block in self.h:
            if self.checkpoint_blocks and cache is None:
                x = checkpoint(partial(block, visible=visible, cache=None), x)
            else:
                x = block(x, visible, cache)
            states.append(x)
        states[-1] = self.ln_f(x)
        return states


class GPT(CausalLM):
    """A GPT-2 language model: what `GPT2LMHeadModel` is in transformers.

    Parameters
    ----------
    config : GPTConfig
    rng : numpy Generator
        For the first weights: normal with deviation `initializer_range`; where a part adds to the residual stream, that
        over sqrt(2 n_layer), so that the 2 n_layer sums do not add up to more with depth. Biases start at 0.
    dtype : dtype
        float32 or float64.

    Notes
    -----
    Source: Radford et al. 2019, "Language models are unsupervised multitask learners", section 2.3.
    """

    config: GPTConfig
    config_class = GPTConfig
    published = "GPT-2"
    prefix, table = "transformer", "transformer.wte.weight"
    buffers = (".attn.bias", ".attn.masked_bias")  # old files hold the causal masks
    sizes: ClassVar = {
        "transformer.wte.weight": ("vocab_size", "n_embd"),
        "transformer.wpe.weight": ("n_positions", "n_embd"),
        "transformer.h.0.mlp.c_fc.weight": ("n_embd", "inner"),
    }
    lists: ClassVar = {"transformer.h.": ("n_layer", "blocks")}

    def __init__(self, config: GPTConfig, *, rng: np.random.Generator, dtype: DTypeLike = np.float32) -> None:
        self.config = config
        self.transformer = Transformer(config, rng, dtype)
        if not config.tie_word_embeddings:
            self.lm_head = Table(config.vocab_size, config.n_embd, config.initializer_range, rng, dtype)

    def states(
        self, ids: np.ndarray, positions: np.ndarray, visible: np.ndarray | None, cache: KVCache | None
    ) -> tuple[list[Tensor], None]:
        """The transformer's hidden states."""
        return self.transformer(ids, positions, visible, cache), None

    def head(self) -> Tensor:
        """The matrix (V, C) whose rows score the tokens."""
        return self.transformer.wte.weight if self.config.tie_word_embeddings else self.lm_head.weight

    @property
    def context_length(self) -> int:
        """The most tokens that the model can see at once."""
        return self.config.n_positions

    def new_cache(self) -> KVCache:
        """An empty cache, for ``model(ids, cache=cache)``."""
        return KVCache(self.config.n_layer)

    def positions(
        self, given: ArrayLike | Tensor | None, shape: tuple[int, ...], past: int, mask: np.ndarray | None
    ) -> np.ndarray:
        """Positions (1 or B, T), each of which has a row in the table of positions."""
        positions, n_positions = positions_of(given, shape, past, mask), self.config.n_positions
        if positions.max() < n_positions:
            return positions
        if given is not None:
            raise IndexError(f"position_ids: {positions.max()} is outside the model's positions 0..{n_positions - 1}")
        raise ValueError(
            f"the input is {positions.max() + 1} tokens long, but the model has only n_positions={n_positions}: "
            "cut it, or let tinyllm.generate slide over it"
        )
