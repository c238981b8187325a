"""GPT-2's architecture, trained to tell the next token."""

from __future__ import annotations

import numpy as np

from tinyllm.models import GPT, GPTConfig
from tinyllm.text import Tokenizer
from tinyllm.train.settings import Settings
from tinyllm.train.task import NextToken


def make_model(settings: Settings, tokenizer: Tokenizer) -> GPT:
    """A new GPT as the settings say."""
    config = GPTConfig(
        vocab_size=tokenizer.vocab_size,
        n_positions=settings.block_size,
        n_embd=settings.n_embd,
        n_layer=settings.n_layer,
        n_head=settings.n_head,
        initializer_range=settings.init_std,
        embd_pdrop=settings.dropout,
        attn_pdrop=settings.dropout,
        resid_pdrop=settings.dropout,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = GPT(config, rng=np.random.default_rng(settings.seed))
    model.transformer.checkpoint_blocks = settings.checkpoint_activations == "yes"
    return model


def make_objective(model: GPT, tokenizer: Tokenizer, settings: Settings) -> NextToken:
    """The next token, at every position of the context."""
    return NextToken(model, model.config.n_positions)
