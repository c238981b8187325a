"""Tasks that turn one text into another, each with data of its own, baselines and metrics, and questions about a text.

`tinyllm train --task NAME` trains them, and `task` here gives one by its name.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinyllm.tasks.pair_task import PairTask

__all__ = ["PAIR_TASKS", "task"]

# Where each task is defined: a module whose TASKS holds it.
_HOMES = {
    "translation": "translation",
    "summarisation": "summarisation",
    "word-problems": "word_problems",
    "sort": "sequences",
    "copy": "sequences",
    "reverse": "sequences",
    "addition": "sequences",
    "pronunciation": "pronunciation",
    "dialogue": "dialogue",
}

PAIR_TASKS = tuple(_HOMES)


def task(name: str) -> PairTask:
    """The task of this name, one of `PAIR_TASKS`."""
    tasks: dict[str, PairTask] = importlib.import_module(f"tinyllm.tasks.{_HOMES[name]}").TASKS
    return tasks[name]
