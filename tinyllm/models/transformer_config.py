"""The settings of an encoder-decoder Transformer, under the names of torch.nn.Transformer's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from tinyllm.errors import CheckpointError, ConfigError, nearest
from tinyllm.models import config
from tinyllm.nn import activation

POSITIONS = ("sinusoidal", "learned")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """What a Transformer is made of; the defaults are the paper's base model.

    Parameters
    ----------
    src_vocab_size, tgt_vocab_size : int
        V of the source and of the target.
    d_model : int
        C, the channels.
    nhead : int
        H, heads per attention; divides `d_model`.
    num_encoder_layers, num_decoder_layers : int
    dim_feedforward : int
        Channels within the feed-forward networks.
    dropout : float
        Probability: of what each part adds, the embeddings, the attention weights, the hidden layers.
    activation : str
        As in :func:`tinyllm.nn.activation`.
    layer_norm_eps : float
    norm_first : bool
        False is the paper's order, F-BLOCK: each sum is normed. True norms what goes into each part instead, which
        leaves the residual stream alone and trains without a warm-up.
    bias : bool
        Whether linear maps and norms have one.
    positions : {"sinusoidal", "learned"}
        F-PE, or a vector for each position.
    max_position_embeddings : int
        The longest source, and the longest target.
    share_embeddings : bool
        Whether source and target have one vocabulary and one matrix of embeddings.
    tie_word_embeddings : bool
        Whether the target's matrix of embeddings also gives the logits; with `share_embeddings` all three are one, as
        in the paper (section 3.4).
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
    d_model: int = 512
    nhead: int = 8
    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    dim_feedforward: int = 2048
    dropout: float = 0.1
    activation: str = "relu"
    layer_norm_eps: float = 1e-5
    norm_first: bool = False
    bias: bool = True
    positions: str = "sinusoidal"
    max_position_embeddings: int = 512
    share_embeddings: bool = False
    tie_word_embeddings: bool = True
    label_smoothing: float = 0.0
    pad_token_id: int = 0
    decoder_start_token_id: int = 1
    eos_token_id: int = 2

    def __post_init__(self) -> None:
        for name in (
            "src_vocab_size",
            "tgt_vocab_size",
            "d_model",
            "nhead",
            "num_encoder_layers",
            "num_decoder_layers",
            "dim_feedforward",
            "max_position_embeddings",
        ):
            config.whole(name, getattr(self, name))
        if self.d_model % self.nhead:
            raise ConfigError(
                f"nhead={self.nhead} does not divide d_model={self.d_model}: every head gets d_model / nhead channels"
            )
        activation(self.activation)
        for name in ("dropout", "label_smoothing"):
            config.number(name, getattr(self, name), most=1.0)
        config.number("layer_norm_eps", self.layer_norm_eps)
        for name in ("norm_first", "bias", "share_embeddings", "tie_word_embeddings"):
            config.flag(name, getattr(self, name))
        if self.positions not in POSITIONS:
            raise ConfigError(f"unknown positions {self.positions!r}{nearest(str(self.positions), POSITIONS)}")
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

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> TransformerConfig:
        """The settings of a config.json.

        Raises
        ------
        CheckpointError
            If it is the configuration of another kind of model.
        ConfigError
            For a setting that is unknown, missing, impossible, or cannot be obeyed.
        """
        kind = settings.get("model_type")
        if kind != "transformer":
            raise CheckpointError(f"model_type is {kind!r}, but a Transformer is of the model_type 'transformer'")
        names = {field.name for field in fields(cls)}
        found = config.obeyed(settings, names, {}, neutral={"is_encoder_decoder": (True,)})
        for name in ("src_vocab_size", "tgt_vocab_size"):
            if name not in found:
                raise ConfigError(f"{name} is missing")
        return cls(**found)

    def to_dict(self) -> dict[str, Any]:
        """The settings as a config.json has them."""
        return asdict(self) | {
            "architectures": ["Transformer"],
            "model_type": "transformer",
            "is_encoder_decoder": True,
        }
