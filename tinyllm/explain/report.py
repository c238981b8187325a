"""All that can be asked of a model about one text, as pictures and a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tinyllm.errors import CheckpointError, ConfigError
from tinyllm.explain.measures import (
    attention_maps,
    gradient_times_input,
    heads_ablated,
    integrated_gradients,
    logit_lens,
    rollout,
)
from tinyllm.explain.page import Section, page
from tinyllm.explain.pictures import attributions_picture, heads_picture, lens_picture
from tinyllm.explain.subject import Subject, look_at
from tinyllm.models import from_pretrained
from tinyllm.safetensors import replacing
from tinyllm.text import load_tokenizer
from tinyllm.train.console import Console
from tinyllm.viz import attention_map, save_figure

PAGE = "index.html"


def explain(
    run: str | Path,
    text: str,
    out: str | Path | None = None,
    target: str | None = None,
    layer: int | None = None,
    steps: int = 64,
    console: Console | None = None,
) -> dict[str, Any]:
    """Look inside the model of a folder while it reads a text; write PNGs and one page with all of them.

    Parameters
    ----------
    run : path
        A run folder, or any folder of a model that is known here.
    text : str
        As for `look_at`.
    out : path, optional
        Where the files go; by default the folder ``explain`` in the run.
    target : str, optional
        The answer to explain; the likeliest one by default.
    layer : int, optional
        The only layer whose attention is drawn; all of them by default.
    steps : int
        Points of the integrated gradients.
    console : Console, optional
        Where progress is shown.

    Returns
    -------
    dict
        ``tokens``, ``answer``, ``probability``, ``gradient_times_input``, ``integrated_gradients``,
        ``completeness_gap``, ``heads`` (the change in loss), ``loss``, ``files``, ``page``.

    Raises
    ------
    TinyLLMError
        For a model, a text or an answer that cannot be looked at.
    """
    model = from_pretrained(run).eval()
    subject = look_at(model, load_tokenizer(run), text, target)
    say = console.progress if console else lambda _: None
    maps = attention_maps(subject)
    if layer is not None and not 0 <= layer < len(maps):
        raise ConfigError(f"layer must be from 0 to {len(maps) - 1}, got {layer}")
    if steps < 1:
        raise ConfigError(f"steps must be at least 1, got {steps}")
    say("attributing the answer to tokens")
    slopes = gradient_times_input(subject)
    attributions, gap = integrated_gradients(subject, steps)
    say("silencing heads")
    told = subject.loss()
    changes = heads_ablated(told)
    say("drawing")
    folder = Path(out) if out is not None else Path(run) / "explain"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder}: this folder cannot be made: {error.strerror or error}") from error
    tokens = subject.tokens
    chosen = range(len(maps)) if layer is None else [layer]
    figures = {
        "attributions": attributions_picture(
            subject, {"gradient times input": slopes, "integrated gradients": attributions}
        ),
        "rollout": attention_map(rollout(maps), tokens, title="attention followed through all layers"),
        **{f"attention-{i}": attention_map(maps[i], tokens, title=f"attention in layer {i}") for i in chosen},
        "heads": heads_picture(changes),
    }
    if subject.place is not None:
        figures["lens"] = lens_picture(subject, logit_lens(subject))
    files = {name: save_figure(figure, folder / f"{name}.png") for name, figure in figures.items()}
    probability = float(np.exp(subject.score(subject.logits).data[0]))
    loss = told.item()
    facts = {
        "model": f"{type(model).__name__} in {Path(run).name}",
        "answer": f"{subject.answer!r}, probability {probability:.4f}",
        "asked": _asked(subject),
        "loss on the text": f"{loss:.4f} nats",
    }
    pictures = {name: path.read_bytes() for name, path in files.items()}
    with replacing(folder / PAGE) as file:
        file.write(page("Inside the model", facts, tokens, attributions, _sections(pictures, gap)).encode("utf-8"))
    return {
        "tokens": tokens,
        "answer": subject.answer,
        "probability": probability,
        "loss": loss,
        "gradient_times_input": slopes.tolist(),
        "integrated_gradients": attributions.tolist(),
        "completeness_gap": gap,
        "heads": changes.tolist(),
        "files": [str(path) for path in files.values()],
        "page": str(folder / PAGE),
    }


def _asked(subject: Subject) -> str:
    if subject.place is None:
        return "the class of the text"
    if subject.tokens[subject.place] == "[MASK]":
        return f"the hidden token, number {subject.place}"
    return "the token after the text"


def _sections(pictures: dict[str, bytes], gap: float) -> list[Section]:
    maps = [name for name in pictures if name.startswith("attention-")]
    sections = [
        Section(
            "Which tokens count",
            "What each token did for the log-probability of the answer (blue, upwards) and against it (orange). "
            "Gradient times input is the slope alone; integrated gradients follow the way from the mean of all "
            f"embeddings, so that their bars add up to the whole change, but for {abs(gap):.1e}.",
            [("attributions of each token", pictures["attributions"])],
        ),
        Section(
            "Where it looks",
            "Attention weights: a row for each token, a column for each token that it looks at. The first picture "
            "follows them through all layers, half of each passing by in the residual stream.",
            [
                ("attention rollout", pictures["rollout"]),
                *((f"attention in layer {name.removeprefix('attention-')}", pictures[name]) for name in maps),
            ],
        ),
        Section(
            "Which heads it needs",
            "How much the loss on the text grows when one head is silent. Below zero the text is told better without.",
            [("heads silenced one by one", pictures["heads"])],
        ),
    ]
    if "lens" in pictures:
        lens = Section(
            "What each layer would say",
            "Each layer's state put in front of the last norm and the head: the likeliest token, and how likely.",
            [("the logit lens", pictures["lens"])],
        )
        sections.insert(2, lens)
    return sections
