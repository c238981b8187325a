"""Recurrent encoder-decoders with one vocabulary for both sides: a GRU reads, another writes, with attention or not."""

from __future__ import annotations

import numpy as np

from tinyllm.models.rnn_seq2seq import RNNEncoderDecoder, RNNEncoderDecoderConfig
from tinyllm.text import Tokenizer
from tinyllm.train.families.transformer import special_ids
from tinyllm.train.settings import Settings
from tinyllm.train.source_target import SourceTarget


def make_model(settings: Settings, tokenizer: Tokenizer) -> RNNEncoderDecoder:
    """A new model as the settings say: one layer, of twice as many units as channels.

    ``rnn`` has no attention, ``rnn-bahdanau`` and ``rnn-luong`` have that of their names.
    """
    config = RNNEncoderDecoderConfig(
        src_vocab_size=tokenizer.vocab_size,
        tgt_vocab_size=tokenizer.vocab_size,
        embedding_size=settings.n_embd,
        hidden_size=2 * settings.n_embd,
        attention=settings.model.partition("-")[2] or "none",
        dropout=settings.dropout,
        share_embeddings=True,
        label_smoothing=settings.label_smoothing,
        **special_ids(tokenizer),
    )
    return RNNEncoderDecoder(config, rng=np.random.default_rng(settings.seed))


def make_objective(model: RNNEncoderDecoder, tokenizer: Tokenizer, settings: Settings) -> SourceTarget:
    """The next token of the target."""
    return SourceTarget(model)
