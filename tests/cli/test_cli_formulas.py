"""`tinyllm formulas`."""

import json

import pytest

from tinyllm import formulas
from tinyllm.cli import main


def test_without_an_id_every_formula_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["formulas"]) == 0
    ids = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert ids == [entry.id for entry in formulas.all_formulas()]


def test_with_an_id_its_ladder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["formulas", "F-ATTN"]) == 0
    text = capsys.readouterr().out
    for rung in ("softmax", "def attention(", "scaled_dot_product_attention", "def attention_vjp("):
        assert rung in text


def test_json_is_one_object_by_id(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["formulas", "F-CE", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["F-CE"]
    assert found["F-CE"]["library"] == ["tinyllm.cross_entropy"]


def test_an_unknown_id_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["formulas", "F-ATN"]) == 2
    assert "did you mean 'F-ATTN'" in capsys.readouterr().err
