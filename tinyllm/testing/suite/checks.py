"""The checks of a file that has been loaded, and how each of them ends."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyllm.testing.problem import quiet
from tinyllm.testing.suite.answer import Answer, Topic
from tinyllm.testing.suite.config import fits
from tinyllm.testing.suite.discover import find
from tinyllm.testing.suite.outcome import Broken, NotApplicable
from tinyllm.testing.suite.signature import Argument
from tinyllm.testing.suite.table import LAWS, Law
from tinyllm.testing.suite.topics import TOPICS


@dataclass(frozen=True)
class Runnable:
    """A law for an answer.

    Attributes
    ----------
    says : str
        What the law demands.
    run : callable
        Raises, or returns what was remarked.
    """

    says: str
    run: Callable[[], list[str]]


def collect(
    namespace: Mapping[str, Any], module: str, only: Sequence[str] = (), skip: Sequence[str] = ()
) -> tuple[list[str], dict[str, Runnable]]:
    """The functions found in a file, and the checks to run, by name and in order."""
    found = find(namespace, module, LAWS)
    checks: dict[str, Runnable] = {}
    for name, claim in found.items():
        answer = Answer(name, TOPICS.get(name) or _own_topic(claim.forward), claim.forward, claim.backward)
        for law in LAWS[name]:
            full = f"{name}.{law.__name__}"
            wanted = not only or any(fits(p, full) for p in only)
            if wanted and not any(fits(p, full) for p in skip):
                checks[full] = bound(law, answer)
    have = [name for name, claim in found.items() if claim.forward is not None]
    have += [name + "_backward" for name, claim in found.items() if claim.backward is not None]
    return have, checks


def bound(law: Law, answer: Answer) -> Runnable:
    """A law with the answer that it is to judge."""

    def run() -> list[str]:
        answer.remarks.clear()
        with quiet():
            law(answer)
        return list(answer.remarks)

    return Runnable((law.__doc__ or law.__name__.replace("_", " ")).strip().splitlines()[0], run)


def _own_topic(function: Callable[..., Any] | None) -> Topic:
    """For a function that only a teacher's laws know: its own parameters are its arguments."""
    parameters = [] if function is None else inspect.signature(function).parameters.values()
    arguments = tuple(Argument(p.name, optional=p.default is not p.empty) for p in parameters)
    return Topic(arguments, formula=None, cases=lambda rng: [])


def guarded(run: Callable[[], Any], path: str) -> dict[str, Any]:
    """Run something of the file at `path`, and say how it ended."""
    try:
        remarks = run()
    except Broken as broken:
        return {"status": "failed", "message": broken.message, "likely": list(broken.likely)}
    except NotApplicable as reason:
        return {"status": "skipped", "message": str(reason)}
    except BaseException as error:
        said, likely = _in_words(error)
        return {"status": "error", "message": shortened(said) + _place(error, path), "likely": likely}
    return {"status": "passed", "message": "; ".join(remarks or ())}


def _in_words(error: BaseException) -> tuple[str, list[str]]:
    """What happened, and what usually leads to it."""
    if isinstance(error, MemoryError):
        return "it ran out of memory", ["an array that grows without end, or axes that broadcast into each other"]
    if isinstance(error, SystemExit):
        return f"it calls exit({error.code!r})", ["a function returns or raises; it does not end the program"]
    if isinstance(error, RecursionError):
        return "it calls itself without end", []
    text = str(error)
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, SyntaxError) and error.text:
        said += f"\n    {error.text.strip()}"
    if "could not be broadcast" in text or "shape mismatch" in text:
        return said, ["shapes do not fit: keepdims=True is missing in a sum, mean or max, or an axis is the wrong one"]
    if "read-only" in text:
        return said, ["an operation in place: work on a copy"]
    if isinstance(error, TypeError) and "Tensor" in text:
        return said, ["NumPy functions do not take Tensors: use those of tinyllm"]
    if isinstance(error, ModuleNotFoundError):
        return said, ["the file is checked alone in a clean folder: name what it needs under `files` in the TOML file"]
    return said, []


def shortened(text: str, length: int = 2000) -> str:
    """Text that fits on a screen."""
    return text if len(text) <= length else text[:length] + f"... ({len(text)} characters)"


def _place(error: BaseException, path: str) -> str:
    """The line of the file in which an exception arose."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    if not frames:
        return ""
    last = frames[-1]
    return f"\n    {Path(path).name}, line {last.lineno}, in {last.name}: {last.line}"
