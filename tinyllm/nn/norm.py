"""Normalisation over the last axes."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from tinyllm.autograd import fused
from tinyllm.autograd.tensor import Tensor
from tinyllm.nn import init
from tinyllm.nn.module import Module


class LayerNorm(Module):
    """Mean 0 and variance 1 over the last axes, then scaled and shifted (Ba, Kiros and Hinton 2016).

    Parameters
    ----------
    normalized_shape : int or tuple of ints
        Lengths of the last axes.
    eps : float
        Added to the variance, under the root.
    bias : bool
        Without it `bias` is None.
    dtype : dtype

    Attributes
    ----------
    weight, bias : Tensor of `normalized_shape`
        Starting at 1 and 0.
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        bias: bool = True,
        *,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.normalized_shape, self.eps = _as_shape(normalized_shape), eps
        self.weight = Tensor(init.ones(self.normalized_shape, dtype=dtype), requires_grad=True)
        self.bias = Tensor(init.zeros(self.normalized_shape, dtype=dtype), requires_grad=True) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., *normalized_shape) -> the same shape."""
        return fused.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(Module):
    """Mean square 1 over the last axes, then scaled (Zhang and Sennrich 2019).

    Parameters
    ----------
    normalized_shape : int or tuple of ints
        Lengths of the last axes.
    eps : float, optional
        Added to the mean square, under the root; by default the spacing of the numbers at 1.
    dtype : dtype

    Attributes
    ----------
    weight : Tensor of `normalized_shape`
        Starting at 1.
    """

    def __init__(
        self, normalized_shape: int | tuple[int, ...], eps: float | None = None, *, dtype: DTypeLike = np.float32
    ) -> None:
        self.normalized_shape, self.eps = _as_shape(normalized_shape), eps
        self.weight = Tensor(init.ones(self.normalized_shape, dtype=dtype), requires_grad=True)

    def forward(self, x: Tensor) -> Tensor:
        """(..., *normalized_shape) -> the same shape."""
        return fused.rms_norm(x, self.normalized_shape, self.weight, self.eps)


def _as_shape(n: int | tuple[int, ...]) -> tuple[int, ...]:
    return (n,) if isinstance(n, int) else tuple(n)
