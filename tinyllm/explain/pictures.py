"""The answers of `tinyllm.explain.measures` as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tinyllm.explain.subject import Subject, shown
from tinyllm.viz.fonts import label_fonts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by readers with any of the common colour deficiencies.
_FOR, _AGAINST = "#0072b2", "#d55e00"
_WIDEST = 24  # tokens that a picture with words in its cells has room for: the last ones


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _token_ticks(axis: Any, labels: dict[str, str], tokens: list[str]) -> None:
    axis.set_xticks(range(len(tokens)), [labels[t] for t in tokens], rotation=60, ha="right", rotation_mode="anchor")


def attributions_picture(subject: Subject, methods: dict[str, np.ndarray]) -> Figure:
    """A bar for each token, upwards where it speaks for the answer; a panel for each method, (T,) each."""
    figure = _figure(1.5 + 0.4 * len(subject.tokens), 1.0 + 1.7 * len(methods))
    with label_fonts(subject.tokens) as labels:
        panels = figure.subplots(len(methods), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, values) in zip(panels, methods.items(), strict=True):
            axes.bar(range(len(values)), values, color=[_FOR if v >= 0 else _AGAINST for v in values])
            axes.axhline(0, color="#555555", linewidth=0.8)
            axes.set_title(name, fontsize=10)
            axes.set_ylabel("nats", fontsize=9)
        _token_ticks(panels[-1], labels, subject.tokens)
        figure.canvas.draw()  # while the fonts are in force
    return figure


def lens_picture(subject: Subject, probabilities: np.ndarray) -> Figure:
    """What each layer (a row, the last one on top) would say at each token, and how sure it is: (layers + 1, T, V)."""
    kept = slice(max(0, len(subject.tokens) - _WIDEST), None)
    best = probabilities[:, kept].argmax(axis=-1)  # (layers + 1, T)
    sure = probabilities[:, kept].max(axis=-1)
    words = [[shown(subject.tokenizer, int(i)) for i in row] for row in best]
    tokens = subject.tokens[kept]
    figure = _figure(1.6 + 0.75 * len(tokens), 1.3 + 0.4 * len(best))
    with label_fonts([*tokens, *(word for row in words for word in row)]) as labels:
        axes = figure.subplots()
        image = axes.imshow(sure, cmap="Blues", vmin=0, vmax=1, aspect="auto", origin="lower")
        for (row, column), p in np.ndenumerate(sure):
            text = labels[words[row][column]]
            axes.text(
                column, row, text[:10], ha="center", va="center", fontsize=8, color="white" if p > 0.6 else "black"
            )
        _token_ticks(axes, labels, tokens)
        axes.set_yticks(range(len(best)), ["embeddings", *(f"layer {i}" for i in range(len(best) - 1))])
        axes.tick_params(length=0, labelsize=9)
        figure.colorbar(image, ax=axes, label="probability")
        figure.canvas.draw()
    return figure


def heads_picture(changes: np.ndarray) -> Figure:
    """By how much the loss grows without each head, (layers, H)."""
    figure = _figure(2.2 + 0.7 * changes.shape[1], 1.3 + 0.5 * len(changes))
    axes = figure.subplots()
    most = max(float(np.abs(changes).max()), 1e-12)
    image = axes.imshow(changes, cmap="PuOr_r", vmin=-most, vmax=most, aspect="auto", origin="lower")
    for (layer, head), change in np.ndenumerate(changes):
        color = "white" if abs(change) > 0.7 * most else "black"
        axes.text(head, layer, f"{change:+.3f}", ha="center", va="center", fontsize=8, color=color)
    axes.set_xticks(range(changes.shape[1]), [f"head {h}" for h in range(changes.shape[1])], fontsize=9)
    axes.set_yticks(range(len(changes)), [f"layer {i}" for i in range(len(changes))], fontsize=9)
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, label="growth of loss (nats)")
    return figure
