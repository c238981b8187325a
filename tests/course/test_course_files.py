"""Chapters as files: their form, the notebooks beside them, the student edition, grading a class."""

import csv
import io
from pathlib import Path

import pytest

pytest.importorskip("jupytext", reason="the chapters' tools need pip install 'tinyllm[chapters]'")

from tinyllm.course import exercises, formula
from tinyllm.course.build import as_bytes, faults, same_but_for_rounding
from tinyllm.course.execute import CellError, Outcome, in_process
from tinyllm.course.files import ChapterError, read, sources
from tinyllm.course.form import form_faults
from tinyllm.course.grade import as_csv, grade
from tinyllm.course.student import TO_DO, edition, without_solutions
from tinyllm.errors import DataError
from tinyllm.formulas import all_formulas

SOURCES = sources()


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_every_chapter_keeps_the_form(source):
    assert form_faults(source) == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_every_notebook_was_made_from_its_source(source):
    assert faults(source) == []


@pytest.mark.parametrize("entry", [entry for entry in all_formulas() if entry.latex], ids=lambda entry: entry.id)
def test_every_formula_can_be_drawn(entry, capsys):
    formula(entry.id, printed=True)
    assert "\\" not in capsys.readouterr().out  # what matplotlib cannot typeset is printed as LaTeX


def test_the_form_is_checked(tmp_path):
    text = SOURCES[0].read_text(encoding="utf-8")
    number = SOURCES[0].stem[:2]
    name = next(name for name, e in exercises().items() if e.chapter == number)
    for change, complaint in (
        (lambda t: t.replace("## Break it", "## Try it"), "its sections are"),
        (lambda t: t.replace("**You need**", "**Bring**"), "'You need' is missing"),
        (lambda t: t.replace("# ## Summary", "# See F-NONE.\n#\n# ## Summary"), "no formula F-NONE"),
        (lambda t: t.replace(f"check({name})", "pass"), f"nothing calls check({name})"),
        (lambda t: t.replace('tags=["imports"]', 'tags=["import"]'), "unknown tag 'import'"),
        (lambda t: "\n".join(t.splitlines()[:60]), "lines; chapters have"),
    ):
        path = tmp_path / SOURCES[0].name
        path.write_text(change(text), encoding="utf-8")
        assert any(complaint in fault for fault in form_faults(path)), complaint


def chapter(tmp_path, code):
    path = tmp_path / "90_try.py"
    path.write_text(f"# %% [markdown]\n# # 90 A try\n\n# %%\n{code}\n", encoding="utf-8")
    return path


def test_running_gives_what_each_cell_printed_and_returned(tmp_path):
    path = chapter(tmp_path, "print('a')\n1 + 1\n\n# %%\nx = 3\n")
    assert in_process(read(path), "90").texts == ["a\n2", ""]
    with pytest.raises(CellError, match="code cell 1: ZeroDivisionError"):
        in_process(read(chapter(tmp_path, "1 / 0")), "90")


def test_a_notebook_that_no_longer_fits_is_noticed(tmp_path):
    path = chapter(tmp_path, "print('loss 1.25')")
    assert "is missing" in faults(path)[0]
    notebook = read(path)
    from nbformat.v4 import new_output

    code = next(cell for cell in notebook.cells if cell.cell_type == "code")
    code.outputs = [new_output("stream", name="stdout", text="loss 1.25\n")]
    page = path.with_suffix(".ipynb")
    page.write_bytes(as_bytes(notebook))
    assert faults(path, Outcome(["loss 1.2500001"], [0])) == []
    assert "is stale" in faults(path, Outcome(["loss 1.26"], [0]))[0]
    assert "pictures" in faults(path, Outcome(["loss 1.25"], [1]))[0]
    code.outputs = [new_output("display_data", data={"image/svg+xml": "<svg/>"})]
    page.write_bytes(as_bytes(notebook))
    assert "format that is not kept" in faults(path)[0]
    code.outputs = [new_output("stream", name="stdout", text="see /home/somebody/x\n")]
    page.write_bytes(as_bytes(notebook))
    assert "a path of some machine" in faults(path)[0]
    path.write_text(path.read_text() + "y = 2\n")
    assert "made from another" in faults(path)[0]


