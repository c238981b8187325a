"""Language models, from counting to the Transformer, and the folders they are loaded from."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from numpy.typing import DTypeLike

if TYPE_CHECKING:
    from tinyllm.models.cache import KVCache
    from tinyllm.models.gpt import GPT, GPTConfig
    from tinyllm.models.ngram import NGram
    from tinyllm.models.output import ModelOutput

__all__ = ["GPT", "GPTConfig", "KVCache", "ModelOutput", "NGram", "from_pretrained"]

_HOMES = {"GPT": "gpt", "GPTConfig": "gpt", "KVCache": "cache", "ModelOutput": "output", "NGram": "ngram"}

# What config.json may say: the class that was saved (`architectures`), else its family (`model_type`).
_ARCHITECTURES = {"GPT2LMHeadModel": "GPT", "GPT2Model": "GPT"}
_MODEL_TYPES = {"gpt2": "GPT"}


def from_pretrained(folder: str | os.PathLike[str], dtype: DTypeLike | None = None) -> Any:
    """The model in a folder, of the class that its config.json names.

    Parameters
    ----------
    folder : path
        With `config.json` and `model.safetensors`.
    dtype : dtype, optional
        As in the class's own `from_pretrained`.

    Returns
    -------
    Module

    Raises
    ------
    CheckpointError
        If the folder is incomplete or damaged, or its class is unknown.
    ConfigError
        If a setting cannot be obeyed.
    """
    from tinyllm.errors import CheckpointError
    from tinyllm.models.folder import read_config

    settings = read_config(folder)
    named, known = settings.get("architectures"), _ARCHITECTURES
    name = named[0] if isinstance(named, list) and named else None
    if name is None:
        name, known = settings.get("model_type"), _MODEL_TYPES
    if not isinstance(name, str) or name not in known:
        what = "names no model" if name is None else f"names the model {name!r}, which is unknown"
        raise CheckpointError(f"{folder}: config.json {what}; known: {', '.join(sorted(known))}")
    return _class(known[name]).from_pretrained(folder, dtype=dtype)


def _class(name: str) -> Any:
    return getattr(importlib.import_module(f"tinyllm.models.{_HOMES[name]}"), name)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return _class(name)
    raise AttributeError(f"module 'tinyllm.models' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
