"""Small encoder-decoders of the published families for tests: every weight drawn at random, constants included."""

import numpy as np

from tinyllm.models import BART, T5, BARTConfig, Marian, MarianConfig, T5Config

SIZES = {
    "bart": {
        "vocab_size": 13,
        "d_model": 12,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 3,
        "decoder_attention_heads": 3,
        "encoder_ffn_dim": 20,
        "decoder_ffn_dim": 16,
        "max_position_embeddings": 10,
        "dropout": 0.0,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": None,
    },
    "t5": {
        "vocab_size": 13,
        "d_model": 12,
        "d_kv": 5,
        "d_ff": 20,
        "num_layers": 2,
        "num_heads": 3,
        "dropout_rate": 0.0,
        "decoder_start_token_id": 0,
    },
}
SIZES["marian"] = SIZES["bart"]
MODELS = {"bart": (BART, BARTConfig), "marian": (Marian, MarianConfig), "t5": (T5, T5Config)}

_BART_LIKE = [
    {},
    {"scale_embedding": True, "activation_function": "relu", "decoder_start_token_id": 1},
    {"tie_word_embeddings": False, "activation_function": "swish"},
    {"encoder_attention_heads": 4, "decoder_attention_heads": 6, "encoder_layers": 1, "decoder_layers": 3},
    {"activation_function": "gelu_new", "encoder_ffn_dim": 7},
]
OPTIONS = [
    *(("bart", options) for options in _BART_LIKE),
    *(("marian", options) for options in _BART_LIKE),
    ("marian", {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 17}),
    ("marian", {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 17, "tie_word_embeddings": False}),
    ("marian", {"d_model": 15}),  # one sine more than cosines
    ("t5", {}),
    ("t5", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    ("t5", {"feed_forward_proj": "gated-silu", "num_decoder_layers": 3, "layer_norm_epsilon": 1e-2}),
    ("t5", {"feed_forward_proj": "gelu", "scale_decoder_outputs": False}),
    ("t5", {"relative_attention_num_buckets": 6, "relative_attention_max_distance": 5, "num_layers": 1}),
    ("t5", {"tie_word_embeddings": False, "scale_decoder_outputs": True, "d_kv": 4}),
]
IDS = [f"{kind}-{'-'.join(f'{k}={v}' for k, v in options.items()) or 'plain'}" for kind, options in OPTIONS]


def tiny(kind, dtype="float64", seed=0, **settings):
    """A model of the family, two layers on each side."""
    model_class, config_class = MODELS[kind]
    model = model_class(config_class(**SIZES[kind] | settings), rng=np.random.default_rng(seed), dtype=dtype)
    rng = np.random.default_rng(seed + 1)
    for name, p in model.named_parameters():
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        p.assign_(rng.normal(centre, 0.2, p.shape))
    return model.eval()


def tgt_vocab_size(model):
    return model.head()[0].shape[0]
