"""A Transformer that may also copy: it points at a token of the source instead of choosing one from the vocabulary.

At each place the decoder's state h gives a gate g = sigmoid(v h), and weights a over the source by a query of its own:

    P(w) = g softmax(scores)_w + (1 - g) sum over places s with source token w of a_s

so that a name that was never seen in training can be written, as long as it stands in the source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinyllm.autograd import no_grad, ops
from tinyllm.autograd.fused import cross_entropy, linear, softmax
from tinyllm.autograd.tensor import Tensor
from tinyllm.models.cache import KVCache
from tinyllm.models.inputs import IGNORED, ids_of, mask_of
from tinyllm.models.output import ModelOutput
from tinyllm.models.seq2seq import labels_of
from tinyllm.models.transformer import Transformer
from tinyllm.models.transformer_config import TransformerConfig
from tinyllm.nn import Linear

_TINY = 1e-9  # added to probabilities, so that what can neither be chosen nor copied has a logarithm

#: What the decoder is told of a source: the encoder's output (B, S, C), and the source's tokens (B, S).
Encoded = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class PointerConfig(TransformerConfig):
    """The settings of a Transformer, with one vocabulary for both sides.

    Raises
    ------
    ConfigError
        For a value that is impossible.
    """

    share_embeddings: bool = True

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> PointerConfig:
        """The settings of a config.json, as `TransformerConfig` reads them."""
        kind = settings.get("model_type")
        known = {**settings, "model_type": "transformer" if kind == "pointer-transformer" else kind}
        return cls(**vars(TransformerConfig.from_dict(known)))

    def to_dict(self) -> dict[str, Any]:
        """The settings as a config.json has them."""
        return super().to_dict() | {"architectures": ["PointerTransformer"], "model_type": "pointer-transformer"}


class PointerTransformer(Transformer):
    """An encoder-decoder Transformer whose tokens are chosen from the vocabulary or copied from the source.

    Parameters
    ----------
    config : PointerConfig
    rng : numpy Generator
    dtype : dtype

    Notes
    -----
    Its `logits` are the logarithms of the mixture's probabilities. Source: See, Liu and Manning 2017, "Get to the
    point", section 2.2, with a query of its own in the place of their decoder's attention.
    """

    config_class = PointerConfig
    published = "Transformer that copies"

    def __init__(self, config: PointerConfig, *, rng: np.random.Generator, dtype: DTypeLike = np.float32) -> None:
        super().__init__(config, rng=rng, dtype=dtype)
        self.pointer = Linear(config.d_model, config.d_model, bias=False, rng=rng, dtype=dtype)
        self.gate = Linear(config.d_model, 1, rng=rng, dtype=dtype)

    def encode(self, input_ids: ArrayLike | Tensor, attention_mask: ArrayLike | Tensor | None = None) -> Encoded:  # type: ignore[override]
        """The encoder's output (B, S, C), and the source itself (B, S)."""
        return super().encode(input_ids, attention_mask), Tensor(ids_of(input_ids))

    def forward(  # type: ignore[override]
        self,
        input_ids: ArrayLike | Tensor | None = None,
        attention_mask: ArrayLike | Tensor | None = None,
        decoder_input_ids: ArrayLike | Tensor | None = None,
        labels: ArrayLike | Tensor | None = None,
        *,
        encoder_outputs: Encoded | None = None,
        cache: KVCache | None = None,
    ) -> ModelOutput:
        """The logarithms of each token's probability; arguments as `Transformer`'s, `encoder_outputs` from `encode`."""
        if encoder_outputs is None:
            if input_ids is None:
                raise ValueError("an encoder-decoder needs input_ids, or what `encode` made of them")
            encoder_outputs = self.encode(input_ids, attention_mask)
        memory, source = encoder_outputs
        x = self._states(None, attention_mask, decoder_input_ids, labels, memory, cache)  # (B, T, C)
        weights = self._pointed(x, memory, attention_mask)  # (B, T, S)
        scores = linear(x, *self.head())
        copied = weights @ ops.one_hot(source, scores.shape[-1], dtype=scores.dtype)  # (B, T, V)
        g = ops.sigmoid(self.gate(x))  # (B, T, 1)
        logits = ops.log(g * softmax(scores) + (1.0 - g) * copied + _TINY)
        loss = None
        if labels is not None:
            target = labels_of(labels, x.shape[:2])
            loss = cross_entropy(logits, target, ignore_index=IGNORED, label_smoothing=self._smoothing())
        return ModelOutput(logits, loss)

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        """The loss of ``model(**batch)``; the batch has labels."""
        loss = self(**batch).loss
        if loss is None:
            raise ValueError(f"a batch needs labels to have a loss; this one has {', '.join(batch)}")
        return loss

    def alignment(
        self,
        input_ids: ArrayLike | Tensor,
        decoder_input_ids: ArrayLike | Tensor,
        attention_mask: ArrayLike | Tensor | None = None,
    ) -> np.ndarray:
        """The weights of copying (B, T, S), whatever the gate makes of them."""
        training = self.training
        self.eval()
        try:
            with no_grad():
                memory, _ = self.encode(input_ids, attention_mask)
                x = self._states(None, attention_mask, decoder_input_ids, None, memory, None)
                return self._pointed(x, memory, attention_mask).numpy()
        finally:
            self.train(training)

    def _pointed(self, x: Tensor, memory: Tensor, attention_mask: ArrayLike | Tensor | None) -> Tensor:
        """How much each place (B, T, C) points at each token of the source (B, S, C): (B, T, S)."""
        scores = self.pointer(x) @ memory.mT / math.sqrt(self.config.d_model)
        mask = mask_of(attention_mask, memory.shape[:2])
        if mask is not None:
            scores = ops.masked_fill(scores, ~mask.astype(bool)[:, None, :], -math.inf)
        return softmax(scores)
