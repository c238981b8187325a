"""An affine map."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from tinyllm.autograd import fused
from tinyllm.autograd.tensor import Tensor
from tinyllm.nn import init
from tinyllm.nn.module import Module


class Linear(Module):
    """``x @ weight.mT + bias``.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
        Without it `bias` is None.
    std : float, optional
        Deviation of the first weights, which then are normal; by default Xavier's uniform law (F-INIT).
    rng : numpy Generator
        For the weight. The bias starts at 0.
    dtype : dtype

    Attributes
    ----------
    weight : Tensor (out_features, in_features)
    bias : Tensor (out_features,) or None
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        std: float | None = None,
        rng: np.random.Generator,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.in_features, self.out_features = in_features, out_features
        shape = (out_features, in_features)
        if std is None:
            weight = init.xavier_uniform(shape, rng, dtype=dtype)
        else:
            weight = init.normal(shape, rng, std=std, dtype=dtype)
        self.weight = Tensor(weight, requires_grad=True)
        self.bias = Tensor(init.zeros((out_features,), dtype=dtype), requires_grad=True) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return fused.linear(x, self.weight, self.bias)
