"""Going back along the tape, one picture for each step."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyllm.autograd.tape import Step, backward_steps
from tinyllm.autograd.tensor import Tensor
from tinyllm.viz.notebook import is_live
from tinyllm.viz.save import DPI
from tinyllm.viz.tape import draw_tape

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def step_backward(
    loss: Tensor,
    cotangent: np.ndarray | Tensor | None = None,
    names: Mapping[str, Tensor] | None = None,
    columns: int = 2,
) -> BackwardSteps:
    """Walk back from `loss` and keep a picture of the tape after each step.

    In a live notebook with ipywidgets the result shows itself with a slider over the steps; elsewhere as a strip of all
    its pictures. The tape is kept, but leaves do get their `grad`, as by ``loss.backward(retain_graph=True)``.

    Parameters
    ----------
    loss, cotangent
        As for `tinyllm.backward_steps`.
    names : mapping from name to Tensor, optional
        What to call the leaves.
    columns : int
        Pictures beside each other in the strip.

    Returns
    -------
    BackwardSteps
    """
    steps = list(backward_steps(loss, cotangent, retain_graph=True))
    return BackwardSteps(loss, steps, dict(names or {}), columns)


class BackwardSteps:
    """The steps of a walk back, each with its picture: ``len(walk)``, ``walk[2].figure()``, or let a notebook show it.

    Attributes
    ----------
    steps : list of Step
    """

    def __init__(self, loss: Tensor, steps: list[Step], names: dict[str, Tensor], columns: int) -> None:
        self.loss, self.steps, self.names, self.columns = loss, steps, names, columns

    def __len__(self) -> int:
        return len(self.steps)

    def figure(self, i: int) -> Figure:
        """The tape after step `i`, counted from 0."""
        step = self.steps[range(len(self))[i]]
        title = f"step {range(len(self))[i] + 1} of {len(self)}: {step.node.op.name}"
        return draw_tape(self.loss, self.steps[: range(len(self))[i] + 1], self.names, title)

    def strip(self) -> Figure:
        """All pictures in one, read line by line."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        frames = [_pixels(self.figure(i)) for i in range(len(self))]
        rows = -(-len(frames) // self.columns)
        height, width = (max(frame.shape[axis] for frame in frames) for axis in (0, 1))
        sheet = np.full((rows * height, min(self.columns, len(frames)) * width, 3), 255, np.uint8)
        for i, frame in enumerate(frames):
            top, left = i // self.columns * height, i % self.columns * width
            sheet[top : top + frame.shape[0], left : left + frame.shape[1]] = frame
        figure = Figure(figsize=(sheet.shape[1] / DPI, sheet.shape[0] / DPI))
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.imshow(sheet)
        return figure

    def __repr__(self) -> str:
        return "\n".join(str(step) for step in self.steps)

    def _repr_png_(self) -> bytes | None:
        return None if is_live() else _png(self.strip())

    def _ipython_display_(self) -> None:
        from IPython.display import Image, display

        if not is_live():
            display(Image(_png(self.strip())))
            return
        from ipywidgets import IntSlider, interact

        interact(
            lambda step: display(Image(_png(self.figure(step - 1)))),
            step=IntSlider(min=1, max=len(self), value=1),
        )


def _png(figure: Figure) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    return picture.getvalue()


def _pixels(figure: Figure) -> Any:
    """The picture as (height, width, 3) bytes."""
    figure.set_dpi(DPI)
    canvas: Any = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
