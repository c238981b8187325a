"""Translation before the Transformer: one GRU reads the source, another writes the target, with attention or without.

Without it, all that the writer knows of the source is the state that it begins with (Sutskever, Vinyals, Le 2014; Cho
et al. 2014). With it, the writer looks at the whole source before each token:

    bahdanau:  score = v tanh(W s_(t-1) + U h_j), before the step, whose input the mixture becomes part of
    luong:     score = s_t W h_j / sqrt(H), after the step; tanh(W_c [mixture, s_t]) is what is scored, without going
               back in. The root is not Luong's but Vaswani's: without it a few steps of Adam make a sum of H products
               so large that the attention falls upon one place, where its gradient is 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinyllm.autograd import no_grad, ops
from tinyllm.autograd.fused import softmax
from tinyllm.autograd.tensor import Tensor
from tinyllm.errors import CheckpointError, ConfigError, nearest
from tinyllm.models import config
from tinyllm.models.causal import Table
from tinyllm.models.inputs import ids_of, mask_of
from tinyllm.models.recurrent import Alignment, StateCache, first_of, last_of, stacked_or_none
from tinyllm.models.seq2seq import EncoderDecoder
from tinyllm.nn import GRU, Dropout, Linear, Module

ATTENTIONS = ("none", "bahdanau", "luong")


@dataclass(frozen=True, kw_only=True)
class RNNEncoderDecoderConfig:
    """What a recurrent encoder-decoder is made of.

    Parameters
    ----------
    src_vocab_size, tgt_vocab_size : int
        V of the source and of the target.
    embedding_size : int
        C, the channels of the embeddings.
    hidden_size : int
        H, the units of the decoder, and of the encoder in each direction.
    attention : {"none", "bahdanau", "luong"}
    plain : bool
        The bare form, without attention: the reader goes from left to right alone, the writer begins with the reader's
        last state as it is, and its states are scored directly.
    dropout : float
        Probability, for the embeddings and before the head.
    share_embeddings : bool
        Whether source and target have one vocabulary and one matrix of embeddings.
    label_smoothing : float
        How much of each label is spread over the vocabulary in training; held-out losses are without it.
    pad_token_id, decoder_start_token_id, eos_token_id : int
        Of the target; 0, 1 and 2 by default.

    Raises
    ------
    ConfigError
        For a value that is impossible.
    """

    src_vocab_size: int
    tgt_vocab_size: int
    embedding_size: int = 128
    hidden_size: int = 256
    attention: str = "bahdanau"
    plain: bool = False
    dropout: float = 0.0
    share_embeddings: bool = False
    label_smoothing: float = 0.0
    pad_token_id: int = 0
    decoder_start_token_id: int = 1
    eos_token_id: int = 2

    def __post_init__(self) -> None:
        for name in ("src_vocab_size", "tgt_vocab_size", "embedding_size", "hidden_size"):
            config.whole(name, getattr(self, name))
        for name in ("dropout", "label_smoothing"):
            config.number(name, getattr(self, name), most=1.0)
        for name in ("plain", "share_embeddings"):
            config.flag(name, getattr(self, name))
        if self.attention not in ATTENTIONS:
            raise ConfigError(f"unknown attention {self.attention!r}{nearest(str(self.attention), ATTENTIONS)}")
        if self.plain and self.attention != "none":
            raise ConfigError(f"plain=True is the form without attention, got attention={self.attention!r}")
        if self.share_embeddings and self.src_vocab_size != self.tgt_vocab_size:
            raise ConfigError(
                f"share_embeddings needs one vocabulary, but src_vocab_size={self.src_vocab_size} and "
                f"tgt_vocab_size={self.tgt_vocab_size}"
            )
        for name in ("pad_token_id", "decoder_start_token_id", "eos_token_id"):
            config.whole(name, getattr(self, name), least=0)
            if getattr(self, name) >= self.tgt_vocab_size:
                raise ConfigError(
                    f"{name}={getattr(self, name)} is outside the target's vocabulary 0..{self.tgt_vocab_size - 1}"
                )

    @property
    def gates(self) -> int:
        """Rows of a GRU's matrices."""
        return 3 * self.hidden_size

    @property
    def scored_size(self) -> int:
        """Channels of what the head scores."""
        return self.hidden_size if self.plain else self.embedding_size

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> RNNEncoderDecoderConfig:
        """The settings of a config.json.

        Raises
        ------
        CheckpointError
            If it is the configuration of another kind of model.
        ConfigError
            For a setting that is unknown, missing, impossible, or cannot be obeyed.
        """
        kind = settings.get("model_type")
        if kind != "rnn-encoder-decoder":
            raise CheckpointError(
                f"model_type is {kind!r}, but an RNNEncoderDecoder is of the model_type 'rnn-encoder-decoder'"
            )
        names = {field.name for field in fields(cls)}
        found = config.obeyed(settings, names, {}, neutral={"is_encoder_decoder": (True,)})
        for name in ("src_vocab_size", "tgt_vocab_size"):
            if name not in found:
                raise ConfigError(f"{name} is missing")
        return cls(**found)

    def to_dict(self) -> dict[str, Any]:
        """The settings as a config.json has them."""
        return asdict(self) | {
            "architectures": ["RNNEncoderDecoder"],
            "model_type": "rnn-encoder-decoder",
            "is_encoder_decoder": True,
        }


