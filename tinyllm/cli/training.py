"""Commands that train a model: `train`, `distill`, `finetune`, `resume`, and `study`, which trains several."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from tinyllm.cli.output import indented, print_json, print_metrics
from tinyllm.cli.parser import add_command
from tinyllm.errors import ConfigError


def add_train(commands: Any) -> None:
    train = add_command(commands, "train", _train, "train a GPT on the standard library's prose, or on a text of yours")
    train.add_argument("--config", metavar="FILE.toml", help="settings, by the names of the flags below with _ for -")
    train.add_argument("--out", metavar="DIR", help="run folder, which must not exist (default: runs/NAME-N)")
    _add_settings(train)


def _train(options: argparse.Namespace) -> None:
    from tinyllm.train import Console, Settings, train
    from tinyllm.train.settings import read_toml

    settings = Settings.make(read_toml(options.config) if options.config else {}, _settings_of(options))
    _print_result(train(settings, options.out, Console()), options.json)


def add_distill(commands: Any) -> None:
    distill = add_command(
        commands, "distill", _distill, "train a smaller model on what the model of a run thinks of every token"
    )
    distill.add_argument("folder", metavar="RUN", help="the teacher; by default the student has half its sizes")
    distill.add_argument("--out", metavar="DIR", help="run folder of the student (default: runs/NAME-N)")
    _add_settings(distill)


def _distill(options: argparse.Namespace) -> None:
    from tinyllm.train import Console, train
    from tinyllm.train.distill import student_settings

    settings = student_settings(options.folder, _settings_of(options))
    _print_result(train(settings, options.out, Console()), options.json)


def add_finetune(commands: Any) -> None:
    finetune = add_command(
        commands, "finetune", _finetune, "teach a trained BERT (or minilm) to tell classes, labels or numbers of texts"
    )
    finetune.add_argument("folder", metavar="RUN")
    finetune.add_argument("--config", metavar="FILE.toml", help="settings, by the names of the flags below")
    finetune.add_argument("--out", metavar="DIR", help="run folder, which must not exist (default: runs/NAME-N)")
    _add_settings(finetune)


def _finetune(options: argparse.Namespace) -> None:
    from tinyllm.train import Console, Settings, train
    from tinyllm.train.defaults import FINETUNE
    from tinyllm.train.settings import read_toml

    named = _settings_of(options)
    if named.setdefault("task", "classification") in ("classify", "classification"):
        named["task"] = "classification"
    else:
        raise ConfigError(f"finetune teaches the task classify, got {named['task']!r}")
    file = read_toml(options.config) if options.config else {}
    settings = Settings.make(FINETUNE, file, named, {"start": options.folder})
    _print_result(train(settings, options.out, Console()), options.json)


def add_resume(commands: Any) -> None:
    resume = add_command(commands, "resume", _resume, "go on with an interrupted run, or with more steps")
    resume.add_argument("folder", metavar="RUN")
    resume.add_argument("--steps", type=int, metavar="N", help="another number of steps in all")
    resume.add_argument("--data", metavar="NAME-or-PATH", help="where the same text lies now")


def _resume(options: argparse.Namespace) -> None:
    from tinyllm.train import Console, resume

    _print_result(resume(options.folder, options.steps, options.data, Console()), options.json)


def add_study(commands: Any) -> None:
    study = add_command(commands, "study", _study, "what helps against overfitting: train with each remedy, and draw")
    study.add_argument("topic", choices=("regularisation",))
    study.add_argument("--data", metavar="NAME-or-FILE", default="stdlib-packages", help="labelled texts (%(default)s)")
    study.add_argument("--texts", type=int, default=200, metavar="N", help="training texts (%(default)s)")
    study.add_argument("--steps", type=int, default=300, metavar="N", help="for each remedy (%(default)s)")
    study.add_argument("--seed", type=int, default=0, metavar="S")
    study.add_argument("--only", action="append", default=[], metavar="NAME", help="one remedy; may be repeated")
    study.add_argument("--out", metavar="FILE.png", default="regularisation.png", help="the picture (%(default)s)")


def _study(options: argparse.Namespace) -> None:
    from pathlib import Path

    from tinyllm import study
    from tinyllm.train import Console

    curves = study.study_regularisation(
        options.data, options.texts, options.steps, options.seed, options.only, Console()
    )
    study.draw(curves, Path(options.out))
    if options.json:
        print_json({"curves": [dataclasses.asdict(curve) for curve in curves], "picture": options.out})
    else:
        print(f"{study.as_table(curves)}\nThe picture is {options.out}.")


def _add_settings(command: argparse.ArgumentParser) -> None:
    """A flag for each setting of a training run."""
    from tinyllm.train.settings import FIELDS, TYPES

    for field in FIELDS:
        command.add_argument(
            "--" + field.name.replace("_", "-"),
            type=TYPES[field.name],
            metavar="|".join(field.metadata["choices"]) or {int: "N", float: "X", str: "TEXT"}[TYPES[field.name]],
            help=field.metadata["help"] + (f" (default: {field.default})" if field.default != "" else ""),
        )


def _settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given as flags."""
    from tinyllm.train.settings import NAMES

    return {name: value for name in NAMES if (value := getattr(options, name)) is not None}


def _print_result(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    from tinyllm.train.console import clock
    from tinyllm.train.report import metrics_table, table

    if "metrics" in result:
        print_metrics(result, f"{result['model']}, {result['parameters']:,} parameters")
        print(f"\nTrained in {clock(result['seconds'])}, {result['tokens_per_second']:,.0f} tokens/s.")
        others = {"classification": "predict {run} 'TEXT'", "question-answering": "answer {run} 'QUESTION' 'TEXT'"}
        example = others.get(result["task"], "translate {run} 'TEXT'")
        print(f"The run folder is {result['run']}; try: tinyllm {example.format(run=result['run'])}")
        return
    print(f"\nA sample:\n{indented(result['sample'])}\n")
    rows = [*result["baselines"].items(), (f"{result['model']}, {result['parameters']:,} parameters", result["loss"])]
    if "loss_in_order" in result:
        rows.append(("the same, with its state carried on", result["loss_in_order"]))
    print(f"Held out: {result['data']}, {result['characters']:,} characters.")
    if "accuracy" in result:  # of hidden tokens: losses in nats, and the share that was told
        accuracies = [*result["baseline_accuracies"].values(), result["accuracy"]]
        measured = {
            name: {"loss": loss, "accuracy": share} for (name, loss), share in zip(rows, accuracies, strict=True)
        }
        print(f"Tokens hidden there, after {result['steps']:,} steps:")
        print(metrics_table(measured, lowest_is_best=True))
        example = "explain {run} 'TEXT'"
    else:
        print(table(f"Loss there after {result['steps']:,} steps:", rows, result["tokens_per_char"]))
        example = "generate {run} --prompt 'Return the'"
    print(f"\nTrained in {clock(result['seconds'])}, {result['tokens_per_second']:,.0f} tokens/s.")
    print(f"The run folder is {result['run']}; try: tinyllm {example.format(run=result['run'])}")
