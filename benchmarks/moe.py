"""A mixture of experts against a dense model of equal work per token, on prose, code and Chinese.

    python benchmarks/moe.py --chinese FILE            # some five minutes; prints the tables
    python benchmarks/moe.py --chinese FILE --write    # also writes MOE.md, moe_usage.png and moe_texts.png
    python benchmarks/moe.py --chinese FILE --quick    # a taste, within a minute

Three models see the same windows in the same order: a dense Llama, and two mixtures (Mixtral) whose tokens use 2 of 8
experts of half the dense network's width, so that the matrices a token meets are as large, but for the gate. One
mixture's balance loss counts 0.01, the other's nothing. A batch holds as many windows of each kind of text. The prose
and the code are the standard library's, held out by package; the Chinese is a file of JSON lines, gzipped, each with a
`text` (classical poems and prose of the public domain), of which the last tenth is held out.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import machine

import tinyllm as tl
from tinyllm.models import Llama, LlamaConfig, Mixtral, MixtralConfig

FOLDER = Path(__file__).parent
KINDS = ("prose", "code", "Chinese")
COLOURS = ("#0072b2", "#d55e00", "#e69f00", "#009e73", "#56b4e9", "#cc79a7", "#555555", "#f0e442")
EXPERTS, USED = 8, 2
TIME, WINDOWS = 96, 4  # tokens in a window; windows of each kind in a batch
TEXT = 1_500_000  # bytes of each kind, at most
SHAPE = {
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "max_position_embeddings": TIME,
    "initializer_range": 0.06,
    "tie_word_embeddings": True,
}
INNER = 256

Texts = dict[str, tuple[str, str]]  # of each kind, what is trained on and what is held out


def read_texts(chinese: Path) -> Texts:
    """The three kinds of text, cut to a like size."""
    found: Texts = {}
    for kind, name in (("prose", "stdlib-prose"), ("code", "stdlib-code")):
        parts = tl.data.split(tl.data.load(name))
        train, held_out = ("\n\n".join(document.text for document in part.documents) for part in parts)
        found[kind] = (train, held_out)
    lines = gzip.decompress(chinese.read_bytes()).decode().splitlines()
    poems = [json.loads(line)["text"] for line in lines]
    cut = len(poems) * 9 // 10
    found["Chinese"] = ("\n\n".join(poems[:cut]), "\n\n".join(poems[cut:]))
    return {kind: (cut_to(train, TEXT), cut_to(held, TEXT // 10)) for kind, (train, held) in found.items()}


def cut_to(text: str, size: int) -> str:
    """The first bytes of a text."""
    return text.encode()[:size].decode(errors="ignore")


def models(vocab: int) -> dict[str, Any]:
    """The three, by the names they have in the table."""
    dense = LlamaConfig(vocab_size=vocab, intermediate_size=INNER, **SHAPE)
    mixture = {"num_local_experts": EXPERTS, "num_experts_per_tok": USED, "intermediate_size": INNER // USED}
    found: dict[str, Any] = {"dense": Llama(dense, rng=np.random.default_rng(0))}
    for weight in (0.0, 0.01):
        config = MixtralConfig(vocab_size=vocab, router_aux_loss_coef=weight, **mixture, **SHAPE)
        found[f"mixture, balance {weight:g}"] = Mixtral(config, rng=np.random.default_rng(0))
    return found


def active(model: Any) -> int:
    """Parameters that a token meets in products of matrices."""
    idle = 0
    if isinstance(model, Mixtral):
        experts = sum(p.size for name, p in model.named_parameters() if ".experts." in name)
        idle = experts * (EXPERTS - USED) // EXPERTS
    return model.num_parameters() - idle


def usage(model: Mixtral, probe: dict[str, np.ndarray]) -> dict[str, list[list[float]]]:
    """Of each kind's tokens, the share of their choices that went to each expert of each layer."""
    model.eval()
    with tl.no_grad():
        routing = {kind: model(ids).routing for kind, ids in probe.items()}
    model.train()
    return {kind: [(layer.counts / layer.counts.sum()).tolist() for layer in went] for kind, went in routing.items()}


