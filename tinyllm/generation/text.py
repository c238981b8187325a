"""From tokens to text while they come."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np


class ByteDecoder(Protocol):
    """What this needs of a tokenizer: more tokens give more bytes, the earlier ones unchanged."""

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes of these tokens."""


def text_of(steps: Iterable[np.ndarray], tokenizer: ByteDecoder) -> Iterator[str]:
    """The text of tokens, piece by piece; bytes of an unfinished character are held back until it is whole.

    Parameters
    ----------
    steps : iterable of integers (1,)
        As ``generate(..., stream=True)`` gives them for one text.
    tokenizer : ByteDecoder

    Yields
    ------
    str
        Joined, the pieces are the text of all tokens.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    ids: list[int] = []
    done = 0
    for step in steps:
        ids += np.ravel(step).tolist()
        data = tokenizer.decode_bytes(ids)
        yield decoder.decode(data[done:])
        done = len(data)
    yield decoder.decode(b"", final=True)
