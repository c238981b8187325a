"""A model that has a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import DTypeLike

from tinyllm.errors import CheckpointError, TinyLLMError
from tinyllm.models import folder as files
from tinyllm.models import loading
from tinyllm.nn import Module


class Pretrained(Module):
    """What is saved to a folder and loaded from one.

    A subclass has a `config`, is made of ``(config, rng=, dtype=)``, and says in class variables what its files hold.
    """

    config: Any
    config_class: ClassVar[Any]
    sizes: ClassVar[Mapping[str, tuple[str, ...]]]  # see `loading.check_sizes`; the first weight decides the dtype
    lists: ClassVar[Mapping[str, tuple[str, str]]]
    published: ClassVar[str]  # what such files hold, for messages

    def __init__(self, config: Any, *, rng: np.random.Generator, dtype: DTypeLike = np.float32) -> None:
        raise NotImplementedError

    @classmethod
    def sizes_of(cls, config: Any) -> Mapping[str, tuple[str, ...]]:
        """`sizes`, where they do not depend on the configuration."""
        return cls.sizes

    @classmethod
    def named_as_here(cls, weights: loading.Weights, config: Any, path: Path) -> loading.Weights:
        """The parameters in a file, under their names here."""
        return weights

    @classmethod
    def config_of_file(cls, config: Any, weights: loading.Weights) -> Any:
        """The configuration, corrected by what the file has."""
        return config

    def save_pretrained(
        self, folder: files.Folder, *, dtype: str | None = None, shard_bytes: int | None = None
    ) -> None:
        """Write `config.json` and `model.safetensors`, as transformers reads them too.

        Parameters
        ----------
        folder : path
        dtype, shard_bytes : optional
            As in :func:`tinyllm.models.folder.write_folder`.

        Raises
        ------
        CheckpointError
            If they cannot be written; each file is replaced whole or not at all.
        """
        weights = self.state_dict()
        settings = self.config.to_dict() | {"dtype": next(iter(weights.values())).dtype.name}
        files.write_folder(folder, settings, weights, dtype, shard_bytes)

    @classmethod
    def from_pretrained(cls, folder: files.Folder, dtype: DTypeLike | None = None) -> Self:
        """Load a folder written by `save_pretrained`, here or in transformers.

        Parameters
        ----------
        folder : path
            With `config.json` and `model.safetensors`.
        dtype : dtype, optional
            Of the parameters; by default float64 where the file has that, else float32.

        Returns
        -------
        The model, in evaluation mode: dropout does nothing before ``model.train()``.

        Raises
        ------
        CheckpointError
            If a file is missing or damaged, the files do not belong together, or a weight is NaN or infinite.
        ConfigError
            If config.json has a setting that is unknown, impossible, or cannot be obeyed.
        """
        path = Path(folder) / files.WEIGHTS
        try:
            config = cls.config_class.from_dict(files.read_config(folder))
        except TinyLLMError as error:
            raise type(error)(loading.within(folder, files.CONFIG, error)) from None
        weights = cls.named_as_here(files.read_weights(folder), config, path)
        for name, array in weights.items():
            if array.dtype.kind != "f":
                raise CheckpointError(f"{path}: {name} holds {array.dtype}, but weights are floating")
        config = cls.config_of_file(config, weights)
        sizes = cls.sizes_of(config)
        loading.check_sizes(config, weights, sizes, cls.lists, cls.published, folder)
        if dtype is None:
            dtype = np.float64 if weights[next(iter(sizes))].dtype == np.float64 else np.float32
        model = cls(config, rng=loading.NoDraws(), dtype=dtype)  # type: ignore[arg-type]
        try:
            model.load_state_dict(weights, copy=False)
        except CheckpointError as error:
            raise CheckpointError(loading.within(folder, files.WEIGHTS, error)) from None
        model.eval()
        return model
