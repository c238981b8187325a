"""The command line: `tinyllm train | generate | eval | info | resume | profile | formulas | check | proofs | mutants`.

Results go to standard output, progress to standard error. Exit codes: 0 done; 1 something that was checked failed, or
an error of ours, with its traceback; 2 an error of the user's, with its message alone; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from tinyllm.errors import ConfigError, TinyLLMError, nearest

DONE, OURS, USERS, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows a question mark
    parser = _parser()
    try:
        options, unknown = parser.parse_known_args(argv)
        if unknown:
            known = [flag for action in _actions(parser, options.command) for flag in action.option_strings]
            hint = nearest(unknown[0], known) if unknown[0].startswith("-") else ""
            raise ConfigError(f"{unknown[0]!r} is not an argument of `tinyllm {options.command}`{hint}")
        code = options.run(options) or DONE
        sys.stdout.flush()
    except TinyLLMError as error:
        return _leave(USERS, f"tinyllm: {error}")
    except BrokenPipeError:  # whoever read the output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt as error:
        return _leave(INTERRUPTED, f"\ntinyllm: {error or 'interrupted'}")
    except Exception as error:
        traceback.print_exc()
        return _leave(
            OURS,
            f"tinyllm: {type(error).__name__}: this is a fault of tinyllm's; please report it with the lines above",
        )
    return code


def _leave(code: int, message: str) -> int:
    print(message, file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    """One that names what is wrong in the same words as every other error of the user's."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USERS, f"tinyllm: {message}\n")


