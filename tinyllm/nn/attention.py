"""Attention in several subspaces at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinyllm.autograd import fused, ops
from tinyllm.autograd.tensor import Tensor
from tinyllm.nn import init
from tinyllm.nn.dropout import checked_probability
from tinyllm.nn.linear import Linear
from tinyllm.nn.module import Module

# From a function that projects keys and values (B, H, S, D), those to attend to.
Remember = Callable[[Callable[[], tuple[Tensor, Tensor]]], tuple[Tensor, Tensor]]


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, T, H * D) -> (B, H, T, D)."""
    B, T, C = x.shape
    return ops.swapaxes(x.reshape(B, T, num_heads, C // num_heads), 1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, T, D) -> (B, T, H * D)."""
    B, H, T, D = x.shape
    return ops.swapaxes(x, 1, 2).reshape(B, T, H * D)


class MultiHeadAttention(Module):
    """``concat(head_1, ..., head_H) W_o``, each head F-ATTN on its own slice of the projected channels.

    Self-attention, ``attention(x)``, or cross-attention, ``attention(x, source)``. Batch first. The parameters are
    named and laid out as in ``torch.nn.MultiheadAttention``: the rows of `in_proj_weight` are W_q, W_k and W_v, one
    below the other.

    Parameters
    ----------
    embed_dim : int
        C, of queries and source alike.
    num_heads : int
        H; divides `embed_dim`.
    dropout : float
        Probability, for the attention weights.
    bias : bool
    rng : numpy Generator
        For the weights (Xavier's uniform law), and for dropout outside a `random_scope`.
    dtype : dtype

    Attributes
    ----------
    in_proj_weight : Tensor (3 C, C)
    in_proj_bias : Tensor (3 C,) or None
    out_proj : Linear (C -> C)

    Raises
    ------
    ValueError
        If the heads do not divide the channels.

    Notes
    -----
    Source: Vaswani et al. 2017, section 3.2.2.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        rng: np.random.Generator,
        dtype: DTypeLike = np.float32,
    ) -> None:
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"{num_heads} heads do not divide {embed_dim} channels evenly")
        self.embed_dim, self.num_heads = embed_dim, num_heads
        self.dropout, self.rng = checked_probability(dropout), rng
        weight = init.xavier_uniform((3 * embed_dim, embed_dim), rng, dtype=dtype)
        self.in_proj_weight = Tensor(weight, requires_grad=True)
        self.in_proj_bias = Tensor(init.zeros((3 * embed_dim,), dtype=dtype), requires_grad=True) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias, rng=rng, dtype=dtype)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        attn_mask: Tensor | ArrayLike | None = None,
        is_causal: bool = False,
        remember: Remember | None = None,
    ) -> Tensor:
        """Mix the values by how well the keys match the queries.

        Parameters
        ----------
        query : Tensor (B, T, C)
        key, value : Tensor (B, S, C), optional
            By default `key` is `query` and `value` is `key`.
        attn_mask : (T, S), (B, T, S) or (B, H, T, S), optional
            Booleans, True where attention is allowed, or floats that are added to the scores. What broadcasts to
            these shapes will do: padding of the source, True for real tokens, is ``mask[:, None, :]``.
        is_causal : bool
            Position t sees positions 0..t only.
        remember : callable, optional
            Is handed a function that projects `key` and `value` to heads, (B, H, S, D) each, and returns those to
            attend to: a cache, which adds them to earlier ones or calls the function once only. The queries of causal
            attention are then the last ones of the keys.

        Returns
        -------
        Tensor (B, T, C)
        """
        key = query if key is None else key
        value = key if value is None else value
        if attn_mask is not None:
            attn_mask = attn_mask if isinstance(attn_mask, Tensor) else Tensor(attn_mask)
            if attn_mask.ndim == 3:
                attn_mask = ops.expand_dims(attn_mask, 1)  # (B, 1, T, S)
        p, H = self.dropout if self.training else 0.0, self.num_heads
        if query is key is value:
            qkv = fused.linear(query, self.in_proj_weight, self.in_proj_bias)  # (B, T, 3 C)
            if remember is None:
                return self.out_proj(fused.self_attention(qkv, H, attn_mask, p, is_causal, rng=self.rng))
            q, *kv = (split_heads(x, H) for x in ops.split(qkv, 3, axis=-1))  # (B, H, T, D)
            k, v = remember(lambda: (kv[0], kv[1]))
        else:
            weights, bias = ops.split(self.in_proj_weight, 3), self.in_proj_bias
            biases = [None] * 3 if bias is None else ops.split(bias, 3)

            def heads(x: Tensor, part: int) -> Tensor:
                return split_heads(fused.linear(x, weights[part], biases[part]), H)

            def project() -> tuple[Tensor, Tensor]:
                return heads(key, 1), heads(value, 2)  # (B, H, S, D)

            q = heads(query, 0)  # (B, H, T, D)
            k, v = project() if remember is None else remember(project)
        before = 0 if remember is None else k.shape[-2] - q.shape[-2]
        mixed = fused.scaled_dot_product_attention(
            q, k, v, attn_mask, p, is_causal, offset=before, rng=self.rng
        )  # (B, H, T, D)
        return self.out_proj(merge_heads(mixed))
