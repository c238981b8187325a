"""What a recurrent encoder-decoder with attention needs in order to beat the one without: three things, one by one.

python benchmarks/attention_start.py --data PAIRS [--steps 800] [--write]

Its embeddings' first size, the rate of learning and dropout are changed in turn. Judged on pairs set aside from the
training pairs, so that what is chosen here is not chosen on the pairs that TASKS.md reports on.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
from harness import machine, say
from tasks import by_name, replace_section, shown

import tinyllm as tl
from tinyllm.models.rnn_seq2seq import RNNEncoderDecoder
from tinyllm.models.seq2seq import shift_right
from tinyllm.tasks.batches import all_batches
from tinyllm.tasks.job import PairJob
from tinyllm.train import Settings
from tinyllm.train.job import prepare_job
from tinyllm.train.run import make_trainer
from tinyllm.train.trainer import mean_loss

TITLE = "translation, what attention needs"
MODELS = {"rnn": "RNN", "rnn-luong": "Luong", "rnn-bahdanau": "Bahdanau"}
_EARLY = 40  # steps, after which little is known but which tokens are frequent
_JUDGED = 500  # pairs
#: Size of the first embeddings (0: one over the root of their channels), rate, dropout.
WAYS: tuple[tuple[float, float, float], ...] = ((0, 1e-3, 0.1), (1, 1e-3, 0.1), (1, 4e-3, 0.1), (1, 4e-3, 0.3))


def main() -> None:
    """Train each model in each way, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="pairs to translate")
    parser.add_argument("--steps", type=int, default=800, help="of each model (default: 800)")
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--write", action="store_true", help="into TASKS.md")
    options = parser.parse_args()
    tl.set_num_threads(1)
    lines = [
        f"## {TITLE}",
        "",
        f"{by_name(options.data)}; {options.steps:,} steps of each model; losses of training pairs and of pairs set "
        "aside from them. Spread: the entropy of the attention over that of looking everywhere alike, "
        f"after {_EARLY} steps and at the end.",
        "",
        "| embeddings' first size | rate | dropout | | spread | at the end | training loss | loss |",
        "|---|---|---|---|---:|---:|---:|---:|",
    ]
    for size, rate, dropout in WAYS:
        for name in options.models:
            say(f"{MODELS[name]}: size {size}, rate {rate}, dropout {dropout}")
            found = measure(name, size, {"data": options.data, "steps": options.steps, "lr": rate, "dropout": dropout})
            first = "1" if size else "C^-1/2"
            lines.append(f"| {first} | {rate} | {dropout} | {MODELS[name]} | {found} |")
    command = " ".join(["python", "benchmarks/attention_start.py", *shown(sys.argv[1:])])
    held = machine()
    lines += ["", f"`{command}`; {held['processor']}, one thread, Python {held['versions']['python']}."]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        replace_section(TITLE, text)


def measure(name: str, size: float, changed: dict[str, Any]) -> str:
    """The rest of a row of the table."""
    base = {"task": "translation", "model": name, "threads": 1, "sample_tokens": 0, "patience": 1}
    settings = Settings.make(base, changed)  # patience: pairs are set aside
    job = prepare_job(settings)
    assert isinstance(job, PairJob)
    if not size:
        weight = job.model.src_embedding.weight
        weight.assign_(weight.numpy() * settings.n_embd**-0.5)
    trainer = make_trainer(job)
    pad, early = job.model.config.pad_token_id, ""
    for step in range(settings.steps):
        trainer.step()
        if step + 1 == _EARLY:
            early = spread(job)
    learnt, aside = (
        mean_loss(job.own, all_batches(pairs, settings.batch_size, pad, _JUDGED), job.count)
        for pairs in (job.train, job.validation)
    )
    return f"{early} | {spread(job)} | {learnt:.3f} | {aside:.3f}"


def spread(job: PairJob) -> str:
    """How evenly the attention falls upon sources of middling length: 0 one token, 1 all tokens alike."""
    model: RNNEncoderDecoder = job.model
    if model.config.attention == "none":
        return ""
    batches = list(all_batches(job.validation, job.settings.batch_size, model.config.pad_token_id))
    batch = batches[len(batches) // 2]
    before = shift_right(batch["labels"], model.config.decoder_start_token_id, model.config.pad_token_id)
    weights = model.alignment(batch["input_ids"], before, batch["attention_mask"])  # (B, T, S)
    entropy = -(weights * np.log(np.maximum(weights, 1e-30))).sum(axis=-1)
    even = np.log(batch["attention_mask"].sum(axis=1, keepdims=True))
    return f"{(entropy / even)[batch['labels'] >= 0].mean():.2f}"


if __name__ == "__main__":
    main()
