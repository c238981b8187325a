"""How far back do models see? The documents' claim about RNN, LSTM and Transformer, measured twice.

    python benchmarks/long_dependencies.py            # a few minutes; writes long_dependencies.png beside this file
    python benchmarks/long_dependencies.py --json     # the figures as one object

1. Gradients. Of random texts, the last position's output is differentiated with respect to the embedding of the token d
   places before it: how large is that gradient, in parts of the one at d = 0? At first, and after training on 2.
2. Copying. A text is L symbols, a mark, and the same L symbols again. Each model, of about 100,000 parameters, is
   trained on texts of one length for the same number of steps; then: what share of the L symbols does it copy right, on
   texts that it has not seen? Guessing gives 1/8.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from harness import say

import tinyllm as tl
from tinyllm import nn
from tinyllm.autograd.tape import gradients

SYMBOLS, MARK = 8, 8
LENGTHS = (2, 4, 8, 16, 32)
STEPS, BATCH = 500, 32
DISTANCES = 64


class Recurrent(nn.Module):
    """Embedding, a recurrent layer, a linear map."""

    def __init__(self, kind: str, units: int, rng: np.random.Generator) -> None:
        self.embedding = nn.Embedding(SYMBOLS + 1, 32, rng=rng)
        self.layer = getattr(nn, kind)(32, units, rng=rng)
        self.head = nn.Linear(units, SYMBOLS + 1, rng=rng)

    def forward(self, ids: np.ndarray) -> tuple[tl.Tensor, tl.Tensor]:
        """Embeddings (B, T, C) and logits (B, T, V)."""
        x = self.embedding(ids)
        return x, self.head(self.layer(x)[0])


class Transformer(nn.Module):
    """A GPT of two blocks."""

    def __init__(self, rng: np.random.Generator) -> None:
        config = tl.models.GPTConfig(
            vocab_size=SYMBOLS + 1,
            n_positions=max(DISTANCES, 2 * max(LENGTHS)) + 1,
            n_embd=64,
            n_layer=2,
            n_head=4,
            initializer_range=0.06,
        )
        self.gpt = tl.models.GPT(config, rng=rng)

    def forward(self, ids: np.ndarray) -> tuple[tl.Tensor, tl.Tensor]:
        """Embeddings (B, T, C) and logits (B, T, V)."""
        out = self.gpt(ids, output_hidden_states=True)
        return out.hidden_states[0], out.logits


MODELS = {
    "RNN": lambda rng: Recurrent("RNN", 300, rng),
    "LSTM": lambda rng: Recurrent("LSTM", 144, rng),
    "Transformer": lambda rng: Transformer(rng),
}


def gradient_norms(model: nn.Module, rng: np.random.Generator, texts: int = 16) -> np.ndarray:
    """Relative norms (DISTANCES,) of the last output's gradient at the embedding d places back: the mean over texts."""
    x, logits = model(rng.integers(0, SYMBOLS, (texts, DISTANCES)))
    g = np.zeros(logits.shape, np.float32)
    g[:, -1] = rng.normal(size=g[:, -1].shape)
    (dx,) = gradients(logits, [x], tl.tensor(g))
    assert dx is not None
    norms = np.linalg.norm(dx.numpy().astype(float), axis=-1)[:, ::-1]  # (B, d)
    return np.exp(np.log(np.maximum(norms / norms[:, :1], 1e-30)).mean(axis=0))


def texts_to_copy(length: int, batch: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What is read and what is to be said (B, 2 L), -100 where nothing is."""
    symbols = rng.integers(0, SYMBOLS, (batch, length))
    text = np.concatenate([symbols, np.full((batch, 1), MARK), symbols], axis=1)
    targets = text[:, 1:].copy()
    targets[:, :length] = -100
    return text[:, :-1], targets


def train(model: nn.Module, length: int, rng: np.random.Generator) -> None:
    """Some steps of Adam, clipped, the rate falling to a tenth."""
    opt = tl.optim.Adam(model.parameters(), lr=0.0)
    rate = tl.optim.schedules.cosine(lr=3e-3, warmup=STEPS // 20, steps=STEPS, final=3e-4)
    for step in range(STEPS):
        ids, targets = texts_to_copy(length, BATCH, rng)
        tl.cross_entropy(model(ids)[1], targets).backward()
        tl.optim.clip_grad_norm_(model.parameters(), 1.0)
        opt.lr = rate(step)
        opt.step()
        opt.zero_grad()


def accuracy(model: nn.Module, length: int, rng: np.random.Generator, texts: int = 256) -> float:
    """The share of symbols copied right; each is said with the right ones before it."""
    ids, targets = texts_to_copy(length, texts, rng)
    with tl.no_grad():
        said = model(ids)[1].data.argmax(axis=-1)
    return float((said == targets)[:, length:].mean())


def measure(seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each model's figures."""
    for name, make in MODELS.items():
        rng = np.random.default_rng(seed)
        model = make(rng)
        found: dict[str, Any] = {"parameters": model.num_parameters()}
        found["at first"] = gradient_norms(model, rng).tolist()
        found["copied"] = {}
        for length in LENGTHS:
            model = make(rng)
            train(model, length, rng)
            found["copied"][length] = accuracy(model, length, rng)
            say(f"{name}: length {length}, {found['copied'][length]:.0%} copied")
        found["trained"] = gradient_norms(model, rng).tolist()
        yield name, found


def draw(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Both measurements side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for (name, figures), color in zip(found.items(), ("#d55e00", "#0072b2", "#009e73"), strict=True):
        left.semilogy(figures["at first"], color=color, label=f"{name}, at first")
        left.semilogy(figures["trained"], color=color, linestyle="--", label=f"{name}, trained to copy")
        right.plot(list(figures["copied"]), list(figures["copied"].values()), "o-", color=color, label=name)
    right.axhline(1 / SYMBOLS, color="#555555", linestyle=":", label="guessing")
    left.set(xlabel="distance d", ylabel="gradient norm, relative to d = 0", ylim=(1e-14, 1e2))
    right.set(xlabel="symbols to copy, L", ylabel="share copied right", ylim=(0, 1.03))
    right.set_xscale("log", base=2)
    right.set_xticks(LENGTHS, [str(length) for length in LENGTHS])
    right.minorticks_off()
    for axes in (left, right):
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, draw, and print a table or an object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one object instead of a table")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="where the picture goes")
    options = parser.parse_args()
    found = dict(measure(options.seed))
    draw(found, options.out)
    if options.json:
        print(json.dumps(found))
        return
    print("gradient norm relative to distance 0")
    shown = [d for d in (1, 2, 4, 8, 16, 32, 63) if d < DISTANCES]
    print(f"{'distance':30}" + "".join(f"{d:>10}" for d in shown))
    for name, figures in found.items():
        for when in ("at first", "trained"):
            print(f"{name + ', ' + when:30}" + "".join(f"{figures[when][d]:10.1e}" for d in shown))
    print(f"\nshare of symbols copied right after {STEPS} steps (guessing: {1 / SYMBOLS:.2f})")
    print(f"{'length':30}" + "".join(f"{n:>10}" for n in LENGTHS))
    for name, figures in found.items():
        label = f"{name}, {figures['parameters']:,} parameters"
        print(f"{label:30}" + "".join(f"{value:10.2f}" for value in figures["copied"].values()))
    print(f"\n{options.out}")


if __name__ == "__main__":
    main()
