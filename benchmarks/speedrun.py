"""Speed of learning: a character model of tinyshakespeare, from nothing, on the cores of a laptop.

    python benchmarks/speedrun.py --data FILE                  # the short recipe: three minutes
    python benchmarks/speedrun.py --data FILE --recipe long    # the long one
    python benchmarks/speedrun.py --data FILE --quick          # a taste of the short one, within 45 s

The first 90% of the text is trained on. The last 10% is scored when the clock has stopped, in windows of 256 characters
without overlap: each character after the first of its window, from those before it there. The clock runs from reading
the file to the last step. What helped and what did not is in `SPEEDRUN.md`, with figures; `--tune` trains on the first
81% and scores the next 9%, and `--set` changes the recipe, which is how they were found. Ctrl-C scores what is there.

The model is a count model and a Transformer that corrects it; `CountModel` and `CharacterModel` are all of it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from harness import machine

import tinyllm as tl
from tinyllm.autograd import Tensor
from tinyllm.autograd.tape import Kernel, Op, apply
from tinyllm.autograd.tensor import Array
from tinyllm.nn import Module, merge_heads, rotary

WINDOW = 256  # of the evaluation
LINES = {"Witten-Bell 5-gram": 1.6688, "nanoGPT, CPU recipe, 3 min": 1.88, "nanoGPT, GPU recipe, A100, 3 min": 1.4697}
FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Recipe:
    """All that is chosen, and not learnt."""

    steps: int
    layers: int
    heads: int
    channels: int
    windows: int = 8  # in a batch, of as many characters as those of the evaluation
    muon: float = 0.02  # the two learning rates
    adam: float = 3e-3
    warmup: int = 20
    # d and t of the count model for contexts of 0, 1, 2, ... characters
    pulls: tuple[tuple[float, float], ...] = (
        (0.5, 0.01),
        (0.2, 0.04),
        (0.55, 0.98),
        (0.7, 0.57),
        (0.75, 0.66),
        (0.85, 1.12),
        (0.85, 1.02),
    )


RECIPES = {
    "short": Recipe(steps=1000, layers=4, heads=4, channels=128),
    "long": Recipe(steps=1200, layers=6, heads=6, channels=192),
}


# -- counts ------------------------------------------------------------------------------------------------------------


class CountModel:
    """Interpolated Kneser-Ney: which characters followed each context of up to K characters, from long to short.

    ``p(x | h) = (max(c(h, x) - d, 0) + (d + t) D(h) p(x | h')) / (c(h) + t D(h))``, with D(h) the number of different
    characters after h, and h' the context h without its first character. c counts occurrences for the longest contexts;
    for shorter ones, how many different characters were before h x: they are asked where longer ones are of little
    help, and an h x that was only ever seen in one longer context needs none.

    The network learns from what the counts say of the training text, which must be no better than what they will say
    of other text: `predicted` is of each tenth of it by the counts of the other nine.

    Source: Kneser and Ney 1995; Chen and Goodman 1998, section 2.7. There is no t in them.
    """

    def __init__(self, ids: np.ndarray, characters: int, pulls: Sequence[tuple[float, float]], folds: int = 10) -> None:
        self.characters, self.pulls = characters, pulls
        self.keys: list[np.ndarray] = []  # the contexts of each length, sorted
        ranks, shorter = [], []  # of each place, which context precedes it; of each context, which is its h'
        for k in range(len(pulls)):
            keys, rank = np.unique(self._contexts(ids, k)[k:], return_inverse=True)
            shorter.append(np.searchsorted(self.keys[-1], keys % characters ** (k - 1)) if k else rank[:0])
            self.keys.append(keys)
            ranks.append(rank)
        ends = [len(ids) * i // folds for i in range(folds + 1)]
        fold_of = np.repeat(np.arange(folds), np.diff(ends))
        # What is counted, for each length: contexts, characters, and the only fold without which it would not be there.
        counted = []
        for k, rank in enumerate(ranks[1:], start=1):
            gram, first, last = _distinct(rank * characters + ids[k:])
            only = np.where(fold_of[k + first] == fold_of[k + last], fold_of[k + first], -1)
            counted.append((shorter[k][gram // characters], gram % characters, only))
        counted.append((ranks[-1], ids[len(ranks) - 1 :], fold_of[len(ranks) - 1 :]))
        self.counts = [self._table(*c[:2], len(keys)) for c, keys in zip(counted, self.keys, strict=True)]
        self.predicted = np.empty((len(ids), characters), np.float32)

        def predict(fold: int) -> None:
            begin, end = ends[fold : fold + 2]
            p, known = np.full((1, characters), 1 / characters, np.float32), np.zeros(1, int)
            for k, pull in enumerate(pulls):
                contexts, rank = np.unique(ranks[k][max(begin - k, 0) : end - k], return_inverse=True)
                context, character, _ = (part[counted[k][2] == fold] for part in counted[k])
                own = self._table(np.searchsorted(contexts, context), character, len(contexts))
                below = p[np.searchsorted(known, shorter[k][contexts])] if k else p
                p, known = _mixed(self.counts[k][contexts] - own, below, *pull), contexts
            self.predicted[end - len(rank) : end] = np.log(p)[rank]

        tl.threads.each(predict, range(folds))

    def log_probabilities(self, ids: np.ndarray) -> np.ndarray:
        """Of the character after each but the last of each window (B, T), from what is in the window: (B, T - 1, V)."""
        p = np.full((1, self.characters), 1 / self.characters, np.float32)
        for k, pull in enumerate(self.pulls):
            keys = self._contexts(ids, k)[:, 1:]
            rank = np.minimum(np.searchsorted(self.keys[k], keys), len(self.keys[k]) - 1)
            known = (self.keys[k][rank] == keys) & (np.arange(1, ids.shape[1]) >= k)
            counts = np.where(known[..., None], self.counts[k][rank], 0).reshape(-1, self.characters)
            p = _mixed(counts, p, *pull)
        return np.log(p).reshape(len(ids), -1, self.characters)

    def _contexts(self, ids: np.ndarray, k: int) -> np.ndarray:
        """The k characters before each place, as a number in base V; without meaning where there are fewer."""
        keys = np.zeros(ids.shape, np.int64)
        for back in range(k, 0, -1):
            keys[..., back:] = keys[..., back:] * self.characters + ids[..., :-back]
        return keys

    def _table(self, context: np.ndarray, character: np.ndarray, contexts: int) -> np.ndarray:
        """How often each pair is there, (contexts, V)."""
        flat = np.bincount(context * self.characters + character, minlength=contexts * self.characters)
        return flat.reshape(contexts, self.characters).astype(np.float32)


def _distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The different values, sorted, with the first and the last place of each."""
    order = np.argsort(values, kind="stable")
    begins = np.flatnonzero(np.diff(values[order], prepend=-1))
    return values[order][begins], order[begins], order[np.append(begins[1:], len(order)) - 1]


def _mixed(counts: np.ndarray, below: np.ndarray, d: float, t: float) -> np.ndarray:
    """The formula above for rows of counts; where a context was never seen, `below` as it is."""
    pull = (d + t) * np.maximum((counts > 0).sum(axis=1, keepdims=True, dtype=np.float32), 1)
    kept = np.maximum(counts - d, 0)
    return (kept + pull * below) / (kept.sum(axis=1, keepdims=True) + pull)


# -- the network -------------------------------------------------------------------------------------------------------


def _norm(x: Tensor) -> Tensor:
    return tl.rms_norm(x, x.shape[-1])


def _square_of_positive(x: Array) -> tuple[Array, Array]:
    positive = np.maximum(x, 0)
    return positive * positive, positive


_relu_squared = Op(
    "relu_squared",
    ref=lambda x: tl.relu(x) * tl.relu(x),
    impls={
        "numpy": lambda: Kernel(_square_of_positive, lambda needs, g, y, positive, x: (g * (positive + positive),)),
    },
)


class Block(Module):
    """Attention, then the network; each adds to the stream, and nothing at first: the last matrices start at zero."""

    def __init__(self, channels: int, heads: int, rng: np.random.Generator) -> None:
        self.heads = heads
        self.qkv, self.out = _matrix(3 * channels, channels, rng), _matrix(channels, channels)
        self.up, self.down = _matrix(4 * channels, channels, rng), _matrix(channels, 4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        B, T, C = x.shape
        parts = tl.split(tl.linear(_norm(x), self.qkv), 3, axis=-1)
        q, k, v = (part.reshape(B, T, self.heads, C // self.heads) for part in parts)  # (B, T, H, D)
        q, k = (rotary(_norm(part), axis=1) for part in (q, k))
        q, k, v = (tl.swapaxes(part, 1, 2) for part in (q, k, v))  # (B, H, T, D)
        x = x + tl.linear(merge_heads(tl.scaled_dot_product_attention(q, k, v, is_causal=True)), self.out)
        return x + tl.linear(apply(_relu_squared, tl.linear(_norm(x), self.up)), self.down)


class CharacterModel(Module):
    """Logits: the logarithms of the count model's probabilities, times how far they are to be trusted here, plus more.

    What the counts say is also part of the input, beside an embedding of the character and one of the last two.
    """

    def __init__(self, recipe: Recipe, characters: int, rng: np.random.Generator) -> None:
        channels = recipe.channels
        self.characters = characters
        self.single = Tensor(rng.normal(size=(characters, channels)).astype(np.float32), requires_grad=True)
        self.pair = Tensor(0.5 * rng.normal(size=(characters**2, channels)).astype(np.float32), requires_grad=True)
        self.counted = Tensor(0.02 * rng.normal(size=(channels, characters)).astype(np.float32), requires_grad=True)
        self.blocks = [Block(channels, recipe.heads, rng) for _ in range(recipe.layers)]
        self.head, self.trust = _matrix(characters, channels), _matrix(1, channels)
        self.trusted = Tensor(np.ones(1, np.float32), requires_grad=True)

    def forward(self, ids: np.ndarray, counted: np.ndarray) -> Tensor:
        """Characters (B, T), and what the counts say of the next ones (B, T, V) -> logits (B, T, V)."""
        before = np.pad(ids[:, :-1], ((0, 0), (1, 0)))
        x = tl.embedding(ids, self.single) + tl.embedding(before * self.characters + ids, self.pair)
        x = _norm(x + tl.linear(counted, self.counted))  # (B, T, C)
        for block in self.blocks:
            x = block(x)
        x = _norm(x)
        return tl.linear(x, self.head) + tl.linear(x, self.trust, self.trusted) * counted

    def loss(self, batch: dict[str, np.ndarray]) -> Tensor:
        """Of each character but the first of its window."""
        ids = batch["input_ids"]
        return tl.cross_entropy(self(ids[:, :-1], batch["counted"]), ids[:, 1:])


def _matrix(outputs: int, inputs: int, rng: np.random.Generator | None = None) -> Tensor:
    """Weights (outputs, inputs): uniform, of deviation 1 / (2 sqrt(inputs)); zeros without a generator."""
    bound = 0.5 * (3 / inputs) ** 0.5
    values = rng.uniform(-bound, bound, (outputs, inputs)) if rng else np.zeros((outputs, inputs))
    return Tensor(values.astype(np.float32), requires_grad=True)


# -- training ----------------------------------------------------------------------------------------------------------


class Windows:
    """Random windows of the training text, with what the counts of the rest of it say."""

    def __init__(self, ids: np.ndarray, counts: CountModel, recipe: Recipe, seed: int) -> None:
        self.ids, self.counts, self.recipe, self.seed = ids, counts, recipe, seed

    def at(self, step: int) -> dict[str, np.ndarray]:
        """The batch of a step: a function of seed and step alone."""
        first = len(self.recipe.pulls)  # where a context of full length precedes
        words = np.random.Philox(key=np.array([self.seed, step], dtype=np.uint64)).random_raw(self.recipe.windows)
        starts = first + (words % np.uint64(len(self.ids) - first - WINDOW)).astype(np.int64)
        places = starts[:, None] + np.arange(WINDOW + 1)
        ids = self.ids[places]
        return {"input_ids": ids, "labels": ids, "counted": self.counts.predicted[places[:, 1:]]}


class Together:
    """Muon for the matrices of each block and AdamW for the rest, side by side on the threads.

    Each has a rate of its own, times `lr`, which the schedule sets. Muon's memory is shorter in the first steps.
    """

    def __init__(self, model: CharacterModel, recipe: Recipe) -> None:
        rest = [p for name, p in model.named_parameters() if not name.startswith("blocks.")]
        self.adam = tl.optim.AdamW(rest, betas=(0.9, 0.99), weight_decay=0.0)
        self.muons = [tl.optim.Muon(block.parameters(), weight_decay=0.0) for block in model.blocks]
        self.recipe, self.lr, self.steps = recipe, 1.0, 0

    def step(self, scale: float = 1.0) -> None:
        """Move every parameter by its gradient times `scale`."""
        self.steps += 1
        self.adam.lr = self.recipe.adam * self.lr
        for muon in self.muons:
            muon.lr = self.recipe.muon * self.lr
            muon.param_groups[0]["momentum"] = 0.85 + 0.1 * min(self.steps / 100, 1.0)
        tl.threads.each(lambda optimizer: optimizer.step(scale), [self.adam, *self.muons])

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for optimizer in (self.adam, *self.muons):
            optimizer.zero_grad()


class Snapshots(tl.optim.EMA):
    """Copies of the weights, taken now and then on the way, and scored when the clock has stopped."""

    def __init__(self, model: Module, every: int, clock: float) -> None:
        super().__init__(model.parameters(), decay=0.0)
        self.every, self.clock = every, clock
        self.taken: list[tuple[float, dict[str, Any]]] = []

    def update(self) -> None:
        """Notice that a step was made."""
        super().update()
        if self.steps % self.every == 0:
            self.take()

    def take(self) -> None:
        """Copy the weights."""
        self.taken.append((time.perf_counter() - self.clock, self.state_dict()))


def windows_without_overlap(ids: np.ndarray, counts: CountModel) -> list[dict[str, np.ndarray]]:
    """The text as batches of windows; what remains at its end is a shorter one."""
    whole = len(ids) // WINDOW * WINDOW
    parts = np.array_split(ids[:whole].reshape(-1, WINDOW), -(-whole // WINDOW // 16))
    if len(ids) > whole + 1:
        parts.append(ids[None, whole:])
    return [{"input_ids": part, "labels": part, "counted": counts.log_probabilities(part)} for part in parts]


def loss_of_counts(batches: list[dict[str, np.ndarray]]) -> float:
    """The mean loss of the count model alone."""
    chosen = [np.take_along_axis(b["counted"], b["labels"][:, 1:, None], axis=2).ravel() for b in batches]
    return -float(np.concatenate(chosen).mean(dtype=np.float64))


def rate(recipe: Recipe) -> Callable[[int], float]:
    """Up from zero in the first steps, and down in a straight line to zero at the end."""
    return lambda t: min((t + 1) / recipe.warmup, 1.0) * (1 - t / recipe.steps)


def train(
    recipe: Recipe,
    learnt_from: np.ndarray,
    scored_on: np.ndarray,
    characters: int,
    seed: int,
    clock: float,
    points: int,
) -> dict[str, Any]:
    """Count, train, stop the clock, score."""
    counts = CountModel(learnt_from, characters, recipe.pulls)
    counted = time.perf_counter() - clock
    model = CharacterModel(recipe, characters, np.random.default_rng(seed))
    snapshots = Snapshots(model, max(1, recipe.steps // points), clock)
    plan = tl.train.Plan(steps=recipe.steps, rate=rate(recipe), seed=seed, eval_every=recipe.steps)
    trainer = tl.train.Trainer(
        model,
        Windows(learnt_from, counts, recipe, seed),
        Together(model, recipe),
        plan,
        console=tl.train.Console(),
        ema=snapshots,
    )
    trainer.run()
    seconds = time.perf_counter() - clock
    if trainer.at.step % snapshots.every:  # the last step, or the one that Ctrl-C came in
        snapshots.take()
    batches = windows_without_overlap(scored_on, counts)
    curve = []
    for at, weights in snapshots.taken:
        snapshots.load_state_dict(weights)
        with snapshots.applied():
            curve.append((at, tl.train.mean_loss(model, batches)))
    return {
        "loss": curve[-1][1],
        "seconds": seconds,
        "steps": trainer.at.step,
        "predictions": trainer.at.tokens,
        "parameters": model.num_parameters(),
        "counted": {"seconds": counted, "loss": loss_of_counts(batches)},
        "curve": curve,
    }


def picture(result: dict[str, Any]) -> Any:
    """Loss against the clock, with what others needed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.8), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*zip(*result["curve"], strict=True), marker="o", color="#d55e00", label=f"this run: {result['loss']:.4f}")
    counted = result["counted"]
    axes.plot(
        counted["seconds"], counted["loss"], "s", color="#0072b2", label=f"its counts alone: {counted['loss']:.4f}"
    )
    for name, loss in LINES.items():
        axes.axhline(loss, color="#555555", linestyle="--", linewidth=1)
        axes.annotate(f"{name}: {loss:.4f}", (1.0, loss), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    axes.set(xlabel="seconds, from reading the text on", ylabel="held-out loss (nats per character)", xlim=(0, None))
    axes.legend(loc="center left")
    return figure


def main() -> None:
    """Train, score, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="tinyshakespeare: input.txt, or the same as .gz")
    parser.add_argument("--recipe", choices=RECIPES, default="short")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=NUMBER", help="change the recipe: steps=500"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tune", action="store_true", help="train on the first 81%%, score the next 9%%")
    parser.add_argument("--quick", action="store_true", help="a twelfth of the steps, scored as with --tune")
    parser.add_argument("--json", action="store_true", help="print one object")
    options = parser.parse_args()
    recipe = RECIPES[options.recipe]
    if options.quick:
        recipe = replace(recipe, steps=recipe.steps // 12)
    for name, _, value in (change.partition("=") for change in options.set):
        if not isinstance(getattr(recipe, name, None), int | float):
            parser.error(f"the recipe has no number {name!r}; it is {recipe}")
        recipe = replace(recipe, **{name: type(getattr(recipe, name))(value)})
    tl.set_num_threads(options.threads)

    clock = time.perf_counter()
    raw = options.data.read_bytes()
    text = (gzip.decompress(raw) if options.data.suffix == ".gz" else raw).decode()
    characters = sorted(set(text))
    ids = np.searchsorted(characters, list(text))
    learnt_from, scored_on = np.split(ids, [int(0.9 * len(ids))])
    tuning = options.tune or options.quick
    if tuning:
        learnt_from, scored_on = np.split(learnt_from, [int(0.9 * len(learnt_from))])
    result = {"recipe": options.recipe, **asdict(recipe), "seed": options.seed, "threads": options.threads}
    result |= {"tuning": tuning, "machine": machine()}
    result |= train(recipe, learnt_from, scored_on, len(characters), options.seed, clock, 1 if options.quick else 8)

    if not tuning:
        (FOLDER / f"speedrun_{options.recipe}.json").write_text(json.dumps(result, indent=1) + "\n")
        tl.viz.save_figure(picture(result), FOLDER / f"speedrun_{options.recipe}.png")
    if options.json:
        print(json.dumps(result))
        return
    about = result["machine"]
    print(f"{about['processor']}, {about['cores']} cores, {options.threads} threads; {about['versions']}")
    print(f"{result['parameters']:,} parameters, {result['steps']:,} steps, {result['predictions']:,} predictions")
    counted = result["counted"]
    print(f"counts alone:  {counted['loss']:.4f} nats per character after {counted['seconds']:.1f} s")
    part = "tuning part" if tuning else "held-out part"
    print(f"{part}: {result['loss']:.4f} nats per character after {result['seconds']:.1f} s")
    for name, loss in LINES.items():
        print(f"  {result['loss'] - loss:+.4f} from {name} ({loss})")


if __name__ == "__main__":
    main()
