"""A model that completes Python: held-out bits per byte, and how many of the functions that it completes parse.

    python benchmarks/code_model.py                # about ten minutes on one core
    python benchmarks/code_model.py --write        # the table into CODE.md too
    python benchmarks/code_model.py --quick        # a short training: a try, no figures

A GPT is trained as `tinyllm train --data stdlib-code` does, over byte-level BPE. The lines to beat are n-grams with
Witten-Bell smoothing, over the same tokens and over bytes. Functions of held-out packages are cut after the first line
of their body. The model and the best n-gram over tokens complete each, with as many tokens as the function itself has
left, at most `ROOM`. A completion ends at the first line that is not indented; where the room ends first, its last line
is left out if there is another. A completion without a line of its own is none, and counts as one that does not parse.
The corpus's own functions are cut the same way: theirs is the share that a perfect copy would reach. What parses
(`ast.parse`) need not make sense.
"""

from __future__ import annotations

import argparse
import ast
import math
import tempfile
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import machine, say

import tinyllm as tl
from tinyllm.data import load, split
from tinyllm.models import NGram
from tinyllm.text import ByteLevelBPE
from tinyllm.train import Console, Settings, train

SETTINGS: dict[str, Any] = {
    "data": "stdlib-code",
    "tokenizer": "bpe",
    "vocab_size": 2048,
    "block_size": 128,
    "batch_size": 16,
    "steps": 1500,
    "eval_every": 500,
    "eval_windows": 100,
    "sample_tokens": 0,
    "threads": 1,
}
ROOM = 96  # tokens of a completion
TEMPERATURES = (1.0, 0.5)


def main() -> None:
    """Train, count, complete, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=SETTINGS["steps"], help="of training (default: %(default)s)")
    parser.add_argument("--functions", type=int, default=200, help="that are completed (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="60 steps, 20 functions")
    parser.add_argument("--write", action="store_true", help="the table into CODE.md")
    options = parser.parse_args()
    steps, wanted = (60, 20) if options.quick else (options.steps, options.functions)
    settings = Settings.make(SETTINGS, {"steps": steps, "eval_every": min(steps, SETTINGS["eval_every"])})
    corpus = load("stdlib-code")
    parts = split(corpus, settings.held_out, settings.seed)
    texts, held = ([document.text for document in part.documents] for part in parts)
    with tempfile.TemporaryDirectory() as place:
        result = train(settings, Path(place) / "run", Console())
        model = tl.models.from_pretrained(result["run"])
        tokenizer = tl.text.load_tokenizer(result["run"])
    assert isinstance(tokenizer, ByteLevelBPE)

    say("n-grams")
    size = sum(len(text.encode()) for text in held)
    tokens = [np.array(tokenizer.encode(text)) for text in texts], [np.array(tokenizer.encode(text)) for text in held]
    per_byte = sum(map(len, tokens[1])) / size / math.log(2)  # nats per token -> bits per byte
    rows = [("bits per byte", f"GPT, {result['parameters']:,} parameters", result["loss"] * per_byte)]
    fitted = [(order, NGram(order, tokenizer.vocab_size).fit(tokens[0])) for order in (2, 3, 4)]
    losses = {order: ngram.loss(tokens[1]) for order, ngram in fitted}
    best = min(losses, key=losses.__getitem__)
    rows.append(("bits per byte", f"{best}-gram over the same tokens", losses[best] * per_byte))
    raw = [[np.frombuffer(text.encode(), np.uint8) for text in part] for part in (texts, held)]
    ladder = NGram(4 if options.quick else 8, 256).fit(raw[0]).ladder(raw[1])
    order = int(np.argmin(ladder))
    rows.append(("bits per byte", f"{order}-gram over bytes", ladder[order] / math.log(2)))

    say("functions")
    functions = chosen(held, tokenizer, wanted)
    own = [cut(prompt, rest, complete) for prompt, rest, complete in functions]
    rows.append(("share that parses", "the corpus's own functions", share(own)))
    for temperature in TEMPERATURES:
        for name, writer in (
            ("GPT", writes_with_model(model, temperature)),
            (f"{best}-gram over tokens", writes_with_ngram(dict(fitted)[best], temperature)),
        ):
            rng = np.random.default_rng(0)
            done = [completed(prompt, writer, tokenizer, rng) for prompt, _, _ in functions]
            rows.append(("share that parses", f"{name}, temperature {temperature:g}", share(done)))
            say(f"{name}, temperature {temperature:g}, for example:\n{max(done[:9], key=len)}")
    text = table(rows, settings, len(functions), len(held), size)
    print(text)
    if options.write:
        Path(__file__).with_name("CODE.md").write_text(text, "utf-8")


def chosen(texts: list[str], tokenizer: ByteLevelBPE, wanted: int) -> list[tuple[str, str, bool]]:
    """Functions as (what is given, what follows, whether all of it), evenly from all of the texts."""
    found = []
    for text in texts:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                tree = ast.parse(text)
            except SyntaxError:
                continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef) or node.decorator_list or len(node.body) < 2:
                continue
            lines = textwrap.dedent("\n".join(text.split("\n")[node.lineno - 1 : node.end_lineno])).split("\n")
            given = (node.body[0].end_lineno or 0) - node.lineno + 1
            if given >= len(lines) or not lines[0].startswith("def "):
                continue
            prompt, rest = "\n".join(lines[:given]) + "\n", "\n".join(lines[given:]) + "\n"
            ids = tokenizer.encode(rest)
            if len(tokenizer.encode(prompt)) <= SETTINGS["block_size"] - 32:
                found.append((prompt, tokenizer.decode(ids[:ROOM]), len(ids) <= ROOM))
    places = np.linspace(0, len(found) - 1, min(wanted, len(found))).astype(int)
    return [found[place] for place in places]


def cut(prompt: str, rest: str, complete: bool) -> str:
    """The function as far as it goes: to the first line that is not indented, without a last line that is cut off.

    Empty where nothing was added to what was given.
    """
    lines = rest.split("\n")
    body = []
    for number, line in enumerate(lines):
        if line and not line[0].isspace():
            break
        if number == len(lines) - 1 and not complete and body:
            break
        body.append(line)
    return prompt + "\n".join(body) if any(map(str.strip, body)) else ""


def completed(
    prompt: str, write: Callable[[list[int], np.random.Generator], list[int]], tokenizer: ByteLevelBPE, rng: Any
) -> str:
    """The prompt with what a writer makes of it."""
    rest = tokenizer.decode(write(tokenizer.encode(prompt), rng))
    return cut(prompt, rest, complete=False)


def writes_with_model(model: Any, temperature: float) -> Callable[..., list[int]]:
    """A model's completion of token ids, as token ids."""

    def write(ids: list[int], rng: np.random.Generator) -> list[int]:
        return tl.generate(model, ids, ROOM, temperature, rng=rng)[0][len(ids) :].tolist()

    return write


