"""What an encoder-decoder writes about sources: the likeliest token at each step, many sources at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyllm.generation import generate
from tinyllm.tasks.batches import padded
from tinyllm.tasks.tokens import encode_source
from tinyllm.text import Tokenizer


def write(
    model: Any, tokenizer: Tokenizer, sources: Sequence[str], limit: int, batch_size: int = 32, num_beams: int = 1
) -> list[str]:
    """The target of each source, in their order: the likeliest token at each step, or the best of some beams.

    Parameters
    ----------
    model : EncoderDecoder
    tokenizer : Tokenizer
    sources : sequence of str
    limit : int
        The most tokens of a target.
    batch_size : int
        How many are written about at once; those of similar length are together.
    num_beams : int

    Returns
    -------
    list of str
    """
    rows = [encode_source(tokenizer, source) for source in sources]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    texts = [""] * len(rows)
    for begin in range(0, len(order), batch_size):
        places = order[begin : begin + batch_size]
        chosen = [rows[i] for i in places]
        mask = padded([[1] * len(ids) for ids in chosen], 0)
        ids = padded(chosen, model.config.pad_token_id)
        most = limit - 1  # the start token takes a place
        written = generate(model, ids, max_new_tokens=most, attention_mask=mask, num_beams=num_beams)
        for place, row in zip(places, np.asarray(written), strict=True):
            texts[place] = tokenizer.decode(until_end(row.tolist(), model.config.eos_token_id))
    return texts


def until_end(ids: list[int], end: int) -> list[int]:
    """The tokens before the first `end`."""
    return ids[: ids.index(end)] if end in ids else ids
