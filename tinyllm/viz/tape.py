"""The tape as a picture: what was computed from what, and which gradients have come back so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyllm.autograd.tape import Node, Step, reachable
from tinyllm.autograd.tensor import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VALUE, GRADIENT, CURRENT, QUIET = "#0072b2", "#d55e00", "#f0e442", "#555555"  # Okabe and Ito's colours
ROWS = 14  # layers in a column; a deeper tape goes on in the next column
CELL_WIDTH, CELL_HEIGHT = 1.75, 0.86  # inches of a box and the space around it
FAR = 3  # layers that an arrow crosses before it is drawn as a stub that names its source
SHOWN = 4  # the most elements whose values are written out


@dataclass(eq=False)
class _Box:
    """A node or a leaf, and where it is drawn."""

    tensor: Tensor | None
    node: Node | None
    label: str
    inputs: list[_Box] = field(default_factory=list)
    outputs: list[_Box] = field(default_factory=list)
    layer: int = 0
    column: int = 0
    x: float = 0.0
    y: float = 0.0

    @property
    def far(self) -> list[tuple[_Box, int]]:
        """The inputs that come from another column, or from far above, and which inputs they are."""
        pairs = [(source, i) for i, source in enumerate(self.inputs)]
        return [(s, i) for s, i in pairs if s.column != self.column or self.y - s.y > FAR + 0.34]

    @property
    def array(self) -> np.ndarray:
        """The value computed here."""
        if self.node is not None:
            return self.node.out.array
        assert self.tensor is not None
        return self.tensor._storage.array


def draw_tape(
    result: Tensor,
    steps: Iterable[Step] = (),
    names: Mapping[str, Tensor] | None = None,
    title: str = "",
) -> Figure:
    """Draw the tape behind `result`: leaves at the top, the result at the bottom, an arrow for each use of a value.

    Beside each arrow stand the value that goes down it and, once a step back has brought it, the gradient that came up.
    Small arrays are written out, of larger ones the shape. The node of the last step is highlighted.

    Parameters
    ----------
    result : Tensor
        Its tape must not have been released by ``backward()``.
    steps : iterable of Step
        What `tinyllm.backward_steps` has yielded so far.
    names : mapping from name to Tensor, optional
        What to call leaves; the others are ``p0, p1, ...`` (with a gradient) and ``c0, c1, ...`` (constants).
    title : str
        Above the picture.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If nothing was recorded, or the tape was released.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    boxes = _boxes(result, names or {})
    _place(boxes)
    steps = list(steps)
    grads = {(id(step.node), i): g for step in steps for i, g in enumerate(step.in_grads) if g is not None}
    arrived = {id(step.node): step.out_grad for step in steps}
    current = steps[-1].node if steps else None

    width = CELL_WIDTH * (1 + max(box.x for box in boxes) - min(box.x for box in boxes))
    height = CELL_HEIGHT * (1 + max(box.y for box in boxes))
    figure = Figure(figsize=(max(3.5, width), height + (0.4 if title else 0.1)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(min(box.x for box in boxes) - 0.55, max(box.x for box in boxes) + 0.55)
    axes.set_ylim(max(box.y for box in boxes) + 0.6, -0.4)
    for box in boxes:
        for i, source in enumerate(box.inputs):
            _arrow(axes, source, box, i, grads.get((id(box.node), i)))
    for box in boxes:
        _draw_box(axes, box, box.node is not None and box.node is current)
    final = boxes[-1]
    note = _text(final.array)
    axes.text(final.x, final.y + 0.33, note, color=VALUE, ha="right", va="center", fontsize=7)
    if final.node is not None and id(final.node) in arrived:
        came = _text(arrived[id(final.node)].data)
        axes.text(final.x, final.y + 0.33, f"  {came}", color=GRADIENT, ha="left", va="center", fontsize=7)
    if title:
        axes.set_title(title, fontsize=10, loc="left")
    return figure


def _boxes(result: Tensor, names: Mapping[str, Tensor]) -> list[_Box]:
    """A box for each node and leaf, sources first."""
    nodes = reachable(result)[::-1]
    if not nodes:
        raise ValueError("nothing to draw: the tensor was not computed from any tensor with requires_grad=True")
    if any(node.released for node in nodes):
        raise ValueError("the tape was released by backward(); draw it before, or call backward(retain_graph=True)")
    called = {id(tensor): name for name, tensor in names.items()}
    made: dict[int, _Box] = {}
    boxes: list[_Box] = []
    counts = {"p": 0, "c": 0}
    for node in nodes:
        box = _Box(None, node, node.op.name)
        for t in node.inputs:
            key = id(t.node) if t.node is not None else id(t)
            if key not in made:  # a leaf, or a tensor whose own past needs no gradient
                kind = "p" if t.requires_grad else "c"
                label = called.get(id(t))
                if label is None:
                    label, counts[kind] = f"{kind}{counts[kind]}", counts[kind] + 1
                made[key] = _Box(t, None, label)
                boxes.append(made[key])
            box.inputs.append(made[key])
            made[key].outputs.append(box)
        made[id(node)] = box
        boxes.append(box)
    return boxes


def _place(boxes: list[_Box]) -> None:
    """Layers by distance from the result; within a layer, near the boxes that use one's value."""
    for box in reversed(boxes):
        box.layer = max((user.layer + 1 for user in box.outputs), default=0)
    depth = max(box.layer for box in boxes)
    layers = [[box for box in boxes if box.layer == depth - i] for i in range(depth + 1)]
    for box in boxes:
        box.x = float(layers[depth - box.layer].index(box))
    for sweep in range(8):
        for layer in layers if sweep % 2 else reversed(layers):
            wanted = [np.mean([b.x for b in (box.inputs if sweep % 2 else box.outputs)] or [box.x]) for box in layer]
            order = sorted(range(len(layer)), key=lambda i: wanted[i])
            layer[:] = [layer[i] for i in order]
            centre = float(np.mean(wanted))
            for i, box in enumerate(layer):
                box.x = centre + i - (len(layer) - 1) / 2
    left = 0.0
    for number, start in enumerate(range(0, len(layers), ROWS)):
        column = [box for layer in layers[start : start + ROWS] for box in layer]
        for box in column:
            box.column, box.y = number, depth - box.layer - start + bool(number)
        for box in [box for layer in layers[start - 1 : start] for box in layer if box.node is None]:
            box.column, box.y = number, 0  # a leaf stands in the column where it is used
            box.x = max([b.x for b in column if b.y <= 1] or [0]) + 1
            column.append(box)
        shift = left - min(box.x for box in column)
        for box in column:
            box.x += shift
        left = max(box.x for box in column) + 1.2


def _arrow(axes: Any, source: _Box, box: _Box, i: int, gradient: Tensor | None) -> None:
    uses = [k for k, other in enumerate(box.inputs) if other is source]
    bend = 0.6 * (uses.index(i) - (len(uses) - 1) / 2)  # x * x uses x twice: two arrows, side by side
    begin, end = (source.x, source.y + 0.17), (box.x, box.y - 0.17)
    if (source, i) in box.far:  # it would cross what lies between
        stub = box.far.index((source, i))
        side = 1 if stub % 2 else -1
        begin = (box.x + side * (0.75 + 0.3 * (stub // 2)), box.y - 0.5)
        label = source.label if source.node is None else f"from {source.node.seq}"
        axes.text(*begin, label, color=QUIET, ha="center", va="bottom", fontsize=7, style="italic")
    curve = f"arc3,rad={bend}"
    arrow = {"arrowstyle": "-|>", "color": QUIET, "lw": 0.8, "connectionstyle": curve}
    axes.annotate("", xy=end, xytext=begin, arrowprops=arrow)
    # Nearer to the source: several arrows may end at one box, and their labels would meet there.
    x, y = begin[0] + 0.3 * (end[0] - begin[0]) + bend, begin[1] + 0.4 * (end[1] - begin[1])
    backing = {"facecolor": "white", "edgecolor": "none", "pad": 0.3, "alpha": 0.85}
    shift = 0.11 if gradient is not None else 0.0
    axes.text(x, y - shift, _text(source.array), color=VALUE, ha="center", va="center", fontsize=7, bbox=backing)
    if gradient is not None:
        shown = _text(gradient.data)
        axes.text(x, y + shift, shown, color=GRADIENT, ha="center", va="center", fontsize=7, bbox=backing)


def _draw_box(axes: Any, box: _Box, current: bool) -> None:
    leaf = box.node is None
    style = {
        "boxstyle": "round,pad=0.3" if leaf else "square,pad=0.3",
        "facecolor": CURRENT if current else ("#eeeeee" if leaf else "white"),
        "edgecolor": "black" if current else QUIET,
        "linewidth": 1.6 if current else 0.8,
    }
    text = box.label if leaf else f"{box.node.seq}: {box.label}"  # type: ignore[union-attr]
    axes.text(box.x, box.y, text, ha="center", va="center", fontsize=8, bbox=style, zorder=3)


def _text(array: np.ndarray) -> str:
    """A few numbers, or the shape of many."""
    array = np.asarray(array)
    if array.size > SHOWN:
        return "(" + ",".join(map(str, array.shape)) + ")"
    if array.dtype.kind not in "fiub":
        return str(array.dtype)
    digits = 3 if array.size < 3 else 2
    numbers = [f"{value:.{digits}g}" for value in array.ravel().tolist()]
    return numbers[0] if array.ndim == 0 or array.size == 1 else "[" + " ".join(numbers) + "]"