class Attend(Module):
    """The mixture of the source's states that suits a state of the decoder."""

    def __init__(self, kind: str, source: int, hidden: int, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.kind = kind
        self.keys = Linear(source, hidden, bias=False, rng=rng, dtype=dtype)  # U, or Luong's W
        if kind == "bahdanau":
            self.query = Linear(hidden, hidden, rng=rng, dtype=dtype)  # W
            self.score = Linear(hidden, 1, bias=False, rng=rng, dtype=dtype)  # v

    def forward(self, state: Tensor, keys: Tensor, memory: Tensor, hidden: np.ndarray | None) -> tuple[Tensor, Tensor]:
        """States (B, T, H), keys (B, S, H), memory (B, S, 2 H); `hidden` (B, 1, S) is True for padding.

        Returns
        -------
        mixtures (B, T, 2 H), weights (B, T, S)
        """
        if self.kind == "bahdanau":
            both = ops.tanh(ops.expand_dims(self.query(state), 2) + ops.expand_dims(keys, 1))  # (B, T, S, H)
            scores = self.score(both)[..., 0]
        else:
            scores = state @ keys.mT / math.sqrt(keys.shape[-1])  # (B, T, S)
        if hidden is not None:
            scores = ops.masked_fill(scores, hidden, -math.inf)
        weights = softmax(scores)
        return weights @ memory, weights


class RNNEncoderDecoder(EncoderDecoder):
    """A bidirectional GRU that reads, and a GRU that writes.

    Called, trained, saved and used for writing as the encoder-decoder Transformer is.

    Parameters
    ----------
    config : RNNEncoderDecoderConfig
    rng : numpy Generator
        For the first weights, and for dropout outside a `random_scope`.
    dtype : dtype
        float32 or float64.

    Notes
    -----
    Source: Sutskever, Vinyals and Le 2014; Cho et al. 2014; Bahdanau, Cho and Bengio 2015, section 3 and appendix A;
    Luong, Pham and Manning 2015, section 3.1 (the general score, without input feeding).
    """

    config: RNNEncoderDecoderConfig
    config_class = RNNEncoderDecoderConfig
    published = "recurrent encoder-decoder"
    lists: ClassVar = {}

    def __init__(
        self, config: RNNEncoderDecoderConfig, *, rng: np.random.Generator, dtype: DTypeLike = np.float32
    ) -> None:
        C, H = config.embedding_size, config.hidden_size
        self.config = config
        # Of size 1: from smaller numbers the first states hardly differ by what was read, and attention that has
        # nothing to tell its places by falls upon one of them within a few steps, and stays there.
        self.src_embedding = Table(config.src_vocab_size, C, 1.0, rng, dtype)
        shared = config.share_embeddings
        self.tgt_embedding = self.src_embedding if shared else Table(config.tgt_vocab_size, C, 1.0, rng, dtype)
        self.drop = Dropout(config.dropout, rng)
        self.encoder = GRU(C, H, 1, not config.plain, rng=rng, dtype=dtype)
        if config.plain:
            self.decoder = GRU(C, H, rng=rng, dtype=dtype)
            self.generator = Linear(H, config.tgt_vocab_size, rng=rng, dtype=dtype)
            return
        self.bridge = Linear(
            2 * H, H, rng=rng, dtype=dtype
        )  # from the ends of both directions to the decoder's first state
        self.decoder = GRU(C + (2 * H if config.attention == "bahdanau" else 0), H, rng=rng, dtype=dtype)
        scored = H
        if config.attention != "none":
            self.attend = Attend(config.attention, 2 * H, H, rng, dtype)
            scored = 3 * H
        self.out = Linear(scored, C, rng=rng, dtype=dtype)
        self.generator = Linear(C, config.tgt_vocab_size, rng=rng, dtype=dtype)

    @classmethod
    def sizes_of(cls, config: RNNEncoderDecoderConfig) -> dict[str, tuple[str, ...]]:
        """Of the embeddings, the decoder and the head."""
        sizes: dict[str, tuple[str, ...]] = {"src_embedding.weight": ("src_vocab_size", "embedding_size")}
        if not config.share_embeddings:
            sizes["tgt_embedding.weight"] = ("tgt_vocab_size", "embedding_size")
        return sizes | {
            "decoder.weight_hh_l0": ("gates", "hidden_size"),
            "generator.weight": ("tgt_vocab_size", "scored_size"),
        }

    def encode_states(self, ids: np.ndarray, positions: np.ndarray, visible: np.ndarray | None) -> Tensor:
        """(B, S, 2 H): beside each other what is known at each token from its left and from its right.

        If plain (B, S, H), from its left. Positions are not looked at.
        """
        aligned = Alignment(None if visible is None else visible[:, 0, 0])
        x = aligned.to_left(self.drop(self.src_embedding(ids)))
        return aligned.back(self.encoder(x, lengths=aligned.lengths)[0])

    def decode_states(self, ids: np.ndarray, memory: Tensor, visible: np.ndarray | None, cache: Any) -> Tensor:
        """What the head scores, (B, T, C)."""
        return self._decoded(ids, memory, None if visible is None else visible[:, 0, 0], cache)[0]

    def _decoded(
        self, ids: np.ndarray, memory: Tensor, visible: np.ndarray | None, cache: StateCache | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Also the weights of the attention (B, T, S); `visible` is (B, S)."""
        x = self.drop(self.tgt_embedding(ids))  # (B, T, C)
        state = None if cache is None else stacked_or_none(cache.state)
        if state is None:
            state = ops.expand_dims(self._first_state(memory, visible), 0)  # (1, B, H)
        padding = None if visible is None else ~visible[:, None, :]
        weights = None
        if self.config.attention == "bahdanau":
            y, weights, state = self._looking_first(x, state, memory, padding)
        else:
            y, state = self.decoder(x, state)  # (B, T, H)
            if self.config.attention == "luong":
                mixed, weights = self.attend(y, self.attend.keys(memory), memory, padding)
                y = ops.concatenate([mixed, y], axis=-1)
        if cache is not None:
            cache.update((state,), ids.shape[1])
        return self.drop(y if self.config.plain else ops.tanh(self.out(y))), weights

    def _first_state(self, memory: Tensor, visible: np.ndarray | None) -> Tensor:
        """(B, H), of what the reader from the left knows at the end, and the other one at the beginning."""
        if self.config.plain:
            return last_of(memory, visible)
        H = self.config.hidden_size
        ends = [last_of(memory[..., :H], visible), first_of(memory[..., H:], visible)]
        return ops.tanh(self.bridge(ops.concatenate(ends, axis=-1)))

    def _looking_first(
        self, x: Tensor, state: Tensor, memory: Tensor, padding: np.ndarray | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Step by step, since each step's input depends on the state before: states and mixtures, weights, state."""
        keys, ys, all_weights = self.attend.keys(memory), [], []
        for t in range(x.shape[1]):
            mixed, weights = self.attend(ops.swapaxes(state, 0, 1), keys, memory, padding)  # (B, 1, 2 H), (B, 1, S)
            y, state = self.decoder(ops.concatenate([x[:, t : t + 1], mixed], axis=-1), state)
            ys.append(ops.concatenate([mixed, y], axis=-1))
            all_weights.append(weights)
        return ops.concatenate(ys, axis=1), ops.concatenate(all_weights, axis=1), state

    def head(self) -> tuple[Tensor, Tensor | None]:
        """The matrix (V, C) whose rows score the tokens, and the bias (V,)."""
        return self.generator.weight, self.generator.bias

    @property
    def context_length(self) -> None:
        """None: it can write on for ever."""
        return None

    def new_cache(self) -> StateCache:  # type: ignore[override]
        """An empty cache, for ``model(decoder_input_ids=ids, encoder_outputs=memory, cache=cache)``."""
        return StateCache()

    def alignment(
        self,
        input_ids: ArrayLike | Tensor,
        decoder_input_ids: ArrayLike | Tensor,
        attention_mask: ArrayLike | Tensor | None = None,
    ) -> np.ndarray:
        """Where in the source the decoder looks for each token: (B, T, S), row t for the token after these t + 1.

        Raises
        ------
        ConfigError
            For a model without attention.
        """
        training = self.training
        self.eval()
        try:
            with no_grad():
                memory = self.encode(input_ids, attention_mask)
                visible = mask_of(attention_mask, memory.shape[:2])
                _, weights = self._decoded(ids_of(decoder_input_ids, "decoder_input_ids"), memory, visible)
        finally:
            self.train(training)
        if weights is None:
            raise ConfigError("this model has no attention, so there is no place in the source that it looks at")
        return weights.numpy()
