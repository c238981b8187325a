"""Where the chapters are, and reading them: percent cells in a Python file, a notebook made from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import tinyllm
from tinyllm.errors import DataError, TinyLLMError, nearest

FOLDER = "chapters"
NUMBERED = re.compile(r"(\d\d)_(\w+)\.py")


class ChapterError(TinyLLMError, LookupError):
    """A chapter, or what is needed to work with it, that is not there."""


def folder() -> Path:
    """The folder of the chapters: in the working directory, or beside the package in a clone.

    Raises
    ------
    ChapterError
        If there is none.
    """
    for place in (Path.cwd() / FOLDER, Path(tinyllm.__file__).resolve().parents[1] / FOLDER):
        if any(NUMBERED.fullmatch(path.name) for path in place.glob("*.py")):
            return place
    raise ChapterError(
        "the chapters are not part of the installed package: they come with the project's source, in its folder "
        f"{FOLDER}/. Get the source of version {tinyllm.__version__}, install it with pip install -e '.[chapters]', "
        "and call this from there"
    )


def sources(numbers: list[str] | None = None) -> list[Path]:
    """The Python files of all chapters, or of those asked for, in order.

    Parameters
    ----------
    numbers : list of str, optional
        Such as ``["05"]``; also ``5``, or a part of the name.

    Raises
    ------
    ChapterError
        If there is no such chapter.
    """
    every = sorted(path for path in folder().glob("*.py") if NUMBERED.fullmatch(path.name))
    if not numbers:
        return every
    chosen = []
    for asked in numbers:
        wanted = asked.zfill(2) if asked.isdigit() else asked
        found = [path for path in every if path.stem[:2] == wanted or (not asked.isdigit() and asked in path.stem)]
        if len(found) != 1:
            known = [path.stem for path in every]
            what = f"{asked!r} names {len(found)} chapters" if found else f"there is no chapter {asked!r}"
            raise ChapterError(f"{what}{nearest(asked, known)}")
        chosen += found
    return chosen


def needs(*modules: str) -> None:
    """Raise ChapterError unless these packages are there."""
    import importlib.util

    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ChapterError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed: "
            "pip install -e '.[chapters]' in a clone of the project"
        )


def read(path: Path) -> Any:
    """A chapter's Python file, or a notebook, as a notebook whose cells have fixed names and no outputs.

    Raises
    ------
    DataError
        If the file is neither.
    """
    needs("jupytext", "nbformat")
    import jupytext
    import nbformat

    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            notebook = nbformat.reads(text, as_version=4)
        else:
            notebook = jupytext.reads(text, fmt="py:percent")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except Exception as error:
        raise DataError(f"{path} is no notebook: {error}") from error
    for i, cell in enumerate(notebook.cells):
        cell.id = f"{path.stem[:2]}-{i:03d}"
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "jupytext": {"formats": "ipynb,py:percent", "main_language": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def tags(cell: Any) -> set[str]:
    """The tags of a cell."""
    return set(cell.metadata.get("tags", ()))
