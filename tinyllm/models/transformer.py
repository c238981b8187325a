"""The Transformer: an encoder that reads a text, and a decoder that writes another one about it (Vaswani et al. 2017).

Layers are named and laid out as in torch.nn.Transformer, so that its weights fit.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from tinyllm.autograd.fused import linear
from tinyllm.autograd.tensor import Tensor
from tinyllm.models.cache import KVCache
from tinyllm.models.causal import Table
from tinyllm.models.seq2seq import EncoderDecoder, remembering
from tinyllm.models.transformer_config import TransformerConfig
from tinyllm.nn import Dropout, LayerNorm, Linear, Module, MultiHeadAttention, Sinusoids, activation
from tinyllm.nn.attention import Remember


class Layer(Module):
    """What layers of both stacks have: self-attention, a feed-forward network, and how a part joins the stream."""

    def __init__(self, config: TransformerConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        C, F, bias = config.d_model, config.dim_feedforward, config.bias
        self.config = config
        self.self_attn = MultiHeadAttention(C, config.nhead, config.dropout, bias, rng=rng, dtype=dtype)
        self.linear1 = Linear(C, F, bias, rng=rng, dtype=dtype)
        self.linear2 = Linear(F, C, bias, rng=rng, dtype=dtype)
        self.norm1 = LayerNorm(C, config.layer_norm_eps, bias, dtype=dtype)
        self.norm2 = LayerNorm(C, config.layer_norm_eps, bias, dtype=dtype)
        self.drop = Dropout(config.dropout, rng)

    def joined(self, x: Tensor, part: Any, norm: LayerNorm) -> Tensor:
        """The stream after a part: ``norm(x + part(x))`` (F-BLOCK), or ``x + part(norm(x))``."""
        if self.config.norm_first:
            return x + self.drop(part(norm(x)))
        return norm(x + self.drop(part(x)))

    def feed_forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C), at every position alone."""
        hidden = activation(self.config.activation)(linear(x, self.linear1.weight), bias=self.linear1.bias)
        return self.linear2(self.drop(hidden))


class EncoderLayer(Layer):
    """Attention among the source's tokens, then the network."""

    def forward(self, x: Tensor, visible: np.ndarray | None = None) -> Tensor:
        """(B, S, C) -> (B, S, C); `visible` (B, 1, 1, S) is False for padding."""
        x = self.joined(x, lambda x: self.self_attn(x, attn_mask=visible), self.norm1)
        return self.joined(x, self.feed_forward, self.norm2)


class DecoderLayer(Layer):
    """Attention to the target's earlier tokens, attention to the source, then the network."""

    def __init__(self, config: TransformerConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        super().__init__(config, rng, dtype)
        C, bias = config.d_model, config.bias
        self.multihead_attn = MultiHeadAttention(C, config.nhead, config.dropout, bias, rng=rng, dtype=dtype)
        self.norm3 = LayerNorm(C, config.layer_norm_eps, bias, dtype=dtype)

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        visible: np.ndarray | None = None,
        own: Remember | None = None,
        source: Remember | None = None,
    ) -> Tensor:
        """(B, T, C) and the encoder's (B, S, C) -> (B, T, C); `own` and `source` are where a cache keeps both."""
        x = self.joined(x, lambda x: self.self_attn(x, is_causal=True, remember=own), self.norm1)
        x = self.joined(x, lambda x: self.multihead_attn(x, memory, memory, visible, remember=source), self.norm2)
        return self.joined(x, self.feed_forward, self.norm3)


