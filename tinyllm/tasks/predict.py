"""What a trained model says of new texts: their class, their labels, or a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyllm.data.labelled import read_labelled
from tinyllm.errors import CheckpointError, DataError
from tinyllm.models import BERTForSequenceClassification, from_pretrained
from tinyllm.tasks.classification import scores, shortened_ids
from tinyllm.tasks.problems import PROBLEMS, Problem, Regression, Report, SingleLabel
from tinyllm.text import Tokenizer, load_tokenizer
from tinyllm.train.job import task_of


@dataclass(frozen=True)
class Prediction:
    """What is said of a text.

    Attributes
    ----------
    text : str
    label : str
        Several are written ``a|b``, a number in its digits.
    probabilities : dict of str to float
        Of each label; none for a number.
    shortened : bool
        Whether the text is longer than the model, which then read its beginning alone.
    """

    text: str
    label: str
    probabilities: dict[str, float]
    shortened: bool


class Classifier:
    """The classifier of a folder. Make one with `open`.

    Parameters
    ----------
    model : BERTForSequenceClassification
    tokenizer : Tokenizer
    problem : Problem
    most : int
        Tokens that are read of a text.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, problem: Problem, most: int) -> None:
        self.model, self.tokenizer, self.problem, self.most = model, tokenizer, problem, most

    @property
    def labels(self) -> list[str]:
        """What each score of the model is about."""
        return self.problem.labels

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
        kind = config.problem_type or (Regression if len(labels) == 1 else SingleLabel).name
        most = named.get("max_tokens") or model.context_length
        return cls(model.eval(), load_tokenizer(folder), PROBLEMS[kind](labels), most)

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
        read = [shortened_ids(self.tokenizer, text, self.most) for text in texts]
        found = scores(self.model, [ids for ids, _ in read])
        told, shares = self.problem.told(found), self.problem.probabilities(found)
        rows: list[dict[str, float]] = [{}] * len(texts)
        if shares is not None:
            rows = [dict(zip(self.labels, row, strict=True)) for row in shares.tolist()]
        return [
            Prediction(text, label, row, cut)
            for text, label, row, (_, cut) in zip(texts, told, rows, read, strict=True)
        ]

    def report(self, path: str | Path, **columns: str) -> tuple[Report, list[str]]:
        """How well the labels of a file are told, and what is to be said about them.

        Parameters
        ----------
        path : path
            As for `read_labelled`.
        **columns : str
            ``text_column``, ``label_column``, ``encoding``.

        Raises
        ------
        DataError
            For a file that cannot be used, or labels of another kind than the model's.
        """
        data = read_labelled(path, **columns)
        unknown = sorted({name for label in data.labels for name in self.problem.unknown(label)})
        notes = list(data.notes)
        if unknown:
            notes.append(
                f"warning: {', '.join(map(repr, unknown))}: no label of the training data ({', '.join(self.labels)}), "
                "so those texts are always wrong"
            )
        found = self.predict([e.text for e in data.examples])
        if cut := sum(p.shortened for p in found):
            notes.append(f"warning: {cut:,} texts are longer than {self.most} tokens: cut there")
        return self.problem.report([e.label for e in data.examples], [p.label for p in found]), notes
