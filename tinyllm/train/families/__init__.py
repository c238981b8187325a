"""The models that `tinyllm train` knows, by the name of the setting `model`: each family in a file of its own.

A family's file has two functions: ``make_model(settings, tokenizer)``, a new model, and ``make_objective(model,
tokenizer, settings)``, what it is trained for.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from tinyllm.errors import ConfigError
from tinyllm.text import Tokenizer
from tinyllm.train.settings import Settings

# The class of each family's model, by which a folder that says nothing of its training is recognised.
_FAMILY_OF = {
    "GPT": "gpt",
    "Llama": "llama",
    "Mixtral": "mixtral",
    "LSTMLanguageModel": "lstm",
    "BERTForMaskedLM": "bert",
    "Transformer": "transformer",
    "PointerTransformer": "pointer",
    "RNNEncoderDecoder": "rnn",
}

#: Models of one text, and models that read one text and write another.
ONE_TEXT = ("gpt", "llama", "mixtral", "lstm", "bert")
TWO_TEXTS = ("transformer", "pointer", "rnn", "rnn-bahdanau", "rnn-luong")


def make_model(settings: Settings, tokenizer: Tokenizer) -> Any:
    """A new model of the family that the settings name, with random weights, on their device."""
    model = _file(settings.model).make_model(settings, tokenizer)
    model.to(settings.device)
    return model


def refuse_others(settings: Settings, known: tuple[str, ...]) -> None:
    """ConfigError for a model that is not one of those that the task can be learnt by."""
    if settings.model not in known:
        raise ConfigError(
            f"model {settings.model!r} cannot learn the task {settings.task!r}; these can: {', '.join(known)}"
        )


def make_objective(model: Any, tokenizer: Tokenizer, settings: Settings) -> Any:
    """What a model of one of the families is trained for: an `Objective`, or a `SourceTarget` for two texts."""
    name = type(model).__name__
    if name not in _FAMILY_OF:
        raise ConfigError(f"a {name} is no model that can be trained or judged here; known: {', '.join(_FAMILY_OF)}")
    return _file(_FAMILY_OF[name]).make_objective(model, tokenizer, settings)


def _file(family: str) -> ModuleType:
    """What stands behind a hyphen is a kind of the family."""
    family, _, _ = family.partition("-")
    return importlib.import_module(f"tinyllm.train.families.{family}")
