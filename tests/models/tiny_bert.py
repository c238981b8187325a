"""A BERT small enough for tests, with weights large enough to matter."""

import numpy as np

from tinyllm.models import BERT, BERTConfig


def tiny_config(**settings):
    small = {
        "vocab_size": 23,
        "hidden_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 20,
        "max_position_embeddings": 11,
        "initializer_range": 0.3,
    }
    return BERTConfig(**small | settings)


def tiny_bert(kind=BERT, dtype="float64", seed=0, **settings):
    """A model in evaluation mode whose biases and norms are not at their first values either."""
    model = kind(tiny_config(**settings), rng=np.random.default_rng(seed), dtype=dtype)
    rng = np.random.default_rng(seed + 1)
    for _, p in model.named_parameters():
        p.assign_(p.data + rng.normal(0, 0.1, p.shape).astype(dtype))
    return model.eval()
