"""Model folders in Hugging Face's form: `config.json` beside `model.safetensors`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinyllm import safetensors
from tinyllm.errors import CheckpointError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"

Folder = str | os.PathLike[str]


def read_config(folder: Folder) -> dict[str, Any]:
    """The settings in a folder's config.json.

    Raises
    ------
    CheckpointError
        If the folder or the file is missing, or the file holds no JSON object.
    """
    path = Path(folder) / CONFIG
    if not Path(folder).is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    if not path.is_file():
        raise CheckpointError(f"{folder}: there is no {CONFIG} in it; a model's folder holds {CONFIG} and {WEIGHTS}")
    try:
        settings = json.loads(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: byte {error.start}: not UTF-8") from None
    except json.JSONDecodeError as error:
        raise CheckpointError(
            f"{path}: line {error.lineno}, column {error.colno}: not valid JSON ({error.msg}); was it cut off?"
        ) from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a model's configuration ({error})") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path}: should hold a JSON object")
    return settings


def read_weights(folder: Folder) -> dict[str, np.ndarray]:
    """The arrays in a folder's model.safetensors.

    Raises
    ------
    CheckpointError
        If the file is missing or damaged, or a weight is NaN or infinite.
    """
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        other = sorted(p.name for p in Path(folder).glob("*") if p.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        if (Path(folder) / f"{WEIGHTS}.index.json").is_file():
            why = "; its weights are split over several files, which cannot be read: save it again as one file"
        elif other:
            why = f"; {other[0]} is not read, because it may contain code: save the model again as safetensors"
        else:
            why = ""
        raise CheckpointError(f"{folder}: there is no {WEIGHTS} in it{why}")
    weights, _ = safetensors.load(path)
    for name, array in weights.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise CheckpointError(f"{path}: {name}{list(index)} is {array[index]}; a model with such weights is broken")
    return weights


def write_folder(folder: Folder, settings: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> None:
    """Write both files, each whole or not at all; the folder is made if need be.

    Raises
    ------
    CheckpointError
        If they cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder}: this folder cannot be made: {error.strerror or error}") from error
    safetensors.save(folder / WEIGHTS, weights, {"format": "pt"})
    with safetensors.replacing(folder / CONFIG) as file:
        file.write((json.dumps(settings, indent=2, sort_keys=True) + "\n").encode())
