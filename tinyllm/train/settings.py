"""All settings of a training run, with their defaults, ranges and explanations, in one table.

The command line's flags, the names allowed in a TOML file and the messages about both are made from this table.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, get_type_hints

from tinyllm.errors import ConfigError, nearest
from tinyllm.threads import get_num_threads
from tinyllm.train.defaults import DEFAULTS, OF_MODEL

TASKS = tuple(DEFAULTS)
MODELS = ("gpt", "llama", "mixtral", "lstm", "bert", "transformer", "pointer", "rnn", "rnn-bahdanau", "rnn-luong")


def setting(
    default: Any, help: str, low: float = -math.inf, high: float = math.inf, choices: tuple[str, ...] = ()
) -> Any:
    """A field of `Settings`: numbers lie in [low, high], strings among `choices` where there are any."""
    return dataclasses.field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True)
class Settings:
    """What `tinyllm train` does; see the help of each setting. Checked when made."""

    task: str = setting("language-model", "what is learnt; it has defaults of its own for other flags", choices=TASKS)
    model: str = setting("gpt", "the model's family", choices=MODELS)
    data: str = setting("stdlib-prose", "stdlib-prose, stdlib-code, a file, a folder, or - for standard input")
    target: str = setting("", "tasks with pairs of texts: the file whose line n belongs to line n of the data")
    encoding: str = setting("", "encoding of the text (default: UTF-8, or what a byte order mark says)")
    clean: str = setting("auto", "clean the text first; auto: stdlib-prose only", choices=("auto", "yes", "no"))
    held_out: float = setting(0.1, "share of the text that is held out", 0.001, 0.9)
    tokenizer: str = setting(
        "char",
        "one token per character, byte-level BPE, BERT's WordPiece, or words (of tasks alone)",
        choices=("char", "bpe", "wordpiece", "word"),
    )
    min_count: int = setting(2, "char: characters rarer than this in the training text become U+FFFD", 1)
    vocab_size: int = setting(4096, "bpe, wordpiece: number of tokens", 257, 2**20)
    whole_words: str = setting("no", "bert: hide the pieces of a word together", choices=("no", "yes"))
    carry_state: str = setting(
        "no",
        "lstm: train on windows in the text's order, each begun with the state that the one before has left",
        choices=("no", "yes"),
    )

    n_layer: int = setting(4, "blocks", 1, 1000)
    n_head: int = setting(4, "attention heads, a divisor of n_embd", 1, 1000)
    n_embd: int = setting(128, "channels", 1, 100_000)
    block_size: int = setting(64, "tokens in a window: the context of the model", 2, 2**20)
    init_std: float = setting(0.06, "standard deviation of the first weights", 0.0)
    dropout: float = setting(0.0, "dropout probability", 0.0, 0.99)
    label_smoothing: float = setting(
        0.0, "transformer, classification: share of each label spread over all of them", 0.0, 0.99
    )
    start: str = setting("", "classification: folder of a trained BERT to start from, or minilm; else random weights")
    freeze: int = setting(
        0, "classification: parts at the bottom that keep their weights: 1, the embeddings; 2, a block too; ...", 0
    )
    unfreeze: int = setting(-1, "classification: the step at which they begin to learn after all; -1: never", -1)
    layer_decay: float = setting(1.0, "classification: each part's rate over that of the part above it", 0.0, 1.0)
    head_lr: float = setting(0.0, "classification: largest learning rate of the head, which is new; 0: that of lr", 0.0)
    classifier_pooling: str = setting(
        "auto",
        "classification: cls, the first token is read, or mean, all are; auto: as start was trained, else cls",
        choices=("auto", "cls", "mean"),
    )
    class_weights: str = setting(
        "no", "classification: balanced: rare classes count for as much as frequent ones", choices=("no", "balanced")
    )
    problem: str = setting(
        "single_label_classification",
        "classification: what a text has: one label, several (a|b), or a number",
        choices=("single_label_classification", "multi_label_classification", "regression"),
    )
    text_column: str = setting("", "classification: the column of the texts (default: text, sentence, ...)")
    label_column: str = setting(
        "", "classification: the column of the labels (default: label, category, ...); a,b,c: of 0 or 1 for each label"
    )

    steps: int = setting(2500, "optimiser steps", 1)
    batch_size: int = setting(16, "windows per step", 1, 2**20)
    accumulate: int = setting(1, "pieces that the batch is cut into to save memory; the result stays the same", 1)
    threads: int = setting(0, "threads that share the work; 0: one per core, at most 8", 0, 256)
    device: str = setting("cpu", "where to compute: cpu, or cuda for an NVIDIA GPU", choices=("cpu", "cuda"))
    optimizer: str = setting(
        "adamw", "adamw; or muon for the matrices of the blocks, and adamw for the rest", choices=("adamw", "muon")
    )
    lr: float = setting(3e-3, "largest learning rate", 0.0)
    final_lr: float = setting(3e-5, "learning rate at the end of the cosine", 0.0)
    warmup: int = setting(-1, "steps of linear warm-up; -1: a tenth of the steps, at most 100", -1)
    beta1: float = setting(0.9, "AdamW's decay of the mean gradient", 0.0, 0.999999)
    beta2: float = setting(0.99, "AdamW's decay of the mean squared gradient", 0.0, 0.999999)
    weight_decay: float = setting(0.1, "AdamW's decay of matrices (biases and norms have none)", 0.0)
    clip: float = setting(1.0, "largest norm of the gradient; 0 for no limit", 0.0)
    ema: float = setting(
        0.0,
        "decay of an average of the parameters, which is then what is evaluated and saved; 0 for none",
        0.0,
        0.999999,
    )
    checkpoint_activations: str = setting(
        "no", "compute each block again in backward: less memory, more time, the same result", choices=("no", "yes")
    )
    teacher: str = setting("", "run folder of a larger model whose probabilities are learnt too (distillation)")
    distill_temperature: float = setting(2.0, "divides the logits of teacher and student", 0.01, 1000.0)
    distill_weight: float = setting(0.5, "how much the teacher counts against the labels", 0.0, 1.0)
    seed: int = setting(0, "seed of split, initialisation, batches and dropout", 0, 2**63 - 1)

    eval_every: int = setting(250, "steps between evaluations, each of which saves a checkpoint", 1)
    eval_windows: int = setting(400, "held-out windows per evaluation while training; the end uses all", 1)
    patience: int = setting(
        0, "stop after so many evaluations without a better one, made on training text set aside", 0
    )
    sample_tokens: int = setting(120, "tokens of the sample at each evaluation; 0 for none", 0, 100_000)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = _checked_type(field.name, getattr(self, field.name))
            low, high, choices = (field.metadata[key] for key in ("low", "high", "choices"))
            if choices and value not in choices:
                raise ConfigError(f"{field.name} is one of {', '.join(choices)}; got {value!r}{_hint(value, choices)}")
            if isinstance(value, int | float) and not (low <= value <= high and math.isfinite(value)):
                raise ConfigError(f"{field.name} must be {_range(low, high)}, got {value}")
            object.__setattr__(self, field.name, value)
        if self.n_embd % self.n_head:
            fitting = [n for n in range(1, self.n_embd + 1) if self.n_embd % n == 0]
            best = min(fitting, key=lambda n: abs(n - self.n_head))
            raise ConfigError(
                f"n_head must divide n_embd, but {self.n_head} heads do not divide {self.n_embd} channels; {best} would"
            )
        if self.carry_state == "yes" and self.model != "lstm":
            raise ConfigError(f"carry_state is for the model lstm: a {self.model} has no state to carry")
        if self.threads == 0:
            object.__setattr__(self, "threads", min(8, get_num_threads()))
        if self.warmup >= self.steps:
            raise ConfigError(f"warmup must be shorter than the {self.steps} steps, got {self.warmup}")
        if self.accumulate > self.batch_size:
            raise ConfigError(
                f"accumulate cuts the batch into pieces: {self.batch_size} windows cannot be cut into {self.accumulate}"
            )

    @property
    def warmup_steps(self) -> int:
        """`warmup`, chosen by the number of steps where it is left open."""
        return min(100, self.steps // 10) if self.warmup < 0 else self.warmup

    @classmethod
    def make(cls, *layers: Mapping[str, Any]) -> Self:
        """Settings from several mappings, later ones over earlier ones, all of them over the task's own defaults.

        Raises
        ------
        ConfigError
            For a name that does not exist (the nearest one is named), a wrong type, or a value out of range.
        """
        merged: dict[str, Any] = {}
        for layer in layers:
            merged |= layer
        for name in merged:
            if name not in NAMES:
                raise ConfigError(f"there is no setting {name!r}{nearest(name, NAMES)}")
        task, model = merged.get("task", "language-model"), merged.get("model", "")
        of_task = DEFAULTS.get(task, {}) if isinstance(task, str) else {}
        of_model = OF_MODEL.get(model, {}) if isinstance(model, str) else {}
        return cls(**of_task | of_model | merged)

    def to_toml(self) -> str:
        """A TOML file that `read_toml` reads back, each setting with its explanation."""
        lines = []
        for field in dataclasses.fields(self):
            lines.append(f"{field.name} = {_toml(getattr(self, field.name))}  # {field.metadata['help']}")
        return "\n".join(lines) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """Name and value of every setting."""
        return dataclasses.asdict(self)


FIELDS = dataclasses.fields(Settings)
NAMES = tuple(field.name for field in FIELDS)
TYPES: dict[str, type] = {name: kind for name, kind in get_type_hints(Settings).items() if name in NAMES}


def read_toml(path: str | Path) -> dict[str, Any]:
    """The settings in a TOML file, names not yet checked.

    Raises
    ------
    ConfigError
        For a file that cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_bytes().decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from error


def _checked_type(name: str, value: Any) -> Any:
    """`value` as the type of setting `name`; a whole number may stand for a float."""
    kind = TYPES[name]
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        names = {int: "a whole number", float: "a number", str: "a string"}
        raise ConfigError(f"{name} must be {names[kind]}, got {value!r}")
    if isinstance(value, str) and not value.isprintable():
        raise ConfigError(f"{name} must be printable text, got {value!r}")
    return value


def _hint(value: str, choices: tuple[str, ...]) -> str:
    hint = nearest(value, choices)
    return hint if "did you mean" in hint else ""


def _range(low: float, high: float) -> str:
    if low > -math.inf and high < math.inf:
        return f"from {low} to {high}"
    return f"at least {low}" if low > -math.inf else f"at most {high}"


def _toml(value: int | float | str) -> str:
    # A JSON string is a TOML basic string, except that TOML forbids a bare DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") if isinstance(value, str) else repr(value)
