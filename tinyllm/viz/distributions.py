"""How the values in each layer are distributed: activations, weights, gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tinyllm.autograd.tensor import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def distributions(arrays: Mapping[str, np.ndarray | Tensor], title: str = "", xlabel: str = "value") -> Figure:
    """Draw the distribution of each array's values as a curve, the first layer darkest, with its deviation.

    Parameters
    ----------
    arrays : mapping from name to array
        Of any shapes; values that are not finite are counted in the legend.
    title, xlabel : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there is no array, or one has no finite value.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    values = {name: np.asarray(a.data if isinstance(a, Tensor) else a, float).ravel() for name, a in arrays.items()}
    finite = {name: v[np.isfinite(v)] for name, v in values.items()}
    empty = [name for name, v in finite.items() if not v.size]
    if not values or empty:
        raise ValueError(f"no finite value to draw{f' in {empty[0]!r}' if empty else ''}")
    low, high = (np.quantile(np.concatenate(list(finite.values())), q) for q in (0.001, 0.999))
    edges = np.linspace(low, high, 81) if high > low else np.array([low - 0.5, low + 0.5])
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for i, (name, v) in enumerate(finite.items()):
        density, _ = np.histogram(v, edges, density=True)
        lost = values[name].size - v.size
        label = f"{name}: std {v.std():.2g}" + (f", {lost} not finite" if lost else "")
        color = colormaps["viridis"](0.9 * i / max(1, len(finite) - 1))
        axes.stairs(density, edges, color=color, linewidth=1.8, label=label)
    axes.set_xlabel(xlabel, fontsize=12)
    axes.set_ylabel("density", fontsize=12)
    axes.tick_params(labelsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=10, frameon=False)
    if title:
        axes.set_title(title, fontsize=12, loc="left")
    return figure
