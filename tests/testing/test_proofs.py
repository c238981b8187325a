"""`tinyllm proofs`: the table of checked derivatives."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tinyllm as tl
from tinyllm.cli import main
from tinyllm.testing import gradcheck, proofs
from tinyllm.testing.drawn import DRAWN, KINDS, Shapes, drawn
from tinyllm.testing.mutants.cases import CASES, Case, real


def test_the_table_has_a_row_for_each_backend(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["proofs", "--op", "softmax", "--op", "add"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["softmax", "numpy", "ok", "ok", "ok", "ok"] in lines
    assert ["softmax", "numba", "ok", "ok", "ok", "ok"] in lines
    assert ["add", "numpy", "ok", "ok", "ok", "ok"] in lines
    assert ["12", "of", "12", "checks", "passed", "(seed", "0,", "6", "drawn", "shapes", "each)"] in lines


def test_a_wrong_derivative_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    detached = Case(lambda x: tl.exp(x) + tl.sin(x).detach(), (real(2, 3),))
    monkeypatch.setitem(CASES, "exp", [detached])
    assert proofs.main(json=True, ops=["exp"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["failed"] == 4  # to order 2 includes order 1
    assert "exp" in {p["op"] for p in found["proofs"] if p["complaint"]}


def test_a_derivative_that_is_wrong_at_one_kind_of_shape_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table's own case has two axes; this one is wrong where an axis has length 1."""

    def case(shapes: Shapes) -> Case:
        shape = shapes.any()
        return Case(lambda x: tl.exp(x).detach() if 1 in shape else tl.exp(x), (real(*shape),))

    monkeypatch.setitem(DRAWN, "exp", case)
    assert not any(p.complaint for p in proofs.run(["exp"], draws=2))
    assert all("at shapes" in p.complaint and "(exp)" not in p.complaint for p in proofs.run(["exp"], draws=3))


def test_every_operation_has_drawn_shapes_of_every_kind() -> None:
    assert set(DRAWN) == set(CASES)
    shapes = {kind: [x.shape for _, xs in _of_all(kind) for x in xs] for kind in KINDS}
    assert sum(shape == () for shape in shapes["0-d"]) > 30
    assert sum(0 in shape for shape in shapes["empty"]) > 50
    assert sum(1 in shape for shape in shapes["axes of 1"]) > 50
    assert sum(len({x.shape for x in xs}) > 1 for _, xs in _of_all("broadcast")) > 15


def _of_all(kind: str) -> list[tuple[object, list[np.ndarray]]]:
    return [drawn(row, kind, np.random.default_rng(k)) for k, row in enumerate(DRAWN)]


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(list(CASES)), st.sampled_from(KINDS), st.integers(0, 2**16))
def test_every_derivative_is_right_at_drawn_shapes(row: str, kind: str, seed: int) -> None:
    f, inputs = drawn(row, kind, np.random.default_rng(seed))
    gradcheck(f, *inputs, order=2)


@pytest.mark.parametrize("row", CASES)
def test_every_operation_passes_a_draw(row: str) -> None:
    """One kind of shape for each, another for each row; `tinyllm proofs` takes them all."""
    k = list(CASES).index(row)
    f, inputs = drawn(row, KINDS[k % len(KINDS)], np.random.default_rng(k))
    gradcheck(f, *inputs, order=2)


def test_an_unknown_operation_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["proofs", "--op", "sofmax"]) == 2
    assert "did you mean 'softmax'" in capsys.readouterr().err