def _parser() -> argparse.ArgumentParser:
    from tinyllm.train.settings import FIELDS, TYPES

    parser = _Parser(prog="tinyllm", description="Language models, from the chain rule to a GPT.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int | None], help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
        added.set_defaults(run=run)
        added.add_argument("--json", action="store_true", help="print one JSON object instead of text")
        return added

    train = command("train", _train, "train a GPT on the standard library's prose, or on a text of yours")
    train.add_argument("--config", metavar="FILE.toml", help="settings, by the names of the flags below with _ for -")
    train.add_argument("--out", metavar="DIR", help="run folder, which must not exist (default: runs/NAME-N)")
    for field in FIELDS:
        train.add_argument(
            "--" + field.name.replace("_", "-"),
            type=TYPES[field.name],
            metavar="|".join(field.metadata["choices"]) or {int: "N", float: "X", str: "TEXT"}[TYPES[field.name]],
            help=field.metadata["help"] + (f" (default: {field.default})" if field.default != "" else ""),
        )

    generate = command("generate", _generate, "continue a prompt")
    generate.add_argument("folder", metavar="RUN")

    def option(flag: str, help: str, **how: Any) -> None:
        generate.add_argument(flag, help=help, **how)

    option("--prompt", "what is continued (default: the beginning of a text)", default="", metavar="TEXT")
    option("--max-new-tokens", "default: 300", type=int, default=300, metavar="N")
    option("--temperature", "0: always the likeliest token (default: 0.8)", type=float, default=0.8, metavar="X")
    option("--top-k", "draw from the K likeliest tokens", type=int, metavar="K")
    option("--top-p", "draw from the likeliest tokens that make up P", type=float, metavar="P")
    option("--stop", "end before this text; may be repeated", action="append", default=[], metavar="TEXT")
    option("--seed", "the same one gives the same text", type=int, metavar="S")

    evaluate = command("eval", _eval, "loss on the held-out text, or on another one")
    evaluate.add_argument("folder", metavar="RUN")
    evaluate.add_argument("--data", metavar="NAME-or-PATH")

    info = command("info", _info, "what is in a run folder")
    info.add_argument("folder", metavar="RUN")

    resume = command("resume", _resume, "go on with an interrupted run, or with more steps")
    resume.add_argument("folder", metavar="RUN")
    resume.add_argument("--steps", type=int, metavar="N", help="another number of steps in all")
    resume.add_argument("--data", metavar="NAME-or-PATH", help="where the same text lies now")

    profiled = command("profile", _profile, "what the time of a training step goes into, operation by operation")
    profiled.add_argument("source", metavar="RUN_OR_CONFIG", nargs="?", help="default: the settings of `tinyllm train`")
    profiled.add_argument("--steps", type=int, default=10, metavar="N", help="steps that are measured (default: 10)")
    profiled.add_argument("--data", metavar="NAME-or-PATH", help="another text")
    profiled.add_argument("--out", metavar="FILE.png", help="the roofline picture (default: roofline.png beside it)")

    check = command("check", _check, "hold the functions in a file of yours against the formulas and their derivatives")
    check.add_argument("file", metavar="FILE.py")
    check.add_argument("--config", metavar="FILE.toml", help="restrict, weigh and add checks")
    check.add_argument("--junit", metavar="FILE.xml", help="also write JUnit XML here")
    check.add_argument("--timeout", type=float, metavar="SECONDS", help="for each check (default: 10)")
    check.add_argument("--memory", type=float, metavar="MIB", help="for the file's own use (default: 1024)")

    mutants = command("mutants", _mutants, "plant mistakes in every derivative and see whether gradcheck finds them")
    mutants.add_argument("--op", action="append", metavar="NAME", help="only this operation; may be repeated")
    mutants.add_argument("--seed", type=int, default=0, metavar="S")

    proofs = command("proofs", _proofs, "check every derivative on each backend, in each dtype, to order 2")
    proofs.add_argument("--op", action="append", metavar="NAME", help="only this operation; may be repeated")
    proofs.add_argument("--seed", type=int, default=0, metavar="S")
    proofs.add_argument("--draws", type=int, default=6, metavar="N", help="shapes drawn for each (%(default)s)")

    formulas = command(
        "formulas", _formulas, "every formula of the documents; with an ID, its ladder from loops to kernels"
    )
    formulas.add_argument("id", metavar="ID", nargs="?", help="e.g. F-ATTN")

    chapters = command("chapters", _chapters, "the course's chapters: execute, run, test or open them")
    chapters.add_argument("action", choices=("build", "run", "test", "open"), help="what to do with them")
    chapters.add_argument("numbers", metavar="NN", nargs="*", help="which chapters, such as 05 (default: all)")
    chapters.add_argument("--full", action="store_true", help="test: with the experiments in full")
    chapters.add_argument("--kernel", action="store_true", help="test: the first one in a real kernel too")

    course = command("course", _course, "for teachers: the student edition, and grading a class")
    tasks = course.add_subparsers(dest="task", required=True, metavar="TASK")
    student = tasks.add_parser("student", help="the chapters without the solutions", allow_abbrev=False)
    student.add_argument("out", metavar="OUT", help="a new folder")
    student.add_argument("numbers", metavar="NN", nargs="*", help="which chapters (default: all)")
    grade = tasks.add_parser("grade", help="points for each exercise of each student, as CSV", allow_abbrev=False)
    grade.add_argument("folder", metavar="FOLDER", help="a folder for each student, with their notebooks")
    grade.add_argument("--out", metavar="FILE.csv", help="default: printed")
    grade.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS", help="for each check (%(default)s)")
    grade.add_argument("--memory", type=float, default=1024.0, metavar="MIB", help="for each submission (%(default)s)")
    return parser


def _actions(parser: argparse.ArgumentParser, command: str) -> list[argparse.Action]:
    subparsers = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return subparsers.choices[command]._actions


def _train(options: argparse.Namespace) -> None:
    from tinyllm.train import Console, Settings, train
    from tinyllm.train.settings import NAMES, read_toml

    file = read_toml(options.config) if options.config else {}
    flags = {name: value for name in NAMES if (value := getattr(options, name)) is not None}
    settings = Settings.make(file, flags)
    _print_result(train(settings, options.out, Console()), options.json)


def _resume(options: argparse.Namespace) -> None:
    from tinyllm.train import Console, resume

    _print_result(resume(options.folder, options.steps, options.data, Console()), options.json)


def _print_result(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(result)
        return
    from tinyllm.train.console import clock
    from tinyllm.train.report import table

    print(f"\nA sample:\n{_indented(result['sample'])}\n")
    rows = [*result["baselines"].items(), (f"GPT, {result['parameters']:,} parameters", result["loss"])]
    print(f"Held out: {result['data']}, {result['characters']:,} characters.")
    print(table(f"Loss there after {result['steps']:,} steps:", rows, result["tokens_per_char"]))
    print(f"\nTrained in {clock(result['seconds'])}, {result['tokens_per_second']:,.0f} tokens/s.")
    print(f"The run folder is {result['run']}; try: tinyllm generate {result['run']} --prompt 'Return the'")


def _generate(options: argparse.Namespace) -> None:
    from tinyllm.train import complete

    pieces = complete(
        options.folder,
        options.prompt,
        options.max_new_tokens,
        options.temperature,
        options.top_k,
        options.top_p,
        options.stop,
        options.seed,
    )
    if options.json:
        _print_json({"prompt": options.prompt, "text": "".join(pieces)})
        return
    print(options.prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def _eval(options: argparse.Namespace) -> None:
    from tinyllm.train import Console, evaluate

    result = evaluate(options.folder, options.data, Console())
    if options.json:
        _print_json(result)
        return
    print(f"{result['text']}: {result['characters']:,} characters, {result['tokens']:,} tokens")
    print(f"loss           {result['loss']:.4f} nats per token")
    print(f"bits per char  {result['bits_per_char']:.4f}")
    print(f"perplexity     {result['perplexity']:.4f}")


def _info(options: argparse.Namespace) -> None:
    from tinyllm.train import describe

    facts = describe(options.folder)
    if options.json:
        _print_json(facts)
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{number:,} {part}" for part, number in value.items())
        elif isinstance(value, float):
            value = f"{value:.4f}"
        elif isinstance(value, int):
            value = f"{value / 2**20:,.1f} MiB" if name.endswith("bytes") else f"{value:,}"
        label = name.replace("bytes", "memory").replace("_", " ")
        print(f"{label:17} {'not known' if value is None else value}")


def _profile(options: argparse.Namespace) -> None:
    from tinyllm.profile import profile_training
    from tinyllm.train import Console

    found, about = profile_training(options.source, options.steps, options.data, options.out, Console())
    if options.json:
        _print_json(about | found.as_dict())
        return
    print(f"A training step of {about['source']}: {about['model']}")
    print(f"{found}\n\nThe picture is {about['picture']}.")


def _check(options: argparse.Namespace) -> int:
    from tinyllm.testing import suite

    return suite.main(options.file, options.json, options.junit, options.config, options.timeout, options.memory)


def _mutants(options: argparse.Namespace) -> int:
    from tinyllm.testing import mutants

    return mutants.main(options.json, options.op, options.seed)


def _proofs(options: argparse.Namespace) -> int:
    from tinyllm.testing import proofs

    return proofs.main(options.json, options.op, options.seed, options.draws)


def _formulas(options: argparse.Namespace) -> None:
    from tinyllm import formulas

    if options.json:
        entries = [formulas.get(options.id)] if options.id else formulas.all_formulas()
        names = ("id", "kind", "title", "where", "latex", "library", "tests", "chapter", "status", "reason")
        _print_json({entry.id: {name: getattr(entry, name) for name in names} for entry in entries})
    else:
        print(formulas.ladder(options.id) if options.id else formulas.listing())


def _chapters(options: argparse.Namespace) -> int:
    from tinyllm.course import command

    if options.action == "open":
        return command.open_chapters(options.numbers)
    if options.action == "run":
        command.run_chapters(options.numbers)
        return DONE
    if options.action == "build":
        result = command.build_chapters(options.numbers)
    else:
        result = command.check_chapters(options.numbers, options.full, options.kernel)
    faults = [fault for chapter in result.get("chapters", {}).values() for fault in chapter["faults"]]
    if options.json:
        _print_json(result)
    else:
        print("\n".join(faults) or f"{len(result.get('chapters', result.get('built', {})))} chapters, no fault")
    return OURS if faults else DONE


def _course(options: argparse.Namespace) -> None:
    from tinyllm.course import command

    if options.task == "student":
        result = command.make_student_edition(options.out, options.numbers)
        if not options.json:
            print("\n".join(result["written"]))
    else:
        result = command.grade_class(options.folder, options.out, options.timeout, options.memory, options.json)
    if options.json:
        _print_json(result)


def _print_json(result: dict[str, Any]) -> None:
    """One JSON object on one line; JSON has no infinity, so what is not finite is null."""
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in result.items()
    }
    print(json.dumps(finite, allow_nan=False))


def _indented(text: str) -> str:
    return "\n".join("  | " + line for line in text.splitlines())
