"""Mixtral's architecture, trained to tell the next token and to use all its experts."""

from __future__ import annotations

import numpy as np

from tinyllm.errors import ConfigError
from tinyllm.models import Mixtral, MixtralConfig
from tinyllm.text import Tokenizer
from tinyllm.train.families import llama
from tinyllm.train.settings import Settings
from tinyllm.train.task import NextToken

_EXPERTS, _USED = 8, 2


def make_model(settings: Settings, tokenizer: Tokenizer) -> Mixtral:
    """A new Mixtral as the settings say; a token's two experts together do the work of a Llama's network."""
    if settings.checkpoint_activations == "yes":
        raise ConfigError("checkpoint_activations: the blocks of a mixtral cannot be computed again in backward")
    config = MixtralConfig(
        intermediate_size=llama.inner(settings) // _USED,
        num_local_experts=_EXPERTS,
        num_experts_per_tok=_USED,
        router_aux_loss_coef=0.01,
        **llama.shape(settings, tokenizer),
    )
    return Mixtral(config, rng=np.random.default_rng(settings.seed))


def make_objective(model: Mixtral, tokenizer: Tokenizer, settings: Settings) -> NextToken:
    """The next token, at every position of the context; in training the routers' losses are added."""
    return NextToken(model, model.config.max_position_embeddings)