def test_numbers_may_differ_by_rounding_alone():
    assert same_but_for_rounding("loss 1.25 in 3 steps", "loss 1.2500001 in 3 steps", 1e-6)
    assert not same_but_for_rounding("loss 1.25", "loss 1.26", 1e-6)
    assert same_but_for_rounding("loss 1.25", "loss 1.26", 0.05)
    assert not same_but_for_rounding("loss 1.25", "error 1.25", 0.05)
    assert same_but_for_rounding("1,000 nan", "1,000 nan", 0)
    assert same_but_for_rounding("[1.0 1e-17]", "[1.0 3e-17]", 1e-6)


def test_solutions_are_taken_out():
    code = "def f(x):\n    # BEGIN SOLUTION\n    y = x\n    return y\n    # END SOLUTION\n\nprint(1)"
    assert without_solutions(code) == f"def f(x):\n    {TO_DO}\n\nprint(1)"
    with pytest.raises(DataError, match="without the other"):
        without_solutions("# BEGIN SOLUTION\nx = 1")


def test_student_edition_has_no_solution_and_no_output(tmp_path):
    out = tmp_path / "class"
    written = edition(out)
    assert [path.stem for path in written] == [source.stem for source in SOURCES]
    for path in written:
        text = path.read_text(encoding="utf-8")
        assert "SOLUTION" not in text
        assert all(not cell.get("outputs") for cell in read(path).cells)
    with pytest.raises(ChapterError, match="not an empty folder"):
        edition(out)


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Three students hand in the last chapter: all solutions, nothing, and one loop that never ends."""
    folder = tmp_path_factory.mktemp("class")
    source = next(s for s in SOURCES if s.stem.startswith("05"))
    empty = tmp_path_factory.mktemp("edition") / "out"
    (page,) = edition(empty, ["05"])
    text = source.read_text(encoding="utf-8")
    for student, content, name in (
        ("ada", text, source.name),
        ("bob", page.read_text(encoding="utf-8"), page.name),
        ("eve", text.replace("root = np.sqrt(q.shape[-1])", "while True: pass"), source.name),
    ):
        (folder / student).mkdir()
        (folder / student / name).write_text(content, encoding="utf-8")
    (folder / "dan").mkdir()
    (folder / "dan" / "05_attention.ipynb").write_text("{ no notebook", encoding="utf-8")
    return {g.student: g for g in grade(folder, timeout=5.0)}


def test_solutions_have_all_points_and_an_empty_submission_none(graded):
    full = sum(e.points for e in exercises().values() if e.chapter == "05")
    assert graded["ada"].total == full
    assert graded["ada"].likely == {}
    assert graded["bob"].total == 0


def test_what_hangs_or_cannot_be_read_costs_its_own_points_only(graded):
    eve, dan = graded["eve"], graded["dan"]
    assert eve.points["masked_attention_vjp"] == 0
    assert eve.points["softmax_vjp"] == 1
    assert "loop does not end" in eve.likely["masked_attention_vjp"][0]
    assert dan.total == 0
    assert "no notebook" in dan.notes[0]


def test_the_table_has_a_row_for_each_student(graded):
    rows = list(csv.DictReader(io.StringIO(as_csv(list(graded.values())))))
    assert [row["student"] for row in rows] == ["ada", "bob", "dan", "eve"]
    assert float(rows[0]["total"]) == float(rows[0]["of"])


def test_missing_things_are_named(tmp_path, monkeypatch):
    with pytest.raises(ChapterError, match="no chapter"):
        sources(["99"])
    with pytest.raises(ChapterError, match="no folder"):
        grade(tmp_path / "nobody")
    with pytest.raises(ChapterError, match="holds no chapters"):
        grade(tmp_path)
    import tinyllm

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tinyllm, "__file__", str(Path(tmp_path, "site", "tinyllm", "__init__.py")))
    with pytest.raises(ChapterError, match="come with the project's source"):
        sources()
