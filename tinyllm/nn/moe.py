"""A mixture of experts: many feed-forward networks, of which every token uses the k that a gate chooses for it (F-MOE).

Tokens are sorted by their experts, so that each expert reads its own in one product of matrices, and then put back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from tinyllm.autograd import fused, ops
from tinyllm.autograd.fused.grouped_linear import grouped_linear
from tinyllm.autograd.random import next_key, uniform
from tinyllm.autograd.tensor import Tensor
from tinyllm.nn.activations import activation
from tinyllm.nn.linear import Linear
from tinyllm.nn.module import Module


class Routing(NamedTuple):
    """Where the tokens of one layer went.

    Attributes
    ----------
    logits : Tensor (N, E)
        The gate's scores of every token, padding included.
    chosen : (N, k) integers
        The experts of every token, the best first.
    tokens : (N,) booleans
        False for padding, which no expert reads.
    counts : (E,) integers
        How many tokens each expert has read.
    dropped : int
        How many choices found their expert full.
    """

    logits: Tensor
    chosen: np.ndarray
    tokens: np.ndarray
    counts: np.ndarray
    dropped: int


class Expert(Module):
    """The matrices of one gated feed-forward network, ``w2 (act(w1 x) * w3 x)``; it is `MoE` that computes it."""

    def __init__(
        self, embed_dim: int, hidden_dim: int, std: float, out_std: float, rng: np.random.Generator, dtype: DTypeLike
    ) -> None:
        self.w1 = Linear(embed_dim, hidden_dim, False, std=std, rng=rng, dtype=dtype)
        self.w2 = Linear(hidden_dim, embed_dim, False, std=out_std, rng=rng, dtype=dtype)
        self.w3 = Linear(embed_dim, hidden_dim, False, std=std, rng=rng, dtype=dtype)


class MoE(Module):
    """``y = sum over the k best experts e of G(x)_e E_e(x)``, G the softmax of their k scores (F-MOE).

    With k = 1 the gate's value is exactly 1: then only the losses of `balance_loss` and `router_z_loss` train the gate.

    Parameters
    ----------
    embed_dim, hidden_dim : int
        Channels of a token, and within an expert.
    num_experts, top_k : int
        E, and how many of them a token uses.
    hidden_act : str
        Of the experts, as in :func:`tinyllm.nn.activation`.
    jitter : float
        In training mode the input is multiplied by uniform noise from [1 - jitter, 1 + jitter].
    capacity_factor : float, optional
        In training mode an expert reads at most ``ceil(capacity_factor k N / E)`` of N tokens, the first ones; the
        others lose that choice. By default no token is dropped, and in evaluation mode none ever is: what a token
        becomes then depends on no other.
    std, out_std : float
        Deviations of the first weights: of the gate, w1 and w3; and of w2.
    rng : numpy Generator
        For the weights, and for jitter outside a `random_scope`.
    dtype : dtype

    Attributes
    ----------
    gate : Linear (C -> E)
    experts : list of Expert

    Raises
    ------
    ValueError
        If there are fewer experts than a token is to use, or a factor is impossible.

    Notes
    -----
    Source: Shazeer et al. 2017, equations 1, 3 and 5; noise and capacity: Fedus, Zoph and Shazeer 2022, section 2.2 and
    appendix C; gated experts and parameter names: Jiang et al. 2024 (Mixtral), section 2.1.
    """

    def __init__(
        self,
        embed_dim: int,
        hidden_dim: int,
        num_experts: int,
        top_k: int,
        *,
        hidden_act: str = "silu",
        jitter: float = 0.0,
        capacity_factor: float | None = None,
        std: float = 0.02,
        out_std: float = 0.02,
        rng: np.random.Generator,
        dtype: DTypeLike = np.float32,
    ) -> None:
        if not 1 <= top_k <= num_experts:
            raise ValueError(f"each token needs 1 to {num_experts} of the {num_experts} experts, got top_k={top_k}")
        if not 0 <= jitter < 1 or (capacity_factor is not None and not 0 < capacity_factor < math.inf):
            raise ValueError(
                f"jitter must be in [0, 1) and capacity_factor above 0, got {jitter} and {capacity_factor}"
            )
        self.num_experts, self.top_k, self.hidden_act = num_experts, top_k, hidden_act
        self.jitter, self.capacity_factor, self.rng = jitter, capacity_factor, rng
        self.gate = Linear(embed_dim, num_experts, False, std=std, rng=rng, dtype=dtype)
        self.experts = [Expert(embed_dim, hidden_dim, std, out_std, rng, dtype) for _ in range(num_experts)]

    def forward(self, x: Tensor, tokens: np.ndarray | None = None) -> tuple[Tensor, Routing]:
        """Mix what the chosen experts make of each token.

        Parameters
        ----------
        x : Tensor (..., C)
        tokens : (...) booleans, optional
            False for padding, whose result is 0.

        Returns
        -------
        Tensor (..., C), Routing
        """
        flat = x.reshape(-1, x.shape[-1])  # (N, C)
        N, k = len(flat), self.top_k
        real = np.ones(N, bool) if tokens is None else np.asarray(tokens, bool).reshape(-1)
        if self.training and self.jitter:
            noise = uniform(np, next_key(self.rng), flat.shape)
            flat = flat * Tensor((1 + self.jitter * (2 * noise - 1)).astype(flat.dtype))
        logits = self.gate(flat)  # (N, E)
        best, which = ops.topk(logits, k)  # (N, k), the best first
        chosen = which.numpy()
        order, counts = self._sorted(chosen, real)
        sent = np.zeros(N * k, bool)
        sent[order] = True
        weights = fused.softmax(best) * sent.reshape(N, k)

        rows = fused.embedding(order // k, flat)  # (M, C): choices i k .. i k + k - 1 are token i's
        results = self._experts(rows, counts)  # (M, C), sorted by expert
        place = np.zeros(N * k, np.int64)  # of each choice among the sorted ones; of those not sent any, at weight 0
        place[order] = np.arange(len(order))
        if len(order):
            parts = fused.embedding(place, results).reshape(N, k, -1)
            y = ops.sum(ops.expand_dims(weights, -1) * parts, axis=1)  # (N, C)
        else:
            y = flat * 0
        dropped = k * int(real.sum()) - len(order)
        return y.reshape(x.shape), Routing(logits, chosen, real, counts, dropped)

    def _sorted(self, chosen: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The choices (M,) to be worked on, numbered row by row through `chosen`, sorted by expert; how many each has.

        The choices of one expert keep the order of their tokens, so that a full expert drops the last ones: whether a
        token is dropped does not depend on the tokens after it.
        """
        k, E = self.top_k, self.num_experts
        expert = np.where(real[:, None], chosen, E).reshape(-1)  # E: nobody
        order = np.argsort(expert, kind="stable")[: k * int(real.sum())]
        counts = np.bincount(expert[order], minlength=E)
        if not self.training or self.capacity_factor is None:
            return order, counts
        capacity = math.ceil(self.capacity_factor * k * real.sum() / E)
        starts = counts.cumsum() - counts
        within = np.arange(len(order)) - np.repeat(starts, counts)  # the how-manieth of its expert
        return order[within < capacity], np.minimum(counts, capacity)

    def _experts(self, rows: Tensor, counts: np.ndarray) -> Tensor:
        """Rows (M, C) sorted by expert -> (M, C)."""
        gate = grouped_linear(rows, [expert.w1.weight for expert in self.experts], counts)  # (M, hidden)
        up = grouped_linear(rows, [expert.w3.weight for expert in self.experts], counts)
        act = activation(self.hidden_act)
        hidden = fused.swiglu(gate, up) if self.hidden_act in ("silu", "swish") else act(gate) * up
        return grouped_linear(hidden, [expert.w2.weight for expert in self.experts], counts)


