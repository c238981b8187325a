"""BART: the post-norm Transformer, pre-trained to mend texts that were damaged (Lewis et al. 2020).

Parameters bear the names of the published checkpoints, so that loading one is a copy. Its layers are Marian's too.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from tinyllm.autograd.fused import embedding, linear, scaled_dot_product_attention
from tinyllm.autograd.tensor import Tensor
from tinyllm.models import loading
from tinyllm.models.bart_config import BARTConfig
from tinyllm.models.cache import KVCache
from tinyllm.models.causal import Table
from tinyllm.models.seq2seq import EncoderDecoder, remembering
from tinyllm.nn import Dropout, LayerNorm, Module, activation, init, merge_heads, split_heads
from tinyllm.nn.attention import Remember

_SIDES = ("encoder", "decoder")


class Dense(Module):
    """An affine map, its first weights normal with the configuration's deviation."""

    def __init__(self, inputs: int, outputs: int, std: float, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.weight = Tensor(init.normal((outputs, inputs), rng, std=std, dtype=dtype), requires_grad=True)
        self.bias = Tensor(init.zeros((outputs,), dtype=dtype), requires_grad=True)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return linear(x, self.weight, self.bias)


class Attention(Module):
    """Attention (F-ATTN) in H heads: to the stream itself, or to a source."""

    def __init__(self, config: BARTConfig, heads: int, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.heads, self.dropout, self.rng = heads, config.attention_dropout, rng
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (
            Dense(config.d_model, config.d_model, config.init_std, rng, dtype) for _ in range(4)
        )

    def forward(
        self,
        x: Tensor,
        source: Tensor | None = None,
        visible: np.ndarray | None = None,
        is_causal: bool = False,
        remember: Remember | None = None,
    ) -> Tensor:
        """(B, T, C), and perhaps a source (B, S, C) -> (B, T, C); the rest as in `nn.MultiHeadAttention`."""
        source = x if source is None else source

        def project() -> tuple[Tensor, Tensor]:
            return split_heads(self.k_proj(source), self.heads), split_heads(self.v_proj(source), self.heads)

        q = split_heads(self.q_proj(x), self.heads)  # (B, H, T, D)
        k, v = remember(project) if remember else project()  # (B, H, S, D)
        before, p = k.shape[-2] - q.shape[-2], self.dropout if self.training else 0.0
        y = scaled_dot_product_attention(q, k, v, visible, p, is_causal, offset=before, rng=self.rng)
        return self.out_proj(merge_heads(y))


class Layer(Module):
    """What layers of both stacks have: self-attention, a feed-forward network, and how a part joins the stream."""

    def __init__(self, config: BARTConfig, side: str, rng: np.random.Generator, dtype: DTypeLike) -> None:
        C, F, std = config.d_model, getattr(config, f"{side}_ffn_dim"), config.init_std
        self.config, self.heads = config, getattr(config, f"{side}_attention_heads")
        self.self_attn = Attention(config, self.heads, rng, dtype)
        self.self_attn_layer_norm = LayerNorm(C, dtype=dtype)
        self.fc1, self.fc2 = Dense(C, F, std, rng, dtype), Dense(F, C, std, rng, dtype)
        self.final_layer_norm = LayerNorm(C, dtype=dtype)
        self.drop, self.drop_hidden = Dropout(config.dropout, rng), Dropout(config.activation_dropout, rng)

    def joined(self, x: Tensor, y: Tensor, norm: LayerNorm) -> Tensor:
        """The stream after a part has made y of it (F-BLOCK)."""
        return norm(x + self.drop(y))

    def feed_forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C), at every position alone."""
        hidden = activation(self.config.activation_function)(linear(x, self.fc1.weight), bias=self.fc1.bias)
        return self.fc2(self.drop_hidden(hidden))


class EncoderLayer(Layer):
    """Attention among the source's tokens, then the network."""

    def forward(self, x: Tensor, visible: np.ndarray | None) -> Tensor:
        """(B, S, C) -> (B, S, C)."""
        x = self.joined(x, self.self_attn(x, visible=visible), self.self_attn_layer_norm)
        return self.joined(x, self.feed_forward(x), self.final_layer_norm)


class DecoderLayer(Layer):
    """Attention to the target's earlier tokens, attention to the source, then the network."""

    def __init__(self, config: BARTConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        super().__init__(config, "decoder", rng, dtype)
        self.encoder_attn = Attention(config, self.heads, rng, dtype)
        self.encoder_attn_layer_norm = LayerNorm(config.d_model, dtype=dtype)

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        visible: np.ndarray | None,
        own: Remember | None = None,
        source: Remember | None = None,
    ) -> Tensor:
        """(B, T, C) and the encoder's (B, S, C) -> (B, T, C); `own` and `source` are where a cache keeps both."""
        x = self.joined(x, self.self_attn(x, is_causal=True, remember=own), self.self_attn_layer_norm)
        x = self.joined(x, self.encoder_attn(x, memory, visible, remember=source), self.encoder_attn_layer_norm)
        return self.joined(x, self.feed_forward(x), self.final_layer_norm)


class Tokens(Module):
    """Embeddings of tokens; the padding's begins at 0 and gets no gradient where it is looked up."""

    def __init__(self, rows: int, config: BARTConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        weight = np.array(init.normal((rows, config.d_model), rng, std=config.init_std, dtype=dtype))
        if config.pad_token_id is not None:
            weight[config.pad_token_id] = 0
        self.weight = Tensor(weight, requires_grad=True)
        self.padding_idx = config.pad_token_id
        self.scale = math.sqrt(config.d_model) if config.scale_embedding else 1.0

    def forward(self, ids: np.ndarray) -> Tensor:
        """Integers (...) -> (..., C)."""
        return embedding(ids, self.weight, self.padding_idx) * self.scale


class Places(Module):
    """Learned positions; the first two rows of the table were never used."""

    def __init__(self, config: BARTConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        weight = init.normal((config.rows_of_positions, config.d_model), rng, std=config.init_std, dtype=dtype)
        self.weight = Tensor(weight, requires_grad=True)

    def forward(self, positions: np.ndarray) -> Tensor:
        """Integers (...) -> (..., C)."""
        return embedding(positions + 2, self.weight)


class Side(Module):
    """Embeddings, places, perhaps a norm, and the layers of the encoder or the decoder."""

    def __init__(
        self,
        config: BARTConfig,
        tokens: Tokens,
        places: Module,
        norm: LayerNorm | None,
        layers: list[Any],
        rng: np.random.Generator,
    ) -> None:
        self.embed_tokens, self.embed_positions, self.layers = tokens, places, layers
        self.layernorm_embedding = norm
        self.drop = Dropout(config.dropout, rng)

    def embedded(self, ids: np.ndarray, positions: np.ndarray) -> Tensor:
        """Integers (B, T) -> what each token is, and where it stands (B, T, C)."""
        x = self.embed_tokens(ids) + self.embed_positions(positions)
        return self.drop(x if self.layernorm_embedding is None else self.layernorm_embedding(x))


class Body(Module):
    """Both sides. Parts that are one are trained, saved and counted once."""

    def __init__(self, encoder: Side, decoder: Side, shared: Tokens | None) -> None:
        if shared is not None:
            self.shared = shared
        self.encoder, self.decoder = encoder, decoder


class BART(EncoderDecoder):
    """A BART with its language model's head: `BartForConditionalGeneration` in transformers.

    Parameters
    ----------
    config : BARTConfig
    rng : numpy Generator
        For the first weights: normal with deviation `init_std`. Biases start at 0.
    dtype : dtype
        float32 or float64.

    Attributes
    ----------
    final_logits_bias : Tensor (1, V)
        Added to the logits; a constant of the file, which is not trained.

    Notes
    -----
    Source: Lewis et al. 2020, "BART: denoising sequence-to-sequence pre-training", section 2.
    """

    config_class: ClassVar[Any] = BARTConfig
    published = "BART"
    lists: ClassVar = {
        "model.encoder.layers.": ("encoder_layers", "layers of the encoder"),
        "model.decoder.layers.": ("decoder_layers", "layers of the decoder"),
    }
    config: BARTConfig

    def __init__(self, config: BARTConfig, *, rng: np.random.Generator, dtype: DTypeLike = np.float32) -> None:
        source = Tokens(config.vocab_size, config, rng, dtype)
        target = source if config.tie_word_embeddings else Tokens(config.vocab_size, config, rng, dtype)
        places = [Places(config, rng, dtype) for _ in range(2)]
        norms = [LayerNorm(config.d_model, dtype=dtype) for _ in range(2)]
        self._assemble(config, (source, target), places, norms, rng, dtype)

    def _assemble(
        self,
        config: BARTConfig,
        tokens: tuple[Tokens, Tokens],
        places: list[Any],
        norms: list[Any],
        rng: np.random.Generator,
        dtype: DTypeLike,
    ) -> None:
        """The model of the parts in which this family's members differ; each is a pair, for encoder and decoder."""
        self.config = config
        encoder = [EncoderLayer(config, "encoder", rng, dtype) for _ in range(config.encoder_layers)]
        decoder = [DecoderLayer(config, rng, dtype) for _ in range(config.decoder_layers)]
        self.model = Body(
            Side(config, tokens[0], places[0], norms[0], encoder, rng),
            Side(config, tokens[1], places[1], norms[1], decoder, rng),
            tokens[0] if tokens[0] is tokens[1] else None,
        )
        rows = len(tokens[1].weight)
        tied = config.tie_word_embeddings
        self.lm_head = tokens[1] if tied else Table(rows, config.d_model, config.init_std, rng, dtype)
        self.final_logits_bias = Tensor(init.zeros((1, rows), dtype=dtype), requires_grad=True)
        self.final_logits_bias.requires_grad = False

    def encode_states(self, ids: np.ndarray, positions: np.ndarray, visible: np.ndarray | None) -> Tensor:
        """What the encoder makes of the source's tokens and their places."""
        x = self.model.encoder.embedded(ids, positions)
        for layer in self.model.encoder.layers:
            x = layer(x, visible)
        return x

    def decode_states(
        self, ids: np.ndarray, memory: Tensor, visible: np.ndarray | None, cache: KVCache | None
    ) -> Tensor:
        """What the decoder makes of the target's tokens, their places and the source."""
        past = 0 if cache is None else cache.length
        x = self.model.decoder.embedded(ids, np.arange(past, past + ids.shape[1])[None])
        for i, layer in enumerate(self.model.decoder.layers):
            x = layer(x, memory, visible, *remembering(cache, i))
        return x

    def head(self) -> tuple[Tensor, Tensor | None]:
        """The matrix that scores the tokens, and the constants; None where they are 0, as in nearly every file."""
        bias = self.final_logits_bias
        return self.lm_head.weight, bias[0] if bias.data.any() else None

    def new_cache(self) -> KVCache:
        """An empty cache, for ``model(decoder_input_ids=ids, encoder_outputs=memory, cache=cache)``."""
        return KVCache(self.config.decoder_layers)

    # -- folders -----------------------------------------------------------------------------------------------------

    @classmethod
    def sizes_of(cls, config: Any) -> dict[str, tuple[str, ...]]:
        """Of the embeddings and the networks."""
        tied = config.tie_word_embeddings
        tables = ["model.shared"] if tied else ["model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"]
        sizes = {f"{table}.weight": ("vocab_size", "d_model") for table in tables}
        return sizes | cls.places_sizes() | cls.network_sizes()

    @classmethod
    def places_sizes(cls) -> dict[str, tuple[str, ...]]:
        """Of the tables of positions."""
        return {f"model.{side}.embed_positions.weight": ("rows_of_positions", "d_model") for side in _SIDES}

    @classmethod
    def network_sizes(cls) -> dict[str, tuple[str, ...]]:
        """Of the feed-forward networks of both sides."""
        return {f"model.{side}.layers.0.fc1.weight": (f"{side}_ffn_dim", "d_model") for side in _SIDES}

    @classmethod
    def named_as_here(cls, weights: loading.Weights, config: Any, path: Path) -> loading.Weights:
        """The parameters in a file, under their names here.

        A file of the bare model has no "model." before the names. The constants may be left out. A model whose parts
        are not tied has a shared table nevertheless, which nothing looks at.
        """
        named = {}
        for name, array in weights.items():
            if not name.startswith(("model.", "lm_head.", "final_logits_bias")):
                name = f"model.{name}"
            if name.endswith(".version") or (name == "model.shared.weight" and not config.tie_word_embeddings):
                continue
            named[name] = array
        tables = (named.get(f"{name}.weight") for name in ("model.decoder.embed_tokens", "model.shared"))
        target = next((table for table in tables if table is not None), ())
        return {"final_logits_bias": np.zeros((1, len(target)), np.float32), **named}
