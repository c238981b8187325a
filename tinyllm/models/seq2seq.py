"""What encoder-decoders have in common: how they are called, trained and continued. Their layers are their own.

The encoder reads the source once, every position seeing every other. The decoder writes the target token by token,
each position seeing the ones before it and the whole source (cross-attention).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinyllm.autograd import enable_grad, no_grad
from tinyllm.autograd.fused import cross_entropy, linear, linear_cross_entropy
from tinyllm.autograd.fused.attention_weights import attention_weights
from tinyllm.autograd.tensor import Tensor
from tinyllm.models.cache import KVCache
from tinyllm.models.inputs import IGNORED, ids_of, mask_of, positions_of
from tinyllm.models.output import ModelOutput
from tinyllm.models.pretrained import Pretrained
from tinyllm.nn.attention import Remember


class EncoderDecoder(Pretrained):
    """The face of an encoder-decoder.

    A subclass defines `encode_states`, `decode_states`, `head` and `new_cache`. Its configuration has
    `decoder_start_token_id` and `pad_token_id`, and may have `label_smoothing`, for training.
    """

    def encode_states(self, ids: np.ndarray, positions: np.ndarray, visible: np.ndarray | None) -> Tensor:
        """Ids and positions (B, S) or (1, S), `visible` (B, 1, 1, S), False for padding -> (B, S, C)."""
        raise NotImplementedError

    def decode_states(
        self, ids: np.ndarray, memory: Tensor, visible: np.ndarray | None, cache: KVCache | None
    ) -> Tensor:
        """Ids (B, T) that continue the cache, the encoder's output (B, S, C) -> what the head scores (B, T, C)."""
        raise NotImplementedError

    def head(self) -> tuple[Tensor, Tensor | None]:
        """The matrix (V, C) whose rows score the tokens, and what is added to the scores (V,)."""
        raise NotImplementedError

    def forward(
        self,
        input_ids: ArrayLike | Tensor | None = None,
        attention_mask: ArrayLike | Tensor | None = None,
        decoder_input_ids: ArrayLike | Tensor | None = None,
        labels: ArrayLike | Tensor | None = None,
        *,
        encoder_outputs: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> ModelOutput:
        """Score, at every position of the target, the token that is to come.

        Parameters
        ----------
        input_ids : integers (B, S), optional
            The source; not needed where `encoder_outputs` are given.
        attention_mask : (B, S), optional
            1 for the source's tokens, 0 for its padding, at whichever end: each token's position is the number of
            tokens before it.
        decoder_input_ids : integers (B, T), optional
            What the decoder has before it; by default the labels, one place to the right, after the start token. It
            is padded at its end, where nothing depends on it.
        labels : integers (B, T), optional
            What it should say at each place; -100 is not predicted. Not shifted: ``labels[t]`` is what position t
            predicts.
        encoder_outputs : Tensor (B, S, C), optional
            From `encode`, so that a source is read once.
        cache : KVCache, optional
            From `new_cache`: `decoder_input_ids` continue what it holds, and are added to it.

        Returns
        -------
        ModelOutput
            `logits` (B, T, V); `loss` where there are labels, the mean in nats (with the labels smoothed in training,
            if the model does so).

        Raises
        ------
        ValueError
            If shapes do not fit, or there are more tokens than positions.
        IndexError
            If an id is outside its vocabulary.
        """
        x = self._states(input_ids, attention_mask, decoder_input_ids, labels, encoder_outputs, cache)  # (B, T, C)
        logits = linear(x, *self.head())  # (B, T, V)
        loss = None
        if labels is not None:
            target = labels_of(labels, x.shape[:2])
            loss = cross_entropy(logits, target, ignore_index=IGNORED, label_smoothing=self._smoothing())
        return ModelOutput(logits, loss)

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        """The loss of ``model(**batch)``, whose logits are never stored all at once; the batch has labels."""
        labels = batch.get("labels")
        if labels is None:
            raise ValueError(f"a batch needs labels to have a loss; this one has {', '.join(batch)}")
        weight, bias = self.head()
        if bias is not None:  # the fused loss has no place for it
            loss = self(**batch).loss
            assert loss is not None
            return loss
        x = self._states(**batch)
        target = labels_of(labels, x.shape[:2])
        return linear_cross_entropy(x, weight, target, ignore_index=IGNORED, label_smoothing=self._smoothing())

    def encode(self, input_ids: ArrayLike | Tensor, attention_mask: ArrayLike | Tensor | None = None) -> Tensor:
        """The encoder's output for a source: integers (B, S), the mask as in `forward` -> (B, S, C)."""
        ids = ids_of(input_ids)
        mask = mask_of(attention_mask, ids.shape)
        positions = positions_of(None, ids.shape, 0, mask)
        self._check_length("input_ids", int(positions.max()) + 1)
        return self.encode_states(ids, positions, _visible(mask))

    @property
    def context_length(self) -> int | None:
        """The most tokens that the decoder can write; None for no limit."""
        return getattr(self.config, "max_position_embeddings", None)

    def new_cache(self) -> KVCache:
        """An empty cache, for ``model(decoder_input_ids=ids, encoder_outputs=memory, cache=cache)``."""
        raise NotImplementedError

    def alignment(
        self,
        input_ids: ArrayLike | Tensor,
        decoder_input_ids: ArrayLike | Tensor,
        attention_mask: ArrayLike | Tensor | None = None,
    ) -> np.ndarray:
        """Where in the source the decoder looks while it writes each token: a soft alignment of words.

        Parameters
        ----------
        input_ids : integers (B, S)
        decoder_input_ids : integers (B, T)
            With the start token: row t is for the token that comes after these t + 1.
        attention_mask : (B, S), optional

        Returns
        -------
        array (B, T, S)
            Weights of the cross-attention in the last layer but one (the only one, if there is one), the mean of its
            heads; each row sums to 1.

        Notes
        -----
        Source of the choice of the layer: Garg et al. 2019, "Jointly learning to align and translate with Transformer
        models".
        """
        training = self.training
        self.eval()
        try:
            with no_grad():
                memory = self.encode(input_ids, attention_mask)
            with enable_grad():  # the weights are read from the tape
                memory = Tensor(memory, requires_grad=True)
                x = self._states(None, attention_mask, decoder_input_ids, encoder_outputs=memory)
        finally:
            self.train(training)
        layers = attention_weights(x, causal=False)  # among the target's tokens attention is causal
        return layers[max(0, len(layers) - 2)].mean(axis=1)

    def _smoothing(self) -> float:
        """Held-out losses are those of the labels themselves, and can be compared."""
        return getattr(self.config, "label_smoothing", 0.0) if self.training else 0.0

    def _check_length(self, name: str, length: int) -> None:
        if self.context_length is not None and length > self.context_length:
            raise ValueError(
                f"{name}: {length} tokens, but the model has positions for {self.context_length} "
                "(max_position_embeddings): cut it"
            )

    def _states(
        self,
        input_ids: ArrayLike | Tensor | None = None,
        attention_mask: ArrayLike | Tensor | None = None,
        decoder_input_ids: ArrayLike | Tensor | None = None,
        labels: ArrayLike | Tensor | None = None,
        encoder_outputs: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """What the head scores (B, T, C), for inputs that are checked here."""
        if decoder_input_ids is None:
            if labels is None:
                raise ValueError("an encoder-decoder needs decoder_input_ids, or labels to make them of")
            ids = shift_right(labels, self.config.decoder_start_token_id, self.config.pad_token_id)
        else:
            ids = ids_of(decoder_input_ids, "decoder_input_ids")
        past = 0 if cache is None else cache.length
        self._check_length("decoder_input_ids", past + ids.shape[1])
        if encoder_outputs is not None:
            memory = encoder_outputs
        elif input_ids is not None:
            memory = self.encode(input_ids, attention_mask)
        else:
            raise ValueError("an encoder-decoder needs input_ids, or the encoder_outputs that `encode` made of them")
        if len(ids) != len(memory):
            raise ValueError(f"{len(memory)} sources, but decoder_input_ids (or labels) for {len(ids)}")
        return self.decode_states(ids, memory, _visible(mask_of(attention_mask, memory.shape[:2])), cache)


def shift_right(labels: ArrayLike | Tensor, start: int | None, pad: int | None) -> np.ndarray:
    """What a decoder that should say `labels` (B, T) has before it: the start token, then all but the last of them.

    Raises
    ------
    ValueError
        If the configuration names no start token, or no padding to stand for labels of -100.
    """
    ids = ids_of(labels, "labels")
    if start is None:
        raise ValueError("the model's configuration names no decoder_start_token_id: pass decoder_input_ids")
    shifted = np.concatenate([np.full((len(ids), 1), start, dtype=np.int64), ids[:, :-1]], axis=1)
    ignored = shifted == IGNORED
    if ignored.any():
        if pad is None:
            raise ValueError("the model's configuration names no pad_token_id: pass decoder_input_ids")
        shifted[ignored] = pad
    return shifted


def remembering(cache: KVCache | None, layer: int) -> tuple[Remember | None, Remember | None]:
    """How a decoder's layer keeps its own keys and values, and those of the source; None without a cache."""
    if cache is None:
        return None, None
    return (lambda project: cache.append(layer, *project())), (lambda project: cache.of_source(layer, project))


def labels_of(given: ArrayLike | Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """Labels of the decoder's shape (B, T)."""
    labels = ids_of(given, "labels")
    if labels.shape != shape:
        raise ValueError(f"labels must have the shape {shape} of decoder_input_ids, got {labels.shape}")
    return labels


def _visible(mask: np.ndarray | None) -> np.ndarray | None:
    return None if mask is None else mask[:, None, None, :]  # (B, 1, 1, S)
