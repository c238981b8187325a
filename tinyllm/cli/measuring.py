"""Commands that look at a trained model: `eval`, `info`, `explain`, and `profile` of its training."""

from __future__ import annotations

import argparse
from typing import Any

from tinyllm.cli.output import print_json, print_metrics
from tinyllm.cli.parser import add_command


def add_eval(commands: Any) -> None:
    evaluate = add_command(commands, "eval", _eval, "loss on the held-out text, or on another one")
    evaluate.add_argument("folder", metavar="RUN")
    evaluate.add_argument("--data", metavar="NAME-or-PATH")


def _eval(options: argparse.Namespace) -> None:
    from tinyllm.train import Console, evaluate

    result = evaluate(options.folder, options.data, Console())
    if options.json:
        print_json(result)
        return
    if "metrics" in result:
        print_metrics(result, "this run")
        return
    print(f"{result['text']}: {result['characters']:,} characters, {result['tokens']:,} tokens")
    print(f"loss           {result['loss']:.4f} nats per token")
    print(f"bits per char  {result['bits_per_char']:.4f}")
    print(f"perplexity     {result['perplexity']:.4f}")


def add_info(commands: Any) -> None:
    info = add_command(commands, "info", _info, "what is in a run folder")
    info.add_argument("folder", metavar="RUN")


def _info(options: argparse.Namespace) -> None:
    from tinyllm.train import describe

    facts = describe(options.folder)
    if options.json:
        print_json(facts)
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


def add_explain(commands: Any) -> None:
    explained = add_command(
        commands, "explain", _explain, "look inside a model while it reads a text: pictures and a page"
    )
    explained.add_argument("folder", metavar="RUN")
    explained.add_argument("text", metavar="TEXT", help="for a BERT with one [MASK]; else its last token is hidden")
    explained.add_argument("--target", metavar="ANSWER", help="a token or a class (default: the likeliest one)")
    explained.add_argument("--layer", type=int, metavar="N", help="draw the attention of this layer only")
    explained.add_argument("--steps", type=int, default=64, metavar="N", help="of integrated gradients (%(default)s)")
    explained.add_argument("--out", metavar="DIR", help="where the files go (default: RUN/explain)")


def _explain(options: argparse.Namespace) -> None:
    from tinyllm.explain import explain
    from tinyllm.train import Console

    arguments = options.out, options.target, options.layer, options.steps
    result = explain(options.folder, options.text, *arguments, console=Console())
    if options.json:
        print_json(result)
        return
    print(f"the answer: {result['answer']!r}, probability {result['probability']:.4f}")
    print(f"{'token':16} {'gradient x input':>17} {'integrated':>11}")
    columns = result["tokens"], result["gradient_times_input"], result["integrated_gradients"]
    for token, slope, whole in zip(*columns, strict=True):
        print(f"{token!r:16} {slope:17.4f} {whole:11.4f}")
    print(f"The integrated gradients add up to the whole change but for {abs(result['completeness_gap']):.1e}.")
    print(f"The page is {result['page']}; its pictures are beside it.")


def add_profile(commands: Any) -> None:
    profiled = add_command(
        commands, "profile", _profile, "what the time of a training step goes into, operation by operation"
    )
    profiled.add_argument("source", metavar="RUN_OR_CONFIG", nargs="?", help="default: the settings of `tinyllm train`")
    profiled.add_argument("--steps", type=int, default=10, metavar="N", help="steps that are measured (default: 10)")
    profiled.add_argument("--data", metavar="NAME-or-PATH", help="another text")
    profiled.add_argument("--out", metavar="FILE.png", help="the roofline picture (default: roofline.png beside it)")


def _profile(options: argparse.Namespace) -> None:
    from tinyllm.profile import profile_training
    from tinyllm.train import Console

    found, about = profile_training(options.source, options.steps, options.data, options.out, Console())
    if options.json:
        print_json(about | found.as_dict())
        return
    print(f"A training step of {about['source']}: {about['model']}")
    print(f"{found}\n\nThe picture is {about['picture']}.")
