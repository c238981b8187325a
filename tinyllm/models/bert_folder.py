"""BERT's folders: names of other times and heads of other tasks, brought to what a class expects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import DTypeLike

from tinyllm.errors import CheckpointError, ConfigError, TinyLLMError, nearest
from tinyllm.models import folder as files
from tinyllm.models.bert_config import BERTConfig
from tinyllm.models.loading import NoDraws, Weights, check_sizes, within
from tinyllm.nn import Module

_BODY = ("embeddings.", "encoder.", "pooler.")
# What belongs to a task, not to the body: a class passes over what it has no place for, and may draw what it lacks.
_HEADS = ("pooler.", "bert.pooler.", "cls.", "classifier.", "qa_outputs.")
_DECODER = "cls.predictions.decoder."


class PretrainedBERT(Module):
    """A BERT with or without a head, and its folder.

    Attributes
    ----------
    architecture : str
        The name of the class in transformers.
    body : str
        What stands before the body's names: nothing in a bare BERT.
    """

    architecture: ClassVar[str]
    body: ClassVar[str] = "bert."
    config: BERTConfig

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
        if f"{_DECODER}weight" in weights:  # an untied decoder has the bias under its own name there
            weights[f"{_DECODER}bias"] = weights["cls.predictions.bias"]
        settings = self.config.to_dict() | {"architectures": [self.architecture]}
        settings["dtype"] = next(iter(weights.values())).dtype.name
        files.write_folder(folder, settings, weights, dtype, shard_bytes)

    @classmethod
    def from_pretrained(
        cls,
        folder: files.Folder,
        dtype: DTypeLike | None = None,
        *,
        rng: np.random.Generator | None = None,
        **settings: Any,
    ) -> Self:
        """Load a folder written by `save_pretrained`, here or in transformers.

        Parameters
        ----------
        folder : path
            With `config.json` and `model.safetensors`. Heads that this class does not have are passed over.
        dtype : dtype, optional
            Of the parameters; by default float64 where the file has that, else float32.
        rng : numpy Generator, optional
            Draws the head (and the pooler) that the file lacks, or has for another number of labels. Without it such a
            file is refused.
        **settings
            Settings of the `BERTConfig` that take the place of the file's, such as ``num_labels``.

        Returns
        -------
        The model, in evaluation mode: dropout does nothing before ``model.train()``.

        Raises
        ------
        CheckpointError
            If a file is missing or damaged, the files do not belong together, a weight is NaN or infinite, or the head
            is missing and there is no `rng`.
        ConfigError
            If config.json has a setting that is unknown, impossible, or cannot be obeyed.
        """
        path, body = Path(folder) / files.WEIGHTS, cls.body
        try:
            saved = BERTConfig.from_dict(files.read_config(folder))
        except TinyLLMError as error:
            raise type(error)(within(folder, files.CONFIG, error)) from None
        config = _changed(saved, settings)
        weights = _named_as_here(files.read_weights(folder), body, config.tie_word_embeddings, path)
        sizes = {
            _table(body): ("vocab_size", "hidden_size"),
            f"{body}embeddings.position_embeddings.weight": ("max_position_embeddings", "hidden_size"),
            f"{body}embeddings.token_type_embeddings.weight": ("type_vocab_size", "hidden_size"),
            f"{body}encoder.layer.0.intermediate.dense.weight": ("intermediate_size", "hidden_size"),
        }
        check_sizes(saved, weights, sizes, {f"{body}encoder.layer.": ("num_hidden_layers", "blocks")}, "BERT", folder)
        if config.num_labels != saved.num_labels:
            weights = {name: w for name, w in weights.items() if not name.startswith(("classifier.", "qa_outputs."))}
        if dtype is None:
            dtype = np.float64 if weights[_table(body)].dtype == np.float64 else np.float32
        model = cls._for(config, weights, rng or NoDraws(), dtype)  # type: ignore[arg-type]
        own = dict(model.named_parameters())
        new = {name: p.data for name, p in own.items() if name.startswith(_HEADS) and name not in weights}
        if new and rng is None:
            raise CheckpointError(
                f"{path}: {', '.join(new)} is missing: these weights were not trained for the task of a "
                f"{cls.__name__}; to begin with a new head, give from_pretrained an rng"
            )
        kept = {name: w for name, w in weights.items() if name in own or not name.startswith(_HEADS)}
        try:
            model.load_state_dict(kept | new, copy=False)
        except CheckpointError as error:
            raise CheckpointError(within(folder, files.WEIGHTS, error)) from None
        model.eval()
        return model

    @classmethod
    def _for(cls, config: BERTConfig, weights: Weights, rng: np.random.Generator, dtype: DTypeLike) -> Self:
        """A model with places for the weights."""
        return cls(config, rng=rng, dtype=dtype)  # type: ignore[call-arg]


def _table(body: str) -> str:
    return f"{body}embeddings.word_embeddings.weight"


def _changed(saved: BERTConfig, settings: dict[str, Any]) -> BERTConfig:
    """The configuration with some settings changed; new labels take the place of all the old ones."""
    if "num_labels" in settings:
        settings = {"id2label": None, **settings}
    elif settings.get("id2label"):
        settings = {"num_labels": len(settings["id2label"]), **settings}
    try:
        return replace(saved, **settings)
    except TypeError:
        unknown = next(name for name in settings if not hasattr(saved, name))
        raise ConfigError(f"unknown setting {unknown!r}{nearest(unknown, vars(saved))}") from None


def _named_as_here(weights: Weights, body: str, tied: bool, path: Path) -> Weights:
    """The parameters in a file, under their names here.

    A file of the bare model has no "bert." before the names. Old files call the parameters of norms gamma and beta, and
    hold the positions as a buffer. What is tied may be there as a copy.
    """
    named = {}
    for name, array in weights.items():
        core = name.removeprefix("bert.").replace("LayerNorm.gamma", "LayerNorm.weight")
        core = core.replace("LayerNorm.beta", "LayerNorm.bias")
        if core in ("embeddings.position_ids", "embeddings.token_type_ids"):
            continue
        if array.dtype.kind != "f":
            raise CheckpointError(f"{path}: {name} holds {array.dtype}, but weights are floating")
        named[body + core if core.startswith(_BODY) else core] = array
    decoder, bias = named.get(f"{_DECODER}weight"), named.pop(f"{_DECODER}bias", None)
    if bias is not None:  # the one that is used, where there are two
        named["cls.predictions.bias"] = bias
    if tied and decoder is not None:
        if not np.array_equal(decoder, named.get(_table(body), ())):
            raise CheckpointError(
                f"{path}: {_DECODER}weight differs from {_table(body)}, but config.json says that they are one "
                "(tie_word_embeddings: true)"
            )
        del named[f"{_DECODER}weight"]
    return named
