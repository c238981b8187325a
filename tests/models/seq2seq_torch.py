"""The formulas of Marian, BART and T5 once more, in PyTorch and whatever precision the weights have.

transformers computes T5's norms and Marian's sinusoids in float32 even in a float64 model; this does not.
"""

import math

import numpy as np
import torch
from torch.nn import functional as F

ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "relu": torch.relu,
    "swish": F.silu,
    "silu": F.silu,
}


def attend(x, source, w, names, heads, scale, bias):
    """softmax(q k^T scale + bias) v, from weights with or without their biases."""
    q, k, v, out = names

    def project(y, name):
        return F.linear(y, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def split(y):
        return y.reshape(*y.shape[:2], heads, -1).transpose(1, 2)

    scores = split(project(x, q)) @ split(project(source, k)).transpose(2, 3) * scale + bias
    mixed = torch.softmax(scores, -1) @ split(project(source, v))
    return project(mixed.transpose(1, 2).flatten(2), out)


def shut(visible, like):
    """0 where a key may be seen, -inf where not."""
    return torch.zeros(visible.shape, dtype=like.dtype).masked_fill(~visible, -math.inf)


def causal(T, like):
    return shut(torch.ones(T, T).tril().bool()[None, None], like)


def bart(w, c, source, mask, target, marian):
    """Logits of BART, or of Marian."""
    f = ACTIVATIONS[c.activation_function]
    C = c.d_model
    scale = math.sqrt(C) if c.scale_embedding else 1.0
    padding = shut(mask[:, None, None, :] == 1, w["final_logits_bias"])

    def norm(x, name):
        return F.layer_norm(x, (C,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    def table(side):
        return w.get(f"model.{side}.embed_tokens.weight", w.get("model.shared.weight"))

    def embedded(side, ids, positions):
        x = F.embedding(ids, table(side), c.pad_token_id) * scale
        if marian:
            angles = positions[..., None].double() / 10000 ** (torch.arange(0, C, 2).double() / C)
            places = torch.cat([angles.sin(), angles.cos()[..., : C // 2]], -1)
            return x + places.to(x.dtype)
        x = x + w[f"model.{side}.embed_positions.weight"][positions + 2]
        return norm(x, f"model.{side}.layernorm_embedding")

    def attention(x, y, name, side, bias):
        heads = getattr(c, f"{side}_attention_heads")
        names = [f"{name}.{part}" for part in ("q_proj", "k_proj", "v_proj", "out_proj")]
        return norm(x + attend(x, y, w, names, heads, (C // heads) ** -0.5, bias), f"{name}_layer_norm")

    def network(x, name):
        hidden = f(F.linear(x, w[f"{name}.fc1.weight"], w[f"{name}.fc1.bias"]))
        y = F.linear(hidden, w[f"{name}.fc2.weight"], w[f"{name}.fc2.bias"])
        return norm(x + y, f"{name}.final_layer_norm")

    x = embedded("encoder", source, (mask.cumsum(1) - 1).clamp(min=0))
    for i in range(c.encoder_layers):
        name = f"model.encoder.layers.{i}"
        x = network(attention(x, x, f"{name}.self_attn", "encoder", padding), name)
    memory, y = x, embedded("decoder", target, torch.arange(target.shape[1])[None])
    for i in range(c.decoder_layers):
        name = f"model.decoder.layers.{i}"
        y = attention(y, y, f"{name}.self_attn", "decoder", causal(target.shape[1], y))
        y = network(attention(y, memory, f"{name}.encoder_attn", "decoder", padding), name)
    head = w.get("lm_head.weight", table("decoder"))
    return y @ head.T + w["final_logits_bias"]


def bucket(distance, both, count, longest):
    """The class of one distance, after the paper's words."""
    if both:
        count //= 2
        start, distance = (count if distance > 0 else 0), abs(distance)
    else:
        start, distance = 0, max(-distance, 0)
    exact = count // 2
    if distance < exact:
        return start + distance
    growth = np.float32(math.log(np.float32(distance) / np.float32(exact))) / np.float32(math.log(longest / exact))
    return start + min(exact + int(growth * np.float32(count - exact)), count - 1)


def t5(w, c, source, mask, target):
    """Logits of T5."""
    f = ACTIVATIONS[c.activation_function]

    def norm(x, name):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + c.layer_norm_epsilon) * w[f"{name}.weight"]

    def bias(side, T):
        classes = [
            [
                bucket(j - i, side == "encoder", c.relative_attention_num_buckets, c.relative_attention_max_distance)
                for j in range(T)
            ]
            for i in range(T)
        ]
        table = w[f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        return table[torch.tensor(classes)].permute(2, 0, 1)[None]

    def attention(x, y, name, part, bias):
        names = [f"{name}.{part}.{matrix}" for matrix in "qkvo"]
        normed = norm(x, f"{name}.layer_norm")
        return x + attend(normed, normed if y is None else y, w, names, c.num_heads, 1.0, bias)

    def network(x, name):
        normed, dense = norm(x, f"{name}.layer_norm"), f"{name}.DenseReluDense"
        if c.is_gated:
            hidden = f(normed @ w[f"{dense}.wi_0.weight"].T) * (normed @ w[f"{dense}.wi_1.weight"].T)
        else:
            hidden = f(normed @ w[f"{dense}.wi.weight"].T)
        return x + hidden @ w[f"{dense}.wo.weight"].T

    padding = shut(mask[:, None, None, :] == 1, w["shared.weight"])
    x = w["shared.weight"][source]
    for i in range(c.num_layers):
        name = f"encoder.block.{i}.layer"
        x = attention(x, None, f"{name}.0", "SelfAttention", bias("encoder", source.shape[1]) + padding)
        x = network(x, f"{name}.1")
    memory, T = norm(x, "encoder.final_layer_norm"), target.shape[1]
    y = w["shared.weight"][target]
    for i in range(c.num_decoder_layers):
        name = f"decoder.block.{i}.layer"
        y = attention(y, None, f"{name}.0", "SelfAttention", bias("decoder", T) + causal(T, y))
        y = attention(y, memory, f"{name}.1", "EncDecAttention", padding)
        y = network(y, f"{name}.2")
    y = norm(y, "decoder.final_layer_norm")
    if c.scale_decoder_outputs:
        y = y * c.d_model**-0.5
    return y @ w.get("lm_head.weight", w["shared.weight"]).T


def restated(kind, weights, config, source, mask, target):
    """Logits (B, T, V) of a model of the family, from a dict of its weights."""
    if kind == "t5":
        return t5(weights, config, source, mask, target)
    return bart(weights, config, source, mask, target, marian=kind == "marian")
