"""What size buys: loss against parameters and against tokens, four GPTs on tinyshakespeare.

    python benchmarks/scaling.py --data FILE          # about ten minutes; scaling.json and scaling.png
    python benchmarks/scaling.py --write              # what scaling.json holds into benchmarks/README.md
    python benchmarks/scaling.py --data FILE --quick  # a short training of each size, within 45 s
    python benchmarks/scaling.py --data FILE --json   # one object

"Performance is proportional to size", say documents on language models. Were it so, twice the size would halve the
loss. What is seen here, as in Kaplan et al. 2020 on a larger scale, are powers with small exponents, and only as long
as the other of the two is no bottleneck. Each point is a training of its own, with a learning rate that comes down to
zero by its end: a point on the way of a longer training would be worse than what that number of tokens can do. The
first 90% of the text is trained on; the loss is over the last 10%, in windows of 64 characters.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from all import written
from harness import machine, plural

import tinyllm as tl

SIZES = ((1, 32), (2, 48), (3, 80), (4, 128))  # (blocks, channels)
STEPS = (150, 300, 600, 1200)
TIME, BATCH = 64, 16
FOUND = Path(__file__).with_name("scaling.json")
COLOURS = ("#56b4e9", "#009e73", "#e69f00", "#d55e00")


def trained(layers: int, channels: int, steps: int, ids: tuple[np.ndarray, np.ndarray], vocab: int) -> dict[str, Any]:
    """Train one GPT as `tinyllm train` does, in fewer steps, and score it."""
    begin = time.perf_counter()
    config = tl.models.GPTConfig(
        n_layer=layers,
        n_head=max(1, channels // 32),
        n_embd=channels,
        n_positions=TIME,
        vocab_size=vocab,
        initializer_range=0.06,
    )
    model = tl.models.GPT(config, rng=np.random.default_rng(0))
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = tl.optim.AdamW(groups, betas=(0.9, 0.99))
    schedule = tl.optim.schedules.cosine(lr=3e-3, warmup=steps // 10, steps=steps, final=3e-5)
    plan = tl.train.Plan(steps=steps, rate=schedule, clip=1.0, eval_every=steps)
    trainer = tl.train.Trainer(model, tl.data.Batches(ids[0], BATCH, TIME), optimizer, plan)
    trainer.run()
    blocks = sum(p.size for name, p in model.named_parameters() if ".h." in name)
    return {
        "layers": layers,
        "channels": channels,
        "parameters": blocks,
        "tokens": trainer.at.tokens,
        "loss": round(tl.train.mean_loss(model, tl.data.eval_windows(ids[1], TIME, 64)), 4),
        "seconds": round(time.perf_counter() - begin, 0),
    }


def exponent(sizes: list[float], losses: list[float]) -> float:
    """The slope of log loss against log size."""
    return float(np.polyfit(np.log(sizes), np.log(losses), 1)[0])


def picture(rows: list[dict[str, Any]]) -> Any:
    """Both views of the same points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.4), layout="constrained")
    for axes, x, line in zip(
        figure.subplots(1, 2, sharey=True), ("parameters", "tokens"), ("tokens", "parameters"), strict=True
    ):
        for value, colour in zip(sorted({row[line] for row in rows}), COLOURS, strict=True):
            points = sorted((row[x], row["loss"]) for row in rows if row[line] == value)
            axes.loglog(*zip(*points, strict=True), "o-", color=colour, label=f"{value:,} {line}")
        axes.set_xlabel("parameters in the blocks" if x == "parameters" else "tokens trained on")
        axes.legend(fontsize=8)
        axes.xaxis.set_minor_formatter("")
        axes.yaxis.set_major_formatter("{x:.2f}")
        axes.yaxis.set_minor_formatter("{x:.2f}")
    figure.axes[0].set_ylabel("held-out loss (nats per character)")
    return figure


def table(result: dict[str, Any]) -> str:
    """The losses, a row for each size and a column for each number of tokens; and what follows from them."""
    rows = result["rows"]
    sizes, tokens = (sorted({row[what] for row in rows}) for what in ("parameters", "tokens"))
    loss = {(row["parameters"], row["tokens"]): row["loss"] for row in rows}
    about = result["machine"]
    lines = [
        f"`scaling.py`, {result['date']}, {about['processor']}, {plural(result['threads'])}; held-out loss in nats per "
        "character",
        "",
        "| parameters in the blocks | " + " | ".join(f"{n:,} tokens" for n in tokens) + " |",
        "|---" * (1 + len(tokens)) + "|",
        *(f"| {size:,} | " + " | ".join(f"{loss[size, n]:.4f}" for n in tokens) + " |" for size in sizes),
        "",
        *(f"* {line}" for line in slopes(result)),
        "",
        "![loss against parameters and tokens](scaling.png)",
    ]
    return "\n".join(lines)


def slopes(result: dict[str, Any]) -> list[str]:
    """What doubling buys, in words."""
    known = [what for what in ("parameters", "tokens") if f"exponent_of_{what}" in result]
    exponents = {what: result[f"exponent_of_{what}"] for what in known}
    return [
        f"loss ~ {what}^{slope:.3f}: twice the {what}, {1 - 2**slope:.1%} less loss; proportional would be 50%"
        for what, slope in exponents.items()
    ]


def main() -> None:
    """Train all, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="tinyshakespeare: input.txt, or the same as .gz")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="write what the last run found into benchmarks/README.md")
    options = parser.parse_args()
    if options.write:
        write(json.loads(FOUND.read_text(encoding="utf-8")))
        return
    if options.data is None:
        parser.error("--data FILE: the text to learn from")
    tl.set_num_threads(options.threads)
    raw = options.data.read_bytes()
    text = (gzip.decompress(raw) if options.data.suffix == ".gz" else raw).decode()
    characters = sorted(set(text))
    ids = np.searchsorted(characters, list(text))
    train, held_out = np.split(ids, [int(0.9 * len(ids))])

    rows = []
    for layers, channels in SIZES:
        for steps in STEPS[:1] if options.quick else STEPS:
            rows.append(
                trained(layers, channels, steps // 3 if options.quick else steps, (train, held_out), len(characters))
            )
            if not options.json:
                row = rows[-1]
                print(
                    "{parameters:>9,} parameters  {tokens:>9,} tokens  {loss:.4f}  {seconds:.0f} s".format(**row),
                    flush=True,
                )
    most_tokens, most_parameters = max(r["tokens"] for r in rows), max(r["parameters"] for r in rows)
    wide = [r for r in rows if r["tokens"] == most_tokens]
    long = [r for r in rows if r["parameters"] == most_parameters]
    result: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "threads": options.threads}
    result["rows"] = rows
    result["exponent_of_parameters"] = exponent([r["parameters"] for r in wide], [r["loss"] for r in wide])
    if not options.quick:
        result["exponent_of_tokens"] = exponent([r["tokens"] for r in long], [r["loss"] for r in long])
        FOUND.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        tl.viz.save_figure(picture(rows), FOUND.with_suffix(".png"))
    print(json.dumps(result) if options.json else "\n".join(slopes(result)))


def write(result: dict[str, Any]) -> None:
    """The table into benchmarks/README.md, between its markers, and the picture beside it."""
    readme = FOUND.with_name("README.md")
    readme.write_text(written(readme.read_text(encoding="utf-8"), "scaling", table(result)), encoding="utf-8")
    tl.viz.save_figure(picture(result["rows"]), FOUND.with_suffix(".png"))


if __name__ == "__main__":
    main()
