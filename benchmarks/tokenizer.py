"""Byte-level BPE: training 4,096 merges on 2 MB of the standard library's prose, and encoding it, on one core.

python benchmarks/tokenizer.py
"""

from __future__ import annotations

import time

from harness import machine

import tinyllm as tl

MERGES, SIZE = 4096, 2_000_000


def main() -> None:
    """Measure, and print."""
    about = machine()
    texts, characters = [], 0
    for document in tl.data.load("stdlib-prose").documents:
        texts.append(document.text)
        characters += len(document.text)
        if characters >= SIZE:
            break
    start = time.perf_counter()
    tokenizer = tl.text.ByteLevelBPE.train(texts, vocab_size=256 + MERGES)
    trained = time.perf_counter()
    tokens = sum(len(tokenizer.encode(text)) for text in texts)
    encoded = time.perf_counter()
    print(f"{about['processor']}, {about['versions']}")
    print(f"{characters:,} characters, {tokenizer.vocab_size - 256:,} merges: {trained - start:.2f} s")
    print(f"encoded to {tokens:,} tokens in {encoded - trained:.2f} s ({characters / tokens:.2f} characters a token)")


if __name__ == "__main__":
    main()
