"""What a model's forward returns."""

from __future__ import annotations

from dataclasses import dataclass

from tinyllm.autograd.tensor import Tensor


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
