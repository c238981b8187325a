"""A formula of the documents, as a chapter shows it: never typed again, always from the registry."""

from __future__ import annotations

import re

from tinyllm.course.show import show
from tinyllm.formulas import get

TEXT = re.compile(r"\\text\{([^{}]*)\}")  # matplotlib has no \text; in \mathrm a space must be written


def formula(id: str, printed: bool = False) -> None:
    """Show an entry of `tinyllm.formulas`: its picture, where the documents have it, what it means, its errata.

    Parameters
    ----------
    id : str
        Such as ``"F-ATTN"``.
    printed : bool
        Show the formula as it is printed too, where that differs from what is meant.

    Raises
    ------
    FormulaError
        If there is no such entry.
    """
    entry = get(id)
    print(f"{entry.id}: {entry.title}")
    if entry.latex:
        _draw(entry.latex)
    if printed and entry.printed:
        print("as printed:")
        _draw(entry.printed)
    print(f"in the documents: {'; '.join(f'{document[:3]} section {section}' for document, section in entry.where)}")
    print(entry.meaning)
    if entry.axes:
        print(f"axes: {entry.axes}")
    for erratum in entry.errata:
        print(f"erratum: {erratum.fault} Meant: {erratum.remedy}")
    if entry.source:
        print(f"source: {entry.source}")


def _draw(latex: str) -> None:
    """LaTeX through matplotlib's own typesetting; as text where that lacks a command."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    text = TEXT.sub(lambda m: r"\mathrm{" + m[1].replace(" ", r"\ ") + "}", latex)
    figure = Figure(figsize=(min(9.0, 1 + 0.075 * len(text)), 0.8))
    FigureCanvasAgg(figure)
    figure.text(0.5, 0.5, f"${text}$", ha="center", va="center", fontsize=15)
    try:
        figure.canvas.draw()
    except ValueError:
        print(latex)
        return
    show(figure)
