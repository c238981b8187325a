"""The job of telling a text's class, labels or number: a BERT with a head, its weights new or not (P-TRANSFER)."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyllm.autograd import Tensor, no_grad
from tinyllm.data.labelled import Example, Labelled, embedded_or_file
from tinyllm.errors import ConfigError, DataError
from tinyllm.metrics import confusion_matrix
from tinyllm.models import BERTConfig, BERTForSequenceClassification
from tinyllm.models.bert import Dense
from tinyllm.optim import LayerwiseAdamW
from tinyllm.safetensors import replacing
from tinyllm.tasks.batches import Ids, PairBatches, all_batches, padded
from tinyllm.tasks.pairs import split_units
from tinyllm.tasks.problems import PROBLEMS, Problem, SingleLabel
from tinyllm.tasks.topics import EMBEDDED
from tinyllm.text import Tokenizer, load_tokenizer
from tinyllm.text.wordpiece import WordPiece
from tinyllm.train.console import Console
from tinyllm.train.job import TASK_FILE, Job, task_of
from tinyllm.train.settings import Settings
from tinyllm.train.task import Wrapped
from tinyllm.train.trainer import Batch, Optimizer, mean_loss

MINILM = "minilm"
_VALIDATION = 0.1  # share of the training texts set aside where training stops early
_EXAMPLES = 5
_MOST_LABELS = 30  # that a picture of the confusions can show
_BATCH = 64


def prepare_job(settings: Settings, folder: Path | None = None, console: Console | None = None) -> ClassificationJob:
    """Read and divide the texts, load or make the model."""
    if settings.model != "bert":
        raise ConfigError(f"texts are classified by model 'bert', not {settings.model!r}")
    if settings.teacher:
        raise ConfigError("classification knows no teacher")
    if console:
        console.progress("reading the texts")
    data = embedded_or_file(settings.data, EMBEDDED, settings.text_column, settings.label_column, settings.encoding)
    train, held_out = split_units(data.examples, lambda example: example.unit, settings.held_out, settings.seed)
    return ClassificationJob(settings, data, train, held_out, folder)


class LabelObjective(Wrapped):
    """What a problem's loss is, over a model that scores labels.

    Parameters
    ----------
    model : BERTForSequenceClassification
    problem : Problem
    label_smoothing : float
    """

    def __init__(self, model: Any, problem: Problem, label_smoothing: float) -> None:
        super().__init__(model)
        self.problem, self.label_smoothing = problem, label_smoothing

    def loss(self, batch: Batch) -> Tensor:
        """Mean over texts; ``labels`` are (B, the numbers of a label)."""
        scores = self.model(batch["input_ids"], batch["attention_mask"]).logits  # (B, K)
        return self.problem.loss(scores, batch["labels"], self.label_smoothing if self.model.training else 0.0)


class ClassificationJob(Job):
    """A classifier and the texts that it is trained on.

    Parameters
    ----------
    settings : Settings
    data : Labelled
        Where the texts come from.
    train, held_out : sequences of Example
    folder : Path, optional
        Of an earlier run, whose tokenizer is used.
    """

    def __init__(
        self,
        settings: Settings,
        data: Labelled,
        train: Sequence[Example],
        held_out: Sequence[Example],
        folder: Path | None = None,
    ) -> None:
        self.settings, self.data, self.held_out = settings, data, list(held_out)
        self.train, self.validation = list(train), self.held_out
        if settings.patience:
            self.train, self.validation = split_units(train, lambda e: e.unit, _VALIDATION, settings.seed)
            self.watched = "validation"
        self.problem = _problem(settings, data.name, [e.label for e in self.train])
        unseen = Counter(n for e in (*self.validation, *self.held_out) for n in self.problem.unknown(e.label))
        self.notes = [
            f"warning: {n} held-out texts have the label {label!r}, which no training text has: always wrong"
            for label, n in unseen.items()
        ]
        self.model, self.tokenizer = _model(settings, self.problem, [e.text for e in self.train], folder)
        self.model.to(settings.device)
        self.most = min(settings.block_size, self.model.context_length)
        found = [shortened_ids(self.tokenizer, e.text, self.most) for e in self.train]
        self._train_rows = [(ids, self.problem.row(e.label)) for (ids, _), e in zip(found, self.train, strict=True)]
        known = [[e for e in some if not self.problem.unknown(e.label)] for some in (self.validation, self.held_out)]
        self._watched_rows, self._held_out_rows = map(self.rows, known)
        if not self._held_out_rows:
            raise DataError("no held-out text has a label that occurs in training: give more texts, or another seed")
        if cut := sum(shortened for _, shortened in found):
            self.notes.append(f"warning: {cut:,} training texts are longer than {self.most} tokens: cut there")
        self.objective = LabelObjective(self.model, self.problem, settings.label_smoothing)
        parts = [self.labels, self._train_rows, self._watched_rows, self._held_out_rows]
        self.fingerprint = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        self.pad = self.model.config.pad_token_id or 0
        self._parts = parts_of(self.model)
        if settings.freeze > len(self._parts):
            raise ConfigError(f"freeze: the model has {len(self._parts)} parts below its head, got {settings.freeze}")

    @property
    def labels(self) -> list[str]:
        """What each score of the model is about."""
        return self.problem.labels

    # -- data ----------------------------------------------------------------------------------------------------------

    def about(self) -> str:
        """The texts, their division, and what is to be said about them."""
        return "\n".join(
            [str(self.data), f"training: {len(self.train):,} texts; held out: {len(self.held_out):,}", *self.notes]
        )

    def count(self, batch: Batch) -> int:
        """Texts."""
        return len(batch["input_ids"])

    def batches(self) -> PairBatches:
        """Random texts of similar length."""
        return PairBatches(self._train_rows, self.settings.batch_size, self.settings.seed, self.pad)

    def watched_batches(self) -> Iterator[Batch]:
        """Some of the watched texts, spread evenly."""
        return all_batches(self._watched_rows, _BATCH, self.pad, self.settings.eval_windows)

    def rows(self, examples: Sequence[Example]) -> list[Ids]:
        """Tokens and label of each text; the labels occur in training."""
        return [(shortened_ids(self.tokenizer, e.text, self.most)[0], self.problem.row(e.label)) for e in examples]

    # -- training ------------------------------------------------------------------------------------------------------

    def optimizer(self) -> Optimizer:
        """AdamW, each part of the model with its share of the rate; biases and norms do not decay."""
        settings = self.settings
        if settings.optimizer != "adamw":
            raise ConfigError(
                f"a classifier is trained with adamw, whose rates differ by layer, not {settings.optimizer}"
            )
        if settings.head_lr and not settings.lr:
            raise ConfigError("head_lr rises and falls with lr, which is 0: to train the head alone, freeze the rest")
        groups, shares = [], []
        head_share = settings.head_lr / settings.lr if settings.head_lr else 1.0
        pooler = self.model.bert.pooler
        top = [] if pooler is None else list(pooler.parameters())
        layers = [(settings.layer_decay**depth, part) for depth, part in enumerate([top, *reversed(self._parts)])]
        for share, part in [(head_share, list(self.model.classifier.parameters())), *layers]:
            for matrices, decay in ((True, settings.weight_decay), (False, 0.0)):
                chosen = [p for p in part if (p.ndim >= 2) == matrices]
                if chosen:
                    groups.append({"params": chosen, "weight_decay": decay})
                    shares.append(share)
        return LayerwiseAdamW(groups, shares, lr=settings.lr, betas=(settings.beta1, settings.beta2))

    def begin(self, step: int) -> None:
        """Freeze or unfreeze what the settings say."""
        thawed = 0 <= self.settings.unfreeze <= step
        for part in self._parts[: self.settings.freeze]:
            for p in part:
                p.requires_grad = thawed

    # -- judgement -----------------------------------------------------------------------------------------------------

    def header(self, console: Console | None) -> dict[str, Any]:
        """The data, the model, and what counting words tells."""
        if console:
            console.progress("counting words")
        given, new = [e.label for e in self.train], [e.text for e in self.held_out]
        guesses = self.problem.guesses([e.text for e in self.train], given, new)
        watched = np.array([label for _, label in self._watched_rows])
        same = np.tile(self.problem.constant(given), (len(watched), 1))  # (N, K)
        prior = self.problem.loss(Tensor(same), watched, 0.0).item()
        return {
            "data": self.data.name,
            "model": type(self.model).__name__,
            "parameters": self.model.num_parameters(),
            "labels": self.labels,
            "start": self.settings.start or "random weights",
            "baselines": {name: self.measure(guess) for name, guess in guesses.items()},
            "watched": self.watched,
            "watched_baselines": {"the same for all texts": prior},
        }

    def measure(self, predicted: Sequence[str]) -> dict[str, float]:
        """The metrics of the problem (F-EVAL) on the held-out texts."""
        return self.problem.measure([e.label for e in self.held_out], predicted)

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The label that the model tells of each text."""
        return self.problem.told(scores(self.model, [shortened_ids(self.tokenizer, t, self.most)[0] for t in texts]))

    def judge(self, baselines: dict[str, Any]) -> dict[str, Any]:
        """The loss and the metrics of all held-out texts, the report, and the confusions where texts have one class."""
        true = [e.label for e in self.held_out]
        predicted = self.predict([e.text for e in self.held_out])
        report = self.problem.report(true, predicted)
        order = sorted({*true, *predicted})
        result = {
            "data": self.data.name,
            "loss": mean_loss(self.objective, all_batches(self._held_out_rows, _BATCH, self.pad), self.count),
            "unit": self.problem.unit,
            "sources": len(self.held_out),
            "metrics": self.measure(predicted),
            "lowest_is_best": self.problem.lowest_is_best,
            "report": report.as_dict(),
            "sample": str(report) if len(self.labels) <= _MOST_LABELS else self.sample(0),
        }
        if isinstance(self.problem, SingleLabel):
            counts = confusion_matrix(true, predicted, labels=order).tolist()
            result["confusions"] = {"labels": order, "counts": counts}
        return result

    def sample(self, step: int) -> str:
        """A few held-out texts with what the model says of them."""
        some = self.held_out[:: max(1, len(self.held_out) // _EXAMPLES)][:_EXAMPLES]
        said = self.predict([e.text for e in some])
        return "\n".join(f"{e.text[:70]!r}: {guess} (is {e.label})" for e, guess in zip(some, said, strict=True))

    def save(self, folder: Path) -> None:
        """Write the tokenizer and the task."""
        self.tokenizer.save(folder)
        about = {
            "task": self.settings.task,
            "problem": self.problem.name,
            "labels": self.labels,
            "max_tokens": self.most,
        }
        with replacing(folder / TASK_FILE) as file:
            file.write((json.dumps(about, ensure_ascii=False) + "\n").encode())

    def pictures(self, folder: Path, result: dict[str, Any]) -> None:
        """Draw the confusions, where there are few enough labels."""
        found = result.get("confusions")
        if found and len(found["labels"]) <= _MOST_LABELS:
            from tinyllm.viz.confusion import draw_confusion

            draw_confusion(np.array(found["counts"]), found["labels"], folder / "confusion.png")


def _problem(settings: Settings, name: str, given: Sequence[str]) -> Problem:
    """What the training labels ask for; what is wrong with them is said with the name of the data."""
    if settings.problem == "regression" and settings.label_smoothing:
        raise ConfigError("label_smoothing is for classes, not for regression")
    try:
        return PROBLEMS[settings.problem].of(given, settings.class_weights == "balanced")
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


def _model(settings: Settings, problem: Problem, texts: list[str], folder: Path | None) -> tuple[Any, Tokenizer]:
    """The model and its tokenizer: those of `start`, with a new head for new labels, or new ones."""
    labels = problem.labels
    rng = np.random.default_rng(settings.seed)
    about: dict[str, Any] = {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "problem_type": problem.name,
        "hidden_dropout_prob": settings.dropout,
        "attention_probs_dropout_prob": settings.dropout,
    }
    if settings.classifier_pooling != "auto":
        about["classifier_pooling"] = settings.classifier_pooling
    if settings.start:
        from tinyllm.sentences.encoder import MEAN, packaged_folder, poolings

        start = folder or (packaged_folder() if settings.start == MINILM else Path(settings.start))
        if poolings(start) == [MEAN]:  # such weights were trained for the mean of the tokens: their pooler was not
            about = {"classifier_pooling": "mean", **about}
        model = BERTForSequenceClassification.from_pretrained(start, rng=rng, **about)
        before = task_of(start)
        if (before.get("labels"), before.get("problem", problem.name)) != (labels, problem.name):
            if "labels" in before:
                model.classifier = Dense(
                    model.config.hidden_size, len(labels), model.config, rng, model.classifier.weight.dtype
                )
            problem.ready(model.classifier)
        return model.train(), load_tokenizer(start)
    tokenizer: Tokenizer
    tokenizer = load_tokenizer(folder) if folder else WordPiece.train(texts, vocab_size=settings.vocab_size)
    config = BERTConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=settings.n_embd,
        num_hidden_layers=settings.n_layer,
        num_attention_heads=settings.n_head,
        intermediate_size=4 * settings.n_embd,
        max_position_embeddings=settings.block_size,
        initializer_range=settings.init_std,
        pad_token_id=tokenizer.pad_token_id,
        **about,
    )
    model = BERTForSequenceClassification(config, rng=rng)
    problem.ready(model.classifier)
    return model, tokenizer


def parts_of(model: Any) -> list[list[Tensor]]:
    """The parameters below the head in parts, from the bottom: the embeddings, then each block."""
    body = model.bert
    return [list(body.embeddings.parameters()), *(list(block.parameters()) for block in body.encoder.layer)]


def shortened_ids(tokenizer: Tokenizer, text: str, most: int) -> tuple[list[int], bool]:
    """The tokens of a text, at most so many; the last one, which ends every text, stays."""
    ids = tokenizer.encode(text)
    return (ids, False) if len(ids) <= most else ([*ids[: most - 1], ids[-1]], True)


def scores(model: Any, ids: Sequence[list[int]]) -> np.ndarray:
    """The scores of the labels (N, K) of texts in tokens."""
    was = model.training
    model.eval()
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    found = np.zeros((len(ids), model.config.num_labels))
    pad = model.config.pad_token_id or 0
    with no_grad():
        for i in range(0, len(order), _BATCH):
            rows = [ids[j] for j in order[i : i + _BATCH]]
            mask = padded([[1] * len(row) for row in rows], 0)
            found[order[i : i + _BATCH]] = model(padded(rows, pad), mask).logits.numpy()
    model.train(was)
    return found
