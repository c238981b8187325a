"""`tinyllm study regularisation`: what helps against overfitting, one remedy at a time, in one picture.

A small classifier learns the classes of few texts by heart. Each remedy is tried alone: dropout, weight decay, label
smoothing, stopping early, more texts, and texts that are made of those there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyllm.data.labelled import Example, embedded_or_file
from tinyllm.errors import ConfigError, DataError
from tinyllm.tasks.batches import all_batches
from tinyllm.tasks.classification import ClassificationJob
from tinyllm.tasks.pairs import split_units
from tinyllm.tasks.topics import EMBEDDED
from tinyllm.text.augment import Augmentation, delete_words, masked_words, neighbour_words, swap_words
from tinyllm.train.console import Console
from tinyllm.train.run import make_trainer
from tinyllm.train.settings import Settings
from tinyllm.train.trainer import Plan, Trainer, mean_loss

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PLAIN: dict[str, Any] = {
    "task": "classification",
    "n_layer": 2,
    "n_embd": 64,
    "block_size": 48,
    "vocab_size": 2000,
    "dropout": 0.0,
    "weight_decay": 0.0,
    "steps": 300,
    "eval_every": 20,
    "final_lr": 1e-3,  # the rate stays, so that nothing but the remedy holds the model back
    "sample_tokens": 0,
}
_COPIES = 4  # texts that are made of each one


@dataclass
class Curve:
    """One remedy's losses: nats per text on training and on held-out texts, without dropout or smoothing."""

    name: str
    steps: list[int] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)

    @property
    def best(self) -> int:
        """Where the held-out loss is lowest."""
        return int(np.argmin(self.held_out))


def study_regularisation(
    data: str = "stdlib-packages",
    texts: int = 200,
    steps: int = 300,
    seed: int = 0,
    only: Sequence[str] = (),
    console: Console | None = None,
) -> list[Curve]:
    """Train the same small classifier with each remedy.

    Parameters
    ----------
    data : str
        Labelled texts, as for `tinyllm finetune`.
    texts : int
        Training texts; "more texts" has four times as many.
    steps : int
    seed : int
    only : sequence of str
        Names of remedies; by default all.
    console : Console, optional

    Raises
    ------
    ConfigError
        For a remedy that does not exist.
    DataError
        For too few texts.
    """
    found = embedded_or_file(data, EMBEDDED, "", "", "")
    pool, held_out = split_units(found.examples, lambda e: e.unit, 0.3, seed)
    order = np.random.default_rng(seed).permutation(len(pool))
    if len(pool) <= texts:
        raise DataError(f"{found.name} has {len(pool)} training texts: ask for fewer than that, got {texts}")
    few = [pool[i] for i in order[:texts]]
    more = [pool[i] for i in order[: 4 * texts]]
    settings = _PLAIN | {"steps": steps, "seed": seed, "data": data}
    remedies: dict[str, Callable[[], tuple[dict[str, Any], Sequence[Example]]]] = {
        "nothing": lambda: ({}, few),
        "dropout 0.3": lambda: ({"dropout": 0.3}, few),
        "weight decay 0.3": lambda: ({"weight_decay": 0.3}, few),
        "label smoothing 0.2": lambda: ({"label_smoothing": 0.2}, few),
        f"{len(more) / len(few):.0f} times the texts": lambda: ({}, more),
        "deletion": lambda: ({}, augmented(few, delete_words, seed)),
        "swap": lambda: ({}, augmented(few, swap_words, seed)),
        "word2vec neighbours": lambda: ({}, augmented(few, _by_neighbours(pool, seed), seed)),
        "masked LM": lambda: ({}, augmented(few, _by_masked_lm(pool, seed, console), seed)),
    }
    if unknown := [name for name in only if name not in remedies]:
        raise ConfigError(f"there is no remedy {unknown[0]!r}; there are {', '.join(remedies)}")
    curves = []
    for name, remedy in remedies.items():
        if only and name not in only:
            continue
        if console:
            console.say(f"-- {name}")
        changes, train = remedy()
        job = ClassificationJob(Settings.make(settings | changes), found, train, held_out)
        curves.append(_curve(name, job, few, held_out, console))
    return curves


def augmented(examples: Sequence[Example], change: Augmentation, seed: int) -> list[Example]:
    """The examples, and changed copies of each with its label."""
    rng = np.random.default_rng(seed)
    copies = [Example(change(e.text, rng), e.label) for e in examples for _ in range(_COPIES)]
    return [*examples, *copies]


