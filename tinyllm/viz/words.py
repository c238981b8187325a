"""A map of words: two coordinates each, with arrows between those that belong together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tinyllm.viz.fonts import label_fonts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINT, ARROW = "#0072b2", "#e69f00"


def word_map(
    words: Sequence[str], places: np.ndarray, arrows: Sequence[tuple[str, str]] = (), title: str = ""
) -> Figure:
    """Draw each word at its place.

    Parameters
    ----------
    words : sequence of N str
    places : (N, 2) floats
        As `WordVectors.map` gives them.
    arrows : sequence of (str, str)
        From word to word, both among the words.
    title : str
        Above the picture.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    at = dict(zip(words, np.asarray(places, float), strict=True))
    with label_fonts(words) as shown:
        figure = Figure(figsize=(7, 6), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.margins(0.12)
        for first, second in arrows:
            axes.annotate(
                "", at[second], at[first], arrowprops={"arrowstyle": "->", "color": ARROW, "linewidth": 1.5}, zorder=1
            )
        x, y = np.array(list(at.values())).T
        axes.scatter(x, y, color=POINT, s=18, zorder=2)
        below = {b if at[b][1] < at[a][1] else a for a, b in arrows}  # labels keep out of the arrows' way
        for word, place in at.items():
            how = {"va": "top", "xytext": (4, -4)} if word in below else {"va": "bottom", "xytext": (4, 4)}
            axes.annotate(shown[word], place, textcoords="offset points", fontsize=12, zorder=3, **how)
        axes.set_xlabel("first principal direction", fontsize=12)
        axes.set_ylabel("second principal direction", fontsize=12)
        axes.spines[["top", "right"]].set_visible(False)
        if title:
            axes.set_title(title, fontsize=12, loc="left")
        canvas.draw()  # the fonts are looked up now
    return figure
