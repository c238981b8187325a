"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from tinyllm.autograd.tensor import Array, namespace
from tinyllm.optim.optimizer import Optimizer, Parameters


class SGD(Optimizer):
    """``p -= lr * g`` (F-SGD), or with a velocity: ``v = momentum * v + (1 - dampening) * g;  p -= lr * v``.

    Parameters
    ----------
    params : iterable of Tensors, or of dicts
        See :class:`Optimizer`.
    lr : float
    momentum : float
        How much of the velocity is kept. The first velocity is the first gradient, undamped.
    dampening : float
    weight_decay : float
        Added to the gradient, times the parameter.
    nesterov : bool
        Step by ``g + momentum * v``, the gradient as it will be, instead of by v.

    Raises
    ------
    ValueError
        If an option is out of range, or `nesterov` comes without momentum or with dampening.

    Notes
    -----
    Source: Robbins and Monro 1951; Polyak 1964; Sutskever et al. 2013, section 2.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        options = {"momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov}
        super().__init__(params, {"lr": lr, **options})

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        if not group["momentum"] >= 0:
            raise ValueError(f"momentum must not be negative, got {group['momentum']}")
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError("nesterov needs momentum and no dampening")

    def _fresh_state(self, p: Array, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": 0, "momentum_buffer": namespace(p).zeros_like(p)} if group["momentum"] else {}

    def _update(self, p: Array, g: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        if group["weight_decay"]:
            g = g + group["weight_decay"] * p
        if group["momentum"]:
            v = state["momentum_buffer"]
            v *= group["momentum"]
            v += g if state["step"] == 0 else (1 - group["dampening"]) * g
            state["step"] += 1
            g = g + group["momentum"] * v if group["nesterov"] else v
        p -= float(group["lr"]) * g  # a Python number, which leaves float32 what it is
