"""Pictures of the tape: what is drawn, and that steps back change it."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_hex

import tinyllm as tl
from tinyllm.viz import attention_map, distributions, draw_tape, save_figure, step_backward
from tinyllm.viz.fonts import label_fonts
from tinyllm.viz.tape import CURRENT, _boxes, _place


def texts(figure):
    return [t.get_text() for axes in figure.axes for t in axes.texts]


def png(figure):
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


@pytest.fixture
def small():
    x = tl.tensor([1.0, -2.0], requires_grad=True)
    w = tl.tensor([[0.5, 0.25], [1.0, 2.0]], requires_grad=True)
    y = tl.tanh(x @ w)
    return x, w, tl.sum(y * y)


def test_every_op_and_leaf_is_drawn_once(small):
    x, w, loss = small
    drawn = texts(draw_tape(loss, names={"x": x, "w": w}))
    for name in ("tanh", "multiply", "sum"):
        assert sum(text.endswith(f": {name}") for text in drawn) == 1
    assert drawn.count("x") == 1
    assert drawn.count("w") == 1
    assert "[1 -2]" in drawn, "the values of small arrays stand beside their arrows"


def test_gradients_appear_as_steps_bring_them(small):
    x, _, loss = small
    steps = list(tl.backward_steps(loss, retain_graph=True))
    counts = [len(texts(draw_tape(loss, steps[:n]))) for n in range(len(steps) + 1)]
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]
    gradient = " ".join(f"{v:.3g}" for v in x.grad.data)
    assert f"[{gradient}]" in texts(draw_tape(loss, steps))
    assert f"[{gradient}]" not in texts(draw_tape(loss, steps[:1]))


def test_the_last_step_is_highlighted(small):
    _, _, loss = small
    steps = list(tl.backward_steps(loss, retain_graph=True))
    (axes,) = draw_tape(loss, steps[:2]).axes
    boxes = [(t.get_text(), t.get_bbox_patch()) for t in axes.texts if t.get_bbox_patch()]
    lit = [text for text, patch in boxes if to_hex(patch.get_facecolor()) == CURRENT]
    assert len(lit) == 1
    assert lit[0].endswith(steps[1].node.op.name)


def test_no_two_boxes_overlap_up_to_60_nodes():
    rng = np.random.default_rng(0)
    x = tl.tensor(rng.normal(size=(2, 3)), requires_grad=True)
    y = x
    for i in range(20):
        y = tl.tanh(y * tl.tensor(rng.normal(size=(2, 3)), requires_grad=True)) + (x if i % 3 else y)
    boxes = _boxes(tl.sum(y), {})
    assert sum(box.node is not None for box in boxes) >= 60
    _place(boxes)
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert abs(a.x - b.x) > 0.9 or abs(a.y - b.y) > 0.9, (a.label, b.label)
    for box in boxes:  # an arrow in one column goes down
        assert all(source.column != box.column or source.y < box.y for source in box.inputs)


def test_a_tape_that_is_gone_cannot_be_drawn(small):
    _, _, loss = small
    loss.backward()
    with pytest.raises(ValueError, match="retain_graph"):
        draw_tape(loss)
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_tape(tl.tensor(1.0))


def test_walk_has_a_picture_for_each_step_and_leaves_the_tape(small):
    x, w, loss = small
    walk = step_backward(loss, names={"x": x, "w": w})
    assert len(walk) == len(walk.steps) >= 4
    assert "tanh" in repr(walk)
    assert walk._repr_png_().startswith(b"\x89PNG")
    assert x.grad is not None
    loss.backward()  # the tape is still there
    with pytest.raises(IndexError):
        walk.figure(len(walk))


def test_pictures_are_the_same_each_time(small):
    _, _, loss = small
    assert png(draw_tape(loss)) == png(draw_tape(loss))


def test_attention_map_has_a_panel_for_each_head_and_numbers(tmp_path):
    weights = np.full((2, 2, 3), 1 / 3)
    figure = attention_map(weights, ["the", "cat"], ["a", "b", "c"])
    assert texts(figure).count("0.33") == 12
    assert save_figure(figure, tmp_path / "map.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="do not fit 2 queries and 2 keys"):
        attention_map(weights, ["the", "cat"])


def test_labels_show_what_no_font_has():
    with label_fonts(["a b", "\n", "$", "\ufdd9\U00013000", ""]) as labels:
        assert labels["a b"] == "a\u2423b"
        assert labels["\n"] == r"\n"
        assert labels["$"] == r"\$"
        assert labels["\ufdd9\U00013000"] in (r"\ufdd9U+13000", "\\ufdd9\U00013000")
        assert labels[""] == "''"


def test_distributions_name_each_layer_and_what_is_not_finite():
    figure = distributions({"layer 0": np.arange(10.0), "layer 1": np.array([1.0, np.nan])})
    labels = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert labels[0].startswith("layer 0: std 2.9")
    assert labels[1].endswith("1 not finite")
    with pytest.raises(ValueError, match="layer 2"):
        distributions({"layer 2": np.array([np.nan])})
