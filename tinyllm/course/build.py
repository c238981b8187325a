"""Making the notebooks from their Python files, and noticing when one no longer fits the other."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinyllm.course import execute
from tinyllm.course.files import read, tags
from tinyllm.safetensors import replacing

NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|\b(?:nan|inf)\b")
PATH = re.compile(r"(?:/(?:home|root|tmp|work|Users|usr|opt|var)/\S+|[A-Z]:\\\S+)")
CLOSE = 1e-6  # relative: what two libraries' rounding may change in a printed number
EXPERIMENT_CLOSE = 0.05  # of a trained model's figures, from machine to machine


def build(source: Path, fast: bool = False) -> execute.Outcome:
    """Execute a chapter in a kernel and write the notebook beside it.

    Raises
    ------
    CellError
        If a cell raises; the old notebook is kept.
    """
    notebook = read(source)
    outcome = execute.in_kernel(notebook, source.name, fast)
    with replacing(source.with_suffix(".ipynb")) as file:
        file.write(as_bytes(notebook))
    return outcome


def as_bytes(notebook: Any) -> bytes:
    """A notebook file whose bytes depend on the notebook alone."""
    return (json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def faults(source: Path, outcome: execute.Outcome | None = None, fast: bool = True) -> list[str]:
    """What is wrong with the notebook beside a chapter's Python file.

    Parameters
    ----------
    source : Path
    outcome : Outcome, optional
        Of running the chapter now: outputs in the notebook that say something else are stale. Those of cells tagged
        ``timing`` never are; those tagged ``experiment`` are compared only if `fast` is false, to 5%.
    fast : bool
        Whether it was run with short experiments.

    Returns
    -------
    list of str
        Empty if all is well.
    """
    page = source.with_suffix(".ipynb")
    if not page.exists():
        return [f"{page.name} is missing: tinyllm chapters build {source.stem[:2]}"]
    import nbformat

    notebook, fresh = nbformat.reads(page.read_text(encoding="utf-8"), as_version=4), read(source)
    there, wanted = ([(c.cell_type, c.source) for c in n.cells] for n in (notebook, fresh))
    if there != wanted:
        at = next(
            (i for i, (a, b) in enumerate(zip(there, wanted, strict=False)) if a != b), min(len(there), len(wanted))
        )
        return [f"{page.name} was made from another {source.name} (cell {at + 1}): tinyllm chapters build"]
    found = []
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(cells):
        place = f"{page.name}, code cell {number + 1}"
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"{place} shows an error")
            kinds = set(output.get("data", {})) - set(execute.KEPT_FORMATS)
            if kinds:
                found.append(f"{place} has an output of a format that is not kept: {', '.join(sorted(kinds))}")
        text = execute.text_of(cell)
        if PATH.search(text):
            found.append(f"{place} shows a path of some machine: {PATH.search(text).group()}")  # type: ignore[union-attr]
        marks = tags(cell)
        if outcome is None or "timing" in marks or ("experiment" in marks and fast):
            continue
        close = EXPERIMENT_CLOSE if "experiment" in marks else CLOSE
        if not same_but_for_rounding(text, outcome.texts[number], close):
            found.append(f"{place} is stale: it shows\n{text}\nand running it now gives\n{outcome.texts[number]}")
        if execute.pictures_of(cell) != outcome.pictures[number]:
            found.append(f"{place} is stale: {execute.pictures_of(cell)} pictures, now {outcome.pictures[number]}")
    return found


def same_but_for_rounding(a: str, b: str, close: float) -> bool:
    """Whether two texts differ at most in numbers, and those by at most `close`, relative to the larger.

    Numbers near 0 beside larger ones in the same text may differ by `close` times the largest.
    """
    if NUMBER.sub("#", a).split() != NUMBER.sub("#", b).split():
        return False
    first, second = ([_value(m) for m in NUMBER.findall(text)] for text in (a, b))
    size = max((abs(v) for v in (*first, *second) if math.isfinite(v)), default=0.0)
    near: Callable[[float, float], bool] = lambda x, y: math.isclose(x, y, rel_tol=close, abs_tol=1e-9 * size)  # noqa: E731
    return all(near(x, y) or (math.isnan(x) and math.isnan(y)) for x, y in zip(first, second, strict=True))


def _value(text: str) -> float:
    return float(text.replace(",", ""))