def writes_with_ngram(ngram: NGram, temperature: float) -> Callable[..., list[int]]:
    """The same of an n-gram."""

    def write(ids: list[int], rng: np.random.Generator) -> list[int]:
        made = list(ids)
        for _ in range(ROOM):
            p = ngram.probs(made[-(ngram.order - 1) :]) ** (1 / temperature)
            made.append(int(rng.choice(len(p), p=p / p.sum())))
        return made[len(ids) :]

    return write


def share(sources: list[str]) -> float:
    """Of these sources, how many parse."""
    return sum(map(parses, filter(None, sources))) / len(sources)


def parses(source: str) -> bool:
    """Whether Python can read it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    return True


def table(rows: list[tuple[str, str, float]], settings: Settings, functions: int, files: int, size: int) -> str:
    """All of it, as Markdown."""
    lines = ["# Completing Python", "", "Written by `python benchmarks/code_model.py --write`, which says how.", ""]
    for what, head in (
        ("bits per byte", f"held out: {files} files, {size:,} bytes | bits per byte"),
        ("share that parses", f"{functions} held-out functions, completed | share that parses"),
    ):
        lines += [f"| {head} |", "|---|---:|"]
        lines += [
            f"| {name} | {value:.1%} |" if what.startswith("share") else f"| {name} | {value:.3f} |"
            for kind, name, value in rows
            if kind == what
        ]
        lines.append("")
    held = machine()
    lines.append(
        f"{settings.steps:,} steps of {settings.batch_size} windows of {settings.block_size} tokens; a vocabulary of "
        f"{settings.vocab_size:,}; {held['processor']}, one thread, Python {held['versions']['python']}."
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
