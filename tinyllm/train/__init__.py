"""Training: the loop, its checkpoints, the settings, and the main job from a corpus to a run folder."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyllm.train.console import Console
    from tinyllm.train.run import Interrupted, resume, train
    from tinyllm.train.settings import Settings
    from tinyllm.train.trainer import DivergedError, Plan, Trainer, mean_loss
    from tinyllm.train.use import complete, describe, evaluate

__all__ = [
    "Console",
    "DivergedError",
    "Interrupted",
    "Plan",
    "Settings",
    "Trainer",
    "complete",
    "describe",
    "evaluate",
    "mean_loss",
    "resume",
    "train",
]

_HOMES = {
    "Console": "console",
    "DivergedError": "trainer",
    "Interrupted": "run",
    "Plan": "trainer",
    "Settings": "settings",
    "Trainer": "trainer",
    "complete": "use",
    "describe": "use",
    "evaluate": "use",
    "mean_loss": "trainer",
    "resume": "run",
    "train": "run",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"tinyllm.train.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'tinyllm.train' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
