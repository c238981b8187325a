"""BERT: an encoder that sees both sides of every token (Devlin et al. 2019), and the part that all its heads share.

Each block norms what it adds, not what it reads (F-BLOCK). Parameters bear the names and shapes of the published
checkpoints. The heads, one class for each task, are in `tinyllm.models.bert_heads`.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinyllm.autograd import checkpoint
from tinyllm.autograd.fused import embedding, linear, self_attention
from tinyllm.autograd.ops import concatenate, dropout, tanh
from tinyllm.autograd.tensor import Tensor
from tinyllm.models.bert_config import BERTConfig
from tinyllm.models.bert_folder import PretrainedBERT
from tinyllm.models.inputs import ids_of, integers, mask_of, positions_of
from tinyllm.models.loading import Weights
from tinyllm.models.output import EncoderOutput
from tinyllm.nn import LayerNorm, Module, activation, init


class Table(Module):
    """A matrix `weight` (rows, C) that is picked from by row; the row `padding`, if any, starts at 0."""

    def __init__(
        self, rows: int, config: BERTConfig, rng: np.random.Generator, dtype: DTypeLike, padding: int | None = None
    ) -> None:
        weight = np.asarray(init.normal((rows, config.hidden_size), rng, std=config.initializer_range, dtype=dtype))
        if padding is not None:
            weight[padding] = 0
        self.weight, self.padding = Tensor(weight, requires_grad=True), padding

    def forward(self, ids: np.ndarray) -> Tensor:
        """Integers (...) -> (..., C)."""
        return embedding(ids, self.weight, self.padding)


class Dense(Module):
    """An affine map with `weight` (out, in), normal at first, and `bias` (out,)."""

    def __init__(
        self, inputs: int, outputs: int, config: BERTConfig, rng: np.random.Generator, dtype: DTypeLike
    ) -> None:
        weight = init.normal((outputs, inputs), rng, std=config.initializer_range, dtype=dtype)
        self.weight = Tensor(weight, requires_grad=True)
        self.bias = Tensor(init.zeros((outputs,), dtype=dtype), requires_grad=True)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return linear(x, self.weight, self.bias)


class Embeddings(Module):
    """What a token is, plus where it stands, plus which of the two texts it belongs to; normed."""

    def __init__(self, config: BERTConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.config = config
        self.word_embeddings = Table(config.vocab_size, config, rng, dtype, config.pad_token_id)
        self.position_embeddings = Table(config.max_position_embeddings, config, rng, dtype)
        self.token_type_embeddings = Table(config.type_vocab_size, config, rng, dtype)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps, dtype=dtype)

    def forward(self, ids: np.ndarray, types: np.ndarray, positions: np.ndarray) -> Tensor:
        """Ids, types (B, T), positions (B or 1, T) -> (B, T, C)."""
        x = self.word_embeddings(ids) + self.token_type_embeddings(types) + self.position_embeddings(positions)
        return dropout(self.LayerNorm(x), self.config.hidden_dropout_prob, self.training)


class SelfAttention(Module):
    """Attention (F-ATTN) in H heads; every token sees every token."""

    def __init__(self, config: BERTConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.config = config
        self.query, self.key, self.value = (
            Dense(config.hidden_size, config.hidden_size, config, rng, dtype) for _ in range(3)
        )

    def forward(self, x: Tensor, visible: np.ndarray | None) -> Tensor:
        """(B, T, C) -> (B, T, C); `visible` (B, 1, 1, T) marks the keys that are not padding."""
        parts = self.query, self.key, self.value
        weight = concatenate([part.weight for part in parts])  # (3 C, C): one product is faster than three
        qkv = linear(x, weight, concatenate([part.bias for part in parts]))  # (B, T, 3 C)
        p = self.config.attention_probs_dropout_prob if self.training else 0.0
        return self_attention(qkv, self.config.num_attention_heads, visible, p)


class AddAndNorm(Module):
    """The last affine map of a part, and F-BLOCK's ``LayerNorm(x + part(x))``."""

    def __init__(self, inputs: int, config: BERTConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.config = config
        self.dense = Dense(inputs, config.hidden_size, config, rng, dtype)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps, dtype=dtype)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        """What the part made of x (B, T, inputs), and x itself (B, T, C) -> (B, T, C)."""
        return self.LayerNorm(x + dropout(self.dense(y), self.config.hidden_dropout_prob, self.training))


