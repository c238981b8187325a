"""The face of every causal language model: ids in; logits, loss and hidden states out; folders read and written.

A model's own file says what it computes. Here is what all of them do alike around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinyllm.autograd.fused import cross_entropy, embedding, linear, linear_cross_entropy
from tinyllm.autograd.tensor import Tensor
from tinyllm.models import loading
from tinyllm.models.cache import KVCache
from tinyllm.models.inputs import IGNORED, ids_of, mask_of, positions_of, targets_of
from tinyllm.models.output import MixtureOutput, ModelOutput
from tinyllm.models.pretrained import Pretrained
from tinyllm.nn import Module, init
from tinyllm.nn.moe import Routing


class Table(Module):
    """A matrix `weight` (rows, C): picked from by row on the way in; on the way out, each row scores a token."""

    def __init__(self, rows: int, channels: int, std: float, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.weight = Tensor(init.normal((rows, channels), rng, std=std, dtype=dtype), requires_grad=True)

    def forward(self, ids: np.ndarray) -> Tensor:
        """Integers (...) -> (..., C)."""
        return embedding(ids, self.weight)


class RouterLoss(NamedTuple):
    """What a mixture of experts adds to the loss, and why.

    `total` is added; `balance` and `z` are what it is made of, without their coefficients; `routing` says of every
    layer where its tokens went.
    """

    total: Tensor
    balance: Tensor
    z: Tensor
    routing: tuple[Routing, ...]


class CausalLM(Pretrained):
    """A causal language model with a configuration and a folder.

    A subclass names its parts in class variables, and defines `states`, `head` and `new_cache`.

    Attributes
    ----------
    config : its configuration
    """

    prefix: ClassVar[str]  # under which all parameters but the head's lie
    table: ClassVar[str]  # name of the embeddings
    buffers: ClassVar[tuple[str, ...]] = ()  # ends of names in old files that are no parameters

    def forward(
        self,
        input_ids: ArrayLike | Tensor,
        attention_mask: ArrayLike | Tensor | None = None,
        position_ids: ArrayLike | Tensor | None = None,
        labels: ArrayLike | Tensor | None = None,
        output_hidden_states: bool = False,
        cache: KVCache | None = None,
        logits_to_keep: int | None = None,
    ) -> ModelOutput:
        """Score the next token at every position (F-LM).

        Parameters
        ----------
        input_ids : integers (B, T)
        attention_mask : (B, T), or (B, S + T) where a cache holds S positions, optional
            1 for tokens, 0 for padding, at whichever end.
        position_ids : integers (T,), (1, T) or (B, T), optional
            By default each token's position is the number of unmasked tokens before it, and padding's is 0, as in the
            `generate` of transformers. (Its `forward` alone counts the padding too, unless it is given positions.)
        labels : integers (B, T), optional
            Not shifted: usually `input_ids` themselves. Position t predicts ``labels[t + 1]``; -100 is not predicted.
        output_hidden_states : bool
        cache : KVCache, optional
            From `new_cache`: the ids continue what it holds, and are added to it.
        logits_to_keep : int, optional
            Compute the logits of so many last positions alone, which is all that writing needs; not with labels.

        Returns
        -------
        ModelOutput
            `logits` (B, T, V); `loss` where there are labels, the mean in nats; `hidden_states` where asked for. A
            mixture of experts adds the losses of its routers to `loss`; it gives a `MixtureOutput`.

        Raises
        ------
        ValueError
            If shapes do not fit, or there are more tokens than positions.
        IndexError
            If an id is outside the vocabulary, or a position outside the model's.
        """
        states, router = self._checked(input_ids, attention_mask, position_ids, cache)
        last = states[-1]
        if logits_to_keep is not None:
            if logits_to_keep < 1 or labels is not None:
                raise ValueError("logits_to_keep must be at least 1, and is not for labels, which need all logits")
            last = last[:, -logits_to_keep:]
        logits = linear(last, self.head())  # (B, T, V)
        loss = None
        if labels is not None:
            loss = cross_entropy(logits, targets_of(labels, logits.shape[:2]), ignore_index=IGNORED)
        shown = tuple(states) if output_hidden_states else None
        if router is None:
            return ModelOutput(logits, loss, shown)
        loss = None if loss is None else loss + router.total
        return MixtureOutput(logits, loss, shown, aux_loss=router.balance, z_loss=router.z, routing=router.routing)

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        """The loss of ``model(**batch)``, whose logits are never stored all at once; the batch has labels."""
        if batch.get("labels") is None:
            raise ValueError(f"a batch needs labels to have a loss; this one has {', '.join(batch)}")
        inputs = {name: array for name, array in batch.items() if name != "labels"}
        states, router = self._checked(**inputs)
        targets = targets_of(batch["labels"], states[-1].shape[:2])
        loss = linear_cross_entropy(states[-1], self.head(), targets, ignore_index=IGNORED)
        return loss if router is None else loss + router.total

    def next_token_loss(self, input_ids: ArrayLike | Tensor, targets: ArrayLike | Tensor) -> Tensor:
        """Mean loss where every position, the last one too, predicts a token: ids and targets are (B, T).

        The losses of routers are added in training mode alone: in evaluation mode this is the model's negative
        log-likelihood.
        """
        states, router = self._checked(input_ids)
        loss = linear_cross_entropy(states[-1], self.head(), targets, ignore_index=IGNORED)
        return loss + router.total if router is not None and self.training else loss

    def _checked(
        self,
        input_ids: ArrayLike | Tensor,
        attention_mask: ArrayLike | Tensor | None = None,
        position_ids: ArrayLike | Tensor | None = None,
        cache: KVCache | None = None,
    ) -> tuple[list[Tensor], RouterLoss | None]:
        """`states` of inputs that are checked here."""
        ids = ids_of(input_ids)
        past = 0 if cache is None else cache.length
        if cache is not None and cache.batch not in (None, len(ids)):
            raise ValueError(f"the cache holds {cache.batch} sequences, but input_ids has {len(ids)}")
        mask = mask_of(attention_mask, (len(ids), past + ids.shape[1]))
        positions = self.positions(position_ids, ids.shape, past, mask)
        visible = None if mask is None else mask[:, None, None, :]  # (B, 1, 1, S + T)
        return self.states(ids, positions, visible, cache)

    def positions(
        self, given: ArrayLike | Tensor | None, shape: tuple[int, ...], past: int, mask: np.ndarray | None
    ) -> np.ndarray:
        """Positions (1 or B, T), each one checked."""
        return positions_of(given, shape, past, mask)

    def states(
        self, ids: np.ndarray, positions: np.ndarray, visible: np.ndarray | None, cache: KVCache | None
    ) -> tuple[list[Tensor], RouterLoss | None]:
        """The hidden states of ids (B, T), each (B, T, C): embeddings, blocks; the last one normed.

        `positions` are (1 or B, T); `visible` (B, 1, 1, S + T) marks the keys that are not padding.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no states")

    def head(self) -> Tensor:
        """The matrix (V, C) whose rows score the tokens."""
        raise NotImplementedError(f"{type(self).__name__} defines no head")

    @property
    def context_length(self) -> int:
        """The most tokens that the model can see at once."""
        raise NotImplementedError(f"{type(self).__name__} defines no context_length")

    def new_cache(self) -> KVCache:
        """An empty cache, for ``model(ids, cache=cache)``."""
        raise NotImplementedError(f"{type(self).__name__} defines no new_cache")

    @classmethod
    def named_as_here(cls, weights: loading.Weights, config: Any, path: Path) -> loading.Weights:
        """The parameters in a file, under their names here; see `loading.named_as_here`."""
        return loading.named_as_here(weights, cls.prefix, cls.buffers, cls.table, config.tie_word_embeddings, path)