def balance_loss(layers: Sequence[Routing]) -> Tensor:
    """``E sum_e f_e P_e`` (F-MOE, without its coefficient): least, k, where all experts are used alike.

    f_e is the share of tokens that chose expert e, so that the f sum to k; P_e the mean probability that the gate gives
    it. Only P has a gradient: it pushes down the scores of the experts that are used most.

    Parameters
    ----------
    layers : sequence of Routing
        All tokens of all layers are counted together, as in transformers.

    Returns
    -------
    Tensor, 0-d

    Notes
    -----
    Source: Fedus, Zoph and Shazeer 2022, section 2.2, equations 4 to 6, there for k = 1.
    """
    E = layers[0].logits.shape[-1]
    rows = max(1, sum(int(layer.tokens.sum()) for layer in layers))
    chosen = np.concatenate([layer.chosen[layer.tokens].reshape(-1) for layer in layers])
    f = np.bincount(chosen, minlength=E) / rows
    P = None
    for layer in layers:
        probabilities = ops.sum(fused.softmax(layer.logits) * layer.tokens[:, None], axis=0) / rows  # (E,)
        P = probabilities if P is None else P + probabilities
    assert P is not None
    return E * ops.sum(P * f.astype(P.dtype))


def router_z_loss(layers: Sequence[Routing]) -> Tensor:
    """The mean of ``logsumexp(scores)^2`` over all tokens of all layers: it keeps the gates' scores small.

    Parameters
    ----------
    layers : sequence of Routing

    Returns
    -------
    Tensor, 0-d

    Notes
    -----
    Source: Zoph et al. 2022 (ST-MoE), equation 5.
    """
    rows = max(1, sum(int(layer.tokens.sum()) for layer in layers))
    total = None
    for layer in layers:
        squares = ops.sum(ops.logsumexp(layer.logits, axis=-1) ** 2 * layer.tokens)
        total = squares if total is None else total + squares
    assert total is not None
    return total / rows
