"""The student edition: the chapters without the solutions; and the teacher's, with them.

Both are marked for nbgrader: each exercise's cell as one to be filled in, and a locked cell with its points comes after
it. nbgrader takes the solutions out by itself, so that its `source` is the teacher's edition. For otter-grader, a test
file of each exercise lies in ``tests/<chapter>/``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tinyllm.course.build import as_bytes
from tinyllm.course.exercise import Exercise, exercises
from tinyllm.course.files import ChapterError, read, sources, tags
from tinyllm.errors import DataError
from tinyllm.safetensors import replacing

SOLUTION = re.compile(r"^([ \t]*)# BEGIN SOLUTION\n.*?^[ \t]*# END SOLUTION[ \t]*$", re.MULTILINE | re.DOTALL)
TO_DO = 'raise NotImplementedError("your turn")'
DEFINES = re.compile(r"^def (\w+)\(", re.MULTILINE)
TESTS = "tests"
OTTER = """\
from otter.test_files import test_case

from tinyllm.course import examine

OK_FORMAT = False

name = "{name}"
points = {points}


@test_case()
def test_{name}(env):
    report = examine(env["{name}"])
    assert report.ok, report
"""


def without_solutions(text: str) -> str:
    """Code with ``raise NotImplementedError`` in place of what stands between the two markers.

    Raises
    ------
    DataError
        If a marker stands alone.
    """
    stripped = SOLUTION.sub(lambda m: m[1] + TO_DO, text)
    if "BEGIN SOLUTION" in stripped or "END SOLUTION" in stripped:
        raise DataError("a # BEGIN SOLUTION or # END SOLUTION stands without the other")
    return stripped


def edition(out: Path, numbers: list[str] | None = None, solutions: bool = False) -> list[Path]:
    """Write the chapters as notebooks without outputs into a new or empty folder.

    Parameters
    ----------
    out : Path
    numbers : list of str, optional
        As in `sources`.
    solutions : bool
        Leave them in.

    Returns
    -------
    list of Path
        The notebooks; the tests for otter-grader lie beside them.

    Raises
    ------
    ChapterError
        If the folder is not empty.
    DataError
        If a chapter's markers do not match, or an exercise's solution would show.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ChapterError(f"{out} exists and is not an empty folder: name another one")
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for source in sources(numbers):
        notebook = read(source)
        cells: list[Any] = []
        for cell in notebook.cells:
            cells.append(cell)
            exercise = _prepare(cell, source, solutions) if cell.cell_type == "code" else None
            if exercise:
                cells.append(_points(exercise))
                with replacing(_folder(out / TESTS / source.stem) / f"{exercise.name}.py") as file:
                    file.write(OTTER.format(name=exercise.name, points=exercise.points).encode())
        notebook.cells = cells
        path = out / source.with_suffix(".ipynb").name
        with replacing(path) as file:
            file.write(as_bytes(notebook))
        written.append(path)
    return written


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _prepare(cell: Any, source: Path, solutions: bool) -> Exercise | None:
    """Strip the cell; mark it as nbgrader does where it is to be filled in, and tell for which exercise."""
    try:
        stripped = without_solutions(cell.source)
    except DataError as error:
        raise DataError(f"{source.name}: {error}:\n{cell.source}") from error
    names = [name for name in DEFINES.findall(stripped) if name in exercises()]
    wanted = "exercise" in tags(cell) and names
    if not solutions:
        cell.source = stripped
    if not wanted:
        return None
    if TO_DO not in stripped:
        raise DataError(f"{source.name}: the solution of {names[0]} is not between # BEGIN and # END SOLUTION")
    cell.metadata["nbgrader"] = _mark(names[0], solution=True)
    return exercises()[names[0]]


def _points(exercise: Exercise) -> Any:
    """The cell that nbgrader gives an exercise's points for, if it raises nothing."""
    from nbformat.v4 import new_code_cell

    code = f"# For graders: check({exercise.name}) above says more.\nassert examine({exercise.name}).ok"
    mark = _mark(f"{exercise.name}_points", grade=True, locked=True, points=exercise.points)
    cell = new_code_cell(f"from tinyllm.course import examine\n\n{code}", metadata={"nbgrader": mark})
    cell.id = exercise.name.replace("_", "-")[:64]
    return cell


def _mark(grade_id: str, **what: Any) -> dict[str, Any]:
    """The metadata by which nbgrader knows a cell."""
    plain = {"grade": False, "locked": False, "solution": False, "task": False, "schema_version": 3}
    return plain | {"grade_id": grade_id} | what
