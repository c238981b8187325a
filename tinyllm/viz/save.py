"""Writing a figure to a file, whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from tinyllm.safetensors import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG at 150 dpi; a file of that name is replaced only when the new one is complete.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : str or Path
        A file that ends in ``.png``.

    Returns
    -------
    Path

    Raises
    ------
    CheckpointError
        If the file cannot be written.
    """
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    with replacing(path) as file:
        file.write(picture.getvalue())
    return Path(path)
