"""Which class was taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinyllm.viz.fonts import SPACE, label_fonts
from tinyllm.viz.save import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def confusion_picture(counts: np.ndarray, labels: Sequence[str]) -> Figure:
    """A row for each true label, a column for each predicted one; the shade is the share of the row.

    Parameters
    ----------
    counts : (K, K) int
    labels : sequence of str

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    K = len(labels)
    figure = Figure(figsize=(2.5 + 0.5 * K, 1.8 + 0.45 * K), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i in range(K):
        for j in range(K):
            if counts[i, j]:
                shade = "white" if shares[i, j] > 0.6 else "black"
                axes.text(j, i, f"{counts[i, j]:,}", ha="center", va="center", fontsize=8, color=shade)
    axes.set_xticks(range(K), labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(K), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return figure


def draw_confusion(counts: np.ndarray, labels: Sequence[str], path: Path) -> None:
    """Write `confusion_picture` to a PNG file."""
    with label_fonts(labels) as shown:
        save_figure(confusion_picture(counts, [shown[label].replace(SPACE, " ") for label in labels]), path)