class Attention(Module):
    """``LayerNorm(x + SelfAttention(x))``, the first half of F-BLOCK."""

    def __init__(self, config: BERTConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.self = SelfAttention(config, rng, dtype)
        self.output = AddAndNorm(config.hidden_size, config, rng, dtype)

    def forward(self, x: Tensor, visible: np.ndarray | None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.output(self.self(x, visible), x)


class Intermediate(Module):
    """The hidden layer of the feed-forward network."""

    def __init__(self, config: BERTConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.config = config
        self.dense = Dense(config.hidden_size, config.intermediate_size, config, rng, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, intermediate_size)."""
        return activation(self.config.hidden_act)(linear(x, self.dense.weight), bias=self.dense.bias)


class Layer(Module):
    """One block: F-BLOCK."""

    def __init__(self, config: BERTConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.attention = Attention(config, rng, dtype)
        self.intermediate = Intermediate(config, rng, dtype)
        self.output = AddAndNorm(config.intermediate_size, config, rng, dtype)

    def forward(self, x: Tensor, visible: np.ndarray | None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = self.attention(x, visible)
        return self.output(self.intermediate(x), x)


class Encoder(Module):
    """The blocks.

    Attributes
    ----------
    checkpoint_blocks : bool
        Keep only the input of each block, and compute the block again in backward: less memory, more time.
    """

    checkpoint_blocks = False

    def __init__(self, config: BERTConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.layer = [Layer(config, rng, dtype) for _ in range(config.num_hidden_layers)]

    def forward(self, x: Tensor, visible: np.ndarray | None) -> list[Tensor]:
        """(B, T, C) -> what goes in and what each block makes of it, num_hidden_layers + 1 times (B, T, C)."""
        states = [x]
        for layer in self.layer:
            if self.checkpoint_blocks:
                x = checkpoint(partial(layer, visible=visible), x)
            else:
                x = layer(x, visible)
            states.append(x)
        return states


class Pooler(Module):
    """One vector for the whole text, from its first token."""

    def __init__(self, config: BERTConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.dense = Dense(config.hidden_size, config.hidden_size, config, rng, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, C)."""
        return tanh(self.dense(x[:, 0]))


class BERT(PretrainedBERT):
    """BERT without a head: what `BertModel` is in transformers.

    Parameters
    ----------
    config : BERTConfig
    rng : numpy Generator
        For the first weights: normal with deviation `initializer_range`. Biases and the padding's embedding start at 0.
    dtype : dtype
        float32 or float64.
    add_pooling_layer : bool
        Whether there is a pooler; the masked language model and the heads that look at every token need none.

    Notes
    -----
    Source: Devlin et al. 2019, "BERT: pre-training of deep bidirectional Transformers for language understanding",
    section 3.
    """

    architecture = "BertModel"
    body = ""

    def __init__(
        self,
        config: BERTConfig,
        *,
        rng: np.random.Generator,
        dtype: DTypeLike = np.float32,
        add_pooling_layer: bool = True,
    ) -> None:
        self.config = config
        self.embeddings = Embeddings(config, rng, dtype)
        self.encoder = Encoder(config, rng, dtype)
        self.pooler = Pooler(config, rng, dtype) if add_pooling_layer else None

    def forward(
        self,
        input_ids: ArrayLike | Tensor,
        attention_mask: ArrayLike | Tensor | None = None,
        token_type_ids: ArrayLike | Tensor | None = None,
        position_ids: ArrayLike | Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> EncoderOutput:
        """Encode texts.

        Parameters
        ----------
        input_ids : integers (B, T)
        attention_mask : (B, T), optional
            1 for tokens, 0 for padding, which no token sees.
        token_type_ids : integers (B, T), optional
            0 for tokens of the first text, 1 for those of the second; all 0 by default.
        position_ids : integers (T,), (1, T) or (B, T), optional
            0, 1, ..., T - 1 by default, padding counted.
        output_hidden_states : bool

        Returns
        -------
        EncoderOutput
            `last_hidden_state` (B, T, C); `pooler_output` (B, C) if there is a pooler; `hidden_states` where asked for.

        Raises
        ------
        ValueError
            If shapes do not fit, or there are more tokens than positions.
        IndexError
            If an id, a type or a position is outside its table.
        """
        ids = ids_of(input_ids)
        mask = mask_of(attention_mask, ids.shape)
        types = np.zeros(ids.shape, np.int64) if token_type_ids is None else integers("token_type_ids", token_type_ids)
        if types.shape != ids.shape:
            raise ValueError(f"token_type_ids must have the shape of input_ids {ids.shape}, got {types.shape}")
        positions = positions_of(position_ids, ids.shape, 0, None)  # (1 or B, T)
        if positions.max() >= self.context_length:
            raise ValueError(
                f"the input has the position {positions.max()}, but the model has only the "
                f"max_position_embeddings={self.context_length} positions 0..{self.context_length - 1}: cut it"
            )
        x = self.embeddings(ids, types, positions)  # (B, T, C)
        states = self.encoder(x, None if mask is None else mask[:, None, None, :])
        pooled = None if self.pooler is None else self.pooler(states[-1])
        return EncoderOutput(states[-1], pooled, tuple(states) if output_hidden_states else None)

    @classmethod
    def _for(cls, config: BERTConfig, weights: Weights, rng: np.random.Generator, dtype: DTypeLike) -> BERT:
        """With a pooler if there are weights for one."""
        pooler = any(name.startswith("pooler.") for name in weights)
        return cls(config, rng=rng, dtype=dtype, add_pooling_layer=pooler)

    @property
    def context_length(self) -> int:
        """The most tokens that the model can see at once."""
        return self.config.max_position_embeddings
