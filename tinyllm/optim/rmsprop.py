"""RMSprop: gradients divided by a running mean of their size."""

from __future__ import annotations

from typing import Any

from tinyllm.autograd.tensor import Array, namespace
from tinyllm.optim.elementwise import Elementwise, Rule, scaled_and_decayed
from tinyllm.optim.optimizer import Parameters, not_negative


class RMSprop(Elementwise):
    """``v = alpha v + (1 - alpha) g^2;  p -= lr * g / (sqrt(v) + eps)``.

    Parameters
    ----------
    params : iterable of Tensors, or of dicts
        See :class:`Optimizer`.
    lr : float
    alpha : float
        How much of the running mean is kept at each step; below 1.
    eps : float
        Added to the root.
    weight_decay : float
        Times the parameter, added to its gradient.
    momentum : float
        How much of a velocity ``u = momentum u + g / (sqrt(v) + eps)`` is kept, by which p then moves.
    centered : bool
        Divide by the standard deviation, the root of v less the square of the running mean of g, instead of by the
        root of v.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    Source: Tieleman and Hinton 2012, lecture 6.5; Graves 2013, equations 38-45, for `centered` and `momentum`.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        options = {"alpha": alpha, "eps": eps, "momentum": momentum, "centered": centered}
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **options})

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        not_negative(group, "momentum", "eps")
        if not 0 <= group["alpha"] < 1:
            raise ValueError(f"alpha is at least 0 and below 1, got {group['alpha']}")

    def _fresh_state(self, p: Array, group: dict[str, Any]) -> dict[str, Any]:
        names = ["square_avg"] + ["momentum_buffer"] * bool(group["momentum"]) + ["grad_avg"] * bool(group["centered"])
        return {name: namespace(p).zeros(p.shape, p.dtype) for name in names}

    def _rule(self, group: dict[str, Any], scale: float, largest: Array) -> Rule:
        lr, alpha, eps = (float(group[name]) for name in ("lr", "alpha", "eps"))
        weight_decay, momentum = float(group["weight_decay"]), float(group["momentum"])

        def rule(p: Array, g: Array, state: dict[str, Any]) -> None:
            g = scaled_and_decayed(g, p, scale, weight_decay)
            v = state["square_avg"]
            v *= alpha
            v += (1 - alpha) * g * g
            variance = v
            if group["centered"]:
                mean = state["grad_avg"]
                mean += (1 - alpha) * (g - mean)
                variance = v - mean * mean
            direction = g / (namespace(p).sqrt(variance) + eps)
            if momentum:
                u = state["momentum_buffer"]
                u *= momentum
                u += direction
                direction = u
            p -= lr * direction

        return rule
