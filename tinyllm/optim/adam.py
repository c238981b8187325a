"""Adam and AdamW: steps of about the learning rate for every parameter, whatever the size of its gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

from tinyllm.autograd.fused.cuda import flat
from tinyllm.autograd.settings import choose_kernel
from tinyllm.autograd.tensor import Array, namespace
from tinyllm.optim.elementwise import Elementwise, Rule, scaled_and_decayed
from tinyllm.optim.optimizer import Parameters, not_negative

# (p, g, m, v, lr, beta1, beta2, eps, weight_decay, bias1, bias2, scale), in place on p, m and v
Step = Callable[..., None]


def adam_step(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    bias1: float,
    bias2: float,
    scale: float = 1.0,
) -> None:
    """One step of Adam (F-ADAM) for the gradient ``scale * g``, in place on `p`, `m` and `v`; bias is 1 - beta^t."""
    g = scaled_and_decayed(g, p, scale, weight_decay)
    m += (1 - beta1) * (g - m)
    v *= beta2
    v += (1 - beta2) * g * g
    p -= lr / bias1 * m / (namespace(p).sqrt(v) / math.sqrt(bias2) + eps)


def adamw_step(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    bias1: float,
    bias2: float,
    scale: float = 1.0,
) -> None:
    """One step of AdamW: `p` shrinks by itself, and Adam follows without weight decay."""
    p *= 1 - lr * weight_decay
    adam_step(p, g, m, v, lr, beta1, beta2, eps, 0.0, bias1, bias2, scale)


def _compiled_adam() -> Step:
    from tinyllm.kernels.cpu.adamw import adam

    return adam


def _compiled_adamw() -> Step:
    from tinyllm.kernels.cpu.adamw import adamw

    return adamw


def _cuda_adam() -> Step:
    from tinyllm.kernels.cuda.adamw import adam

    return _on_gpu(adam, adam_step)


def _cuda_adamw() -> Step:
    from tinyllm.kernels.cuda.adamw import adamw

    return _on_gpu(adamw, adamw_step)


def _on_gpu(kernel: Step, otherwise: Step) -> Step:
    """A step over flat arrays for those of any shape whose elements lie in order."""

    def step(p: Array, g: Array, m: Array, v: Array, *numbers: float) -> None:
        if p.__cuda_array_interface__.get("strides") is not None:
            otherwise(p, g, m, v, *numbers)
        else:
            kernel(p.reshape(-1), flat(g), m.reshape(-1), v.reshape(-1), *numbers)

    return step


class Adam(Elementwise):
    """F-ADAM; weight decay, if any, is added to the gradient.

    ``m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p -= lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)``

    Parameters
    ----------
    params : iterable of Tensors, or of dicts
        See :class:`Optimizer`.
    lr : float
    betas : pair of floats
        How much of the two running means is kept at each step; below 1.
    eps : float
        Added to the root, after the correction of v.
    weight_decay : float
        Times the parameter, added to its gradient.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    Source: Kingma and Ba 2015, algorithm 1.
    """

    _steps: ClassVar[dict[str, Callable[[], Step]]] = {
        "numpy": lambda: adam_step,
        "numba": _compiled_adam,
        "cuda": _cuda_adam,
    }

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        group["betas"] = betas = tuple(group["betas"])
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas are two numbers, at least 0 and below 1, got {betas}")
        not_negative(group, "eps")

    def _fresh_state(self, p: Array, group: dict[str, Any]) -> dict[str, Any]:
        xp = namespace(p)
        return {"step": 0, "exp_avg": xp.zeros(p.shape, p.dtype), "exp_avg_sq": xp.zeros(p.shape, p.dtype)}

    def _rule(self, group: dict[str, Any], scale: float, largest: Array) -> Rule:
        step = self._steps[choose_kernel(self._steps, largest)]()
        beta1, beta2 = group["betas"]
        # Python's numbers, which leave float32 what it is
        lr, beta1, beta2, eps, decay = map(float, (group["lr"], beta1, beta2, group["eps"], group["weight_decay"]))

        def rule(p: Array, g: Array, state: dict[str, Any]) -> None:
            bias1, bias2 = 1 - beta1 ** state["step"], 1 - beta2 ** state["step"]
            step(p, g, state["exp_avg"], state["exp_avg_sq"], lr, beta1, beta2, eps, decay, bias1, bias2, scale)

        return rule


class AdamW(Adam):
    """Adam with decoupled weight decay: ``p *= 1 - lr * weight_decay`` before the step, and the gradient is left alone.

    Parameters
    ----------
    params, lr, betas, eps
        As for :class:`Adam`.
    weight_decay : float
        Share of the parameter, times `lr`, by which it shrinks at each step.

    Notes
    -----
    Source: Loshchilov and Hutter 2019, algorithm 2, with the schedule inside `lr`.
    """

    _steps: ClassVar[dict[str, Callable[[], Step]]] = {
        "numpy": lambda: adamw_step,
        "numba": _compiled_adamw,
        "cuda": _cuda_adamw,
    }

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
