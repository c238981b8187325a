"""What a model's forward returns."""

from __future__ import annotations

from dataclasses import dataclass

from tinyllm.autograd.tensor import Tensor
from tinyllm.nn.moe import Routing


@dataclass(frozen=True)
class ModelOutput:
    """What was computed; what was not asked for is None.

    Attributes
    ----------
    logits : Tensor (B, T, V)
        The score of every token of the vocabulary, at every position.
    loss : Tensor, 0-d
        Mean negative log-likelihood in nats of the labels.
    hidden_states : tuple of Tensor (B, T, C)
        The embeddings, then what each block makes of them; the last one has passed the final norm.
    """

    logits: Tensor
    loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class MixtureOutput(ModelOutput):
    """What a mixture of experts computed; its `loss` contains the losses of its routers.

    Attributes
    ----------
    aux_loss : Tensor, 0-d
        The balance loss of all layers together (F-MOE), without its coefficient.
    z_loss : Tensor, 0-d
        The mean square of the routers' normalisers, without its coefficient.
    routing : tuple of Routing
        For every layer, where its tokens went.
    """

    aux_loss: Tensor
    z_loss: Tensor
    routing: tuple[Routing, ...]


@dataclass(frozen=True)
class EncoderOutput:
    """What an encoder without a head gives.

    Attributes
    ----------
    last_hidden_state : Tensor (B, T, C)
        What the last block makes of every token.
    pooler_output : Tensor (B, C)
        One vector for each text; None where the model has no pooler.
    hidden_states : tuple of Tensor (B, T, C)
        As in `ModelOutput`.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass(frozen=True)
class PreTrainingOutput:
    """What both heads of BERT's pre-training give.

    Attributes
    ----------
    prediction_logits : Tensor (B, T, V)
        The score of every token of the vocabulary at every place.
    seq_relationship_logits : Tensor (B, 2)
        The scores of "the second text follows" and "it does not".
    loss : Tensor, 0-d
        The sum of both means in nats.
    hidden_states : tuple of Tensor (B, T, C)
        As in `ModelOutput`.
    """

    prediction_logits: Tensor
    seq_relationship_logits: Tensor
    loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass(frozen=True)
class SpanOutput:
    """Where in a text an answer may begin and end.

    Attributes
    ----------
    start_logits, end_logits : Tensor (B, T)
        The score of every place as the first, and as the last one.
    loss : Tensor, 0-d
        The mean of both means in nats.
    hidden_states : tuple of Tensor (B, T, C)
        As in `ModelOutput`.
    """

    start_logits: Tensor
    end_logits: Tensor
    loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
