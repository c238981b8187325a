"""The picture of an alignment: a row for each token that was written, a column for each token of the source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinyllm.text import Tokenizer

if TYPE_CHECKING:
    from tinyllm.tasks.use import Candidate, Reader


def draw_alignment(reader: Reader, text: str, candidate: Candidate, path: str | Path) -> Path:
    """Write the picture of the cross-attention with which a candidate was written about a text.

    Raises
    ------
    ConfigError
        For a model without attention to its source.
    CheckpointError
        If the picture cannot be written.
    """
    from tinyllm.viz import attention_map, save_figure

    source, config = reader.ids(text), reader.model.config
    target = [*candidate.ids, config.eos_token_id]
    before = np.array([[config.decoder_start_token_id, *candidate.ids]])
    weights = reader.model.alignment(source, before)[0]  # (T, S)
    figure = attention_map(weights, labels(reader.tokenizer, target), labels(reader.tokenizer, source[0].tolist()))
    return save_figure(figure, Path(path))


def labels(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    """The text of each token, special ones by their names, a space as an open box."""
    return [tokenizer.decode([index], skip_special_tokens=False).replace(" ", "\u2423") or "?" for index in ids]
