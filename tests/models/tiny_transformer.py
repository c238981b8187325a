"""A small encoder-decoder for tests: every parameter drawn at random, biases and norms included."""

import numpy as np

from tinyllm.models import Transformer, TransformerConfig

OPTIONS = [
    {},
    {"norm_first": True, "activation": "gelu"},
    {"positions": "learned", "tie_word_embeddings": False},
    {"bias": False, "nhead": 1, "num_encoder_layers": 1, "num_decoder_layers": 3},
    {"share_embeddings": True, "src_vocab_size": 13, "layer_norm_eps": 1e-2},
    {"share_embeddings": True, "src_vocab_size": 13, "tie_word_embeddings": False, "positions": "learned"},
]


def randomised(model, seed=1):
    """The model, with all its weights drawn at random."""
    rng = np.random.default_rng(seed)
    for name, p in model.named_parameters():
        p.assign_(rng.normal(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.3, p.shape))
    return model.eval()


def tiny_transformer(dtype="float64", **settings):
    """Two layers in each stack, 12 channels, vocabularies of 11 and 13 tokens."""
    sizes = {"src_vocab_size": 11, "tgt_vocab_size": 13, "d_model": 12, "nhead": 3, "dim_feedforward": 20}
    sizes |= {"num_encoder_layers": 2, "num_decoder_layers": 2, "max_position_embeddings": 12, "dropout": 0.0}
    return randomised(Transformer(TransformerConfig(**sizes | settings), rng=np.random.default_rng(0), dtype=dtype))
