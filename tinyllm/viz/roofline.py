"""The roofline: what each operation computes per byte that it moves, and how near it comes to the machine's limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

# Okabe and Ito's colours, told apart by readers with any of the common colour deficiencies; the shapes differ too.
COPY, SGEMM, ROOF = "#0072b2", "#d55e00", "#555555"


class Point(NamedTuple):
    """An operation: what it did, in which time; `weight`, its share of the whole, is the size of its mark."""

    name: str
    flops: float
    bytes: float
    seconds: float
    weight: float


def roofline(points: Sequence[Point], flops: float, bandwidth: float, title: str = "") -> Figure:
    """Draw operations under the two limits of a machine.

    Parameters
    ----------
    points : sequence of Point
        Those that compute or move nothing, or weigh less than a thousandth, are left out.
    flops : float
        Operations per second of a matrix product: the flat part of the roof.
    bandwidth : float
        Bytes per second of a copy: the slope. What stays in a cache may lie above it.
    title : str
        Above the picture.

    Returns
    -------
    matplotlib.figure.Figure

    Notes
    -----
    Source: Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model".
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    shown = [p for p in points if min(p.flops, p.bytes, p.seconds) > 0 and p.weight >= 0.001]
    intensity = np.array([p.flops / p.bytes for p in shown])
    rate = np.array([p.flops / p.seconds / 1e9 for p in shown])
    ridge = flops / bandwidth  # from this many operations per byte the product is the limit
    left = min([0.05, *intensity / 3])
    right = max([20 * ridge, *intensity * 5])
    bottom, top = min([left * bandwidth / 1e9, *rate / 3]), max([4 * flops / 1e9, *rate * 4])

    figure = Figure(figsize=(8, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(bottom, top))
    axes.plot([left, ridge], [left * bandwidth / 1e9, flops / 1e9], color=COPY, linewidth=2)
    axes.plot([ridge, right], [flops / 1e9, flops / 1e9], color=SGEMM, linewidth=2)
    bound_by = np.where(intensity < ridge, "copy", "sgemm")
    for bound, colour, marker in (("copy", COPY, "o"), ("sgemm", SGEMM, "D")):
        here = bound_by == bound
        sizes = [_radius(p) ** 2 * 4 for p, chosen in zip(shown, here, strict=True) if chosen]
        axes.scatter(intensity[here], rate[here], sizes, color=colour, marker=marker, edgecolors="white", zorder=3)
    axes.set_xlabel("operations per byte (FLOP/byte)", fontsize=15)
    axes.set_ylabel("operations per second (GFLOP/s)", fontsize=15)
    axes.tick_params(labelsize=14)
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_major_formatter(plain)
    axes.yaxis.set_major_formatter(plain)
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, fontsize=14, loc="left")
    figure.draw_without_rendering()  # fixes the layout, on which the places of the names depend
    _Names(axes, (left, right), ridge, flops / 1e9).write(shown, intensity, rate, bandwidth)
    return figure


def _radius(point: Point) -> float:
    """Of a mark, in points."""
    return 3.5 + 9 * float(np.sqrt(point.weight))


class _Names:
    """Writes names beside marks and lines, each in the first place that is still free."""

    def __init__(self, axes: Axes, ends: tuple[float, float], ridge: float, top: float) -> None:
        self.axes, self.ends, self.ridge, self.top = axes, ends, ridge, top
        self.inside = axes.get_window_extent().extents
        self.pixels = axes.figure.dpi / 72  # of a point
        self.taken: list[Sequence[float]] = []  # boxes, in pixels

    def write(self, points: Sequence[Point], intensity: np.ndarray, rate: np.ndarray, bandwidth: float) -> None:
        """The limits' names first, then the operations', the heaviest first."""
        marks = [self._pixel(x, y) for x, y in zip(intensity, rate, strict=True)]
        for (x, y), point in zip(marks, points, strict=True):
            r = self.pixels * (_radius(point) + 1)
            self.taken.append((x - r, y - r, x + r, y + r))
        roof = np.geomspace(*self.ends, 200)
        line = [self._pixel(x, self.top * min(1.0, x / self.ridge)) for x in roof]
        self.taken += [(x - 2, y - 2, x + 2, y + 2) for x, y in line]
        self._limit(f"sgemm {self.top:.0f} GFLOP/s", SGEMM, [(x, 8.0) for x in np.geomspace(self.ridge, self.ends[1])])
        self._limit(
            f"copy {bandwidth / 1e9:.1f} GB/s", COPY, [(x, dy) for dy in (12.0, 30.0) for x in roof if x < self.ridge]
        )
        for i in sorted(range(len(points)), key=lambda i: -points[i].weight):
            self._operation(points[i], marks[i])

    def _limit(self, name: str, colour: str, places: Sequence[tuple[float, float]]) -> None:
        """Write above the roof, its name ending there, at the first of these intensities and heights that is free."""
        text, width, height = self._text(name, 14, colour)
        for intensity, above in places:
            x, y = self._pixel(intensity, self.top * min(1.0, intensity / self.ridge))
            if self._put(text, x - width, y + self.pixels * above, width, height):
                return

    def _operation(self, point: Point, mark: tuple[float, float]) -> None:
        """Write beside the mark; a name that fits nowhere near is led to it by a line."""
        text, width, height = self._text(f"{point.name} {100 * point.weight:.3g}%", 13, "black")
        gap = self.pixels * (_radius(point) + 4)
        for far in range(60):
            for sign in (1, -1):
                y = mark[1] + (sign * far - 1) * 0.5 * height
                for x in (mark[0] + gap, mark[0] - gap - width, mark[0] - width / 2):
                    if self._put(text, x, y, width, height):
                        if far > 2:
                            nearest = min(max(mark[0], x), x + width), y + (height if sign < 0 else 0)
                            self._line(mark, nearest)
                        return

    def _text(self, name: str, size: int, colour: str) -> tuple[Text, float, float]:
        """A text, not yet in its place, with its width and height."""
        text = self.axes.text(0, 0, name, fontsize=size, color=colour, va="bottom", transform=self.axes.transAxes)
        box = text.get_window_extent()
        return text, box.width, box.height

    def _put(self, text: Text, x: float, y: float, width: float, height: float) -> bool:
        """Put a text there if nothing else is, within the axes."""
        box = (x, y, x + width, y + height)
        inside = self.inside
        if box[0] < inside[0] or box[1] < inside[1] or box[2] > inside[2] or box[3] > inside[3]:
            return False
        if any(_overlap(box, other) for other in self.taken):
            return False
        text.set_position(self._fraction(x, y))
        self.taken.append(box)
        return True

    def _line(self, begin: tuple[float, float], end: tuple[float, float]) -> None:
        xs, ys = zip(self._fraction(*begin), self._fraction(*end), strict=True)
        self.axes.plot(xs, ys, color=ROOF, linewidth=0.8, zorder=2, transform=self.axes.transAxes)

    def _pixel(self, x: float, y: float) -> tuple[float, float]:
        return tuple(self.axes.transData.transform((x, y)))

    def _fraction(self, x: float, y: float) -> tuple[float, float]:
        """Of the axes: what is written in these does not move when the picture is saved at another resolution."""
        return tuple(self.axes.transAxes.inverted().transform((x, y)))


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
