"""Small models of Llama's kin for the tests of their forward, their folders and their peers."""

import numpy as np

import tinyllm as tl

SHAPE = {
    "vocab_size": 13,
    "hidden_size": 12,
    "intermediate_size": 10,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 16,
}
MIXTURE = {"num_local_experts": 4, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.05}

SCALINGS = [
    {"rope_theta": 300.0},
    {"rope_type": "linear", "factor": 3.0},
    {"rope_type": "dynamic", "factor": 4.0},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 9,
        "rope_theta": 50.0,
    },
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 12, "rope_theta": 40.0},
    {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 7,
        "beta_fast": 2.0,
        "beta_slow": 0.5,
        "truncate": False,
        "mscale": 0.7,
        "mscale_all_dim": 0.4,
    },
    {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8, "attention_factor": 1.3},
]


def tiny(kind="Llama", seed=0, dtype="float64", **settings):
    """A Llama, Mistral or Mixtral whose parameters are all drawn at random, biases and norms included."""
    shape = SHAPE | (MIXTURE if kind == "Mixtral" else {})
    config = getattr(tl.models, f"{kind}Config")(**shape | settings)
    model = getattr(tl.models, kind)(config, rng=np.random.default_rng(seed), dtype=dtype)
    rng = np.random.default_rng(seed + 1)
    for name, p in model.named_parameters():
        centre = 1.0 if "norm" in name else 0.0
        p.assign_(rng.normal(centre, 0.3, p.shape))
    return model.eval()