class Encoder(Module):
    """Layers, and a final norm."""

    def __init__(self, config: TransformerConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.layers = [EncoderLayer(config, rng, dtype) for _ in range(config.num_encoder_layers)]
        self.norm = LayerNorm(config.d_model, config.layer_norm_eps, config.bias, dtype=dtype)

    def forward(self, x: Tensor, visible: np.ndarray | None = None) -> Tensor:
        """Vectors of the source (B, S, C) -> (B, S, C)."""
        for layer in self.layers:
            x = layer(x, visible)
        return self.norm(x)


class Decoder(Module):
    """Layers, and a final norm."""

    def __init__(self, config: TransformerConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.layers = [DecoderLayer(config, rng, dtype) for _ in range(config.num_decoder_layers)]
        self.norm = LayerNorm(config.d_model, config.layer_norm_eps, config.bias, dtype=dtype)

    def forward(
        self, x: Tensor, memory: Tensor, visible: np.ndarray | None = None, cache: KVCache | None = None
    ) -> Tensor:
        """Vectors of the target (B, T, C), the encoder's output (B, S, C) -> (B, T, C)."""
        for i, layer in enumerate(self.layers):
            x = layer(x, memory, visible, *remembering(cache, i))
        return self.norm(x)


class Transformer(EncoderDecoder):
    """Both stacks with torch.nn.Transformer's arguments and parameter names, embeddings, positions and a head.

    Parameters
    ----------
    config : TransformerConfig, optional
        By default it is made of `settings`.
    rng : numpy Generator
        For the first weights: Xavier's uniform law (F-INIT), embeddings normal with deviation 1 / sqrt(d_model).
    dtype : dtype
        float32 or float64.
    **settings
        Those of TransformerConfig.

    Attributes
    ----------
    encoder, decoder : Module
        The stacks, from vectors to vectors.

    Notes
    -----
    Source: Vaswani et al. 2017, "Attention is all you need", section 3. The final norm on each stack is
    torch.nn.Transformer's. Everything is batch first.
    """

    config_class = TransformerConfig
    published = "Transformer"
    lists: ClassVar = {
        "encoder.layers.": ("num_encoder_layers", "layers"),
        "decoder.layers.": ("num_decoder_layers", "layers"),
    }

    def __init__(
        self,
        config: TransformerConfig | None = None,
        *,
        rng: np.random.Generator,
        dtype: DTypeLike = np.float32,
        **settings: Any,
    ) -> None:
        if config is None:
            config = TransformerConfig(**settings)
        elif settings:
            raise TypeError(f"either a config or settings, got both: {', '.join(settings)}")
        C, positions = config.d_model, config.max_position_embeddings
        self.config = config

        def table(rows: int) -> Table:
            """Times sqrt(C) on the way in its numbers are of size 1, and so are the scores on the way out."""
            return Table(rows, C, C**-0.5, rng, dtype)

        self.src_embedding = table(config.src_vocab_size)
        shared = config.share_embeddings
        self.tgt_embedding = self.src_embedding if shared else table(config.tgt_vocab_size)
        self.src_positions: Module
        self.tgt_positions: Module
        if config.positions == "learned":
            self.src_positions, self.tgt_positions = (table(positions) for _ in range(2))
        else:
            self.src_positions = self.tgt_positions = Sinusoids(C, dtype=dtype)
        self.drop = Dropout(config.dropout, rng)
        self.encoder = Encoder(config, rng, dtype)
        self.decoder = Decoder(config, rng, dtype)
        if not config.tie_word_embeddings:
            self.generator = table(config.tgt_vocab_size)

    @classmethod
    def sizes_of(cls, config: TransformerConfig) -> dict[str, tuple[str, ...]]:
        """Of the tables that this configuration has, and the networks."""
        sizes: dict[str, tuple[str, ...]] = {"src_embedding.weight": ("src_vocab_size", "d_model")}
        if not config.share_embeddings:
            sizes["tgt_embedding.weight"] = ("tgt_vocab_size", "d_model")
        if config.positions == "learned":
            sizes["src_positions.weight"] = ("max_position_embeddings", "d_model")
        if not config.tie_word_embeddings:
            sizes["generator.weight"] = ("tgt_vocab_size", "d_model")
        return sizes | {"encoder.layers.0.linear1.weight": ("dim_feedforward", "d_model")}

    def encode_states(self, ids: np.ndarray, positions: np.ndarray, visible: np.ndarray | None) -> Tensor:
        """What the encoder makes of the source's tokens and their places."""
        x = self._embedded(self.src_embedding(ids), self.src_positions(positions))
        return self.encoder(x, visible)

    def decode_states(
        self, ids: np.ndarray, memory: Tensor, visible: np.ndarray | None, cache: KVCache | None
    ) -> Tensor:
        """What the decoder makes of the target's tokens, their places and the source."""
        past = 0 if cache is None else cache.length
        positions = np.arange(past, past + ids.shape[1])[None]  # (1, T)
        x = self._embedded(self.tgt_embedding(ids), self.tgt_positions(positions))
        return self.decoder(x, memory, visible, cache)

    def _embedded(self, tokens: Tensor, places: Tensor) -> Tensor:
        """What each token is, and where it stands: (B, T, C)."""
        return self.drop(tokens * math.sqrt(self.config.d_model) + places)

    def head(self) -> tuple[Tensor, Tensor | None]:
        """The target's embeddings, or a matrix of its own; no bias."""
        table = self.tgt_embedding if self.config.tie_word_embeddings else self.generator
        return table.weight, None

    def new_cache(self) -> KVCache:
        """An empty cache, for ``model(decoder_input_ids=ids, encoder_outputs=memory, cache=cache)``."""
        return KVCache(self.config.num_decoder_layers)
