"""`tinyllm proofs`: the table of checked derivatives."""

import json

import pytest

import tinyllm as tl
from tinyllm.cli import main
from tinyllm.testing import proofs
from tinyllm.testing.mutants.cases import CASES, Case, real


def test_the_table_has_a_row_for_each_backend(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["proofs", "--op", "softmax", "--op", "add"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["softmax", "numpy", "ok", "ok", "ok", "ok"] in lines
    assert ["softmax", "numba", "ok", "ok", "ok", "ok"] in lines
    assert ["add", "numpy", "ok", "ok", "ok", "ok"] in lines
    assert ["12", "of", "12", "checks", "passed", "(seed", "0)"] in lines


def test_a_wrong_derivative_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    detached = Case(lambda x: tl.exp(x) + tl.sin(x).detach(), (real(2, 3),))
    monkeypatch.setitem(CASES, "exp", [detached])
    assert proofs.main(json=True, ops=["exp"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["failed"] == 4  # to order 2 includes order 1
    assert "exp" in {p["op"] for p in found["proofs"] if p["complaint"]}


def test_an_unknown_operation_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["proofs", "--op", "sofmax"]) == 2
    assert "did you mean 'softmax'" in capsys.readouterr().err
