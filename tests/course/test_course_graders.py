"""What graders make of the student edition: our own for every chapter, nbgrader and otter-grader for one."""

import json
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("jupytext", reason="the chapters' tools need pip install 'tinyllm[chapters]'")

import nbformat

from tinyllm.course import exercises
from tinyllm.course.files import read, sources, tags
from tinyllm.course.grade import grade
from tinyllm.course.pace import FAST
from tinyllm.course.student import DEFINES, edition

SOURCES = sources()
CHAPTER = next(source for source in SOURCES if source.stem.startswith("05"))
POINTS = sum(e.points for e in exercises().values() if e.chapter == "05")


@pytest.fixture(autouse=True)
def fast(tmp_path, monkeypatch):
    """Experiments are short; what graders leave behind lies in a folder of its own."""
    monkeypatch.setenv(FAST, "1")
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_solutions_have_all_points_and_an_empty_submission_none(source, tmp_path):
    (page,) = edition(tmp_path / "edition", [source.stem])
    for student, path in (("ada", source), ("bob", page)):
        (tmp_path / "class" / student).mkdir(parents=True)
        shutil.copy(path, tmp_path / "class" / student)
    ada, bob = grade(tmp_path / "class")
    assert ada.total == sum(e.points for e in exercises().values() if e.chapter == source.stem[:2]) > 0
    assert (ada.notes, ada.likely) == ([], {})
    assert bob.total == 0


def solved(page):
    """A notebook of the student edition with the solutions in it; every other cell is as it was."""
    notebook = nbformat.read(page, as_version=4)
    solutions = {DEFINES.findall(c.source)[0]: c.source for c in read(CHAPTER).cells if "exercise" in tags(c)}
    for cell in notebook.cells:
        names = DEFINES.findall(cell.source) if cell.cell_type == "code" else []
        if names and names[0] in solutions and "SOLUTION" not in cell.source:
            cell.source = solutions[names[0]]
    return notebook


def run(tool, *arguments, folder):
    """A command of this environment, in a folder; what it said where it failed."""
    command = [sys.executable, "-m", tool, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_nbgrader_gives_the_points(tmp_path):
    pytest.importorskip("nbgrader", reason="nbgrader is not installed")
    from nbgrader.api import Gradebook

    course = tmp_path / "course"
    (page,) = edition(course / "source" / "05", ["05"], solutions=True)
    (course / "nbgrader_config.py").write_text("c = get_config()\nc.CourseDirectory.course_id = 'llm'\n")
    run("nbgrader", "generate_assignment", "05", folder=course)
    released = course / "release" / "05" / page.name
    assert "SOLUTION" not in released.read_text(encoding="utf-8")
    for student in ("ada", "bob"):
        place = course / "submitted" / student / "05"
        place.mkdir(parents=True)
        nbformat.write(solved(released) if student == "ada" else nbformat.read(released, 4), place / page.name)
    run("nbgrader", "autograde", "05", folder=course)
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        scores = {student: book.find_submission("05", student).score for student in ("ada", "bob")}
        assert book.find_assignment("05").max_score == POINTS
    assert scores == {"ada": POINTS, "bob": 0}


@pytest.mark.slow
def test_otter_grader_gives_the_points(tmp_path):
    pytest.importorskip("otter", reason="otter-grader is not installed")
    (empty,) = edition(tmp_path / "edition", ["05"])
    run("otter", "generate", "-t", tmp_path / "edition" / "tests" / CHAPTER.stem, "--no-environment", folder=tmp_path)
    nbformat.write(solved(empty), tmp_path / "solved.ipynb")
    for page, points in ((tmp_path / "solved.ipynb", POINTS), (empty, 0)):
        run("otter", "run", "-a", "autograder.zip", "-o", tmp_path, page, folder=tmp_path)
        tests = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["tests"]
        assert sum(test.get("score", 0) for test in tests) == points
        assert sum(test.get("max_score", 0) for test in tests) == POINTS
