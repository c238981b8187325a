"""Adagrad: steps that shrink for every parameter with all the gradient that it has met."""

from __future__ import annotations

from typing import Any

from tinyllm.autograd.tensor import Array, namespace
from tinyllm.optim.elementwise import Elementwise, Rule, scaled_and_decayed
from tinyllm.optim.optimizer import Parameters, not_negative


class Adagrad(Elementwise):
    """``s += g^2;  p -= lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps)``, t = 1, 2, ...

    Parameters
    ----------
    params : iterable of Tensors, or of dicts
        See :class:`Optimizer`.
    lr : float
    lr_decay : float
    weight_decay : float
        Times the parameter, added to its gradient.
    initial_accumulator_value : float
        Where the sums of squares begin.
    eps : float
        Added to the root.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    Source: Duchi, Hazan and Singer 2011, section 1.3, the diagonal case.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        options = {"lr_decay": lr_decay, "initial_accumulator_value": initial_accumulator_value, "eps": eps}
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **options})

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        not_negative(group, "lr_decay", "initial_accumulator_value", "eps")

    def _fresh_state(self, p: Array, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": 0, "sum": namespace(p).full(p.shape, group["initial_accumulator_value"], p.dtype)}

    def _rule(self, group: dict[str, Any], scale: float, largest: Array) -> Rule:
        lr, lr_decay, weight_decay, eps = (float(group[name]) for name in ("lr", "lr_decay", "weight_decay", "eps"))

        def rule(p: Array, g: Array, state: dict[str, Any]) -> None:
            g = scaled_and_decayed(g, p, scale, weight_decay)
            squares = state["sum"]
            squares += g * g
            p -= lr / (1 + (state["step"] - 1) * lr_decay) * g / (namespace(p).sqrt(squares) + eps)

        return rule
