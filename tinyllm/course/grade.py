"""Grading a class: each submission's exercises, run in processes of their own, with limits."""

from __future__ import annotations

import ast
import csv
import io
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tinyllm.course.exercise import exercises
from tinyllm.course.files import ChapterError, read, tags
from tinyllm.course.student import DEFINES
from tinyllm.errors import DataError
from tinyllm.safetensors import replacing
from tinyllm.testing.suite.config import Config
from tinyllm.testing.suite.run import FAILURES, FileError, check_file

LAWS = "tinyllm.course.laws"
CHAPTER = re.compile(r"(\d\d)_\w+\.(?:ipynb|py)")


@dataclass
class Grade:
    """What one student's submission is worth.

    Attributes
    ----------
    student : str
    points : dict from exercise to points
    likely : dict from exercise to the likely mistakes
    notes : list of str
        What could not be graded, and why.
    seconds : float
    """

    student: str
    points: dict[str, float] = field(default_factory=dict)
    likely: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def total(self) -> float:
        """All points together."""
        return sum(self.points.values())


def submissions(folder: Path) -> Iterator[tuple[str, list[Path]]]:
    """Each student's name and files: a folder for each student, or a file for each, ``NAME-05_attention.ipynb``.

    Raises
    ------
    ChapterError
        If there is nothing to grade.
    """
    if not folder.is_dir():
        raise ChapterError(f"{folder} is no folder of submissions")
    students: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        match = CHAPTER.search(path.name)
        if path.is_file() and match and ".ipynb_checkpoints" not in path.parts:
            inside = path.relative_to(folder).parts[:-1]
            name = inside[0] if inside else path.name[: match.start()].rstrip("-_ ") or path.stem
            students.setdefault(name, []).append(path)
    if not students:
        raise ChapterError(
            f"{folder} holds no chapters: one folder for each student, in it files such as 05_attention.ipynb"
        )
    yield from students.items()


def grade(
    folder: Path,
    timeout: float = 10.0,
    memory: float = 1024.0,
    progress: Callable[[str], None] | None = None,
) -> list[Grade]:
    """Grade every submission in a folder.

    Parameters
    ----------
    folder : Path
        As `submissions` reads it.
    timeout, memory : float
        Seconds and MiB for each check.
    progress : callable, optional
        Told which student is being graded.
    """
    grades = []
    for student, paths in submissions(folder):
        if progress:
            progress(f"grading {student}")
        found, start = Grade(student), time.perf_counter()
        for path in paths:
            _grade_file(path, found, timeout, memory)
        found.seconds = time.perf_counter() - start
        grades.append(found)
    return grades


def _grade_file(path: Path, found: Grade, timeout: float, memory: float) -> None:
    match = CHAPTER.search(path.name)
    assert match
    wanted = [e for e in exercises().values() if e.chapter == match[1]]
    for exercise in wanted:
        found.points.setdefault(exercise.name, 0.0)
    if not wanted:
        found.notes.append(f"{path.name}: chapter {match[1]} has no exercises")
        return
    try:
        code = submitted_code(path)
    except DataError as error:
        found.notes.append(str(error))
        return
    config = Config(
        only=tuple(e.name for e in wanted),
        required=tuple(e.name for e in wanted),
        laws=(LAWS,),
        timeout=timeout,
        memory=memory,
    )
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, f"{path.stem}.py")
        file.write_text(code, encoding="utf-8")
        try:
            result = check_file(file, config)
        except FileError as error:
            found.notes.append(f"{path.name}: {error}")
            return
    if any(check.law == "load" for check in result.checks):
        found.notes.append(f"{path.name}: {result.checks[0].message}")
        return
    for exercise in wanted:
        checks = [c for c in result.checks if c.function == exercise.name and c.status != "skipped"]
        passed = sum(c.status == "passed" for c in checks)
        found.points[exercise.name] = exercise.points * passed / len(checks) if checks else 0.0
        likely = [said for c in checks if c.status in FAILURES for said in (c.likely or [c.message.splitlines()[0]])]
        if likely:
            found.likely[exercise.name] = list(dict.fromkeys(likely))


def submitted_code(path: Path) -> str:
    """The part of a submission that is graded: its imports, and what the cells that solve an exercise define.

    What such a cell does beside defining things (printing, calling `check`) is left out.

    Raises
    ------
    DataError
        If the file cannot be read.
    """
    known = exercises()
    parts = []
    for cell in read(path).cells:
        if cell.cell_type != "code":
            continue
        solves = any(name in known for name in DEFINES.findall(cell.source))
        if solves or "imports" in tags(cell):
            parts.append(_definitions(cell.source))
    return "\n\n\n".join(parts) + "\n"


def _definitions(code: str) -> str:
    """Code without its top-level expressions and magics; as it is, where it is no Python."""
    lines = ["" if line.lstrip().startswith(("%", "!")) else line for line in code.splitlines()]
    try:
        tree = ast.parse("\n".join(lines))
    except SyntaxError:
        return code
    tree.body = [node for node in tree.body if not isinstance(node, ast.Expr)]
    return ast.unparse(tree)


def as_csv(grades: list[Grade]) -> str:
    """A table: a row for each student, a column for each exercise, the total, seconds, likely mistakes and notes."""
    names = [name for name in exercises() if any(name in g.points for g in grades)]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["student", "total", "of", *names, "seconds", "likely mistakes", "notes"])
    full = sum(exercises()[name].points for name in names)
    for g in grades:
        points = [f"{g.points.get(name, 0.0):.2f}" for name in names]
        likely = "; ".join(f"{name}: {said[0]}" for name, said in g.likely.items())
        table.writerow([g.student, f"{g.total:.2f}", full, *points, f"{g.seconds:.1f}", likely, "; ".join(g.notes)])
    return text.getvalue()


def write_csv(grades: list[Grade], path: Path) -> None:
    """`as_csv` into a file, whole or not at all."""
    with replacing(path) as file:
        file.write(as_csv(grades).encode())
