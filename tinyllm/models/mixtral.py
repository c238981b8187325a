"""Mixtral: a Mistral whose feed-forward networks are mixtures of experts (Jiang et al. 2024; F-MOE).

Parameters bear the names and shapes of the published checkpoints, so that loading one is a copy.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from tinyllm.autograd.tensor import Tensor
from tinyllm.models.cache import KVCache
from tinyllm.models.causal import RouterLoss, Table
from tinyllm.models.llama import Attention, Context, Llama, context_of, into_stream
from tinyllm.models.llama_config import MixtralConfig
from tinyllm.nn import Module, MoE, RMSNorm, balance_loss, router_z_loss
from tinyllm.nn.moe import Routing
from tinyllm.nn.rope import Rope


class Block(Module):
    """Attention, then the mixture; each adds to the stream that passes by."""

    def __init__(self, config: MixtralConfig, layer: int, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.self_attn = Attention(config, layer, rng, dtype)
        self.block_sparse_moe = MoE(
            config.hidden_size,
            config.intermediate_size,
            config.num_local_experts,
            config.num_experts_per_tok,
            hidden_act=config.hidden_act,
            jitter=config.router_jitter_noise,
            capacity_factor=config.expert_capacity_factor,
            std=config.initializer_range,
            out_std=into_stream(config),
            rng=rng,
            dtype=dtype,
        )
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype=dtype)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype=dtype)

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, Routing]:
        """(B, T, C) -> (B, T, C), and where the tokens went."""
        x = x + self.self_attn(self.input_layernorm(x), context)
        tokens = None
        if context.visible is not None:  # padding is sent to no expert
            tokens = context.visible[:, 0, 0, -x.shape[1] :]
        y, routing = self.block_sparse_moe(self.post_attention_layernorm(x), tokens)
        return x + y, routing


class Decoder(Module):
    """Embeddings, blocks, and a final norm."""

    def __init__(self, config: MixtralConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.config = config
        self.rope = Rope(config.D, config.rope_parameters, config.max_position_embeddings)
        self.embed_tokens = Table(config.vocab_size, config.hidden_size, config.initializer_range, rng, dtype)
        self.layers = [Block(config, layer, rng, dtype) for layer in range(config.num_hidden_layers)]
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype=dtype)

    def forward(
        self, ids: np.ndarray, positions: np.ndarray, visible: np.ndarray | None, cache: KVCache | None
    ) -> tuple[list[Tensor], tuple[Routing, ...]]:
        """Ids (B, T), positions (B or 1, T) -> layers + 1 states (B, T, C), the last one normed; every routing."""
        x = self.embed_tokens(ids)
        context = context_of(self.rope, positions, visible, cache, x.dtype)
        states, routing = [x], []
        for block in self.layers:
            x, went = block(x, context)
            states.append(x)
            routing.append(went)
        states[-1] = self.norm(x)
        return states, tuple(routing)


class Mixtral(Llama):
    """A Mixtral language model: what `MixtralForCausalLM` is in transformers.

    To its loss the balance loss and the z-loss are added, each times its coefficient; transformers does so (with the
    balance loss) where it is asked for `output_router_logits`. Its output is a `MixtureOutput`.

    Parameters
    ----------
    config : MixtralConfig
    rng : numpy Generator
        For the first weights, as for a `Llama`, and for jitter outside a `random_scope`.
    dtype : dtype
        float32 or float64.

    Notes
    -----
    Source: Jiang et al. 2024, "Mixtral of experts", section 2.
    """

    config: MixtralConfig
    config_class = MixtralConfig
    published = "Mixtral"
    sizes: ClassVar = {
        "model.embed_tokens.weight": ("vocab_size", "hidden_size"),
        "model.layers.0.self_attn.q_proj.weight": ("queries", "hidden_size"),
        "model.layers.0.self_attn.k_proj.weight": ("keys", "hidden_size"),
        "model.layers.0.block_sparse_moe.experts.0.w1.weight": ("intermediate_size", "hidden_size"),
    }
    lists: ClassVar = {
        "model.layers.": ("num_hidden_layers", "blocks"),
        "model.layers.0.block_sparse_moe.experts.": ("num_local_experts", "experts in its first block"),
    }

    def __init__(self, config: MixtralConfig, *, rng: np.random.Generator, dtype: DTypeLike = np.float32) -> None:
        self.config = config
        self.model = Decoder(config, rng, dtype)  # type: ignore[assignment]
        if not config.tie_word_embeddings:
            self.lm_head = Table(config.vocab_size, config.hidden_size, config.initializer_range, rng, dtype)

    def states(
        self, ids: np.ndarray, positions: np.ndarray, visible: np.ndarray | None, cache: KVCache | None
    ) -> tuple[list[Tensor], RouterLoss]:
        """The decoder's hidden states, and what its routers add to the loss."""
        states, routing = self.model(ids, positions, visible, cache)
        balance, z, config = balance_loss(routing), router_z_loss(routing), self.config
        total = config.router_aux_loss_coef * balance + config.router_z_loss_coef * z
        return states, RouterLoss(total, balance, z, routing)
