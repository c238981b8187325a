"""T5: a pre-norm encoder-decoder that knows no positions, but how far apart two tokens are (Raffel et al. 2020).

Parameters bear the names of the published checkpoints, so that loading one is a copy.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from tinyllm.autograd import ops
from tinyllm.autograd.fused import linear, scaled_dot_product_attention
from tinyllm.autograd.tensor import Tensor
from tinyllm.models import loading
from tinyllm.models.cache import KVCache
from tinyllm.models.causal import Table
from tinyllm.models.seq2seq import EncoderDecoder, remembering
from tinyllm.models.t5_config import T5Config
from tinyllm.nn import Dropout, Module, RMSNorm, activation, init, merge_heads, split_heads
from tinyllm.nn.attention import Remember


def buckets(distance: np.ndarray, bidirectional: bool, count: int, longest: int) -> np.ndarray:
    """The class of each distance from a query to a key, key minus query.

    Half of the classes are single distances, the other half grow like the logarithm up to `longest`; what is farther
    is in the last one. A bidirectional encoder has half of all for keys ahead; a decoder counts what is behind only.

    Parameters
    ----------
    distance : integers, any shape
    bidirectional : bool
    count : int
        How many classes.
    longest : int

    Returns
    -------
    integers of that shape, 0 .. count - 1

    Notes
    -----
    Source: Raffel et al. 2020, section 2.1. The logarithm is in float32, as in all of its implementations: at its
    borders the rounding decides.
    """
    ahead: np.ndarray | int = 0
    if bidirectional:
        count //= 2
        ahead = (distance > 0) * count
        distance = np.abs(distance)
    else:
        distance = np.maximum(-distance, 0)
    exact = count // 2
    growth = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    growth = growth / np.float32(math.log(longest / exact)) * np.float32(count - exact)
    far = np.minimum(exact + growth.astype(np.int64), count - 1)
    return ahead + np.where(distance < exact, distance, far)


class Matrix(Module):
    """A linear map without a bias."""

    def __init__(self, inputs: int, outputs: int, std: float, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.weight = Tensor(init.normal((outputs, inputs), rng, std=std, dtype=dtype), requires_grad=True)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return linear(x, self.weight)


class Attention(Module):
    """Attention whose scores are not divided by sqrt(D), the first weights making up for it."""

    def __init__(self, config: T5Config, rng: np.random.Generator, dtype: DTypeLike, has_bias: bool = False) -> None:
        C, factor = config.d_model, config.initializer_factor
        self.config, self.rng = config, rng
        self.q = Matrix(C, config.inner, factor * (C * config.d_kv) ** -0.5, rng, dtype)
        self.k, self.v = (Matrix(C, config.inner, factor * C**-0.5, rng, dtype) for _ in range(2))
        self.o = Matrix(config.inner, C, factor * config.inner**-0.5, rng, dtype)
        if has_bias:
            rows = config.relative_attention_num_buckets
            self.relative_attention_bias = Table(rows, config.num_heads, factor * C**-0.5, rng, dtype)

    def bias(self, queries: np.ndarray, keys: int, bidirectional: bool) -> Tensor:
        """What is added to the scores of queries at these places (T,) and the first `keys` keys: (1, H, T, S)."""
        c = self.config
        distance = np.arange(keys) - queries[:, None]  # (T, S)
        classes = buckets(distance, bidirectional, c.relative_attention_num_buckets, c.relative_attention_max_distance)
        return ops.transpose(self.relative_attention_bias(classes), (2, 0, 1))[None]

    def forward(
        self,
        x: Tensor,
        source: Tensor | None = None,
        mask: Tensor | np.ndarray | None = None,
        is_causal: bool = False,
        remember: Remember | None = None,
    ) -> Tensor:
        """(B, T, C), and perhaps a source (B, S, C) -> (B, T, C); the rest as in `nn.MultiHeadAttention`."""
        source, H = x if source is None else source, self.config.num_heads

        def project() -> tuple[Tensor, Tensor]:
            return split_heads(self.k(source), H), split_heads(self.v(source), H)

        q = split_heads(self.q(x), H)  # (B, H, T, D)
        k, v = remember(project) if remember else project()  # (B, H, S, D)
        before, p = k.shape[-2] - q.shape[-2], self.config.dropout_rate if self.training else 0.0
        y = scaled_dot_product_attention(q, k, v, mask, p, is_causal, scale=1.0, offset=before, rng=self.rng)
        return self.o(merge_heads(y))


class FeedForward(Module):
    """The network, at every position alone; with a gate, one map's activation multiplies the other map."""

    def __init__(self, config: T5Config, rng: np.random.Generator, dtype: DTypeLike) -> None:
        C, F, factor = config.d_model, config.d_ff, config.initializer_factor
        self.config, self.drop = config, Dropout(config.dropout_rate, rng)
        if config.is_gated:
            self.wi_0, self.wi_1 = (Matrix(C, F, factor * C**-0.5, rng, dtype) for _ in range(2))
        else:
            self.wi = Matrix(C, F, factor * C**-0.5, rng, dtype)
        self.wo = Matrix(F, C, factor * F**-0.5, rng, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        f = activation(self.config.activation_function)
        hidden = f(self.wi_0(x)) * self.wi_1(x) if self.config.is_gated else f(self.wi(x))  # (B, T, F)
        return self.wo(self.drop(hidden))


class Part(Module):
    """A part of a layer, under the name it has in the files, with the norm before it."""

    def __init__(self, name: str, part: Module, config: T5Config, rng: np.random.Generator, dtype: DTypeLike) -> None:
        setattr(self, name, part)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon, dtype=dtype)
        self.name, self.drop = name, Dropout(config.dropout_rate, rng)

    @property
    def part(self) -> Any:
        """The attention or the network."""
        return getattr(self, self.name)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``x + part(norm(x))``, (B, T, C) -> (B, T, C)."""
        return x + self.drop(self.part(self.layer_norm(x), *args, **kwargs))


class Block(Module):
    """Self-attention; in the decoder, attention to the source; the network."""

    def __init__(
        self, config: T5Config, is_decoder: bool, first: bool, rng: np.random.Generator, dtype: DTypeLike
    ) -> None:
        parts = {"SelfAttention": Attention(config, rng, dtype, has_bias=first)}
        if is_decoder:
            parts["EncDecAttention"] = Attention(config, rng, dtype)
        named: dict[str, Module] = {**parts, "DenseReluDense": FeedForward(config, rng, dtype)}
        self.layer = [Part(name, part, config, rng, dtype) for name, part in named.items()]


class Stack(Module):
    """The encoder or the decoder; the first block's biases are those of all blocks."""

    def __init__(
        self, config: T5Config, tokens: Table, is_decoder: bool, rng: np.random.Generator, dtype: DTypeLike
    ) -> None:
        count = config.num_decoder_layers if is_decoder else config.num_layers
        assert count is not None
        self.embed_tokens, self.is_decoder = tokens, is_decoder
        self.block = [Block(config, is_decoder, i == 0, rng, dtype) for i in range(count)]
        self.final_layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon, dtype=dtype)
        self.drop = Dropout(config.dropout_rate, rng)

    def forward(
        self,
        ids: np.ndarray,
        visible: np.ndarray | None,
        memory: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Integers (B, T) -> (B, T, C); `visible` (B, 1, 1, S) is False for the source's padding."""
        past, T = 0 if cache is None else cache.length, ids.shape[1]
        x = self.drop(self.embed_tokens(ids))
        bias = self.block[0].layer[0].part.bias(np.arange(past, past + T), past + T, not self.is_decoder)
        if not self.is_decoder and visible is not None:
            bias = ops.where(visible, bias, -np.inf)  # (B, H, T, S)
        for i, block in enumerate(self.block):
            own, source = remembering(cache, i)
            x = block.layer[0](x, mask=bias, is_causal=self.is_decoder, remember=own)
            if self.is_decoder:
                x = block.layer[1](x, memory, visible, remember=source)
            x = block.layer[-1](x)
        return self.drop(self.final_layer_norm(x))


class T5(EncoderDecoder):
    """A T5 with its language model's head: `T5ForConditionalGeneration` in transformers.

    Parameters
    ----------
    config : T5Config
    rng : numpy Generator
        For the first weights: normal, with deviations by which all sums begin at size 1, times `initializer_factor`.
    dtype : dtype
        float32 or float64.

    Notes
    -----
    Source: Raffel et al. 2020, "Exploring the limits of transfer learning with a unified text-to-text Transformer",
    section 2.1; the gated networks: Shazeer 2020, "GLU variants improve Transformer".
    """

    config_class: ClassVar[Any] = T5Config
    published = "T5"
    lists: ClassVar = {
        "encoder.block.": ("num_layers", "blocks of the encoder"),
        "decoder.block.": ("num_decoder_layers", "blocks of the decoder"),
    }
    config: T5Config

    def __init__(self, config: T5Config, *, rng: np.random.Generator, dtype: DTypeLike = np.float32) -> None:
        self.config = config
        self.shared = Table(config.vocab_size, config.d_model, config.initializer_factor, rng, dtype)
        self.encoder = Stack(config, self.shared, False, rng, dtype)
        self.decoder = Stack(config, self.shared, True, rng, dtype)
        if config.tie_word_embeddings:
            self.lm_head = self.shared
        else:
            self.lm_head = Table(config.vocab_size, config.d_model, config.initializer_factor, rng, dtype)

    def encode_states(self, ids: np.ndarray, positions: np.ndarray, visible: np.ndarray | None) -> Tensor:
        """What the encoder makes of the source's tokens."""
        return self.encoder(ids, visible)

    def decode_states(
        self, ids: np.ndarray, memory: Tensor, visible: np.ndarray | None, cache: KVCache | None
    ) -> Tensor:
        """What the decoder makes of the target's tokens and the source, scaled for the head."""
        x = self.decoder(ids, visible, memory, cache)
        return x * self.config.d_model**-0.5 if self.config.scale_decoder_outputs else x

    def head(self) -> tuple[Tensor, Tensor | None]:
        """The matrix that scores the tokens; no bias."""
        return self.lm_head.weight, None

    @property
    def context_length(self) -> None:
        """No limit: all far tokens are in one class."""
        return None

    def new_cache(self) -> KVCache:
        """An empty cache, for ``model(decoder_input_ids=ids, encoder_outputs=memory, cache=cache)``."""
        return KVCache(len(self.decoder.block))

    # -- folders -----------------------------------------------------------------------------------------------------

    @classmethod
    def sizes_of(cls, config: T5Config) -> dict[str, tuple[str, ...]]:
        """Of the embeddings, the heads and the networks."""
        first, network = "encoder.block.0.layer.0.SelfAttention.", "encoder.block.0.layer.1.DenseReluDense."
        sizes: dict[str, tuple[str, ...]] = {
            "shared.weight": ("vocab_size", "d_model"),
            f"{first}q.weight": ("inner", "d_model"),
            f"{first}relative_attention_bias.weight": ("relative_attention_num_buckets", "num_heads"),
            f"{network}{'wi_0' if config.is_gated else 'wi'}.weight": ("d_ff", "d_model"),
        }
        return sizes if config.tie_word_embeddings else {**sizes, "lm_head.weight": ("vocab_size", "d_model")}

    @classmethod
    def named_as_here(cls, weights: loading.Weights, config: T5Config, path: Path) -> loading.Weights:
        """The parameters in a file, under their names here; old files have biases for the source, which none uses."""
        unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
        return {name: array for name, array in weights.items() if name != unused}

    @classmethod
    def config_of_file(cls, config: T5Config, weights: loading.Weights) -> T5Config:
        """With a head of its own exactly where the file has one, as transformers does whatever the setting says."""
        head, table = weights.get("lm_head.weight"), weights.get("shared.weight")
        own = head is not None and (table is None or not np.array_equal(head, table))
        return replace(config, tie_word_embeddings=not own)
