"""The settings of BART and of Marian, under the names of Hugging Face's config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

from tinyllm.errors import CheckpointError, ConfigError
from tinyllm.models import config
from tinyllm.nn import activation

_ALIASES = {"hidden_size": "d_model", "num_attention_heads": "encoder_attention_heads"}
_HARMLESS = {
    "classif_dropout",
    "classifier_dropout",
    "force_bos_token_to_be_generated",
    "num_hidden_layers",  # another name of encoder_layers; some files hold that of the decoder
    "output_past",
    "save_step",
}

# Settings of models that were drafted for this family and are not these two, with the values under which they are.
_NEUTRAL = {
    "is_encoder_decoder": (True,),
    "encoder_layerdrop": (0.0,),
    "decoder_layerdrop": (0.0,),
    "add_bias_logits": (False,),
    "add_final_layer_norm": (False,),
    "normalize_before": (False,),
}


@dataclass(frozen=True, kw_only=True)
class BARTConfig:
    """What a BART is made of; the defaults are transformers'.

    Parameters
    ----------
    vocab_size : int
        V.
    max_position_embeddings : int
        The longest source, and the longest target.
    d_model : int
        C, the channels.
    encoder_layers, decoder_layers : int
    encoder_attention_heads, decoder_attention_heads : int
        H, heads per attention; both divide `d_model`.
    encoder_ffn_dim, decoder_ffn_dim : int
        Channels within the feed-forward networks.
    activation_function : str
        As in :func:`tinyllm.nn.activation`.
    dropout, attention_dropout, activation_dropout : float
        Probabilities: of what each part adds and the embeddings, the attention weights, the hidden layers.
    init_std : float
        Standard deviation of the first weights.
    scale_embedding : bool
        Whether the embeddings are taken times sqrt(d_model).
    tie_word_embeddings : bool
        Whether source, target and head have one matrix.
    pad_token_id, bos_token_id, eos_token_id, decoder_start_token_id : int, optional
        The padding's embedding gets no gradient where it is looked up; the decoder begins with the last of these.
    forced_bos_token_id, forced_eos_token_id : int, optional
        What transformers' `generate` puts first and last. Kept for the file's sake.

    Raises
    ------
    ConfigError
        For a value that is impossible.
    """

    vocab_size: int = 50265
    max_position_embeddings: int = 1024
    d_model: int = 1024
    encoder_layers: int = 12
    decoder_layers: int = 12
    encoder_attention_heads: int = 16
    decoder_attention_heads: int = 16
    encoder_ffn_dim: int = 4096
    decoder_ffn_dim: int = 4096
    activation_function: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    init_std: float = 0.02
    scale_embedding: bool = False
    tie_word_embeddings: bool = True
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int | None = 2
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | list[int] | None = 2

    model_type: ClassVar[str] = "bart"
    architecture: ClassVar[str] = "BartForConditionalGeneration"
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = _NEUTRAL | {
        "normalize_embedding": (True,),
        "static_position_embeddings": (False,),
        "extra_pos_embeddings": (2,),
    }

    def __post_init__(self) -> None:
        sides = [
            f"{side}_{what}" for side in ("encoder", "decoder") for what in ("layers", "attention_heads", "ffn_dim")
        ]
        for name in ("vocab_size", "max_position_embeddings", "d_model", *sides):
            config.whole(name, getattr(self, name))
        for name in ("encoder_attention_heads", "decoder_attention_heads"):
            if self.d_model % getattr(self, name):
                raise ConfigError(f"{name}={getattr(self, name)} does not divide d_model={self.d_model}")
        activation(self.activation_function)
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            config.number(name, getattr(self, name), most=1.0)
        config.number("init_std", self.init_std)
        for name in ("scale_embedding", "tie_word_embeddings"):
            config.flag(name, getattr(self, name))
        config.tokens(self)
        if self.decoder_start_token_id is not None:
            config.whole("decoder_start_token_id", self.decoder_start_token_id, least=0)
        if self.pad_token_id is not None and self.pad_token_id >= self.vocab_size:
            raise ConfigError(f"pad_token_id={self.pad_token_id} is outside the vocabulary 0..{self.vocab_size - 1}")

    @property
    def tgt_vocab_size(self) -> int:
        """V of the target."""
        return self.vocab_size

    @property
    def rows_of_positions(self) -> int:
        """`max_position_embeddings`, and the two that were never used."""
        return self.max_position_embeddings + 2

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """The settings of a config.json. What it leaves out is as in transformers.

        Raises
        ------
        CheckpointError
            If it is the configuration of another kind of model.
        ConfigError
            For a setting that is unknown, impossible, or cannot be obeyed.
        """
        kind = settings.get("model_type")
        if kind != cls.model_type:
            raise CheckpointError(f"model_type is {kind!r}, but this model is of the model_type {cls.model_type!r}")
        names = {field.name for field in fields(cls)}
        return cls(**config.obeyed(settings, names, _ALIASES, _HARMLESS, cls.neutral))

    def to_dict(self) -> dict[str, Any]:
        """The settings as a config.json has them."""
        return asdict(self) | {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            "is_encoder_decoder": True,
        }


@dataclass(frozen=True, kw_only=True)
class MarianConfig(BARTConfig):
    """What a Marian is made of; the defaults are transformers'. All of BART's settings, and these:

    Parameters
    ----------
    decoder_vocab_size : int, optional
        V of the target, where it has a vocabulary of its own; `vocab_size` by default.
    share_encoder_decoder_embeddings : bool
        Whether source and target have one vocabulary and one matrix. If not, `tie_word_embeddings` is about the
        target's matrix and the head.
    """

    vocab_size: int = 58101
    decoder_vocab_size: int | None = None
    share_encoder_decoder_embeddings: bool = True
    pad_token_id: int | None = 58100
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = 0
    decoder_start_token_id: int | None = 58100
    forced_eos_token_id: int | list[int] | None = 0

    model_type: ClassVar[str] = "marian"
    architecture: ClassVar[str] = "MarianMTModel"
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = _NEUTRAL | {
        "normalize_embedding": (False,),
        "static_position_embeddings": (True,),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        config.flag("share_encoder_decoder_embeddings", self.share_encoder_decoder_embeddings)
        if self.decoder_vocab_size is not None:
            config.whole("decoder_vocab_size", self.decoder_vocab_size)
        if self.share_encoder_decoder_embeddings and self.tgt_vocab_size != self.vocab_size:
            raise ConfigError(
                f"decoder_vocab_size={self.decoder_vocab_size} differs from vocab_size={self.vocab_size}, but "
                "share_encoder_decoder_embeddings says that they are one"
            )
        if self.pad_token_id is not None and self.pad_token_id >= self.tgt_vocab_size:
            raise ConfigError(
                f"pad_token_id={self.pad_token_id} is outside the target's vocabulary 0..{self.tgt_vocab_size - 1}"
            )

    @property
    def tgt_vocab_size(self) -> int:
        """V of the target."""
        return self.vocab_size if self.decoder_vocab_size is None else self.decoder_vocab_size
