"""From a folder's files to a model: names brought to the model's own, sizes compared before anything is made of them.

What a file claims is held against what it holds: a configuration may ask for more memory than there is, but the weights
beside it say how much it can honestly mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tinyllm.errors import CheckpointError
from tinyllm.models import folder as files

Weights = dict[str, np.ndarray]


class NoDraws:
    """In a generator's place where every weight is about to be loaded."""

    def normal(self, mean: float, std: float, shape: tuple[int, ...]) -> _Zeros:
        """Zeros, which cost nothing until they are written to."""
        return _Zeros(shape)

    uniform = normal


class _Zeros:
    """What `numpy.array` copies as zeros without reading any: memory that nobody has touched takes no time or place."""

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> None:
        self.shape, self.dtype = shape, dtype

    def astype(self, dtype: DTypeLike) -> _Zeros:
        """The same, of another dtype."""
        return _Zeros(self.shape, dtype)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.zeros(self.shape, self.dtype if dtype is None else dtype)


def within(folder: files.Folder, name: str, error: Exception) -> str:
    """The error's message, with the file if it does not name the folder already."""
    return str(error) if str(folder) in str(error) else f"{Path(folder) / name}: {error}"


def named_as_here(
    weights: Mapping[str, np.ndarray], prefix: str, buffers: tuple[str, ...], table: str, tied: bool, path: Path
) -> Weights:
    """The parameters in a file, under their names here.

    Parameters
    ----------
    weights : mapping of str to array
    prefix : str
        What a file of the bare model, without its head, has not before its names.
    buffers : tuple of str
        Ends of names that are no parameters, but constants which old files hold.
    table : str
        Name of the embeddings.
    tied : bool
        Whether the head is the embeddings: then it may be there as a copy, which is left out here.
    path : Path
        For the messages.

    Raises
    ------
    CheckpointError
        If a weight is not floating, or the copy differs.
    """
    named = {}
    for name, array in weights.items():
        if name.endswith(buffers):
            continue
        if not name.startswith((f"{prefix}.", "lm_head.")):
            name = f"{prefix}.{name}"
        if array.dtype.kind != "f":
            raise CheckpointError(f"{path}: {name} holds {array.dtype}, but weights are floating")
        named[name] = array
    if tied and "lm_head.weight" in named:
        if table not in named or not np.array_equal(named["lm_head.weight"], named[table]):
            raise CheckpointError(
                f"{path}: lm_head.weight differs from {table}, but config.json says that they are one "
                "(tie_word_embeddings: true)"
            )
        del named["lm_head.weight"]
    return named


def check_sizes(
    config: Any,
    weights: Weights,
    sizes: Mapping[str, tuple[str, ...]],
    lists: Mapping[str, tuple[str, str]],
    what: str,
    folder: files.Folder,
) -> None:
    """Hold the configuration's sizes against the weights', before anything of these sizes is made.

    Parameters
    ----------
    config : a model's configuration
    weights : dict of str to array
    sizes : mapping of str to tuple of str
        Names of weights, and the settings that are the lengths of their axes.
    lists : mapping of str to (str, str)
        Beginnings of names that go on with a number; the setting that says how many there are, and of what.
    what : str
        What such a file holds.
    folder : path
        For the messages.

    Raises
    ------
    CheckpointError
        If the two files do not belong together.
    """
    for name, settings in sizes.items():
        if name not in weights:
            raise CheckpointError(f"{Path(folder) / files.WEIGHTS}: {name} is missing; this is no {what}")
        expected = tuple(getattr(config, setting) for setting in settings)
        if weights[name].shape != expected:
            wants = ", ".join(f"{setting}={n}" for setting, n in zip(settings, expected, strict=True))
            raise CheckpointError(
                f"{folder}: {files.CONFIG} says {wants}, but {name} in {files.WEIGHTS} has shape "
                f"{weights[name].shape}: the two files do not belong together"
            )
    for start, (setting, noun) in lists.items():
        count = len({name[len(start) :].split(".")[0] for name in weights if name.startswith(start)})
        if count != getattr(config, setting):
            raise CheckpointError(
                f"{folder}: {files.CONFIG} says {setting}={getattr(config, setting)}, but {files.WEIGHTS} has {count} "
                f"{noun}: the two files do not belong together"
            )