def _curve(
    name: str, job: ClassificationJob, few: Sequence[Example], held_out: Sequence[Example], console: Console | None
) -> Curve:
    """Train, and look at both losses now and then; every remedy is judged on the same few training texts."""
    trainer = make_trainer(job, console=console)
    trainer.held_out = None
    rows = [job.rows([e for e in part if e.label in job.labels]) for part in (few, held_out)]
    curve = Curve(name)
    steps = trainer.plan.steps
    while True:
        losses = [mean_loss(job.objective, all_batches(part, 64, job.pad), job.count) for part in rows]
        curve.steps.append(trainer.at.step)
        curve.train.append(losses[0])
        curve.held_out.append(losses[1])
        right = np.array(job.predict([e.text for e in held_out])) == np.array([e.label for e in held_out])
        curve.accuracy.append(float(right.mean()))
        if trainer.at.step >= steps:
            return curve
        trainer.plan.steps = min(steps, trainer.at.step + job.settings.eval_every)
        trainer.run()
        if trainer.interrupted:
            raise KeyboardInterrupt


def _by_neighbours(pool: Sequence[Example], seed: int) -> Augmentation:
    """Replacement by neighbours in word2vec, trained on the texts without their labels."""
    from tinyllm.models.word2vec import Word2Vec
    from tinyllm.text import word_tokenize

    vectors = (
        Word2Vec(size=64, min_count=3, epochs=10, seed=seed).fit([word_tokenize(e.text.lower()) for e in pool]).vectors
    )

    def neighbours(word: str) -> list[str]:
        return [other for other, _ in vectors.neighbours(word, 5)] if word in vectors else []

    return partial(neighbour_words, neighbours)


def _by_masked_lm(pool: Sequence[Example], seed: int, console: Console | None) -> Augmentation:
    """Replacement by a small masked language model, pre-trained on the texts without their labels."""
    from tinyllm.models import BERTConfig, BERTForMaskedLM
    from tinyllm.optim import AdamW, schedules
    from tinyllm.text.wordpiece import WordPiece
    from tinyllm.train.masked import HiddenTokens

    texts = [e.text for e in pool]
    tokenizer = WordPiece.train(texts, vocab_size=2000)
    config = BERTConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=256, max_position_embeddings=64, initializer_range=0.08,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = BERTForMaskedLM(config, rng=np.random.default_rng(seed))
    objective = HiddenTokens(model, tokenizer, 64)
    tokens = np.concatenate([np.array(tokenizer.encode(text)[1:]) for text in texts])
    plan = Plan(steps=600, rate=schedules.cosine(2e-3, 60, 600, 0.0), clip=1.0, seed=seed, count=objective.count)
    optimizer = AdamW(model.parameters(), lr=2e-3)
    Trainer(objective, objective.batches(tokens, 32, seed), optimizer, plan, console=console).run()
    model.eval()
    return partial(masked_words, model, tokenizer)


def as_table(curves: Sequence[Curve]) -> str:
    """Each remedy's losses at the end, and where it would have stopped early."""
    width = max(len(c.name) for c in curves)
    lines = [f"{'':{width}}  training  held out  accuracy   lowest held out (= early stopping)"]
    for c in curves:
        lines.append(
            f"{c.name:{width}}  {c.train[-1]:8.3f}  {c.held_out[-1]:8.3f}  {100 * c.accuracy[-1]:7.1f}%   "
            f"{c.held_out[c.best]:.3f} at step {c.steps[c.best]}, {100 * c.accuracy[c.best]:.1f}%"
        )
    return "\n".join(lines)


def picture(curves: Sequence[Curve]) -> Figure:
    """A panel for each remedy: training and held-out loss; the ring is where early stopping would stop."""
    from matplotlib.figure import Figure

    from tinyllm.viz.loss import HELD_OUT, TRAIN

    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.5 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, curve in zip(panels, curves, strict=False):
        axes.plot(curve.steps, curve.train, color=TRAIN, label="training")
        axes.plot(curve.steps, curve.held_out, color=HELD_OUT, label="held out")
        axes.plot(curve.steps[curve.best], curve.held_out[curve.best], "o", mfc="none", color=HELD_OUT, markersize=9)
        axes.set_title(curve.name, fontsize=10)
    for axes in panels[len(curves) :]:
        axes.set_axis_off()
    panels[0].legend(fontsize=8)
    figure.supxlabel("step", fontsize=10)
    figure.supylabel("loss (nats per text)", fontsize=10)
    return figure


def draw(curves: Sequence[Curve], path: Path) -> None:
    """Write `picture` to a PNG file."""
    from tinyllm.viz import save_figure

    save_figure(picture(curves), path)
