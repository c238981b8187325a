"""The settings of Llama and of its kin, under the names of Hugging Face's config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Self

import numpy as np

from tinyllm.errors import CheckpointError, ConfigError
from tinyllm.models import config
from tinyllm.nn import activation
from tinyllm.nn.rope import rope_parameters


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """What a Llama is made of.

    Parameters
    ----------
    vocab_size : int
        V.
    hidden_size : int
        C, the channels.
    intermediate_size : int
        Channels within the feed-forward networks.
    num_hidden_layers : int
        How many blocks.
    num_attention_heads : int
        H, heads of queries per attention.
    num_key_value_heads : int, optional
        Heads of keys and values, each of which serves as many heads of queries; divides H, which is the default.
    head_dim : int, optional
        D, even; C / H by default.
    hidden_act : str
        As in :func:`tinyllm.nn.activation`, of the gate of the feed-forward networks.
    max_position_embeddings : int
        The longest text of training.
    rope_parameters : dict
        Of the rotary positions, see :func:`tinyllm.nn.rope_parameters`; completed here.
    rms_norm_eps : float
    initializer_range : float
        Standard deviation of the first weights.
    attention_bias, mlp_bias : bool
        Whether those maps have biases.
    attention_dropout : float
        Probability of dropout of the attention weights.
    sliding_window : int, optional
        How many positions a token sees, itself included; by default all before it. Not Llama's: Mistral's.
    tie_word_embeddings : bool
        Whether the matrix of the embeddings also gives the logits.
    bos_token_id, eos_token_id, pad_token_id : int, optional
        The tokens that begin, end and fill up a text (several may end it).

    Raises
    ------
    ConfigError
        For a value that is impossible.
    """

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    rope_parameters: Mapping[str, Any] = field(default_factory=dict)
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    attention_bias: bool = False
    mlp_bias: bool = False
    attention_dropout: float = 0.0
    sliding_window: int | None = None
    tie_word_embeddings: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    model_type: ClassVar[str] = "llama"
    architecture: ClassVar[str] = "LlamaForCausalLM"
    theta: ClassVar[float] = 10000.0  # the base of rotary positions, where a file does not give it
    published: ClassVar[Mapping[str, Any]] = {"bos_token_id": 1, "eos_token_id": 2}  # what a file may leave out
    foreign: ClassVar[Mapping[str, Any]] = {"sliding_window": None}  # settings that this family does not have
    aliases: ClassVar[Mapping[str, str]] = {}
    harmless: ClassVar[frozenset[str]] = frozenset({"pretraining_tp", "is_llama_config"})  # how, not what, is computed

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, np.generic):  # a computed size; JSON knows Python's numbers only
                object.__setattr__(self, name, value.item())
        for name, value in self.foreign.items():
            if getattr(self, name) != value:
                raise ConfigError(f"{name}={getattr(self, name)!r}: a {self.architecture} has no such setting")
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        for name in (*sizes, "max_position_embeddings"):
            config.whole(name, getattr(self, name))
        heads = self.num_attention_heads
        self._default("num_key_value_heads", heads)
        if heads % self.key_value_heads:
            raise ConfigError(f"num_key_value_heads={self.key_value_heads} does not divide num_attention_heads={heads}")
        if self.head_dim is None and self.hidden_size % heads:
            raise ConfigError(f"num_attention_heads={heads} does not divide hidden_size={self.hidden_size}")
        self._default("head_dim", self.hidden_size // heads)
        if self.D % 2:
            raise ConfigError(f"head_dim={self.D} must be even: rotary positions turn pairs of channels")
        activation(self.hidden_act)
        complete = rope_parameters(self.rope_parameters or {}, self.theta, self.max_position_embeddings)
        object.__setattr__(self, "rope_parameters", complete)
        config.number("attention_dropout", self.attention_dropout, most=1.0)
        for name in ("rms_norm_eps", "initializer_range"):
            config.number(name, getattr(self, name))
        for name in ("attention_bias", "mlp_bias", "tie_word_embeddings"):
            config.flag(name, getattr(self, name))
        if self.sliding_window is not None:
            config.whole("sliding_window", self.sliding_window)
        config.tokens(self)

    def _default(self, name: str, value: int) -> None:
        if getattr(self, name) is None:
            object.__setattr__(self, name, value)
        config.whole(name, getattr(self, name))

    @property
    def D(self) -> int:
        """Channels of a head."""
        assert self.head_dim is not None
        return self.head_dim

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and values."""
        assert self.num_key_value_heads is not None
        return self.num_key_value_heads

    @property
    def queries(self) -> int:
        """Channels of all heads of queries."""
        return self.num_attention_heads * self.D

    @property
    def keys(self) -> int:
        """Channels of all heads of keys."""
        return self.key_value_heads * self.D

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """The settings of a config.json; what it leaves out is as published.

        Files of before transformers 5 have `rope_theta` and `rope_scaling` where newer ones have `rope_parameters`.

        Raises
        ------
        CheckpointError
            If it is the configuration of another kind of model.
        ConfigError
            For a setting that is unknown, impossible, or cannot be obeyed.
        """
        kind = settings.get("model_type")
        if kind != cls.model_type:
            raise CheckpointError(
                f"model_type is {kind!r}, but a {cls.architecture} is of the model_type {cls.model_type!r}"
            )
        settings = dict(settings)
        parameters = settings.pop("rope_parameters", None)
        scaling, theta = settings.pop("rope_scaling", None), settings.pop("rope_theta", None)
        rope = scaling or parameters or {}
        if not isinstance(rope, dict):
            raise ConfigError(f"rope_parameters must be an object, got {rope!r}")
        if theta is not None:
            rope = {"rope_theta": theta} | rope
        for name in ("partial_rotary_factor", "original_max_position_embeddings"):  # where some files have them
            if settings.get(name) is not None:
                rope = {name: settings[name]} | rope
            settings.pop(name, None)
        names = {item.name for item in fields(cls)} - set(cls.foreign)
        neutral = {name: (value,) for name, value in cls.foreign.items()} | {"rope_interleaved": (False,)}
        found = config.obeyed(settings, names, cls.aliases, cls.harmless, neutral)
        return cls(**{**cls.published, **found, "rope_parameters": rope})

    def to_dict(self) -> dict[str, Any]:
        """The settings as a config.json has them."""
        own = {name: value for name, value in asdict(self).items() if name not in self.foreign}
        return own | {"architectures": [self.architecture], "model_type": self.model_type}


