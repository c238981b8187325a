"""The form that every chapter has, so that a reader who knows one finds their way in all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tinyllm.course.exercise import exercises
from tinyllm.course.files import read, tags
from tinyllm.course.student import DEFINES
from tinyllm.formulas import all_formulas

# The sections of a chapter, in this order.
SECTIONS = (
    "The question",
    "The formula",
    "By hand",
    "Step through",
    "All at once",
    "The derivative",
    "On real data",
    "Exercises",
    "Break it",
    "What the field reports",
    "Summary",
    "Glossary",
)
HEAD = ("You will learn", "You need")
LINES = (150, 400)
EXERCISES = (3, 5)
HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
FORMULA_ID = re.compile(r"\b[FPCE]-[A-Z0-9]+(?:-[A-Z0-9]+)*[a-z]?\b|\bC-\d{3}[a-z]?\b")
CJK = re.compile("[\u4e00-\u9fff]")


def form_faults(source: Path) -> list[str]:
    """What in a chapter does not keep the form: sections and their order, length, exercises, formula ids, tags."""
    notebook = read(source)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    number = source.stem[:2]
    found = []
    headings = [h.split(":")[0].strip() for h in HEADING.findall(text)]
    sections = [h for h in headings if h in SECTIONS]
    if sections != list(SECTIONS):
        found.append(f"{source.name}: its sections are {sections}, and should be {list(SECTIONS)}")
    first = notebook.cells[0].source
    if not first.startswith(f"# {number} "):
        found.append(f"{source.name}: the first line should be '# {number} Title'")
    found += [f"{source.name}: {head!r} is missing at the top" for head in HEAD if head not in first]
    length = len([line for line in source.read_text(encoding="utf-8").splitlines() if line.strip()])
    if not LINES[0] <= length <= LINES[1]:
        found.append(f"{source.name}: {length} lines; chapters have {LINES[0]} to {LINES[1]}")
    known = {formula.id for formula in all_formulas()}
    every = "\n".join(cell.source for cell in notebook.cells)
    for name in sorted(set(FORMULA_ID.findall(every)) - known):
        found.append(f"{source.name}: there is no formula {name}")
    solved = [name for cell in code if "exercise" in tags(cell) for name in DEFINES.findall(cell.source)]
    expected = [name for name, e in exercises().items() if e.chapter == number]
    if [name for name in solved if name in exercises()] != expected:
        found.append(f"{source.name}: solves {solved}, and chapter {number} has the exercises {expected}")
    if not EXERCISES[0] <= len(expected) <= EXERCISES[1]:
        found.append(f"{source.name}: {len(expected)} exercises; chapters have {EXERCISES[0]} to {EXERCISES[1]}")
    for name in expected:
        if not any(f"check({name})" in cell.source for cell in code):
            found.append(f"{source.name}: nothing calls check({name})")
    if not CJK.search(_section(text, "Glossary")):
        found.append(f"{source.name}: the glossary lacks the Chinese terms")
    found += _tag_faults(source, code)
    return found


def _section(text: str, name: str) -> str:
    parts = re.split(r"^## ", text, flags=re.MULTILINE)
    return next((part for part in parts if part.startswith(name)), "")


def _tag_faults(source: Path, code: list[Any]) -> list[str]:
    known = {"timing", "experiment", "exercise", "imports"}
    used = {tag for cell in code for tag in tags(cell)}
    found = [f"{source.name}: unknown tag {tag!r}; known: {', '.join(sorted(known))}" for tag in sorted(used - known)]
    if "imports" not in used:
        found.append(f"{source.name}: no cell is tagged imports")
    return found
