"""The training step of `benchmarks/train_step.py` in JAX, as one would write it there."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

Parameters = dict[str, Any]


def training_step(size: dict[str, int], threads: int) -> Callable[[], Any]:
    """Forward, backward, clipping to norm 1 and AdamW, compiled as one function."""
    if hasattr(os, "sched_setaffinity"):  # XLA takes the cores that it finds, and has no other setting
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    import jax
    import jax.numpy as jnp

    channels, heads = size["channels"], size["heads"]
    keys = iter(jax.random.split(jax.random.key(0), 3 + 4 * size["layers"]))

    def normal(*shape: int) -> Any:
        return 0.02 * jax.random.normal(next(keys), shape)

    def block() -> Parameters:
        return {
            "norm1": (jnp.ones(channels), jnp.zeros(channels)),
            "norm2": (jnp.ones(channels), jnp.zeros(channels)),
            "qkv": (normal(channels, 3 * channels), jnp.zeros(3 * channels)),
            "out": (normal(channels, channels), jnp.zeros(channels)),
            "up": (normal(channels, 4 * channels), jnp.zeros(4 * channels)),
            "down": (normal(4 * channels, channels), jnp.zeros(channels)),
        }

    parameters: Parameters = {
        "tokens": normal(size["vocab"], channels),
        "positions": normal(size["time"], channels),
        "blocks": [block() for _ in range(size["layers"])],
        "norm": (jnp.ones(channels), jnp.zeros(channels)),
    }
    ids = jax.random.randint(next(keys), (size["batch"], size["time"]), 0, size["vocab"])

    def norm(x: Any, weight: Any, bias: Any) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        return weight * centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5) + bias

    def linear(x: Any, weight: Any, bias: Any) -> Any:
        return x @ weight + bias

    def loss_of(p: Parameters) -> Any:
        x = p["tokens"][ids] + p["positions"]
        B, T, C = x.shape
        for layer in p["blocks"]:
            qkv = linear(norm(x, *layer["norm1"]), *layer["qkv"]).reshape(B, T, 3, heads, C // heads)
            y = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], is_causal=True)
            x = x + linear(y.reshape(B, T, C), *layer["out"])
            up = jax.nn.gelu(linear(norm(x, *layer["norm2"]), *layer["up"]), approximate=True)
            x = x + linear(up, *layer["down"])
        scores = jax.nn.log_softmax(norm(x, *p["norm"])[:, :-1] @ p["tokens"].T)
        return -jnp.take_along_axis(scores, ids[:, 1:, None], axis=-1).mean()

    def adamw(p: Any, g: Any, m: Any, v: Any, t: Any) -> tuple[Any, Any, Any]:
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        change = m / (1 - 0.9**t) / (jnp.sqrt(v / (1 - 0.95**t)) + 1e-8)
        return p - 1e-3 * (change + 0.1 * p), m, v

    def update(p: Parameters, m: Parameters, v: Parameters, t: Any) -> tuple[Parameters, Parameters, Parameters, Any]:
        g = jax.grad(loss_of)(p)
        length = jnp.sqrt(sum(jnp.vdot(d, d) for d in jax.tree.leaves(g)))
        g = jax.tree.map(lambda d: d * jnp.minimum(1.0, 1.0 / (length + 1e-6)), g)
        leaves, shape = jax.tree.flatten(p)
        rest = (shape.flatten_up_to(tree) for tree in (g, m, v))
        new = [adamw(*ours, t) for ours in zip(leaves, *rest, strict=True)]
        p, m, v = (shape.unflatten(part) for part in zip(*new, strict=True))
        return p, m, v, t + 1

    compiled = jax.jit(update, donate_argnums=(0, 1, 2))
    zeros = [jax.tree.map(jnp.zeros_like, parameters) for _ in range(2)]
    state = (parameters, *zeros, jnp.float32(1))

    def step() -> None:
        nonlocal state
        state = compiled(*state)
        jax.block_until_ready(state)

    return step
