"""Running a chapter: in a kernel of its own, to make the notebook; or within this process, to test it in a moment."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tinyllm.autograd import tape
from tinyllm.course.check import STRICT
from tinyllm.course.files import needs
from tinyllm.course.pace import FAST
from tinyllm.errors import TinyLLMError
from tinyllm.viz.notebook import STATIC

KEPT_FORMATS = ("text/plain", "image/png")  # what every reader of notebooks shows, and keeps
CELL_SECONDS = 900
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class CellError(TinyLLMError, RuntimeError):
    """A cell of a chapter that raised."""


@dataclass
class Outcome:
    """What running a chapter gave.

    Attributes
    ----------
    texts : list of str
        What each code cell printed and returned.
    pictures : list of int
        How many pictures it showed.
    seconds : float
    """

    texts: list[str] = field(default_factory=list)
    pictures: list[int] = field(default_factory=list)
    seconds: float = 0.0


@contextlib.contextmanager
def _setting(fast: bool) -> Iterator[None]:
    """The environment in which chapters are executed to be read or tested."""
    # The notebooks show what every reader would see, with or without the data folder of the tests.
    wanted = {STATIC: "1", STRICT: "1", FAST: "1" if fast else None, "TINYLLM_DATA": None}
    before = {name: os.environ.get(name) for name in wanted}
    try:
        for name, value in wanted.items():
            _set(name, value)
        yield
    finally:
        for name, value in before.items():
            _set(name, value)


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def in_process(notebook: Any, name: str, fast: bool = True) -> Outcome:
    """Run the code cells of a notebook here, one after the other, in a name space of their own.

    Raises
    ------
    CellError
        If a cell raises; with its number and the end of the traceback.
    """
    needs("IPython")
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    outcome, start = Outcome(), time.perf_counter()
    tape.sequence = itertools.count()  # nodes are numbered as in a kernel of the chapter's own
    InteractiveShell.clear_instance()  # a name space of its own for each chapter
    shell = InteractiveShell.instance()  # the one that `display` finds
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    with _setting(fast), tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        for number, cell in enumerate(cells):
            with capture_output() as captured:
                result = shell.run_cell(cell.source, store_history=False)
            error = result.error_before_exec or result.error_in_exec
            if error is not None:
                raise CellError(
                    f"{name}, code cell {number + 1}: {type(error).__name__}: {error}\n{_end(captured.stdout)}\n"
                    f"--- the cell:\n{cell.source}"
                ) from error
            outcome.texts.append(_plain(captured.stdout))
            outcome.pictures.append(sum("image/png" in output.data for output in captured.outputs))
    outcome.seconds = time.perf_counter() - start
    return outcome


def in_kernel(notebook: Any, name: str, fast: bool = False) -> Outcome:
    """Run a notebook in a kernel of its own, leaving in it only outputs that are text or PNG.

    Raises
    ------
    CellError
        If a cell raises, or takes longer than 15 minutes.
    """
    needs("nbclient", "ipykernel")
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    start = time.perf_counter()
    with _setting(fast), tempfile.TemporaryDirectory() as scratch:
        resources = {"metadata": {"path": scratch}}
        client = NotebookClient(notebook, timeout=CELL_SECONDS, record_timing=False, resources=resources)
        try:
            client.execute()
        except (CellExecutionError, CellTimeoutError) as error:
            raise CellError(f"{name}: {error}") from error
    notebook.metadata.pop("language_info", None)
    outcome = Outcome(seconds=time.perf_counter() - start)
    count = 0
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        count += 1
        cell.outputs = _tidy(cell.outputs, count)
        cell.execution_count = count
        outcome.texts.append(text_of(cell))
        outcome.pictures.append(pictures_of(cell))
    return outcome


def text_of(cell: Any) -> str:
    """What an executed cell printed and returned."""
    parts = []
    for output in cell.outputs:
        if output.output_type == "stream":
            parts.append(output.text)
        elif output.output_type == "execute_result":
            parts.append(output.data.get("text/plain", "") + "\n")
    return _plain("".join(parts))


def pictures_of(cell: Any) -> int:
    """How many pictures an executed cell shows."""
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


def _tidy(outputs: list[Any], count: int) -> list[Any]:
    """Streams joined, other formats dropped, nothing that changes from run to run."""
    kept: list[Any] = []
    for output in outputs:
        if output.output_type == "stream":
            if output.name == "stderr":  # progress, which a page does not need
                continue
            if kept and kept[-1].output_type == "stream":
                kept[-1].text += output.text
                continue
        elif "data" in output:
            output.data = {kind: value for kind, value in output.data.items() if kind in KEPT_FORMATS}
            if "image/png" in output.data:
                output.data.pop("text/plain", None)
            if not output.data:
                continue
            if output.output_type == "execute_result":
                output.execution_count = count
        kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            output.text = ADDRESS.sub("", output.text)
        elif "text/plain" in output.get("data", {}):
            output.data["text/plain"] = ADDRESS.sub("", output.data["text/plain"])
    return kept


def _plain(text: str) -> str:
    """Text without colours, addresses, and the prompts that a shell without a terminal writes."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    text = re.sub(r"^Out\[\d*\]: ?\n?", "", text, flags=re.MULTILINE)
    return ADDRESS.sub("", text).strip()


def _end(text: str, lines: int = 12) -> str:
    return "\n".join(_plain(text).splitlines()[-lines:])
