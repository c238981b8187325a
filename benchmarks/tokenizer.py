"""Byte-level BPE: training 4,096 merges on 2 MB of the standard library's prose, and encoding it, on one core.

python benchmarks/tokenizer.py
"""

from __future__ import annotations

import time

from harness import Report, options_of

import tinyllm as tl
from tinyllm.profile import Limits

MERGES, SIZE = 4096, 2_000_000


def main() -> None:
    """Measure, and print a table or an object."""
    options = options_of(__doc__, rounds=3, threads=1).parse_args()
    tl.set_num_threads(options.threads)
    report = Report(__file__, options.threads, Limits.measure())
    texts, characters = [], 0
    for document in tl.data.load("stdlib-prose").documents:
        texts.append(document.text)
        characters += len(document.text)
        if characters >= SIZE:
            break
    training, encoding = [], []
    for _ in range(1 if options.quick else options.rounds):
        begin = time.perf_counter()
        tokenizer = tl.text.ByteLevelBPE.train(texts, vocab_size=256 + MERGES)
        trained = time.perf_counter()
        tokens = sum(len(tokenizer.encode(text)) for text in texts)
        training.append(trained - begin)
        encoding.append(time.perf_counter() - trained)
    report.add(f"byte-level BPE: {tokenizer.vocab_size - 256:,} merges from {characters:,} characters", None, training)
    report.add(f"the same text written in {tokens:,} tokens", None, encoding)
    report.print(options.json)


if __name__ == "__main__":
    main()
