"""The encoder-decoder Transformer with one vocabulary for both sides, its layers norming their input."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyllm.errors import TokenizerError
from tinyllm.models.transformer import Transformer
from tinyllm.models.transformer_config import TransformerConfig
from tinyllm.text import Tokenizer
from tinyllm.train.settings import Settings
from tinyllm.train.source_target import SourceTarget


def make_model(settings: Settings, tokenizer: Tokenizer) -> Transformer:
    """A new Transformer as the settings say."""
    return Transformer(make_config(settings, tokenizer), rng=np.random.default_rng(settings.seed))


def make_config(settings: Settings, tokenizer: Tokenizer) -> TransformerConfig:
    """Its configuration: as many layers in the encoder as in the decoder."""
    return TransformerConfig(
        src_vocab_size=tokenizer.vocab_size,
        tgt_vocab_size=tokenizer.vocab_size,
        d_model=settings.n_embd,
        nhead=settings.n_head,
        num_encoder_layers=settings.n_layer,
        num_decoder_layers=settings.n_layer,
        dim_feedforward=4 * settings.n_embd,
        dropout=settings.dropout,
        activation="gelu",
        norm_first=True,
        max_position_embeddings=settings.block_size,
        share_embeddings=True,
        label_smoothing=settings.label_smoothing,
        **special_ids(tokenizer),
    )


def special_ids(tokenizer: Tokenizer) -> dict[str, Any]:
    """The ids that an encoder-decoder's configuration names."""
    ids = {
        "pad_token_id": tokenizer.pad_token_id,
        "decoder_start_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if None in ids.values():
        raise TokenizerError("a model of two texts needs a tokenizer with tokens that pad, begin and end texts")
    return {name: index for name, index in ids.items() if index is not None}


def make_objective(model: Transformer, tokenizer: Tokenizer, settings: Settings) -> SourceTarget:
    """The next token of the target."""
    return SourceTarget(model)