@dataclass(frozen=True, kw_only=True)
class MistralConfig(LlamaConfig):
    """What a Mistral is made of: a Llama without biases, whose tokens may see a window of those before them.

    The parameters are those of `LlamaConfig` but for `attention_bias` and `mlp_bias`.
    """

    intermediate_size: int = 14336
    max_position_embeddings: int = 4096 * 32

    model_type = "mistral"
    architecture = "MistralForCausalLM"
    published: ClassVar[Mapping[str, Any]] = {
        "bos_token_id": 1,
        "eos_token_id": 2,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    }
    foreign: ClassVar[Mapping[str, Any]] = {"attention_bias": False, "mlp_bias": False}


@dataclass(frozen=True, kw_only=True)
class MixtralConfig(MistralConfig):
    """What a Mixtral is made of: a Mistral whose feed-forward networks are mixtures of experts.

    Parameters
    ----------
    num_local_experts : int
        E, in each block.
    num_experts_per_tok : int
        k, how many a token uses.
    router_aux_loss_coef : float
        What the balance loss is multiplied by before it is added to the loss.
    router_z_loss_coef : float
        The same of the z-loss. Not known to transformers, which passes over it.
    router_jitter_noise : float
        Of the experts' input in training, see :class:`tinyllm.nn.MoE`.
    expert_capacity_factor : float, optional
        See `capacity_factor` there. Not known to transformers, which passes over it.

    The others are those of `MistralConfig`.
    """

    rms_norm_eps: float = 1e-5
    num_local_experts: int = 8
    num_experts_per_tok: int = 2
    router_aux_loss_coef: float = 0.001
    router_z_loss_coef: float = 0.0
    router_jitter_noise: float = 0.0
    expert_capacity_factor: float | None = None

    model_type = "mixtral"
    architecture = "MixtralForCausalLM"
    theta = 1e6
    published: ClassVar[Mapping[str, Any]] = {"bos_token_id": 1, "eos_token_id": 2, "num_key_value_heads": 8}
    aliases: ClassVar[Mapping[str, str]] = {"num_experts": "num_local_experts"}
    # Whether transformers adds the balance loss to the loss; it always is here.
    harmless = LlamaConfig.harmless | {"output_router_logits"}

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_local_experts", "num_experts_per_tok"):
            config.whole(name, getattr(self, name))
        if self.num_experts_per_tok > self.num_local_experts:
            raise ConfigError(
                f"num_experts_per_tok={self.num_experts_per_tok}, but there are only "
                f"num_local_experts={self.num_local_experts}"
            )
        for name in ("router_aux_loss_coef", "router_z_loss_coef"):
            config.number(name, getattr(self, name))
        config.number("router_jitter_noise", self.router_jitter_noise, most=0.99)
        if self.expert_capacity_factor is not None:
            config.number("expert_capacity_factor", self.expert_capacity_factor, least=1e-6)
