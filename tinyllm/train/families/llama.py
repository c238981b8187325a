"""Llama's architecture, trained to tell the next token."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyllm.models import Llama, LlamaConfig
from tinyllm.text import Tokenizer
from tinyllm.train.settings import Settings
from tinyllm.train.task import NextToken


def make_model(settings: Settings, tokenizer: Tokenizer) -> Llama:
    """A new Llama as the settings say."""
    config = LlamaConfig(intermediate_size=inner(settings), **shape(settings, tokenizer))
    model = Llama(config, rng=np.random.default_rng(settings.seed))
    model.model.checkpoint_blocks = settings.checkpoint_activations == "yes"
    return model


def inner(settings: Settings) -> int:
    """Channels within the feed-forward networks, whose three matrices so are as large as GPT-2's two, of 4 C."""
    return -(-8 * settings.n_embd // 24) * 8


def shape(settings: Settings, tokenizer: Tokenizer) -> dict[str, Any]:
    """What the settings say of every model of Llama's kin."""
    return {
        "vocab_size": tokenizer.vocab_size,
        "max_position_embeddings": settings.block_size,
        "hidden_size": settings.n_embd,
        "num_hidden_layers": settings.n_layer,
        "num_attention_heads": settings.n_head,
        "initializer_range": settings.init_std,
        "attention_dropout": settings.dropout,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def make_objective(model: Llama, tokenizer: Tokenizer, settings: Settings) -> NextToken:
    """The next token, at every position of the context."""
    return NextToken(model, model.config.max_position_embeddings)
