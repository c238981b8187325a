"""A small GPT for the tests of its forward, its folders and its peers."""

import numpy as np

from tinyllm.models import GPT, GPTConfig


def tiny_gpt(seed=0, dtype="float64", **settings):
    """A GPT whose parameters are all drawn at random, biases and norms included."""
    shape = {"vocab_size": 13, "n_positions": 10, "n_embd": 12, "n_layer": 2, "n_head": 3}
    model = GPT(GPTConfig(**shape | settings), rng=np.random.default_rng(seed), dtype=dtype)
    rng = np.random.default_rng(seed + 1)
    for name, p in model.named_parameters():
        centre = 1.0 if ".ln_" in name and name.endswith("weight") else 0.0
        p.assign_(rng.normal(centre, 0.3, p.shape))
    return model.eval()
