"""Marian: the translators of the OPUS-MT project, BART's layers with sinusoids (Junczys-Dowmunt et al. 2018)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from tinyllm.errors import CheckpointError
from tinyllm.models import loading
from tinyllm.models.bart import BART, Tokens
from tinyllm.models.bart_config import MarianConfig
from tinyllm.nn import Sinusoids, sinusoids

_TABLES = ("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight")


class Marian(BART):
    """A translator: `MarianMTModel` in transformers.

    Where BART learns positions and norms the embeddings, it has sinusoids, all sines before all cosines, and no norm.
    Source and target may have vocabularies and matrices of their own.

    Parameters
    ----------
    config : MarianConfig
    rng : numpy Generator
        For the first weights, as in BART.
    dtype : dtype
        float32 or float64.

    Notes
    -----
    Source: Junczys-Dowmunt et al. 2018, "Marian: fast neural machine translation in C++".
    """

    config_class: ClassVar[Any] = MarianConfig
    published = "Marian"
    config: MarianConfig

    def __init__(self, config: MarianConfig, *, rng: np.random.Generator, dtype: DTypeLike = np.float32) -> None:
        one = config.share_encoder_decoder_embeddings and config.tie_word_embeddings
        source = Tokens(config.vocab_size, config, rng, dtype)
        target = source if one else Tokens(config.tgt_vocab_size, config, rng, dtype)
        places = [Sinusoids(config.d_model, interleaved=False, dtype=dtype)] * 2
        self._assemble(config, (source, target), places, [None, None], rng, dtype)

    @classmethod
    def sizes_of(cls, config: MarianConfig) -> dict[str, tuple[str, ...]]:
        """Of the embeddings and the networks."""
        if config.share_encoder_decoder_embeddings:
            return super().sizes_of(config)
        sizes = {
            "model.encoder.embed_tokens.weight": ("vocab_size", "d_model"),
            "model.decoder.embed_tokens.weight": ("tgt_vocab_size", "d_model"),
        }
        if not config.tie_word_embeddings:
            sizes["lm_head.weight"] = ("tgt_vocab_size", "d_model")
        return {**sizes, **cls.network_sizes()}

    @classmethod
    def places_sizes(cls) -> dict[str, tuple[str, ...]]:
        """Sinusoids are in no file."""
        return {}

    @classmethod
    def named_as_here(cls, weights: loading.Weights, config: MarianConfig, path: Path) -> loading.Weights:
        """The parameters in a file, under their names here. Old files hold the sinusoids too, which are checked.

        Raises
        ------
        CheckpointError
            If they are others.
        """
        named = super().named_as_here(weights, config, path)
        for name in _TABLES:
            table = named.pop(name, None)
            if table is not None and not _are_sinusoids(table, config.d_model):
                raise CheckpointError(f"{path}: {name} holds other positions than sinusoids, which cannot be obeyed")
        return named


def _are_sinusoids(table: np.ndarray, C: int) -> bool:
    """Up to the rounding of 16 bits."""
    if table.ndim != 2 or table.shape[1] != C:
        return False
    return bool(np.allclose(table, sinusoids(len(table), C, interleaved=False), rtol=0, atol=1e-2))
