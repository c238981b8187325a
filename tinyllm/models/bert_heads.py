"""What is put on top of a BERT for a task: each class is a body `bert` and the head of one task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinyllm.autograd.fused import cross_entropy, linear
from tinyllm.autograd.ops import binary_cross_entropy_with_logits, dropout, mse_loss
from tinyllm.autograd.tensor import Tensor
from tinyllm.models.bert import BERT, Dense
from tinyllm.models.bert_config import BERTConfig
from tinyllm.models.bert_folder import PretrainedBERT
from tinyllm.models.inputs import IGNORED, integers, mask_of
from tinyllm.models.output import ModelOutput, PreTrainingOutput, SpanOutput
from tinyllm.nn import LayerNorm, Module, activation, init


class Head(PretrainedBERT):
    """A body and a head. `forward` takes the body's inputs (see :class:`BERT`) and the labels of the task.

    Parameters
    ----------
    config : BERTConfig
    rng : numpy Generator
        For the first weights, as in :class:`BERT`.
    dtype : dtype
        float32 or float64.
    """

    targets: ClassVar[tuple[str, ...]] = ("labels",)
    pooled: bool = False  # whether the head reads the pooler's vector

    def __init__(self, config: BERTConfig, *, rng: np.random.Generator, dtype: DTypeLike = np.float32) -> None:
        self.config = config
        self.bert = BERT(config, rng=rng, dtype=dtype, add_pooling_layer=self.pooled)
        self._add_head(rng, dtype)

    def _add_head(self, rng: np.random.Generator, dtype: DTypeLike) -> None:
        """Make the parameters of the head."""
        raise NotImplementedError(f"{type(self).__name__} defines no _add_head")

    @property
    def context_length(self) -> int:
        """The most tokens that the model can see at once."""
        return self.bert.context_length

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        """The loss of ``model(**batch)``; the batch has what is to be told."""
        missing = [name for name in self.targets if batch.get(name) is None]
        if missing:
            raise ValueError(f"a batch needs {' and '.join(missing)} to have a loss; this one has {', '.join(batch)}")
        return self(**batch).loss

    def _dropped(self, x: Tensor) -> Tensor:
        """What a classifier reads."""
        p = self.config.classifier_dropout
        return dropout(x, self.config.hidden_dropout_prob if p is None else p, self.training)


def mean_of_tokens(x: Tensor, mask: np.ndarray | None) -> Tensor:
    """(B, T, C) -> (B, C): the mean over the tokens that `mask` (B, T) marks, all of them without one.

    Source: Reimers and Gurevych 2019, "Sentence-BERT", section 3.
    """
    if mask is None:
        return x.mean(axis=1)
    share = mask / np.maximum(mask.sum(axis=1, keepdims=True), 1)  # (B, T); a text of padding alone has none
    return (x * share[..., None].astype(x.dtype)).sum(axis=1)


def _classes(name: str, labels: ArrayLike | Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """Whole numbers of this shape."""
    found = integers(name, labels)
    if found.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {found.shape}")
    return found.astype(np.int64)


class Transform(Module):
    """One more layer between the body and the scores of the tokens."""

    def __init__(self, config: BERTConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.config = config
        self.dense = Dense(config.hidden_size, config.hidden_size, config, rng, dtype)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        hidden = activation(self.config.hidden_act)(linear(x, self.dense.weight), bias=self.dense.bias)
        return self.LayerNorm(hidden)


class Decoder(Module):
    """The scores' own matrix `weight` (V, C), where it is not the embeddings'."""

    def __init__(self, config: BERTConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        shape = config.vocab_size, config.hidden_size
        self.weight = Tensor(init.normal(shape, rng, std=config.initializer_range, dtype=dtype), requires_grad=True)


class Predictions(Module):
    """Scores for the token at every place (F-MLM)."""

    def __init__(self, config: BERTConfig, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.transform = Transform(config, rng, dtype)
        self.decoder = None if config.tie_word_embeddings else Decoder(config, rng, dtype)
        self.bias = Tensor(init.zeros((config.vocab_size,), dtype=dtype), requires_grad=True)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """(..., C) and the embeddings (V, C) -> (..., V)."""
        return linear(self.transform(x), table if self.decoder is None else self.decoder.weight, self.bias)


class PreTrainingHeads(Module):
    """The heads of pre-training: `predictions`, `seq_relationship` (whether one text follows the other), or both."""

    def __init__(
        self, config: BERTConfig, rng: np.random.Generator, dtype: DTypeLike, words: bool, sentences: bool
    ) -> None:
        if words:
            self.predictions = Predictions(config, rng, dtype)
        if sentences:
            self.seq_relationship = Dense(config.hidden_size, 2, config, rng, dtype)


class BERTForMaskedLM(Head):
    """BERT that tells hidden tokens (F-MLM): what `BertForMaskedLM` is in transformers."""

    architecture = "BertForMaskedLM"

    def _add_head(self, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.cls = PreTrainingHeads(self.config, rng, dtype, words=True, sentences=False)

    def forward(
        self,
        input_ids: ArrayLike | Tensor,
        attention_mask: ArrayLike | Tensor | None = None,
        token_type_ids: ArrayLike | Tensor | None = None,
        position_ids: ArrayLike | Tensor | None = None,
        labels: ArrayLike | Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> ModelOutput:
        """Score every token of the vocabulary at every place.

        Parameters
        ----------
        input_ids, attention_mask, token_type_ids, position_ids, output_hidden_states
            As in :class:`BERT`; tokens to be told are hidden in `input_ids`.
        labels : integers (B, T), optional
            The token at each place (not shifted); -100 where none is to be told.

        Returns
        -------
        ModelOutput
            `logits` (B, T, V); `loss` where there are labels, the mean in nats.
        """
        out = self.bert(input_ids, attention_mask, token_type_ids, position_ids, output_hidden_states)
        logits = self._scores(out.last_hidden_state)  # (B, T, V)
        loss = None
        if labels is not None:
            loss = cross_entropy(logits, _classes("labels", labels, logits.shape[:2]), ignore_index=IGNORED)
        return ModelOutput(logits, loss, out.hidden_states)

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        """The loss of ``model(**batch)``, whose logits are made only where a token is to be told."""
        if batch.get("labels") is None:
            return super().loss(batch)
        x = self.bert(**{name: a for name, a in batch.items() if name != "labels"}).last_hidden_state  # (B, T, C)
        labels = _classes("labels", batch["labels"], x.shape[:2])
        told = labels != IGNORED
        return cross_entropy(self._scores(x[told]), labels[told])

    def _scores(self, x: Tensor) -> Tensor:
        return self.cls.predictions(x, self.bert.embeddings.word_embeddings.weight)


class BERTForPreTraining(Head):
    """BERT with both heads of its pre-training: what `BertForPreTraining` is in transformers."""

    architecture = "BertForPreTraining"
    targets = ("labels", "next_sentence_label")
    pooled = True

    def _add_head(self, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.cls = PreTrainingHeads(self.config, rng, dtype, words=True, sentences=True)

    def forward(
        self,
        input_ids: ArrayLike | Tensor,
        attention_mask: ArrayLike | Tensor | None = None,
        token_type_ids: ArrayLike | Tensor | None = None,
        position_ids: ArrayLike | Tensor | None = None,
        labels: ArrayLike | Tensor | None = None,
        next_sentence_label: ArrayLike | Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> PreTrainingOutput:
        """Tell hidden tokens, and whether the second text follows the first.

        Parameters
        ----------
        input_ids, attention_mask, token_type_ids, position_ids, output_hidden_states
            As in :class:`BERT`.
        labels : integers (B, T), optional
            As in :class:`BERTForMaskedLM`.
        next_sentence_label : integers (B,), optional
            0 where the second text continues the first, 1 where it is any other.

        Returns
        -------
        PreTrainingOutput
            `prediction_logits` (B, T, V), `seq_relationship_logits` (B, 2); `loss`, the sum of both means, where both
            kinds of labels are given.
        """
        out = self.bert(input_ids, attention_mask, token_type_ids, position_ids, output_hidden_states)
        words = self.cls.predictions(out.last_hidden_state, self.bert.embeddings.word_embeddings.weight)  # (B, T, V)
        follows = self.cls.seq_relationship(out.pooler_output)  # (B, 2)
        loss = None
        if labels is not None and next_sentence_label is not None:
            loss = cross_entropy(words, _classes("labels", labels, words.shape[:2]), ignore_index=IGNORED)
            loss = loss + cross_entropy(
                follows, _classes("next_sentence_label", next_sentence_label, follows.shape[:1]), ignore_index=IGNORED
            )
        return PreTrainingOutput(words, follows, loss, out.hidden_states)


class BERTForNextSentencePrediction(Head):
    """BERT that tells whether one text follows another: `BertForNextSentencePrediction` in transformers."""

    architecture = "BertForNextSentencePrediction"
    pooled = True

    def _add_head(self, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.cls = PreTrainingHeads(self.config, rng, dtype, words=False, sentences=True)

    def forward(
        self,
        input_ids: ArrayLike | Tensor,
        attention_mask: ArrayLike | Tensor | None = None,
        token_type_ids: ArrayLike | Tensor | None = None,
        position_ids: ArrayLike | Tensor | None = None,
        labels: ArrayLike | Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> ModelOutput:
        """`logits` (B, 2) for inputs as in :class:`BERT`; `labels` (B,) as `next_sentence_label` there."""
        out = self.bert(input_ids, attention_mask, token_type_ids, position_ids, output_hidden_states)
        logits = self.cls.seq_relationship(out.pooler_output)
        loss = None
        if labels is not None:
            loss = cross_entropy(logits, _classes("labels", labels, logits.shape[:1]), ignore_index=IGNORED)
        return ModelOutput(logits, loss, out.hidden_states)


class BERTForSequenceClassification(Head):
    """BERT with a classifier of whole texts: what `BertForSequenceClassification` is in transformers.

    What is learned follows ``config.problem_type``: one class of several, any number of labels, or numbers (a
    regression). What the classifier reads follows ``config.classifier_pooling``: the first token, or the mean of all.
    """

    architecture = "BertForSequenceClassification"

    def __init__(self, config: BERTConfig, *, rng: np.random.Generator, dtype: DTypeLike = np.float32) -> None:
        self.pooled = config.classifier_pooling == "cls"
        super().__init__(config, rng=rng, dtype=dtype)

    def _add_head(self, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.classifier = Dense(self.config.hidden_size, self.config.num_labels, self.config, rng, dtype)

    def forward(
        self,
        input_ids: ArrayLike | Tensor,
        attention_mask: ArrayLike | Tensor | None = None,
        token_type_ids: ArrayLike | Tensor | None = None,
        position_ids: ArrayLike | Tensor | None = None,
        labels: ArrayLike | Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> ModelOutput:
        """Score the labels of each text.

        Parameters
        ----------
        input_ids, attention_mask, token_type_ids, position_ids, output_hidden_states
            As in :class:`BERT`.
        labels : optional
            Classes: integers (B,). Several labels: (B, num_labels), each a probability. Regression: numbers (B,) for
            one label, else (B, num_labels).

        Returns
        -------
        ModelOutput
            `logits` (B, num_labels); `loss` where there are labels: F-CE, the binary F-CE of every label, or F-MSE.
        """
        out = self.bert(input_ids, attention_mask, token_type_ids, position_ids, output_hidden_states)
        x = out.pooler_output
        if x is None:
            states = out.last_hidden_state
            x = mean_of_tokens(states, mask_of(attention_mask, states.shape[:2]))
        logits = self.classifier(self._dropped(x))  # (B, num_labels)
        return ModelOutput(logits, None if labels is None else self._loss_of(logits, labels), out.hidden_states)

    def _loss_of(self, logits: Tensor, labels: ArrayLike | Tensor) -> Tensor:
        given, problem = np.asarray(labels), self.config.problem_type
        if problem is None and self.config.num_labels == 1:
            problem = "regression"
        elif problem is None:
            problem = "single_label_classification" if given.dtype.kind in "iu" else "multi_label_classification"
        if problem == "single_label_classification":
            return cross_entropy(logits, _classes("labels", labels, logits.shape[:1]), ignore_index=IGNORED)
        if problem == "regression" and given.shape == logits.shape[:1] and logits.shape[1] == 1:
            given = given[:, None]
        if given.shape != logits.shape or given.dtype.kind not in "fiub":
            raise ValueError(f"labels for a {problem} must be numbers {logits.shape}, got {given.dtype} {given.shape}")
        loss = mse_loss if problem == "regression" else binary_cross_entropy_with_logits
        return loss(logits, given.astype(logits.dtype))


class BERTForTokenClassification(Head):
    """BERT with a classifier of every token: what `BertForTokenClassification` is in transformers."""

    architecture = "BertForTokenClassification"

    def _add_head(self, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.classifier = Dense(self.config.hidden_size, self.config.num_labels, self.config, rng, dtype)

    def forward(
        self,
        input_ids: ArrayLike | Tensor,
        attention_mask: ArrayLike | Tensor | None = None,
        token_type_ids: ArrayLike | Tensor | None = None,
        position_ids: ArrayLike | Tensor | None = None,
        labels: ArrayLike | Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> ModelOutput:
        """`logits` (B, T, num_labels) for inputs as in :class:`BERT`; `labels` (B, T), -100 where there is none."""
        out = self.bert(input_ids, attention_mask, token_type_ids, position_ids, output_hidden_states)
        logits = self.classifier(self._dropped(out.last_hidden_state))
        loss = None
        if labels is not None:
            loss = cross_entropy(logits, _classes("labels", labels, logits.shape[:2]), ignore_index=IGNORED)
        return ModelOutput(logits, loss, out.hidden_states)


class BERTForQuestionAnswering(Head):
    """BERT that marks an answer in a text: what `BertForQuestionAnswering` is in transformers."""

    architecture = "BertForQuestionAnswering"
    targets = ("start_positions", "end_positions")

    def _add_head(self, rng: np.random.Generator, dtype: DTypeLike) -> None:
        self.qa_outputs = Dense(self.config.hidden_size, 2, self.config, rng, dtype)

    def forward(
        self,
        input_ids: ArrayLike | Tensor,
        attention_mask: ArrayLike | Tensor | None = None,
        token_type_ids: ArrayLike | Tensor | None = None,
        position_ids: ArrayLike | Tensor | None = None,
        start_positions: ArrayLike | Tensor | None = None,
        end_positions: ArrayLike | Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> SpanOutput:
        """Score every place as the first and as the last one of the answer.

        Parameters
        ----------
        input_ids, attention_mask, token_type_ids, position_ids, output_hidden_states
            As in :class:`BERT`: usually a question and a text.
        start_positions, end_positions : integers (B,), optional
            The places of the answer's first and last token. One that is not in the input (T or more, for an answer
            that was cut off) counts for nothing.

        Returns
        -------
        SpanOutput
            `start_logits`, `end_logits` (B, T); `loss`, the mean of both means, where both places are given.
        """
        out = self.bert(input_ids, attention_mask, token_type_ids, position_ids, output_hidden_states)
        logits = self.qa_outputs(out.last_hidden_state)  # (B, T, 2)
        start, end = logits[..., 0], logits[..., 1]
        loss = None
        if start_positions is not None and end_positions is not None:
            B, T = start.shape
            first, last = (
                np.clip(_classes(name, places, (B,)), 0, T)
                for name, places in (("start_positions", start_positions), ("end_positions", end_positions))
            )
            loss = (cross_entropy(start, first, ignore_index=T) + cross_entropy(end, last, ignore_index=T)) / 2
        return SpanOutput(start, end, loss, out.hidden_states)
