"""What a trained classifier says of new texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyllm.data.labelled import read_labelled
from tinyllm.errors import CheckpointError, DataError
from tinyllm.metrics import ClassificationReport, classification_report
from tinyllm.models import BERTForSequenceClassification, from_pretrained
from tinyllm.tasks.classification import probabilities
from tinyllm.text import Tokenizer, load_tokenizer
from tinyllm.train.job import task_of


@dataclass(frozen=True)
class Prediction:
    """A text, its likeliest label, and the probability of each label."""

    text: str
    label: str
    probabilities: dict[str, float]


class Classifier:
    """The classifier of a folder. Make one with `open`.

    Parameters
    ----------
    model : BERTForSequenceClassification
    tokenizer : Tokenizer
    labels : sequence of str
    most : int
        Tokens that are read of a text.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, labels: Sequence[str], most: int) -> None:
        self.model, self.tokenizer, self.labels, self.most = model, tokenizer, list(labels), most

    @classmethod
    def open(cls, folder: str | Path) -> Classifier:
        """Load a run of the task classification, or a folder with a sequence classifier from elsewhere.

        Raises
        ------
        CheckpointError, ConfigError, TokenizerError
            For a folder that is missing or damaged, or holds a model of another kind.
        """
        model = from_pretrained(folder)
        if not isinstance(model, BERTForSequenceClassification):
            raise CheckpointError(
                f"{folder} holds a {type(model).__name__}, which tells no classes: make a classifier of it with "
                f"tinyllm finetune {folder} --data FILE"
            )
        named, config = task_of(folder), model.config
        labels = named.get("labels") or [(config.id2label or {}).get(i, f"LABEL_{i}") for i in range(config.num_labels)]
        return cls(model.eval(), load_tokenizer(folder), labels, named.get("max_tokens") or model.context_length)

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """The label of each text.

        Raises
        ------
        DataError
            For a text without a character.
        """
        for i, text in enumerate(texts, 1):
            if not text.strip():
                raise DataError(f"text {i} of {len(texts)} is empty")
        found = probabilities(self.model, self.tokenizer, texts, self.most)
        return [
            Prediction(text, self.labels[int(np.argmax(row))], dict(zip(self.labels, row.tolist(), strict=True)))
            for text, row in zip(texts, found, strict=True)
        ]

    def report(self, path: str | Path, **columns: str) -> tuple[ClassificationReport, list[str]]:
        """How well the labels of a file are told, and what is to be said about them.

        Parameters
        ----------
        path : path
            As for `read_labelled`.
        **columns : str
            ``text_column``, ``label_column``, ``encoding``.
        """
        data = read_labelled(path, **columns)
        unknown = [label for label in data.labels if label not in self.labels]
        notes = list(data.notes)
        if unknown:
            notes.append(
                f"warning: {', '.join(map(repr, unknown))}: no label of the training data ({', '.join(self.labels)}), "
                "so those texts are always wrong"
            )
        predicted = [p.label for p in self.predict([e.text for e in data.examples])]
        return classification_report([e.label for e in data.examples], predicted), notes
