"""What settings are when a task is named and they are not: small models that learn in minutes on one core."""

from __future__ import annotations

from typing import Any

# Every model of two texts, unless its task says otherwise.
_PAIRS: dict[str, Any] = {
    "model": "transformer",
    "tokenizer": "char",
    "n_layer": 2,
    "n_head": 4,
    "n_embd": 128,
    "block_size": 48,
    "batch_size": 32,
    "lr": 1e-3,
    "final_lr": 1e-5,
    "steps": 2000,
    "eval_every": 500,
    "init_std": 0.02,
}
_SEQUENCES = _PAIRS | {"n_layer": 2, "n_embd": 64, "block_size": 24, "batch_size": 128, "lr": 2e-3}

#: Task to settings, which lie under all that is named.
DEFAULTS: dict[str, dict[str, Any]] = {
    "language-model": {"optimizer": "muon"},
    "translation": _PAIRS
    | {"data": "jupyterlab-fr", "tokenizer": "bpe", "vocab_size": 2000, "dropout": 0.1, "lr": 2e-3},
    "summarisation": _PAIRS
    | {
        "data": "stdlib-docstrings",
        "tokenizer": "bpe",
        "vocab_size": 2000,
        "block_size": 96,
        "dropout": 0.1,
        "held_out": 0.2,
    },
    "word-problems": _PAIRS | {"data": "embedded", "tokenizer": "word", "block_size": 64},
    "sort": _SEQUENCES | {"data": "embedded"},
    "copy": _SEQUENCES | {"data": "embedded"},
    "reverse": _SEQUENCES | {"data": "embedded"},
    "addition": _SEQUENCES | {"data": "embedded"},
    "pronunciation": _PAIRS | {"data": "g2p-en", "tokenizer": "word", "block_size": 32, "dropout": 0.1, "lr": 2e-3},
    "question-answering": _PAIRS
    | {"model": "bert", "data": "stdlib-questions", "tokenizer": "wordpiece", "vocab_size": 4000, "block_size": 128},
    "classification": {
        "model": "bert",
        "data": "stdlib-packages",
        "held_out": 0.2,
        "tokenizer": "wordpiece",
        "n_layer": 2,
        "block_size": 128,
        "batch_size": 16,
        "lr": 1e-3,
        "final_lr": 0.0,
        "steps": 400,
        "eval_every": 50,
        "init_std": 0.02,
        "dropout": 0.1,
        "weight_decay": 0.01,
    },
    "dialogue": _PAIRS | {"data": "chatterbot-en", "tokenizer": "bpe", "vocab_size": 1500, "dropout": 0.1},
}

#: What `tinyllm finetune` changes of the task's settings: weights that know something move gently, a new head fast.
FINETUNE: dict[str, Any] = {"lr": 1e-4, "head_lr": 1e-2, "layer_decay": 0.9, "steps": 300, "warmup": 30}

# Recurrent encoder-decoders learn fastest at a higher rate than Transformers do.
_RECURRENT: dict[str, Any] = {"lr": 4e-3}

#: Model to settings, which lie between the task's and all that is named.
OF_MODEL: dict[str, dict[str, Any]] = {
    "bert": {"tokenizer": "wordpiece", "batch_size": 32, "lr": 2e-3, "init_std": 0.08, "optimizer": "adamw"},
    "lstm": {"optimizer": "adamw"},
    "rnn": _RECURRENT,
    "rnn-bahdanau": _RECURRENT,
    "rnn-luong": _RECURRENT,
}
