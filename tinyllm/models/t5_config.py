"""The settings of a T5, under the names of Hugging Face's config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from tinyllm.errors import CheckpointError, ConfigError
from tinyllm.models import config
from tinyllm.nn import activation

_ALIASES = {
    "hidden_size": "d_model",
    "head_dim": "d_kv",
    "num_attention_heads": "num_heads",
    "num_hidden_layers": "num_layers",
}
_HARMLESS = {"classifier_dropout", "n_positions", "output_past"}
_DERIVED = ("dense_act_fn", "is_gated_act")  # what transformers writes of `feed_forward_proj` besides it


@dataclass(frozen=True, kw_only=True)
class T5Config:
    """What a T5 is made of; the defaults are transformers'.

    Parameters
    ----------
    vocab_size : int
        V.
    d_model : int
        C, the channels.
    d_kv : int
        D, the channels of each head; H D need not be C.
    d_ff : int
        Channels within the feed-forward networks.
    num_layers, num_decoder_layers : int
        Of the encoder and of the decoder; the decoder has as many as the encoder by default.
    num_heads : int
        H.
    relative_attention_num_buckets : int
        How many classes of distances there are.
    relative_attention_max_distance : int
        From where on all are one class.
    dropout_rate : float
    layer_norm_epsilon : float
    initializer_factor : float
        Multiplies the deviations of the first weights.
    feed_forward_proj : str
        The network's function, such as "relu", or "gated-" and that of its gate, such as "gated-gelu" (which means
        GELU by its tanh formula) or "gated-silu".
    tie_word_embeddings : bool
        Whether the matrix of the embeddings also gives the logits.
    scale_decoder_outputs : bool, optional
        Whether they are divided by sqrt(d_model); by default, where the matrix is one.
    pad_token_id, bos_token_id, eos_token_id, decoder_start_token_id : int, optional

    Raises
    ------
    ConfigError
        For a value that is impossible.
    """

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_decoder_layers: int | None = None
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    initializer_factor: float = 1.0
    feed_forward_proj: str = "relu"
    tie_word_embeddings: bool = True
    scale_decoder_outputs: bool | None = None
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = 1
    decoder_start_token_id: int | None = None

    def __post_init__(self) -> None:
        if self.num_decoder_layers is None:
            object.__setattr__(self, "num_decoder_layers", self.num_layers)
        if self.scale_decoder_outputs is None:
            object.__setattr__(self, "scale_decoder_outputs", self.tie_word_embeddings)
        sizes = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads")
        for name in sizes:
            config.whole(name, getattr(self, name))
        config.whole("relative_attention_num_buckets", self.relative_attention_num_buckets, least=4)
        # A distance of half the decoder's buckets is where they begin to grow: there must be some way to go.
        config.whole(
            "relative_attention_max_distance",
            self.relative_attention_max_distance,
            least=self.relative_attention_num_buckets // 2 + 1,
        )
        config.number("dropout_rate", self.dropout_rate, most=1.0)
        for name in ("layer_norm_epsilon", "initializer_factor"):
            config.number(name, getattr(self, name))
        for name in ("tie_word_embeddings", "scale_decoder_outputs"):
            config.flag(name, getattr(self, name))
        if not isinstance(self.feed_forward_proj, str):
            raise ConfigError(f"feed_forward_proj must be a name, got {self.feed_forward_proj!r}")
        activation(self.activation_function)
        config.tokens(self)
        if self.decoder_start_token_id is not None:
            config.whole("decoder_start_token_id", self.decoder_start_token_id, least=0)

    @property
    def is_gated(self) -> bool:
        """Whether the feed-forward networks have a gate."""
        return self.feed_forward_proj.startswith("gated-")

    @property
    def activation_function(self) -> str:
        """The name of the networks' function."""
        return "gelu_new" if self.feed_forward_proj == "gated-gelu" else self.feed_forward_proj.removeprefix("gated-")

    @property
    def inner(self) -> int:
        """The channels of all heads together."""
        return self.num_heads * self.d_kv

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> T5Config:
        """The settings of a config.json. What it leaves out is as in transformers.

        Raises
        ------
        CheckpointError
            If it is the configuration of another kind of model.
        ConfigError
            For a setting that is unknown, impossible, or cannot be obeyed.
        """
        kind = settings.get("model_type")
        if kind != "t5":
            raise CheckpointError(f"model_type is {kind!r}, but a T5 is of the model_type 't5'")
        names = {field.name for field in fields(cls)}
        neutral = {"is_encoder_decoder": (True,)}
        made = cls(**config.obeyed(settings, names, _ALIASES, {*_HARMLESS, *_DERIVED}, neutral))
        for name, value in zip(_DERIVED, (made.activation_function, made.is_gated), strict=True):
            if settings.get(name, value) != value:
                raise ConfigError(
                    f"{name}={settings[name]!r} contradicts feed_forward_proj={made.feed_forward_proj!r}, "
                    f"which means {value!r}"
                )
        return made

    def to_dict(self) -> dict[str, Any]:
        """The settings as a config.json has them."""
        return asdict(self) | {
            "architectures": ["T5ForConditionalGeneration"],
            "model_type": "t5",
            "is_encoder_decoder": True,
        }