def trained(
    model: Any, train: dict[str, np.ndarray], probe: dict[str, np.ndarray], steps: int
) -> tuple[list[dict[str, Any]], float]:
    """Train a model; where its tokens went on the way, and the seconds that it took."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = tl.optim.AdamW(groups, betas=(0.9, 0.99))
    rate = tl.optim.schedules.cosine(lr=3e-3, warmup=steps // 10, steps=steps, final=3e-5)
    batches = [tl.data.Batches(train[kind], WINDOWS, TIME + 1, seed) for seed, kind in enumerate(KINDS)]
    seen, begin = [], time.perf_counter()
    for step in range(steps):
        if isinstance(model, Mixtral) and step % max(1, steps // 25) == 0:
            seen.append({"step": step, "usage": usage(model, probe)})
        ids = np.concatenate([each.at(step)["input_ids"] for each in batches])
        model.next_token_loss(ids[:, :-1], ids[:, 1:]).backward()
        tl.optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.lr = rate(step)
        optimizer.step()
        optimizer.zero_grad()
    if isinstance(model, Mixtral):
        seen.append({"step": steps, "usage": usage(model, probe)})
    return seen, time.perf_counter() - begin


def held_out_loss(model: Any, tokens: np.ndarray) -> float:
    """Nats per token of a text, every token but the first of its window predicted once."""
    model.eval()
    total = count = 0.0
    with tl.no_grad():
        for batch in tl.data.eval_windows(tokens, TIME + 1, 16):
            ids = batch["input_ids"]
            total += model.next_token_loss(ids[:, :-1], ids[:, 1:]).item() * ids[:, 1:].size
            count += ids[:, 1:].size
    return total / count


def draw_usage(rows: list[dict[str, Any]]) -> Any:
    """Share of each expert over time: a row of panels for each mixture, a panel for each layer."""
    from matplotlib.figure import Figure

    mixtures = [row for row in rows if row["usage"]]
    layers = len(mixtures[0]["usage"][0]["usage"]["prose"])
    figure = Figure(figsize=(3.2 * layers, 2.6 * len(mixtures)), layout="constrained")
    for panels, row in zip(figure.subplots(len(mixtures), layers, sharex=True, sharey=True), mixtures, strict=True):
        steps = [at["step"] for at in row["usage"]]
        for layer, axes in enumerate(panels):
            share = np.array([np.mean([at["usage"][kind][layer] for kind in KINDS], axis=0) for at in row["usage"]])
            axes.stackplot(steps, share.T, colors=COLOURS)
            axes.set_title(f"{row['model']}: layer {layer + 1}", fontsize=8)
            axes.set_ylim(0, 1)
            axes.set_xlim(0, steps[-1])
        panels[0].set_ylabel("share of each expert")
    for axes in panels:
        axes.set_xlabel("step")
    return figure


def draw_texts(rows: list[dict[str, Any]]) -> Any:
    """Which experts read which text at the end: a panel for each mixture and layer."""
    from matplotlib.figure import Figure

    mixtures = [row for row in rows if row["usage"]]
    layers = len(mixtures[0]["usage"][0]["usage"]["prose"])
    figure = Figure(figsize=(3.4 * layers, 1.9 * len(mixtures)), layout="constrained")
    for panels, row in zip(figure.subplots(len(mixtures), layers), mixtures, strict=True):
        end = row["usage"][-1]["usage"]
        for layer, axes in enumerate(panels):
            share = np.array([end[kind][layer] for kind in KINDS])
            image = axes.imshow(share, vmin=0, vmax=1 / USED, cmap="viridis", aspect="auto")
            axes.set_title(f"{row['model']}: layer {layer + 1}", fontsize=8)
            axes.set_yticks(range(len(KINDS)), KINDS if layer == 0 else [""] * len(KINDS))
            axes.set_xticks(range(EXPERTS), [str(e + 1) for e in range(EXPERTS)])
    figure.colorbar(image, ax=figure.axes, label="share of choices")
    return figure


def tables(result: dict[str, Any]) -> str:
    """The figures in Markdown."""
    lines = [
        "| model | parameters | met by a token | " + " | ".join(KINDS) + " | mean | seconds |",
        "|---|---|---|" + "---|" * (len(KINDS) + 2),
    ]
    for row in result["rows"]:
        losses = [row["loss"][kind] for kind in KINDS]
        cells = [f"{x:.3f} ({row['bits_per_byte'][kind]:.3f})" for kind, x in zip(KINDS, losses, strict=True)]
        cells += [f"{np.mean(losses):.3f}", f"{row['seconds']:.0f}"]
        lines.append(f"| {row['model']} | {row['parameters']:,} | {row['active']:,} | " + " | ".join(cells) + " |")
    lines += ["", "| mixture, layer | " + " | ".join(f"{kind}: experts" for kind in KINDS) + " | smallest share |"]
    lines.append("|---|" + "---|" * (len(KINDS) + 1))
    for row in result["rows"]:
        for layer in range(len(row["usage"][-1]["usage"]["prose"]) if row["usage"] else 0):
            share = np.array([row["usage"][-1]["usage"][kind][layer] for kind in KINDS])
            most = [", ".join(f"{e + 1} ({s[e]:.0%})" for e in np.argsort(-s)[:3]) for s in share]
            smallest = f"{share.mean(axis=0).min():.1%}"
            lines.append(f"| {row['model']}, {layer + 1} | " + " | ".join(most) + f" | {smallest} |")
    return "\n".join(lines)


def report(result: dict[str, Any]) -> str:
    """MOE.md."""
    about = result["machine"]
    text = (
        "# A mixture of experts against a dense model of equal work per token\n\n"
        f"Written by `python benchmarks/moe.py --chinese FILE --write` ({result['date']}, {about['processor']}, "
        f"Python {about['versions']['python']}; the machine was shared, so that its seconds say little): "
        f"{result['steps']:,} steps of {WINDOWS * len(KINDS)} windows of {TIME} tokens, byte-level BPE of "
        f"{result['vocab']:,} tokens, up to {TEXT / 1e6:.1f} MB of each kind of text.\n\n"
        "Held-out loss in nats per token (bits per byte); below, the three experts that read most of each kind's "
        "tokens (an even share is 12.5%; 50% is all there is, since a token chooses two), and the share of the expert "
        "that is used least.\n\n"
    )
    return text + tables(result) + "\n\n![Experts over time](moe_usage.png)\n\n![Experts by text](moe_texts.png)\n"


def main() -> None:
    """Train all, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chinese", type=Path, required=True, help="JSON lines with a text each, gzipped")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    tl.set_num_threads(options.threads)
    steps = 10 if options.quick else options.steps
    texts = read_texts(options.chinese)
    tokenizer = tl.text.ByteLevelBPE.train(
        [cut_to(texts[kind][0], 300_000) for kind in KINDS], vocab_size=options.vocab
    )
    train = {kind: np.array(tokenizer.encode(texts[kind][0])) for kind in KINDS}
    held_out = {kind: np.array(tokenizer.encode(texts[kind][1])) for kind in KINDS}
    probe = {kind: held_out[kind][: 8 * TIME].reshape(8, TIME) for kind in KINDS}
    rows = []
    for name, model in models(tokenizer.vocab_size).items():
        seen, seconds = trained(model, train, probe, steps)
        loss = {kind: held_out_loss(model, held_out[kind]) for kind in KINDS}
        bits = {kind: loss[kind] / np.log(2) * len(held_out[kind]) / len(texts[kind][1].encode()) for kind in KINDS}
        rows.append({"model": name, "parameters": model.num_parameters(), "active": active(model), "loss": loss,
                     "bits_per_byte": bits, "seconds": seconds, "usage": seen})  # fmt: skip
        print(name, {kind: round(x, 3) for kind, x in loss.items()}, f"{seconds:.0f} s", flush=True)
    result = {"machine": machine(), "date": time.strftime("%Y-%m-%d"), "steps": steps, "vocab": tokenizer.vocab_size,
              "rows": rows}  # fmt: skip
    print(tables(result))
    if options.write:
        (FOLDER / "MOE.md").write_text(report(result))
        tl.viz.save_figure(draw_usage(rows), FOLDER / "moe_usage.png")
        tl.viz.save_figure(draw_texts(rows), FOLDER / "moe_texts.png")


if __name__ == "__main__":
    main()
