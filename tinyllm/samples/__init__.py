"""The documents' code samples, corrected and running: one file for each, to be read beside the printed original.

A file is called by the id of its sample, and its docstring tells the faults of the original and how each is mended.
``tinyllm.samples.training_loop()`` runs one, and so does ``python -m tinyllm.samples.c000_training_loop``; what the
originals print, it prints. The defaults are the documents' sizes where they give any. The faults themselves are shown
by ``tinyllm.formulas``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyllm.samples.c000_training_loop import training_loop
    from tinyllm.samples.c001_lstm_language_model import lstm_language_model
    from tinyllm.samples.c002a_word_tokenize import word_tokenize
    from tinyllm.samples.c002b_encoder_classifier import encoder_classifier
    from tinyllm.samples.c002c_gpt2_pretraining import gpt2_pretraining
    from tinyllm.samples.c002d_bert_classification import bert_classification
    from tinyllm.samples.c004_transformer_language_model import transformer_language_model
    from tinyllm.samples.p_loop import improvement_loop

__all__ = [
    "bert_classification",
    "encoder_classifier",
    "gpt2_pretraining",
    "improvement_loop",
    "lstm_language_model",
    "training_loop",
    "transformer_language_model",
    "word_tokenize",
]

_HOMES = {
    "bert_classification": "c002d_bert_classification",
    "encoder_classifier": "c002b_encoder_classifier",
    "gpt2_pretraining": "c002c_gpt2_pretraining",
    "improvement_loop": "p_loop",
    "lstm_language_model": "c001_lstm_language_model",
    "training_loop": "c000_training_loop",
    "transformer_language_model": "c004_transformer_language_model",
    "word_tokenize": "c002a_word_tokenize",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"tinyllm.samples.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'tinyllm.samples' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
