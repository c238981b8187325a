"""The loss of a run over its steps, beside the lines it has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by readers with any of the common colour deficiencies.
TRAIN, HELD_OUT, LINES = "#56b4e9", "#d55e00", "#555555"


def loss_curve(
    train: tuple[Sequence[float], Sequence[float]],
    held_out: tuple[Sequence[float], Sequence[float]],
    baselines: Sequence[tuple[str, float]] = (),
    title: str = "",
    held_out_name: str = "held out",
) -> Figure:
    """Draw training and held-out loss over the steps, and a dashed line for each baseline.

    Parameters
    ----------
    train, held_out : (steps, losses)
        Step numbers and nats per token. Many training points are drawn faintly, with their running mean over them.
    baselines : sequence of (name, loss)
        Nats per token of the models that need no training by gradient.
    title : str
        Above the picture.
    held_out_name : str
        What the held-out line is called.

    Returns
    -------
    matplotlib.figure.Figure
        Not tied to any window; :func:`tinyllm.viz.save_figure` writes it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps, losses = (np.asarray(values, dtype=float) for values in train)
    width = max(1, len(losses) // 60)
    axes.plot(steps, losses, color=TRAIN, alpha=0.3 if width > 1 else 1.0, linewidth=1)
    if width > 1:
        mean = np.convolve(losses, np.full(width, 1 / width), mode="valid")
        axes.plot(steps[width // 2 :][: len(mean)], mean, color=TRAIN, linewidth=2, label="training")
    else:
        axes.lines[-1].set_label("training")
    axes.plot(*held_out, color=HELD_OUT, marker="o", markersize=4, linewidth=2, label=held_out_name)

    axes.set_xlabel("step", fontsize=13)
    axes.set_ylabel("loss (nats per token)", fontsize=13)
    axes.tick_params(labelsize=12)
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, fontsize=12, loc="left")
    axes.legend(fontsize=12, frameon=False, loc="upper center", ncols=2)
    _draw_lines(axes, baselines)
    return figure


def _draw_lines(axes, baselines: Sequence[tuple[str, float]]) -> None:
    """Dashed lines named at the right edge; names too close to the one below are moved up."""
    low, high = axes.get_ylim()
    values = [value for _, value in baselines]
    low, high = min([low, *values]), max([high, *values])
    room = 0.055 * (high - low)  # the height of a line of text
    axes.set_ylim(low - room, high + 2.5 * room)
    place = -np.inf
    for name, value in sorted(baselines, key=lambda pair: pair[1]):
        axes.axhline(value, color=LINES, linewidth=1, linestyle=(0, (5, 3)), zorder=0)
        place = max(value, place + room)
        axes.annotate(
            f"{name} {value:.2f}",
            (1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=11,
            color=LINES,
        )
