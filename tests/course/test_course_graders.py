"""What graders make of the student edition: our own for every chapter, nbgrader and otter-grader for one."""

import shutil

import pytest

pytest.importorskip("jupytext", reason="the chapters' tools need pip install 'tinyllm[chapters]'")

import nbformat

from tinyllm.course import exercises
from tinyllm.course.files import read, sources, tags
from tinyllm.course.grade import grade
from tinyllm.course.pace import FAST
from tinyllm.course.student import DEFINES, student_edition

SOURCES = sources()
CHAPTER = next(source for source in SOURCES if source.stem.startswith("05"))
POINTS = sum(e.points for e in exercises().values() if e.chapter == "05")


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_solutions_have_all_points_and_an_empty_submission_none(source, tmp_path):
    (page,) = student_edition(tmp_path / "edition", [source.stem])
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


@pytest.fixture
def edition(tmp_path, monkeypatch):
    """The student edition of the chapter; its experiments are short."""
    monkeypatch.setenv(FAST, "1")
    monkeypatch.chdir(tmp_path)
    return student_edition(tmp_path / "edition", ["05"])[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_nbgrader_gives_the_points(edition, tmp_path):
    pytest.importorskip("nbgrader", reason="nbgrader is not installed")
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import Config

    config = Config()
    config.CourseDirectory.root = str(tmp_path / "course")
    config.CourseDirectory.course_id = "llm"
    config.Exchange.root = str(tmp_path / "exchange")
    config.Execute.timeout = 600
    (tmp_path / "course" / "source" / "05").mkdir(parents=True)
    shutil.copy(edition, tmp_path / "course" / "source" / "05")
    api = NbGraderAPI(config=config)
    assert api.generate_assignment("05")["success"]
    released = tmp_path / "course" / "release" / "05" / edition.name
    for student in ("ada", "bob"):
        place = tmp_path / "course" / "submitted" / student / "05"
        place.mkdir(parents=True)
        nbformat.write(solved(released) if student == "ada" else nbformat.read(released, 4), place / edition.name)
        done = api.autograde("05", student)
        assert done["success"], done
    with api.gradebook as book:
        scores = {student: book.find_submission("05", student).score for student in ("ada", "bob")}
        assert book.find_assignment("05").max_score == POINTS
    assert scores == {"ada": POINTS, "bob": 0}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_otter_grader_gives_the_points(edition, tmp_path):
    pytest.importorskip("otter", reason="otter-grader is not installed")
    from otter import api
    from otter.generate import main as generate

    generate(tests_dir=str(edition.parent / "tests" / CHAPTER.stem), output_path="autograder.zip", no_environment=True)
    nbformat.write(solved(edition), "solved.ipynb")
    for page, points in (("solved.ipynb", POINTS), (str(edition), 0)):
        results = api.grade_submission(page, "autograder.zip", quiet=True)
        assert results.total == points, results
        assert results.possible == POINTS
