"""The settings of a GPT-2, under the names of Hugging Face's config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from tinyllm.errors import CheckpointError, ConfigError
from tinyllm.models import config
from tinyllm.nn import activation

_ALIASES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
_HARMLESS = {
    "n_ctx",
    "summary_type",
    "summary_use_proj",
    "summary_activation",
    "summary_proj_to_labels",
    "summary_first_dropout",
}


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """What a GPT is made of.

    Parameters
    ----------
    vocab_size : int
        V.
    n_positions : int
        The longest sequence, in tokens.
    n_embd : int
        C, the channels.
    n_layer : int
        How many blocks.
    n_head : int
        H, heads per attention; divides `n_embd`.
    n_inner : int, optional
        Channels within the feed-forward networks; 4 C by default.
    activation_function : str
        As in :func:`tinyllm.nn.activation`; GPT-2's "gelu_new" is GELU by its tanh formula.
    resid_pdrop, embd_pdrop, attn_pdrop : float
        Probabilities of dropout: what each part adds, the embeddings, the attention weights.
    layer_norm_epsilon : float
    initializer_range : float
        Standard deviation of the first weights.
    scale_attn_weights : bool
        Whether scores are divided by sqrt(D).
    scale_attn_by_inverse_layer_idx : bool
        Whether they are divided by the layer's number too, counted from 1.
    reorder_and_upcast_attn : bool
        Asks for float32 within attention. Kept for the file's sake: nothing here computes in less.
    tie_word_embeddings : bool
        Whether the matrix of the embeddings also gives the logits.
    bos_token_id, eos_token_id, pad_token_id : int, optional
        The tokens that begin, end and fill up a text (several may end it).

    Raises
    ------
    ConfigError
        For a value that is impossible.
    """

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.0
    embd_pdrop: float = 0.0
    attn_pdrop: float = 0.0
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    reorder_and_upcast_attn: bool = False
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, np.generic):  # a computed size; JSON knows Python's numbers only
                object.__setattr__(self, name, value.item())
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
            config.whole(name, getattr(self, name))
        if self.n_inner is not None:
            config.whole("n_inner", self.n_inner)
        if self.n_embd % self.n_head:
            raise ConfigError(
                f"n_head={self.n_head} does not divide n_embd={self.n_embd}: every head gets n_embd / n_head channels"
            )
        activation(self.activation_function)
        for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
            config.number(name, getattr(self, name), most=1.0)
        for name in ("layer_norm_epsilon", "initializer_range"):
            config.number(name, getattr(self, name))
        for name in (
            "scale_attn_weights",
            "scale_attn_by_inverse_layer_idx",
            "reorder_and_upcast_attn",
            "tie_word_embeddings",
        ):
            config.flag(name, getattr(self, name))
        config.tokens(self)

    @property
    def inner(self) -> int:
        """Channels within the feed-forward networks."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> GPTConfig:
        """The settings of a config.json. What it leaves out is as in GPT-2, whose dropout is 0.1.

        Raises
        ------
        CheckpointError
            If it is the configuration of another kind of model.
        ConfigError
            For a setting that is unknown, impossible, or cannot be obeyed.
        """
        kind = settings.get("model_type")
        if kind != "gpt2":
            raise CheckpointError(f"model_type is {kind!r}, but a GPT is of the model_type 'gpt2'")
        published = {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}
        names = {field.name for field in fields(cls)}
        return cls(**published | config.obeyed(settings, names, _ALIASES, _HARMLESS))

    def to_dict(self) -> dict[str, Any]:
        """The settings as a config.json has them."""
        return asdict(self) | {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
