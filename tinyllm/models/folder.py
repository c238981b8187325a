"""Model folders in Hugging Face's form: `config.json` beside `model.safetensors`.

Weights that are too large for one file lie in several, ``model-00001-of-00003.safetensors`` and so on, beside
`model.safetensors.index.json`, which says which file has which tensor.
"""

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
INDEX = f"{WEIGHTS}.index.json"

_CHECKED = 1 << 18  # numbers that are looked at together, so that the flags stay in the processor's cache

# A mapped file is not copied when it is read. Windows does not let a file be replaced while it is mapped, so that a
# model could not be saved where it came from.
_MAPPED = os.name != "nt"

Folder = str | os.PathLike[str]


def read_config(folder: Folder) -> dict[str, Any]:
    """The settings in a folder's config.json.

    Raises
    ------
    CheckpointError
        If the folder or the file is missing, or the file holds no JSON object.
    """
    if not Path(folder).is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    if not (Path(folder) / CONFIG).is_file():
        raise CheckpointError(f"{folder}: there is no {CONFIG} in it; a model's folder holds {CONFIG} and {WEIGHTS}")
    return read_object(Path(folder) / CONFIG)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model's folder."""
    try:
        value = json.loads(path.read_bytes().decode("utf-8"))
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
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: should hold a JSON object")
    return value


def read_weights(folder: Folder) -> dict[str, np.ndarray]:
    """The arrays in a folder's model.safetensors, or in the files that its index names.

    They lie in the mapped files: a caller that writes to them changes its own copy alone.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, the files disagree with their index, or a weight is NaN or infinite.
    """
    folder = Path(folder)
    if (folder / WEIGHTS).is_file():
        return _read_finite(folder / WEIGHTS)
    if (folder / INDEX).is_file():
        return _read_shards(folder)
    other = sorted(p.name for p in folder.glob("*") if p.suffix in (".bin", ".pt", ".pth", ".ckpt"))
    code = f"; {other[0]} is not read, because it may contain code: save it again as safetensors" if other else ""
    raise CheckpointError(f"{folder}: there is no {WEIGHTS} in it{code}")


def _read_shards(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of all the files that the index names, if it is right about each of them."""
    index = folder / INDEX
    where = read_object(index).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise CheckpointError(f"{index}: 'weight_map' should be an object: a tensor's name -> the file it is in")
    for name, file in where.items():
        if not isinstance(file, str) or Path(file).name != file or not file.isprintable() or len(file.encode()) > 255:
            said = f"{file!r:.99}"
            raise CheckpointError(f"{index}: {name} should be in a file of this folder, but is said to be in {said}")
    weights: dict[str, np.ndarray] = {}
    for file in sorted(set(where.values())):
        if not (folder / file).is_file():
            raise CheckpointError(f"{folder}: {file} is missing, which {INDEX} names")
        shard = _read_finite(folder / file)
        promised = {name for name in where if where[name] == file}
        if promised != shard.keys():
            name = min(promised ^ shard.keys())
            what = "is not in it" if name in promised else f"is in it, but {INDEX} does not say so"
            raise CheckpointError(f"{folder / file}: {name} {what}; the files do not belong together")
        weights |= shard
    return weights


def _read_finite(path: Path) -> dict[str, np.ndarray]:
    """The arrays in a safetensors file, all of whose numbers are finite."""
    weights, _ = safetensors.load(path, mapped=_MAPPED)
    for name, array in weights.items():
        refuse_broken(path, name, array)
    return weights


def refuse_broken(path: Path, name: str, array: np.ndarray) -> None:
    """CheckpointError where a weight of a file is NaN or infinite."""
    flat = array.reshape(-1)
    parts = (flat[start : start + _CHECKED] for start in range(0, flat.size, _CHECKED))
    if array.dtype.kind == "f" and not all(np.isfinite(part).all() for part in parts):
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise CheckpointError(f"{path}: {name}{list(index)} is {array[index]}; a model with such weights is broken")


def write_folder(
    folder: Folder,
    settings: Mapping[str, Any],
    weights: Mapping[str, np.ndarray],
    dtype: str | None = None,
    shard_bytes: int | None = None,
) -> None:
    """Write the settings and the weights, each file whole or not at all; the folder is made if need be.

    Parameters
    ----------
    folder : path
    settings : mapping
        For config.json.
    weights : mapping of str to array
    dtype : {"float64", "float32", "float16", "bfloat16"}, optional
        What the weights are rounded to, as config.json then says; each is written as it is without it.
    shard_bytes : int, optional
        Begin another file where one would hold more bytes of weights than this; one file without it.

    Raises
    ------
    CheckpointError
        If they cannot be written, or a weight is too large for `dtype`.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder}: this folder cannot be made: {error.strerror or error}") from error
    shards = [dict(weights)] if shard_bytes is None else _shards(weights, dtype, shard_bytes)
    if len(shards) == 1:
        safetensors.save(folder / WEIGHTS, shards[0], {"format": "pt"}, dtype)
        (folder / INDEX).unlink(missing_ok=True)
    else:
        where: dict[str, str] = {}
        for number, shard in enumerate(shards, 1):
            file = f"model-{number:05}-of-{len(shards):05}.safetensors"
            safetensors.save(folder / file, shard, {"format": "pt"}, dtype)
            where |= dict.fromkeys(shard, file)
        total = sum(_bytes(array, dtype) for array in weights.values())
        _write_object(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": where})
        (folder / WEIGHTS).unlink(missing_ok=True)  # it would be read first
    _write_object(folder / CONFIG, {**settings, "dtype": dtype} if dtype else settings)


def _shards(weights: Mapping[str, np.ndarray], dtype: str | None, most: int) -> list[dict[str, np.ndarray]]:
    """The weights in their order, cut where a file would hold more than `most` bytes; a larger tensor is alone."""
    shards: list[dict[str, np.ndarray]] = [{}]
    room = most
    for name, array in weights.items():
        size = _bytes(array, dtype)
        if size > room and shards[-1]:
            shards.append({})
            room = most
        shards[-1][name] = array
        room -= size
    return shards


def _bytes(array: np.ndarray, dtype: str | None) -> int:
    """How many bytes `array` takes in a file of this dtype."""
    width = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
    return array.size * (width[dtype] if dtype and array.dtype.kind == "f" else array.itemsize)


def _write_object(path: Path, value: Mapping[str, Any]) -> None:
    with safetensors.replacing(path) as file:
        file.write((json.dumps(value, indent=2, sort_keys=True) + "\n").encode())
