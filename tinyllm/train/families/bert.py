"""BERT, trained to tell hidden tokens."""

from __future__ import annotations

import numpy as np

from tinyllm.models import BERTConfig, BERTForMaskedLM
from tinyllm.text import Tokenizer
from tinyllm.train.masked import HiddenTokens
from tinyllm.train.settings import Settings


def make_model(settings: Settings, tokenizer: Tokenizer) -> BERTForMaskedLM:
    """A new BERT as the settings say."""
    config = BERTConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=settings.n_embd,
        num_hidden_layers=settings.n_layer,
        num_attention_heads=settings.n_head,
        intermediate_size=4 * settings.n_embd,
        hidden_dropout_prob=settings.dropout,
        attention_probs_dropout_prob=settings.dropout,
        max_position_embeddings=settings.block_size,
        initializer_range=settings.init_std,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = BERTForMaskedLM(config, rng=np.random.default_rng(settings.seed))
    model.bert.encoder.checkpoint_blocks = settings.checkpoint_activations == "yes"
    return model


def make_objective(model: BERTForMaskedLM, tokenizer: Tokenizer, settings: Settings) -> HiddenTokens:
    """The hidden tokens of windows as long as the model's context."""
    return HiddenTokens(model, tokenizer, model.context_length, settings.whole_words == "yes")
