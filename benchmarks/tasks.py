"""The tasks of `tinyllm train --task`: each model after equal training time, beside what simpler methods reach.

python benchmarks/tasks.py --task translation [--data FILE] [--seconds 100] [--write]

Time is the processor time of training steps on one thread, measured before and turned into a number of steps, so that a
busy machine changes little. With --write the table takes the place of the task's section in TASKS.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import machine, say

import tinyllm as tl
from tinyllm.tasks import PAIR_TASKS
from tinyllm.tasks.job import PairJob
from tinyllm.train import Settings, train
from tinyllm.train.job import prepare_job
from tinyllm.train.run import make_trainer

TABLES = Path(__file__).with_name("TASKS.md")

# What is held against each other, as settings over those of the task.
_TRANSFORMER: dict[str, dict[str, Any]] = {"Transformer": {"model": "transformer"}}
_RECURRENT: dict[str, dict[str, Any]] = {
    "RNN": {"model": "rnn"},
    "RNN with attention (Bahdanau)": {"model": "rnn-bahdanau"},
    "RNN with attention (Luong)": {"model": "rnn-luong"},
}
_ALL = _RECURRENT | _TRANSFORMER
# On pairs set aside from the training pairs, recurrent models did better with more dropout than the task's, the
# Transformer did not.
_TRANSLATORS = {name: model | {"dropout": 0.3} for name, model in _RECURRENT.items()} | _TRANSFORMER
MODELS: dict[str, dict[str, dict[str, Any]]] = dict.fromkeys(PAIR_TASKS, _TRANSFORMER) | {
    "question-answering": {"BERT": {"model": "bert"}},
    "translation": _TRANSLATORS,
    "pronunciation": _ALL,
    "summarisation": _TRANSFORMER | {"Transformer that may copy": {"model": "pointer"}},
}
_WARM, _MEASURED = 40, 60  # steps of a model before its number of steps is decided
BEAMS = {"translation": 5}  # the last model's targets are also looked for with so many


def main() -> None:
    """Train the models of a task and print their table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(MODELS), required=True)
    parser.add_argument("--data", help="another source than the task's own")
    parser.add_argument("--title", help="what the section is called (default: the task)")
    parser.add_argument("--seconds", type=float, default=100.0, help="of training for each model (default: 100)")
    parser.add_argument("--sources", type=int, default=300, help="held-out sources that are judged (default: 300)")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other settings of all models")
    parser.add_argument("--write", action="store_true", help=f"into {TABLES.name}")
    options = parser.parse_args()
    tl.set_num_threads(1)
    text = section(options)
    print(text)
    if options.write:
        replace_section(options.title or options.task, text)


def section(options: argparse.Namespace) -> str:
    """The task's table, with what was measured on."""
    rows: dict[str, dict[str, float]] = {}
    steps: dict[str, str] = {}
    about = ""
    lowest = False
    for name, model in MODELS[options.task].items():
        settings = budgeted(options, model)
        say(f"{name}: {settings.steps:,} steps")
        with tempfile.TemporaryDirectory() as place:
            result = train(settings, Path(place) / "run")
            rows |= result["baselines"]
            rows[name], lowest = result["metrics"], result["lowest_is_best"]
            steps[name] = f"{settings.steps:,} | {result['parameters']:,} | {result['loss']:.3f}"
            about = f"{by_name(result['data'])}; {result['sources']:,} held-out sources"
            if name == list(MODELS[options.task])[-1] and options.task in BEAMS:
                beams = BEAMS[options.task]
                rows[f"{name}, {beams} beams"] = with_beams(settings, Path(place) / "run", beams)
            example = result["sample"].splitlines()
    names = list(next(iter(rows.values())))
    lines = [
        f"## {options.title or options.task}",
        "",
        f"{about}; {options.seconds:.0f} s of training for each model.",
        "",
        "| | " + " | ".join(names) + " | steps | parameters | loss |",
        "|---|" + "---:|" * (len(names) + 3),
    ]
    for name in sorted(rows, key=lambda name: rows[name][names[0]], reverse=lowest):
        figures = " | ".join(f"{rows[name][metric]:.1f}" for metric in names)
        lines.append(f"| {name} | {figures} | {steps.get(name, '| |')} |")
    command = " ".join(["python", "benchmarks/tasks.py", *shown(sys.argv[1:])])
    held = machine()
    lines += ["", "A held-out source, what the last model wrote, what was expected:", "", "```", *example[:6], "```"]
    lines += ["", f"`{command}`; {held['processor']}, one thread, Python {held['versions']['python']}."]
    return "\n".join(lines) + "\n"


def by_name(path: str) -> str:
    """A file of the data folder, wherever that lies on this machine."""
    folder = os.environ.get("TINYLLM_DATA")
    return path.replace(folder, "$TINYLLM_DATA") if folder else path


def shown(arguments: list[str]) -> list[str]:
    """The command's arguments, as someone else would type them."""
    named = [by_name(argument) for argument in arguments if argument != "--write"]
    return [f"'{argument}'" if " " in argument else argument for argument in named]


def budgeted(options: argparse.Namespace, model: dict[str, Any]) -> Settings:
    """The settings of a run whose steps take the seconds asked for."""
    given = dict(pair.split("=", 1) for pair in options.set)
    base: dict[str, Any] = {"task": options.task, "threads": 1, "sample_tokens": 0, "eval_windows": options.sources}
    if options.data:
        base["data"] = options.data
    typed = {name: type(getattr(Settings(), name))(value) for name, value in given.items()}
    settings = Settings.make(base, typed, model)
    trainer = make_trainer(prepare_job(settings))
    seconds = []
    for _ in range(_WARM + _MEASURED):
        begin = time.process_time()
        trainer.step()
        seconds.append(time.process_time() - begin)
    # Some lengths of batches are met late, and compile a kernel then: the dearest steps are left out.
    usual = sorted(seconds[_WARM:])[: -_MEASURED // 20]
    steps = max(10, round(options.seconds * len(usual) / sum(usual)))
    return Settings.make(settings.as_dict(), {"steps": steps, "eval_every": max(1, steps // 4)})


def with_beams(settings: Settings, folder: Path, beams: int) -> dict[str, float]:
    """The metrics of a trained run whose targets are looked for with some beams."""
    job = prepare_job(settings, folder)
    assert isinstance(job, PairJob)
    job.load(folder)
    sources, references = job.questions()
    return job.task.measure(job.write(sources, beams), references, settings)


def replace_section(name: str, text: str) -> None:
    """Put a section into TASKS.md, in the place of the one with its title."""
    head = "# Tasks\n\nWritten by `benchmarks/tasks.py --write`.\n"
    parts = (TABLES.read_text(encoding="utf-8") if TABLES.exists() else head).split("\n## ")
    kept = [part for part in parts[1:] if part.splitlines()[0] != name]
    sections = sorted([*kept, text.removeprefix("## ")])
    whole = "\n## ".join(part.rstrip("\n") + "\n" for part in [parts[0], *sections])
    TABLES.write_text(whole, encoding="utf-8")


if __name__ == "__main__":
    main()
