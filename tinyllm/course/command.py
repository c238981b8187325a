"""What `tinyllm chapters` and `tinyllm course` do."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tinyllm.course import execute
from tinyllm.course.build import build, faults
from tinyllm.course.files import ChapterError, needs, read, sources
from tinyllm.course.form import form_faults
from tinyllm.course.grade import as_csv, grade, write_csv
from tinyllm.course.student import edition


def build_chapters(numbers: list[str]) -> dict[str, Any]:
    """Execute chapters in kernels and write their notebooks."""
    made = {}
    for source in sources(numbers):
        print(f"building {source.name}", file=sys.stderr)
        outcome = build(source)
        made[source.stem] = {"seconds": round(outcome.seconds, 1), "pictures": sum(outcome.pictures)}
    return {"built": made}


def check_chapters(numbers: list[str], full: bool = False, kernel: bool = False) -> dict[str, Any]:
    """Run chapters here, with short experiments unless `full`, and hold the notebooks beside them against it.

    With `kernel`, the first one is run in a real kernel too.
    """
    found: dict[str, Any] = {}
    start = time.perf_counter()
    for i, source in enumerate(sources(numbers)):
        wrong = form_faults(source)
        seconds = 0.0
        try:
            outcome = execute.in_process(read(source), source.name, fast=not full)
            seconds = outcome.seconds
            wrong += faults(source, outcome, fast=not full)
            if kernel and i == 0:
                execute.in_kernel(read(source), source.name, fast=True)
        except execute.CellError as error:
            wrong.append(str(error))
        found[source.stem] = {"seconds": round(seconds, 1), "faults": wrong}
        print(f"{source.stem:<28} {seconds:6.1f} s  {'ok' if not wrong else 'FAILED'}", file=sys.stderr)
    return {"chapters": found, "seconds": round(time.perf_counter() - start, 1)}


def run_chapters(numbers: list[str]) -> dict[str, Any]:
    """Run chapters here in full and print what they print."""
    for source in sources(numbers):
        outcome = execute.in_process(read(source), source.name, fast=False)
        print(f"== {source.stem} ({outcome.seconds:.1f} s, {sum(outcome.pictures)} pictures)")
        print("\n".join(text for text in outcome.texts if text))
    return {}


def open_chapters(numbers: list[str]) -> int:
    """Open chapters in JupyterLab; the notebooks are made first where they are missing."""
    needs("jupyterlab")
    pages = [source.with_suffix(".ipynb") for source in sources(numbers)]
    missing = [page.name for page in pages if not page.exists()]
    if missing:
        raise ChapterError(f"{', '.join(missing)} not made yet: tinyllm chapters build")
    target = str(pages[0]) if len(pages) == 1 else str(pages[0].parent)
    return subprocess.call([sys.executable, "-m", "jupyterlab", target])


def make_edition(out: str, numbers: list[str], solutions: bool) -> dict[str, Any]:
    """Write the chapters for students, or for teachers: with solutions."""
    return {"written": [str(path) for path in edition(Path(out), numbers, solutions)]}


def grade_class(folder: str, out: str | None, timeout: float, memory: float, quiet: bool) -> dict[str, Any]:
    """Grade a folder of submissions; the table goes to `out`, or is printed unless `quiet`."""
    grades = grade(Path(folder), timeout, memory, lambda text: print(text, file=sys.stderr))
    if out:
        write_csv(grades, Path(out))
    elif not quiet:
        print(as_csv(grades), end="")
    return {"students": {g.student: {"total": g.total, "points": g.points, "notes": g.notes} for g in grades}}
