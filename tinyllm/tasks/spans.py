"""A question and a text as BERT reads them, in windows where the text is long; and the answer that it marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyllm.autograd import no_grad
from tinyllm.errors import ConfigError
from tinyllm.tasks.batches import padded
from tinyllm.text.wordpiece import WordPiece
from tinyllm.train.trainer import Batch

_LONGEST = 30  # tokens of an answer


@dataclass(frozen=True)
class Window:
    """``[CLS] question [SEP] part of the text [SEP]``.

    Attributes
    ----------
    ids : list of int
    first : int
        The place of the text's first token in `ids`.
    offsets : list of (begin, end)
        The characters of each of the text's tokens.
    """

    ids: list[int]
    first: int
    offsets: list[tuple[int, int]]

    def place(self, start: int, end: int) -> tuple[int, int] | None:
        """The places of the first and the last token of the characters from `start` to `end`; None if not inside."""
        inside = [i for i, (a, b) in enumerate(self.offsets) if a < end and b > start]
        if not inside or self.offsets[inside[0]][0] > start or self.offsets[inside[-1]][1] < end:
            return None
        return self.first + inside[0], self.first + inside[-1]


def windows(tokenizer: WordPiece, question: str, text: str, limit: int) -> list[Window]:
    """The text in windows of at most `limit` tokens, each beginning halfway through the one before it.

    Raises
    ------
    ConfigError
        If the question leaves no room for a text.
    """
    cls, sep = (tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    assert cls is not None
    assert sep is not None
    asked = [cls, *tokenizer.encode(question, add_special_tokens=False), sep]
    ids, offsets = tokenizer.encode_with_offsets(text)
    room = limit - len(asked) - 1
    if room < 2:
        raise ConfigError(f"the question has {len(asked)} tokens, which leaves no room for a text within {limit}")
    step = room if len(ids) <= room else room // 2
    found = []
    for begin in range(0, max(1, len(ids)), max(1, step)):
        part = slice(begin, begin + room)
        found.append(Window([*asked, *ids[part], sep], len(asked), offsets[part]))
        if begin + room >= len(ids):
            break
    return found


def collate(rows: Sequence[Window], pad: int) -> Batch:
    """``input_ids``, ``attention_mask`` and ``token_type_ids`` (B, T): 0 for the question, 1 for the text."""
    types = [[0] * row.first + [1] * (len(row.ids) - row.first) for row in rows]
    return {
        "input_ids": padded([row.ids for row in rows], pad),
        "attention_mask": padded([[1] * len(row.ids) for row in rows], 0),
        "token_type_ids": padded(types, 0),
    }


def mark(model: Any, tokenizer: WordPiece, question: str, text: str) -> tuple[str, float]:
    """The likeliest answer to a question in a text, and its score, over all windows.

    Parameters
    ----------
    model : BERTForQuestionAnswering
    tokenizer : WordPiece
    question, text : str

    Returns
    -------
    answer : str
        Characters of the text as they stand there.
    score : float
        The sum of the logits of its first and last token.
    """
    rows = windows(tokenizer, question, text, model.config.max_position_embeddings)
    training = model.training
    model.eval()  # dropout would be another answer each time
    try:
        with no_grad():
            out = model(**collate(rows, model.config.pad_token_id))
    finally:
        model.train(training)
    best, answer = -np.inf, ""
    for row, start, end in zip(rows, out.start_logits.numpy(), out.end_logits.numpy(), strict=True):
        n = len(row.offsets)
        if n == 0:
            continue
        here = slice(row.first, row.first + n)
        scores = start[here, None] + end[None, here]  # (n, n)
        allowed = np.triu(np.ones((n, n), dtype=bool)) & np.tril(np.ones((n, n), dtype=bool), _LONGEST - 1)
        scores = np.where(allowed, scores, -np.inf)
        i, j = np.unravel_index(int(scores.argmax()), scores.shape)
        if scores[i, j] > best:
            best, answer = float(scores[i, j]), text[row.offsets[i][0] : row.offsets[j][1]]
    return answer, best
