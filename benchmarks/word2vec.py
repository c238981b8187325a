"""One pass of word2vec over the standard library's prose, against gensim's C code.

    python benchmarks/word2vec.py                    # skip-gram and CBOW, negative sampling and hierarchical softmax
    python benchmarks/word2vec.py --only cbow/negative
    python benchmarks/word2vec.py --threads 2        # lock-free

Both sides train 100 numbers per word, window 5, 5 negatives, subsampling 1e-3, on the same counted words. Counting the
words is not measured. gensim feeds its threads from one more, which cuts the text in Python.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np
from harness import OURS, Case, Step, compare, options_of, peer, work

import tinyllm as tl
from tinyllm.models import Word2Vec, WordVectors
from tinyllm.models.word2vec import ARCHITECTURES, OBJECTIVES
from tinyllm.models.word_counts import count_words
from tinyllm.profile import Limits
from tinyllm.words import sentences_of

GENSIM = "gensim"
SIZE, MIN_COUNT = 100, 5


@cache
def text() -> list[list[str]]:
    """The sentences."""
    return sentences_of(tl.data.load("stdlib-prose"))


def ours(threads: int, architecture: str, objective: str) -> Step:
    """A pass, from the same start each time."""
    model = Word2Vec(SIZE, architecture, objective, min_count=MIN_COUNT, epochs=1, threads=threads)
    model.words, model.counts, ids, bounds = count_words(text(), MIN_COUNT)
    start = (np.random.default_rng(0).random((len(model.words), SIZE), np.float32) - np.float32(0.5)) / SIZE

    def step() -> None:
        model.vectors, model.outputs = WordVectors(model.words, start.copy()), np.zeros_like(start)
        model._train(ids, bounds, None)

    return step


def gensim(threads: int, architecture: str, objective: str) -> Step:
    """The same pass in gensim."""
    word2vec = peer("gensim.models").word2vec
    negative = 5 if objective == "negative" else 0
    settings: dict[str, Any] = {"sg": int(architecture == "skip-gram"), "hs": int(not negative), "negative": negative}
    model = word2vec.Word2Vec(vector_size=SIZE, min_count=MIN_COUNT, workers=threads, epochs=1, **settings)
    model.build_vocab(text())
    return lambda: model.train(text(), total_examples=model.corpus_count, epochs=1)


SIDES = {OURS: ours, GENSIM: gensim}


def main() -> None:
    """Measure, and print a table or an object."""
    names = {f"{a}/{o}": {"architecture": a, "objective": o} for a in ARCHITECTURES for o in OBJECTIVES}
    parser = options_of(__doc__, rounds=3, threads=1)
    parser.add_argument("--only", choices=names, help="one way of training")
    options = parser.parse_args()
    seconds = 1.0 if options.quick else 2.0
    cases = {
        name: Case(f"word2vec, {name.replace('/', ', ')}, one pass", size, 0.0, 0.0, (GENSIM,), seconds)
        for name, size in names.items()
        if options.only in (None, name)
    }
    if options.worker:
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        work(SIDES, cases, options)
        return
    if options.quick:
        cases, options.rounds = dict(list(cases.items())[:1]), 1
    report = compare(__file__, cases, options, Limits.measure(), together=True)
    words = sum(map(len, text()))
    for row in report.rows:
        for side in ("ours", "peer"):
            row[f"{side}_words_per_second"] = words / row[f"{side}_s"]
        speeds = f"{row['ours_words_per_second']:,.0f} words/s, {row['peer']} {row['peer_words_per_second']:,.0f}"
        report.note(f"{row['work']}: {speeds}")
    report.print(options.json)


if __name__ == "__main__":
    main()
