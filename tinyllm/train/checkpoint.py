"""Everything that resuming a run needs, in one safetensors file.

Arrays are the file's tensors; all else is JSON in its metadata, with the name of a tensor where an array stood. The
file is written beside its place and put there by one rename, so whenever a run dies, the last checkpoint is whole.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tinyllm import safetensors
from tinyllm.errors import CheckpointError

FILE = "checkpoint.safetensors"
_FORMAT = "tinyllm checkpoint 1"


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a state: nested dicts and lists of arrays, numbers, strings, booleans and None.

    Raises
    ------
    CheckpointError
        If it cannot be written; the file that was there is left as it was.
    """
    tensors: dict[str, np.ndarray] = {}
    tree = _pack(state, "", tensors)
    metadata = {"format": _FORMAT, "state": json.dumps(tree)}
    safetensors.save(path, tensors, metadata)


def load(path: Path) -> dict[str, Any]:
    """Read a state that `save` wrote.

    Raises
    ------
    CheckpointError
        For a file that is missing, damaged, or no checkpoint of tinyllm.
    """
    if not path.exists():
        raise CheckpointError(f"there is no {path.name} in {path.parent}: it is not a run that can be resumed")
    tensors, metadata = safetensors.load(path)
    if metadata.get("format") != _FORMAT or "state" not in metadata:
        raise CheckpointError(
            f"{path} is no checkpoint of this version of tinyllm (format: {metadata.get('format')!r})"
        )
    try:
        return _unpack(json.loads(metadata["state"]), tensors)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: its metadata do not fit its tensors ({error!r})") from error


def _pack(value: Any, name: str, tensors: dict[str, np.ndarray]) -> Any:
    """`value` as JSON; each array goes to `tensors` under its path, and the path stands in its place."""
    if isinstance(value, np.ndarray):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        prefix = f"{name}." if name else ""
        # Pairs, because the keys of JSON's objects are strings only.
        return {"dict": [[key, _pack(item, f"{prefix}{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_pack(item, f"{name}.{place}", tensors) for place, item in enumerate(value)]}
    return {"value": value}


def _unpack(packed: Any, tensors: dict[str, np.ndarray]) -> Any:
    """The inverse of `_pack` (a tuple comes back as a list)."""
    kind, value = next(iter(packed.items()))
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: _unpack(item, tensors) for key, item in value}
    if kind == "list":
        return [_unpack(item, tensors) for item in value]
    return value
