"""The encoder-decoder Transformer that may copy tokens of the source."""

from __future__ import annotations

import numpy as np

from tinyllm.models.pointer import PointerConfig, PointerTransformer
from tinyllm.text import Tokenizer
from tinyllm.train.families.transformer import make_config, make_objective
from tinyllm.train.settings import Settings

__all__ = ["make_model", "make_objective"]


def make_model(settings: Settings, tokenizer: Tokenizer) -> PointerTransformer:
    """A new one, of the sizes that a Transformer would have."""
    config = PointerConfig(**vars(make_config(settings, tokenizer)))
    return PointerTransformer(config, rng=np.random.default_rng(settings.seed))
