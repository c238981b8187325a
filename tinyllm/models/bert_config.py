"""The settings of a BERT, under the names of Hugging Face's config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from tinyllm.errors import CheckpointError, ConfigError
from tinyllm.models import config
from tinyllm.nn import activation

_HARMLESS = {"directionality", "layer_norm_type", "pooler_type"} | {
    f"pooler_{name}" for name in ("fc_size", "num_attention_heads", "num_fc_layers", "size_per_head")
}

# Other kinds of BERT, which are other functions; and the one value of each setting under which it is this one.
_ONLY = {"is_decoder": False, "position_embedding_type": "absolute"}

#: What the head of a sequence classifier can be trained for.
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")

#: What a sequence classifier reads of a text: its first token, through the pooler, or the mean of its tokens.
POOLINGS = ("cls", "mean")


@dataclass(frozen=True, kw_only=True)
class BERTConfig:
    """What a BERT is made of.

    Parameters
    ----------
    vocab_size : int
        V.
    hidden_size : int
        C, the channels.
    num_hidden_layers : int
        How many blocks.
    num_attention_heads : int
        H, heads per attention; divides `hidden_size`.
    intermediate_size : int
        Channels within the feed-forward networks.
    hidden_act : str
        As in :func:`tinyllm.nn.activation`.
    hidden_dropout_prob, attention_probs_dropout_prob : float
        Probabilities of dropout: what each part adds and the embeddings, the attention weights.
    classifier_dropout : float, optional
        That of the classifiers' heads; `hidden_dropout_prob` by default.
    max_position_embeddings : int
        The longest sequence, in tokens.
    type_vocab_size : int
        How many kinds of tokens `token_type_ids` tells apart: first and second text.
    initializer_range : float
        Standard deviation of the first weights.
    layer_norm_eps : float
    pad_token_id : int, optional
        The padding, whose embedding starts at 0 and gets no gradient where it is looked up.
    bos_token_id, eos_token_id : int, optional
        Kept for the file's sake.
    tie_word_embeddings : bool
        Whether the matrix of the embeddings also gives the logits of a masked language model.
    num_labels : int
        How many numbers a classifier gives.
    id2label : mapping of int to str, optional
        The names of the labels; ``LABEL_0, LABEL_1, ...`` by default.
    problem_type : str, optional
        What a sequence classifier's loss is: "regression", "single_label_classification" or
        "multi_label_classification". By default the labels decide: one label is a regression, whole numbers are
        classes, fractions are probabilities of several labels.
    classifier_pooling : str
        What a sequence classifier reads: "cls", the first token through the pooler, as `BertForSequenceClassification`
        in transformers does; or "mean", the mean of the tokens that are no padding, for which there is no pooler.
        The name is that of transformers' `ModernBertConfig`; its BERT does not know the setting, so a classifier with
        "mean" is another function there.

    Raises
    ------
    ConfigError
        For a value that is impossible.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    classifier_dropout: float | None = None
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = True
    num_labels: int = 2
    id2label: Mapping[int, str] | None = None
    problem_type: str | None = None
    classifier_pooling: str = "cls"

    def __post_init__(self) -> None:
        for name in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
            "num_labels",
        ):
            config.whole(name, getattr(self, name))
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"num_attention_heads={self.num_attention_heads} does not divide hidden_size={self.hidden_size}: "
                "every head gets hidden_size / num_attention_heads channels"
            )
        activation(self.hidden_act)
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            if name != "classifier_dropout" or self.classifier_dropout is not None:
                config.number(name, getattr(self, name), most=1.0)
        for name in ("initializer_range", "layer_norm_eps"):
            config.number(name, getattr(self, name))
        config.flag("tie_word_embeddings", self.tie_word_embeddings)
        if self.pad_token_id is not None:
            config.whole("pad_token_id", self.pad_token_id, least=0)
            if self.pad_token_id >= self.vocab_size:
                raise ConfigError(f"pad_token_id={self.pad_token_id} is outside the vocabulary of {self.vocab_size}")
        if self.problem_type is not None and self.problem_type not in PROBLEM_TYPES:
            raise ConfigError(f"problem_type must be one of {', '.join(PROBLEM_TYPES)}, got {self.problem_type!r}")
        if self.classifier_pooling not in POOLINGS:
            raise ConfigError(
                f"classifier_pooling must be one of {', '.join(POOLINGS)}, got {self.classifier_pooling!r}"
            )
        if self.id2label is not None and sorted(self.id2label) != list(range(self.num_labels)):
            raise ConfigError(
                f"id2label must name the labels 0 to {self.num_labels - 1} (num_labels={self.num_labels}), "
                f"got names for {sorted(self.id2label)}"
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels."""
        return tuple(f"LABEL_{i}" if self.id2label is None else self.id2label[i] for i in range(self.num_labels))

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> BERTConfig:
        """The settings of a config.json. What it leaves out is as in BERT, whose dropout is 0.1.

        Raises
        ------
        CheckpointError
            If it is the configuration of another kind of model.
        ConfigError
            For a setting that is unknown, impossible, or cannot be obeyed.
        """
        kind = settings.get("model_type")
        if kind != "bert":
            raise CheckpointError(f"model_type is {kind!r}, but a BERT is of the model_type 'bert'")
        for name, only in _ONLY.items():
            if settings.get(name, only) != only:
                raise ConfigError(f"{name}={settings[name]!r} cannot be obeyed; only {only!r} can")
        published = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
        names = {field.name for field in fields(cls)}
        found = config.obeyed(settings, names, {}, {*_HARMLESS, *_ONLY})
        if found.get("id2label") is not None:
            found["id2label"] = _names(found["id2label"])
            found["num_labels"] = found.get("num_labels", len(found["id2label"]))
        return cls(**published | found)

    def to_dict(self) -> dict[str, Any]:
        """The settings as a config.json has them, but for the architecture."""
        settings = {name: value for name, value in asdict(self).items() if name != "num_labels"}
        labels = {
            "id2label": {str(i): label for i, label in enumerate(self.labels)},
            "label2id": {label: i for i, label in enumerate(self.labels)},
        }
        return settings | labels | {"model_type": "bert"}


def _names(found: Any) -> dict[int, str]:
    """The names of labels in a config.json, whose keys are strings."""
    try:
        return {int(index): str(name) for index, name in found.items()}
    except (AttributeError, ValueError):
        raise ConfigError(f"id2label must map the numbers of labels to names, got {found!r}") from None
