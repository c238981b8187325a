"""Llama, Mistral and Mixtral once more, in PyTorch and float64 throughout, from the papers' formulas.

Nothing is shared with the library but the configuration and the parameters by name.
"""

import cmath
import functools
import math


def frequencies(config, length):
    """Radians per position of each pair of channels, pair by pair, and the factor of the turned vectors."""
    rope, D, found, scale = config.rope_parameters, config.head_dim, [], 1.0
    kind, base, factor = rope["rope_type"], rope["rope_theta"], rope.get("factor")
    trained = rope.get("original_max_position_embeddings")
    if kind == "dynamic" and length > config.max_position_embeddings:
        base *= (factor * length / config.max_position_embeddings - factor + 1) ** (D / (D - 2))
    for i in range(D // 2):
        f = math.exp(-2 * i / D * math.log(base))
        if kind == "linear":
            f /= factor
        if kind == "llama3":
            wavelength = 2 * math.pi / f
            if wavelength > trained / rope["low_freq_factor"]:
                f /= factor
            elif wavelength >= trained / rope["high_freq_factor"]:
                smooth = (trained / wavelength - rope["low_freq_factor"]) / (
                    rope["high_freq_factor"] - rope["low_freq_factor"]
                )
                f = (1 - smooth) * f / factor + smooth * f
        if kind == "yarn":
            ends = []
            for turns in (rope.get("beta_fast", 32), rope.get("beta_slow", 1)):
                ends.append(D * math.log(trained / turns / 2 / math.pi) / 2 / math.log(base))
            if rope.get("truncate", True):
                ends = [math.floor(ends[0]), math.ceil(ends[1])]
            low, high = max(ends[0], 0), min(ends[1], D - 1)
            ramp = min(max((i - low) / (high - low if high > low else 0.001), 0), 1)
            f = f / factor * ramp + f * (1 - ramp)
        found.append(f)
    if kind == "yarn":
        scale = rope.get("attention_factor")
        if not scale:
            a, b = rope.get("mscale"), rope.get("mscale_all_dim")
            scale = 0.1 * math.log(factor) + 1
            if a and b:
                scale = (0.1 * a * math.log(factor) + 1) / (0.1 * b * math.log(factor) + 1)
    return found, scale


def restated(torch, config, p, ids, mask, positions):
    """The logits (B, T, V), and of every layer the routers' scores (B, T, E); `p` are the parameters by name."""
    F = torch.nn.functional
    tanh_gelu = functools.partial(F.gelu, approximate="tanh")
    act = {"silu": F.silu, "gelu": F.gelu, "relu": F.relu, "gelu_pytorch_tanh": tanh_gelu}[config.hidden_act]
    B, T = ids.shape
    H, D, eps = config.num_attention_heads, config.head_dim, config.rms_norm_eps
    angles, scale = frequencies(config, int(positions.max()) + 1)
    turns = [[[scale * cmath.exp(1j * int(t) * f) for f in angles] for t in row] for row in positions]
    turns = torch.tensor(turns, dtype=torch.complex128)
    window = config.sliding_window or T
    may = torch.tensor([[[0 <= i - j < window and bool(m[j]) for j in range(T)] for i in range(T)] for m in mask])

    def map_(name, x):
        y = x @ p[f"{name}.weight"].T
        return y + p[f"{name}.bias"] if f"{name}.bias" in p else y

    def norm(name, x):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * p[f"{name}.weight"]

    def turned(x):  # (B, T, heads, D)
        z = torch.complex(x[..., : D // 2], x[..., D // 2 :]) * turns[:, :, None]
        return torch.cat([z.real, z.imag], -1)

    def network(name, x, gate="gate_proj", up="up_proj", down="down_proj"):
        return map_(f"{name}.{down}", act(map_(f"{name}.{gate}", x)) * map_(f"{name}.{up}", x))

    def mixture(name, x):
        scores = x @ p[f"{name}.gate.weight"].T
        gates = torch.softmax(scores, -1)
        kept = torch.zeros_like(gates).scatter(-1, gates.topk(config.num_experts_per_tok, -1).indices, 1.0)
        gates = gates * kept / (gates * kept).sum(-1, keepdim=True)
        experts = [network(f"{name}.experts.{e}", x, "w1", "w3", "w2") for e in range(config.num_local_experts)]
        return (gates[..., None] * torch.stack(experts, -2)).sum(-2), scores

    x, routers = p["model.embed_tokens.weight"][ids], []
    for layer in range(config.num_hidden_layers):
        name = f"model.layers.{layer}"
        h = norm(f"{name}.input_layernorm", x)
        q, k, v = (map_(f"{name}.self_attn.{part}_proj", h).reshape(B, T, -1, D) for part in "qkv")
        q, k = turned(q), turned(k)
        k, v = (t.repeat_interleave(H // config.num_key_value_heads, 2) for t in (k, v))
        scores = torch.einsum("bthd,bshd->bhts", q, k) / math.sqrt(D)
        weights = torch.softmax(scores.masked_fill(~may[:, None], -1e300), -1)
        y = torch.einsum("bhts,bshd->bthd", weights, v).reshape(B, T, -1)
        x = x + map_(f"{name}.self_attn.o_proj", y)
        h = norm(f"{name}.post_attention_layernorm", x)
        if hasattr(config, "num_local_experts"):
            y, router = mixture(f"{name}.block_sparse_moe", h)
            routers.append(router)
        else:
            y = network(f"{name}.mlp", h)
        x = x + y
    head = p["model.embed_tokens.weight"] if config.tie_word_embeddings else p["lm_head.weight"]
    return norm("model.norm", x) @ head.T, routers


def restated_loss(torch, config, p, ids, mask, positions, labels):
    """The logits, and the loss with what the routers add to it."""
    logits, routers = restated(torch, config, p, ids, mask, positions)
    logs = torch.log_softmax(logits, -1)
    terms = [-logs[b, t, labels[b, t + 1]] for b in range(len(ids)) for t in range(ids.shape[1] - 1)
             if labels[b, t + 1] != -100]  # fmt: skip
    loss = sum(terms) / len(terms)
    if routers:
        E, k = config.num_local_experts, config.num_experts_per_tok
        scores = torch.cat([r[torch.tensor(mask, dtype=bool)] for r in routers])  # every real token of every layer
        gates = torch.softmax(scores, -1)
        share = torch.zeros_like(gates).scatter(-1, gates.topk(k, -1).indices, 1.0).mean(0)
        loss = loss + config.router_aux_loss_coef * E * (share * gates.mean(0)).sum()
        loss = loss + config.router_z_loss_coef * (torch.logsumexp(scores, -1) ** 2).mean()
    return logits, loss
