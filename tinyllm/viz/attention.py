"""Attention weights as heat maps: which query looks at which key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyllm.autograd.tensor import Tensor
from tinyllm.viz.fonts import label_fonts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUMBERS_UP_TO = 8  # keys up to which the weights are written into the cells
LIGHT = 0.6  # cells darker than this have light numbers


def attention_map(
    weights: np.ndarray | Tensor,
    queries: Sequence[str],
    keys: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """Draw attention weights, a row for each query and a column for each key; heads side by side.

    Parameters
    ----------
    weights : (T, S) or (H, T, S)
        Between 0 and 1.
    queries, keys : sequences of T and of S strings
        The tokens; without `keys` they are those of the queries.
    title : str
        Above the picture.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If weights and tokens do not fit.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heads = np.asarray(weights.data if isinstance(weights, Tensor) else weights, dtype=float)
    heads = heads[None] if heads.ndim == 2 else heads
    keys = queries if keys is None else keys
    if heads.ndim != 3 or heads.shape[1:] != (len(queries), len(keys)):
        raise ValueError(
            f"weights of shape {heads.shape} do not fit {len(queries)} queries and {len(keys)} keys: "
            f"expected ({len(queries)}, {len(keys)}) or (heads, {len(queries)}, {len(keys)})"
        )
    columns = min(4, len(heads))
    rows = -(-len(heads) // columns)
    cell = 0.55 if len(keys) <= NUMBERS_UP_TO else 0.28
    figure = Figure(
        figsize=(columns * (1.2 + cell * len(keys)) + 0.5, rows * (1.0 + cell * len(queries)) + (0.4 if title else 0)),
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    with label_fonts([*queries, *keys]) as labels:
        image = None
        for i, head in enumerate(heads):
            axes = figure.add_subplot(rows, columns, i + 1)
            image = axes.imshow(head, cmap="Blues", vmin=0, vmax=1, aspect="auto")
            axes.set_xticks(
                range(len(keys)), [labels[k] for k in keys], rotation=60, ha="right", rotation_mode="anchor"
            )
            axes.set_yticks(range(len(queries)), [labels[q] for q in queries])
            axes.tick_params(length=0, labelsize=9)
            if len(heads) > 1:
                axes.set_title(f"head {i}", fontsize=10)
            if len(keys) <= NUMBERS_UP_TO:
                _numbers(axes, head)
        if title:
            figure.suptitle(title, fontsize=11)
        if image is not None:
            figure.colorbar(image, ax=figure.axes, label="weight", shrink=0.8)
        figure.canvas.draw()  # while the fonts are in force
    return figure


def _numbers(axes: Any, head: np.ndarray) -> None:
    for (i, j), weight in np.ndenumerate(head):
        color = "white" if weight > LIGHT else "black"
        axes.text(j, i, f"{weight:.2f}", ha="center", va="center", fontsize=8, color=color)
