"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from tinyllm.autograd.tensor import Array, namespace
from tinyllm.optim.elementwise import Elementwise, Rule, scaled_and_decayed
from tinyllm.optim.optimizer import Parameters, not_negative


class SGD(Elementwise):
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
        not_negative(group, "momentum")
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError("nesterov needs momentum and no dampening")

    def _fresh_state(self, p: Array, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": 0, "momentum_buffer": namespace(p).zeros(p.shape, p.dtype)} if group["momentum"] else {}

    def _rule(self, group: dict[str, Any], scale: float, largest: Array) -> Rule:
        lr, weight_decay = float(group["lr"]), float(group["weight_decay"])  # Python's numbers leave float32 what it is
        momentum, fresh = float(group["momentum"]), 1 - float(group["dampening"])

        def rule(p: Array, g: Array, state: dict[str, Any]) -> None:
            g = scaled_and_decayed(g, p, scale, weight_decay)
            if momentum:
                v = state["momentum_buffer"]
                v *= momentum
                v += g if state["step"] == 1 else fresh * g
                g = g + momentum * v if group["nesterov"] else v
            p -= lr * g

        return rule
