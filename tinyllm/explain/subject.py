"""A model that is asked about one text: what it says there, and the tape of how it came to say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyllm.autograd.fused import log_softmax
from tinyllm.autograd.fused.attention_weights import attention_weights
from tinyllm.autograd.ops import softplus
from tinyllm.autograd.tape import Node, reachable
from tinyllm.autograd.tensor import Tensor
from tinyllm.errors import ConfigError, DataError
from tinyllm.text import Tokenizer
from tinyllm.text.bpe import ByteLevelBPE
from tinyllm.text.bytes_alphabet import read_bytes

_CLASSIFIERS = ("BERTForSequenceClassification",)


@dataclass(frozen=True)
class Subject:
    """One forward pass, on the tape.

    Attributes
    ----------
    tokens : list of str
        The T tokens of the text, as they are shown.
    ids : (1, T) integers
    logits : Tensor (1, T, V), or (1, classes) for a classifier
    states : tuple of Tensor (1, T, C)
        The hidden states, as the model gives them.
    place : int or None
        The position whose answer is explained; None for a classifier, which has one.
    target : int
        The answer: a token, or a class.
    answer : str
        The answer, as it is shown.
    """

    model: Any
    tokenizer: Tokenizer
    tokens: list[str]
    ids: np.ndarray
    logits: Tensor
    states: tuple[Tensor, ...]
    place: int | None
    target: int
    answer: str

    def score(self, logits: Tensor) -> Tensor:
        """Log p(answer) for each text of a batch, from its logits -> (B,)."""
        scores = logits if self.place is None else logits[:, self.place]  # (B, V)
        if self.place is None and self.model.config.problem_type == "multi_label_classification":
            return -softplus(-scores[:, self.target])  # each label is told for itself: the log of a sigmoid
        return log_softmax(scores, axis=-1)[:, self.target]

    @property
    def word_embeddings(self) -> Node:
        """The node that looked the tokens up."""
        for node in reversed(reachable(self.logits)):
            if node.op.name == "embedding" and np.array_equal(node.inputs[1].data, self.ids):
                return node
        raise ConfigError(f"a {type(self.model).__name__} looks its tokens up in no way that is known here")

    def loss(self) -> Tensor:
        """What the model loses on the whole text, 0-d, on a tape of its own.

        A causal model tells every token from those before it; a masked one tells each token with that one hidden, all
        of them at once as a batch; of a classifier, or where there is no such token, it is - log p of the answer.
        """
        masked = _is_masked(self.model)
        asked = _free(self.ids, self.tokenizer) if masked else range(1, self.ids.shape[1])
        if self.place is None or not asked:
            return -self.score(self.logits)[0]
        if not masked:
            return self.model(self.ids, labels=self.ids).loss
        ids = np.repeat(self.ids, len(asked), axis=0)  # (tokens, T)
        labels = np.full_like(ids, -100)
        for row, t in enumerate(asked):
            labels[row, t], ids[row, t] = ids[row, t], self.tokenizer.mask_token_id
        return self.model(ids, labels=labels).loss


def look_at(model: Any, tokenizer: Tokenizer, text: str, target: str | None = None) -> Subject:
    """Run a model over a text, and choose what is explained.

    Parameters
    ----------
    model : Module
        A causal language model, a `BERTForMaskedLM`, or a `BERTForSequenceClassification`.
    tokenizer : Tokenizer
    text : str
        For a masked model with one ``[MASK]``; without one, the last token is hidden.
    target : str, optional
        The answer to explain: a token or the name of a class. By default the likeliest one.

    Raises
    ------
    DataError
        For a text without tokens, or longer than the model.
    ConfigError
        For a model of another kind, or an answer that it cannot give.
    """
    kind = type(model).__name__
    ids = np.array([tokenizer.encode(text)], dtype=np.int64)  # (1, T)
    if ids.size == 0:
        raise DataError("the text has no tokens to look at")
    most = getattr(model, "context_length", None)
    if most is not None and ids.shape[1] > most:
        raise DataError(f"the text is {ids.shape[1]} tokens long, but the model sees {most}: cut it")
    place: int | None = ids.shape[1] - 1
    if kind in _CLASSIFIERS:
        if model.config.problem_type == "regression":
            raise ConfigError("this model tells a number, which has no probability: what is explained is a class")
        place = None
    elif _is_masked(model):
        ids, place = _with_one_hidden(ids, tokenizer)
    elif not hasattr(model, "next_token_loss"):
        raise ConfigError(
            f"a {kind} cannot be explained here; known: causal language models, BERTForMaskedLM, "
            + ", ".join(_CLASSIFIERS)
        )
    out = model(ids, output_hidden_states=True)
    if not attention_weights(out.logits):
        raise ConfigError(f"a {kind} has no attention to look at")
    scores = out.logits.data[0] if place is None else out.logits.data[0, place]
    index = int(scores.argmax()) if target is None else _answer_of(model, tokenizer, target, place)
    answer = model.config.labels[index] if place is None else shown(tokenizer, index)
    tokens = [shown(tokenizer, i) for i in ids[0].tolist()]
    return Subject(model, tokenizer, tokens, ids, out.logits, out.hidden_states, place, index, answer)


def shown(tokenizer: Tokenizer, index: int) -> str:
    """A token as people read it: bytes as the text that they are."""
    token = tokenizer.id_to_token(index) or f"#{index}"
    if isinstance(tokenizer, ByteLevelBPE) and token not in tokenizer.special_tokens:
        return read_bytes(token).decode("utf-8", errors="replace")
    return token.replace("\u2581", " ")


def _is_masked(model: Any) -> bool:
    return type(model).__name__ == "BERTForMaskedLM"


def _with_one_hidden(ids: np.ndarray, tokenizer: Tokenizer) -> tuple[np.ndarray, int]:
    """The ids with one [MASK], and its place."""
    mask = tokenizer.mask_token_id
    hidden = np.flatnonzero(ids[0] == mask)
    if mask is None:
        raise ConfigError("the tokenizer has no [MASK], so a masked model cannot be asked")
    if len(hidden) > 1:
        raise DataError(f"the text has {len(hidden)} [MASK]s: leave one, which is explained")
    if len(hidden) == 1:
        return ids, int(hidden[0])
    free = _free(ids, tokenizer)
    if not free:
        raise DataError("the text has no token that could be hidden")
    ids = ids.copy()
    ids[0, free[-1]] = mask
    return ids, free[-1]


def _free(ids: np.ndarray, tokenizer: Tokenizer) -> list[int]:
    """The places of tokens that are not special."""
    special = set(tokenizer.special_tokens.values())
    return [t for t, index in enumerate(ids[0].tolist()) if index not in special]


def _answer_of(model: Any, tokenizer: Tokenizer, target: str, place: int | None) -> int:
    if place is None:
        if target not in model.config.labels:
            raise ConfigError(f"there is no label {target!r}; known: {', '.join(model.config.labels)}")
        return model.config.labels.index(target)
    ids = tokenizer.encode(target, add_special_tokens=False)
    if len(ids) != 1:
        raise ConfigError(f"the answer must be one token, but {target!r} is {len(ids)} of them")
    return ids[0]
