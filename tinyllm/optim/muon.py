"""Muon: steps of one size in every direction that a weight matrix can move in."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from tinyllm import threads
from tinyllm.autograd.arrays import matmul
from tinyllm.autograd.tensor import Array, namespace
from tinyllm.optim.optimizer import Moved, Optimizer, Parameters

_LR_ADJUSTMENTS = ("original", "match_rms_adamw")


def orthogonalized(
    g: Array,
    ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
    ns_steps: int = 5,
    eps: float = 1e-7,
) -> Array:
    """The matrix with the singular vectors of `g` and singular values of about 1, by Newton-Schulz iteration.

    Each round takes every singular value s to ``a s + b s^3 + c s^5`` with matrix products alone. The default
    coefficients lift small values fastest; the price is that they end between 0.7 and 1.2 and not at 1.

    Parameters
    ----------
    g : array (N, M), floating
    ns_coefficients : a, b, c
    ns_steps : int
        Rounds.
    eps : float
        Least norm to divide by.

    Returns
    -------
    array (N, M) of the same dtype

    Notes
    -----
    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
    """
    a, b, c = (float(x) for x in ns_coefficients)
    tall = g.shape[0] > g.shape[1]
    x = namespace(g).ascontiguousarray(g.T if tall else g)  # (n, m) with n <= m: the squares below are the small ones
    x = x / max(math.sqrt(float((x * x).sum())), eps)  # no singular value is above the Frobenius norm
    for _ in range(ns_steps):
        gram = x @ x.T  # (n, n), symmetric: NumPy computes half of it
        x = a * x + matmul(b * gram + c * matmul(gram, gram), x)
    return x.T if tall else x


class Muon(Optimizer):
    """``m += (1 - momentum) (g - m);  p -= lr * orthogonalized(g + momentum (m - g))``, for the matrices of a network.

    Embeddings, the head, biases and gains belong to another optimiser, such as AdamW.

    Parameters
    ----------
    params : iterable of Tensors (N, M), or of dicts
        See :class:`Optimizer`.
    lr : float
    weight_decay : float
        Share of the parameter, times `lr`, by which it shrinks at each step.
    momentum : float
        How much of the running mean is kept at each step.
    nesterov : bool
        Step by the mean as it will be when the gradient is met once more, instead of by the mean.
    ns_coefficients, eps, ns_steps
        As for :func:`orthogonalized`.
    adjust_lr_fn : {"original", "match_rms_adamw"}, optional
        What `lr` is multiplied by: ``sqrt(max(1, N / M))``, the default, or ``0.2 sqrt(max(N, M))``, which makes steps
        as large as AdamW's.

    Raises
    ------
    ValueError
        If an option is out of range, or a parameter is not a matrix.

    Notes
    -----
    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; Liu et al. 2025, "Muon is
    scalable for LLM training", for the weight decay and "match_rms_adamw".
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: Iterable[float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        options = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }
        super().__init__(params, options)

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        if not 0 <= group["momentum"] <= 1:
            raise ValueError(f"momentum is the share of a mean that is kept, from 0 to 1, got {group['momentum']}")
        group["ns_coefficients"] = tuple(group["ns_coefficients"])
        if len(group["ns_coefficients"]) != 3:
            raise ValueError(f"ns_coefficients are three numbers, got {group['ns_coefficients']}")
        group["adjust_lr_fn"] = group["adjust_lr_fn"] or "original"
        if group["adjust_lr_fn"] not in _LR_ADJUSTMENTS:
            raise ValueError(f"adjust_lr_fn is one of {_LR_ADJUSTMENTS}, got {group['adjust_lr_fn']!r}")
        for p in group["params"]:
            if p.ndim != 2:
                raise ValueError(f"Muon moves matrices, got a parameter of shape {p.shape}; give it to AdamW")

    def _fresh_state(self, p: Array, group: dict[str, Any]) -> dict[str, Any]:
        return {"momentum_buffer": namespace(p).zeros_like(p)}

    def _move(self, moved: list[Moved], group: dict[str, Any], scale: float) -> None:
        """The threads share the matrices."""
        if not isinstance(moved[0][0], np.ndarray):
            super()._move(moved, group, scale)
            return
        threads.each(lambda one: super(Muon, self)._move([one], group, scale), moved)

    def _update(self, p: Array, g: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        m, momentum, lr = state["momentum_buffer"], float(group["momentum"]), float(group["lr"])
        m += (1 - momentum) * (g - m)
        direction = g + momentum * (m - g) if group["nesterov"] else m
        direction = orthogonalized(direction, group["ns_coefficients"], group["ns_steps"], float(group["eps"]))
        rows, columns = p.shape
        if group["adjust_lr_fn"] == "match_rms_adamw":
            scale = 0.2 * math.sqrt(max(rows, columns))
        else:
            scale = math.sqrt(max(1.0, rows / columns))
        p *= 1 - lr * group["weight_decay"]
        p -= lr * scale * direction
