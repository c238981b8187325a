"""A picture in a chapter."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from tinyllm.viz.save import DPI

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show(figure: Figure) -> None:
    """Show a figure below the cell, as a PNG of 150 dots per inch; outside of notebooks it is drawn and dropped."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI, metadata={"Software": None})
    try:
        from IPython.core.getipython import get_ipython
        from IPython.display import Image, display
    except ImportError:
        return
    if get_ipython() is not None:
        display(Image(picture.getvalue(), width=figure.get_figwidth() * 80))
