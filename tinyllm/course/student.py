"""The student edition: the chapters without the solutions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tinyllm.course.build import as_bytes
from tinyllm.course.exercise import exercises
from tinyllm.course.files import ChapterError, read, sources, tags
from tinyllm.errors import DataError
from tinyllm.safetensors import replacing

SOLUTION = re.compile(r"^([ \t]*)# BEGIN SOLUTION\n.*?^[ \t]*# END SOLUTION[ \t]*$", re.MULTILINE | re.DOTALL)
TO_DO = 'raise NotImplementedError("your turn")'
DEFINES = re.compile(r"^def (\w+)\(", re.MULTILINE)


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


def student_edition(out: Path, numbers: list[str] | None = None) -> list[Path]:
    """Write the chapters as notebooks without solutions and outputs into a new or empty folder.

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
        for cell in notebook.cells:
            if cell.cell_type == "code":
                _prepare(cell, source)
        path = out / source.with_suffix(".ipynb").name
        with replacing(path) as file:
            file.write(as_bytes(notebook))
        written.append(path)
    return written


def _prepare(cell: Any, source: Path) -> None:
    """Strip the cell; mark it as nbgrader does where it is to be filled in."""
    try:
        cell.source = without_solutions(cell.source)
    except DataError as error:
        raise DataError(f"{source.name}: {error}:\n{cell.source}") from error
    names = [name for name in DEFINES.findall(cell.source) if name in exercises()]
    if "exercise" in tags(cell) and names:
        if TO_DO not in cell.source:
            raise DataError(f"{source.name}: the solution of {names[0]} is not between # BEGIN and # END SOLUTION")
        cell.metadata["nbgrader"] = {
            "grade": False,
            "grade_id": names[0],
            "locked": False,
            "schema_version": 3,
            "solution": True,
            "task": False,
        }
