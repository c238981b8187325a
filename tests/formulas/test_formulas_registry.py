"""The registry holds every id of the documents, and each entry what its status promises."""

import ast
import dataclasses
import math
import os.path
import re
from pathlib import Path

import numpy as np
import pytest

from tinyllm.errors import TinyLLMError
from tinyllm.formulas import Erratum, Formula, FormulaError, all_formulas, gaps, get, resolve
from tinyllm.formulas.entry import DOCUMENTS, literal, where

ROOT = Path(__file__).parents[2]


def ids(text: str) -> list[str]:
    return text.split()


FORMULAS = ids(
    "F-ATTN F-CE F-MSE F-BLOCK F-LM F-EMB F-ATTN-004 F-MLP-004 F-ACT F-PE F-SGD F-ADAM F-INIT F-DROP F-LSTM F-MLM "
    "F-MOE F-EVAL"
)
PROCEDURES = ids("P-PREP P-TRAIN P-LOOP P-TRANSFER P-SAT P-NEWS")
SAMPLES = ids("C-000 C-001 C-002a C-002b C-002c C-002d C-004")
CLAIMS = ids("E-SUPERVISED E-SCALING E-FLOWCHART E-BERT-DOI E-TRANSFORMER-DOI E-ORDER E-ENCODER-DECODER E-LOCAL-OPTIMA")
WITH_ERRATA = {"F-CE", "F-LM", "F-ATTN-004", "F-MLP-004", "P-LOOP", *SAMPLES, *CLAIMS}

entries = pytest.mark.parametrize("entry", all_formulas(), ids=lambda entry: entry.id)


def test_every_id_has_its_entry():
    assert {entry.id for entry in all_formulas()} == {*FORMULAS, *PROCEDURES, *SAMPLES, *CLAIMS}
    assert [entry.kind for entry in all_formulas()] == sorted(
        (entry.kind for entry in all_formulas()), key=["formula", "procedure", "sample", "claim"].index
    )


@entries
def test_no_entry_lacks_what_it_promises(entry):
    assert gaps(entry, ROOT) == []


def test_errata_are_where_they_are_known_to_be():
    assert {entry.id for entry in all_formulas() if entry.errata} == WITH_ERRATA


@entries
def test_places_are_in_the_documents(entry):
    for document, section in entry.where:
        assert document in DOCUMENTS.values()
        assert section[0].isdigit() or section in ("title", "references")


@entries
def test_latex_is_balanced(entry):
    for text in (entry.latex, entry.printed):
        depth = 0
        for c in text.replace(r"\{", "").replace(r"\}", ""):
            depth += (c == "{") - (c == "}")
            assert depth >= 0
        assert depth == 0
        assert len(re.findall(r"\\left(?![a-z])", text)) == len(re.findall(r"\\right(?![a-z])", text))
        assert "$" not in text


@entries
def test_what_can_be_shown_is_shown(entry):
    for erratum in entry.errata:
        if erratum.show is not None:
            assert len(erratum.show()) > 5


@entries
def test_loops_say_what_they_compute(entry):
    for function in (*entry.loops, *entry.as_printed):
        assert function.__doc__
        assert function.__module__.startswith("tinyllm.formulas.")


def test_get_names_the_nearest_id():
    assert get("F-ATTN").title == "Scaled dot-product attention"
    with pytest.raises(FormulaError, match="did you mean 'F-ADAM'"):
        get("F-ADAMM")
    assert issubclass(FormulaError, TinyLLMError)


def test_loops_import_nothing_but_numpy():
    standard = {"__future__", "math", "random", "collections", "dataclasses", "functools", "typing"}
    # for reading samples and sources and resolving names, not for computing
    tools = {"ast", "builtins", "importlib", "inspect", "pathlib", "re", "sys", "textwrap"}
    own = ("tinyllm.formulas", "tinyllm.errors")
    for file in (ROOT / "tinyllm" / "formulas").glob("*.py"):
        allowed = {"numpy"} | standard | (tools if file.stem in ("registry", "samples", "show") else set())
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            else:
                continue
            for name in names:
                assert name.startswith(own) or name.split(".")[0] in allowed, (file.name, name)


# --- the inspector is inspected ---------------------------------------------------------------------------------------

SOUND = Formula(
    id="F-X",
    kind="formula",
    title="x",
    meaning="x",
    where=where("000 1"),
    latex="x",
    axes="x",
    loops=(len,),
    as_printed=(len,),
    library=("math.sqrt",),
    tests=("tests/formulas/test_formulas_registry.py::test_every_id_has_its_entry",),
    errata=(Erratum("a", "b", "tests/formulas/test_formulas_registry.py::test_every_id_has_its_entry"),),
)


def test_a_sound_entry_has_no_gaps():
    assert gaps(SOUND, ROOT) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": "P-X"}, "does not fit"),
        ({"title": ""}, "no title"),
        ({"where": ()}, "no where"),
        ({"latex": ""}, "latex"),
        ({"loops": ()}, "no loops"),
        ({"tests": ()}, "no tests"),
        ({"tests": ("tests/formulas/test_nowhere.py::test_x",)}, "no test file"),
        ({"tests": ("tests/formulas/test_formulas_registry.py::test_nothing",)}, "no test tests"),
        ({"errata": ()}, "no erratum"),
        ({"as_printed": ()}, "no code shows"),
        ({"errata": (Erratum("a", "b", "tests/formulas/test_nowhere.py::test_x"),)}, "no test file"),
        ({"library": ()}, "no library"),
        ({"library": ("math.nothing",)}, "no library code"),
        ({"library": ("nowhere.nothing",)}, "no library code"),
        ({"status": "open"}, "no reason"),
        ({"status": "open", "reason": "later"}, "close it"),
        ({"status": "open", "reason": "later", "library": ()}, "close it"),
        ({"kernels": ("tinyllm.kernels.cpu.softmax.nothing",)}, "no kernel"),
        ({"status": "done"}, "unknown status"),
    ],
)
def test_a_lacking_entry_is_found_out(change, said):
    assert any(said in gap for gap in gaps(dataclasses.replace(SOUND, **change), ROOT))


def test_an_open_entry_may_lack_its_library_code():
    assert gaps(dataclasses.replace(SOUND, status="open", reason="later", library=("nowhere.nothing",)), ROOT) == []


def test_resolve_finds_what_is_named():
    assert resolve("math.sqrt") is math.sqrt
    assert resolve("os.path.join") is os.path.join
    with pytest.raises(AttributeError):
        resolve("math.nothing.at.all")


def test_literal_hands_on_plain_numbers(rng):
    @literal
    def types(x, *, y=None):
        return type(x), type(x[0]), type(y)

    assert types(np.ones(2, np.float32), y=np.float32(1)) == (list, float, float)
    assert types([np.ones(2)]) == (list, list, type(None))
