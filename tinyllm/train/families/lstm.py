"""An LSTM, trained to tell the next token."""

from __future__ import annotations

import numpy as np

from tinyllm.errors import ConfigError
from tinyllm.models.lstm import LSTMConfig, LSTMLanguageModel
from tinyllm.text import Tokenizer
from tinyllm.train.settings import Settings
from tinyllm.train.task import NextToken
from tinyllm.train.truncated import Truncated


def make_model(settings: Settings, tokenizer: Tokenizer) -> LSTMLanguageModel:
    """A new LSTM as the settings say: `n_layer` layers of `n_embd` units."""
    config = LSTMConfig(
        vocab_size=tokenizer.vocab_size,
        embedding_size=settings.n_embd,
        hidden_size=settings.n_embd,
        num_layers=settings.n_layer,
        dropout=settings.dropout,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LSTMLanguageModel(config, rng=np.random.default_rng(settings.seed))


def make_objective(model: LSTMLanguageModel, tokenizer: Tokenizer, settings: Settings) -> NextToken:
    """The next token, at every position of a window; with `carry_state`, of windows that follow each other."""
    if settings.carry_state == "no":
        return NextToken(model, settings.block_size)
    if settings.teacher:
        raise ConfigError("a teacher begins each window without a state: distillation goes with carry_state = no")
    return Truncated(model, settings.block_size, settings.batch_size)
