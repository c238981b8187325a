"""The roofline picture: names that can be read, colours and shapes that tell the limits apart."""

import itertools

import numpy as np
import pytest

from tinyllm.viz import save_figure
from tinyllm.viz.roofline import COPY, SGEMM, Point, roofline

NAMES = ["linear", "scaled_dot_product_attention", "gelu", "layer_norm", "add", "embedding", "cross_entropy", "getitem"]


def points(seed):
    rng = np.random.default_rng(seed)
    return [
        Point(name, 10 ** rng.uniform(6, 11), 10 ** rng.uniform(6, 9), 10 ** rng.uniform(-3, 0), rng.uniform(0.01, 0.5))
        for name in NAMES
    ]


@pytest.mark.parametrize("seed", range(6))
def test_no_name_covers_another_or_leaves_the_axes(seed):
    figure = roofline(points(seed), 1e11, 1e10, "title")
    axes = figure.axes[0]
    assert {name for name in NAMES if any(text.get_text().startswith(name) for text in axes.texts)} == set(NAMES)
    boxes = [text.get_window_extent() for text in axes.texts]
    inside = axes.get_window_extent()
    for a, b in itertools.combinations(boxes, 2):
        assert not a.overlaps(b)
    for box in boxes:
        assert inside.x0 <= box.x0
        assert box.x1 <= inside.x1
        assert inside.y0 <= box.y0
        assert box.y1 <= inside.y1


def test_text_is_ascii_and_large():
    figure = roofline(points(0), 1e11, 1e10, "A step")
    axes = figure.axes[0]
    texts = [*axes.texts, axes.xaxis.label, axes.yaxis.label]
    assert axes.get_title(loc="left") == "A step"
    assert all(text.get_text().isascii() and text.get_fontsize() >= 13 for text in texts)


def test_what_computes_or_weighs_nothing_is_left_out():
    figure = roofline([Point("view", 0, 10, 1, 0.5), Point("tiny", 1, 1, 1, 1e-5), Point("add", 1, 1, 1, 0.5)], 9, 9)
    assert [text.get_text() for text in figure.axes[0].texts if "/s" not in text.get_text()] == ["add 50%"]


def test_the_two_kinds_differ_in_colour_and_shape():
    both = [Point("a", 1e10, 1e6, 1, 0.5), Point("b", 1e6, 1e6, 1, 0.5)]
    copy, sgemm = roofline(both, 1e11, 1e10).axes[0].collections
    assert len(copy.get_paths()[0].vertices) != len(sgemm.get_paths()[0].vertices)
    assert COPY != SGEMM


def test_it_can_be_saved(tmp_path):
    assert save_figure(roofline(points(1), 1e11, 1e10), tmp_path / "r.png").stat().st_size > 10_000


@pytest.mark.parametrize("found", [[], [Point("a", 1, 1, 1, 1)]])
def test_few_points(found):
    roofline(found, 1e11, 1e10)
