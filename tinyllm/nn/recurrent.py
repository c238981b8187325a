"""Recurrent layers, batch first, with torch's parameter names."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinyllm.autograd import fused, ops
from tinyllm.autograd.fused.recurrent import checked_lengths
from tinyllm.autograd.operands import as_tensor
from tinyllm.autograd.tensor import Tensor
from tinyllm.nn import init
from tinyllm.nn.dropout import Dropout
from tinyllm.nn.module import Module

_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class _Recurrent(Module):
    """What the three kinds share: parameters, layers one above the other, both directions, sequences that end.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    num_layers : int
        L; each reads what the one below gives.
    bidirectional : bool
        Whether a second network reads from the end; its states lie behind the first one's.
    dropout : float
        Probability, for what goes from one layer to the next.
    rng : numpy Generator
        For the weights, uniform within ``1 / sqrt(H)`` as in torch, and for dropout outside a `random_scope`.
    dtype : dtype

    Attributes
    ----------
    weight_ih_l{k}, weight_hh_l{k} : Tensor (G H, I or D H), (G H, H)
        Of layer k, from inputs and from the state; G is 1, 4 (gates i, f, g, o) or 3 (r, z, n), D is 1 or, with
        both directions, 2. The names of those that read from the end have ``_reverse`` appended.
    bias_ih_l{k}, bias_hh_l{k} : Tensor (G H,)

    Raises
    ------
    ValueError
        For a size below 1.
    """

    blocks: ClassVar[int] = 1
    states: ClassVar[int] = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        *,
        rng: np.random.Generator,
        dtype: DTypeLike = np.float32,
    ) -> None:
        if min(input_size, hidden_size, num_layers) < 1:
            raise ValueError(
                f"sizes are at least 1, got input_size={input_size}, hidden_size={hidden_size}, num_layers={num_layers}"
            )
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bidirectional, self.drop = bidirectional, Dropout(dropout, rng)
        bound, rows = 1 / math.sqrt(hidden_size), self.blocks * hidden_size
        for layer in range(num_layers):
            inputs = input_size if layer == 0 else hidden_size * self.directions
            for reverse in range(self.directions):
                shapes = ((rows, inputs), (rows, hidden_size), (rows,), (rows,))
                for name, shape in zip(_NAMES, shapes, strict=True):
                    weight = init.uniform(shape, rng, -bound, bound, dtype=dtype)
                    setattr(self, _name(name, layer, reverse), Tensor(weight, requires_grad=True))

    @property
    def directions(self) -> int:
        """1, or 2 if bidirectional."""
        return 1 + self.bidirectional

    def forward(self, x: Tensor | ArrayLike, state: Any = None, lengths: ArrayLike | None = None) -> tuple[Tensor, Any]:
        """Read sequences from left to right, and from right to left if bidirectional.

        Parameters
        ----------
        x : Tensor (B, T, I)
        state : Tensor (L D, B, H), optional
            Where each layer and direction begins: zeros by default. An LSTM's is a pair of such Tensors, state and
            memory.
        lengths : (B,) integers, optional
            How many steps of each sequence are real, 1 to T. What lies behind is not read, and its `y` is 0.

        Returns
        -------
        y : Tensor (B, T, D H)
            The states of the last layer.
        state : Tensor (L D, B, H), or a pair
            Each layer's and direction's state after its last step, to go on with.

        Raises
        ------
        ValueError
            If shapes or lengths do not fit.
        """
        x = as_tensor(x)
        if x.ndim != 3 or x.shape[-1] != self.input_size or 0 in x.shape:
            raise ValueError(
                f"{type(self).__name__} needs x (B, T, {self.input_size}) with at least one step, got {x.shape}"
            )
        B, T, _ = x.shape
        ends = checked_lengths(type(self).__name__, lengths, B, T)
        first = self._first(state, x)
        last: list[tuple[Tensor, ...]] = []
        for layer in range(self.num_layers):
            x = self.drop(x) if layer else x  # while axis 0 is the batch: masks belong to samples
            by_time = ops.swapaxes(x, 0, 1)  # (T, B, I)
            outs = []
            for reverse in range(self.directions):
                y, *end = self._read(by_time, layer, reverse, [s[len(last)] for s in first], ends)
                outs.append(y)
                last.append(tuple(end))
            y = outs[0] if len(outs) == 1 else ops.concatenate(outs, axis=-1)
            x = ops.swapaxes(y, 0, 1)  # (B, T, D H)
            if ends is not None:
                x = ops.where((np.arange(T) < ends[:, None])[:, :, None], x, 0.0)
        final = tuple(s[0] if len(s) == 1 else ops.concatenate(list(s)) for s in zip(*last, strict=True))
        return x, final[0] if self.states == 1 else final

    def _first(self, state: Any, x: Tensor) -> list[Tensor]:
        """The states to begin with, one Tensor (L D, B, H) for each kind."""
        shape = (self.num_layers * self.directions, x.shape[0], self.hidden_size)
        if state is None:
            weight = self.parameter("weight_hh", 0)
            return [ops.broadcast_to(ops.zeros_like(weight[:1, :1]), shape)] * self.states
        found = [as_tensor(s) for s in ([state] if self.states == 1 else state)]
        if [s.shape for s in found] != [shape] * self.states:
            raise ValueError(
                f"{type(self).__name__}: the first state is {'a pair of Tensors' if self.states == 2 else 'a Tensor'} "
                f"of shape {shape}, got {', '.join(str(s.shape) for s in found)}"
            )
        return found

    def parameter(self, name: str, layer: int, reverse: int = 0) -> Tensor:
        """``parameter("weight_ih", 1)`` is ``weight_ih_l1``."""
        found: Tensor = getattr(self, _name(name, layer, reverse))
        return found

    def weights(self, layer: int, reverse: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Both matrices and both biases of a layer in one direction."""
        w_ih, w_hh, b_ih, b_hh = (self.parameter(n, layer, reverse) for n in _NAMES)
        return w_ih, w_hh, b_ih, b_hh

    def _read(
        self, x: Tensor, layer: int, reverse: int, state: list[Tensor], lengths: np.ndarray | None
    ) -> tuple[Tensor, ...]:
        """One layer in one direction: states (T, B, H), and those after the last step (1, B, H)."""
        raise NotImplementedError


def _name(name: str, layer: int, reverse: int) -> str:
    return f"{name}_l{layer}" + "_reverse" * reverse


class RNN(_Recurrent):
    """``h_t = f(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh)``, f the hyperbolic tangent or relu (F-LSTM).

    Parameters
    ----------
    nonlinearity : {"tanh", "relu"}
        The others are those of every recurrent layer: input_size, hidden_size, num_layers, bidirectional, dropout.

    Notes
    -----
    Source: Elman 1990.
    """

    def __init__(self, *sizes: Any, nonlinearity: str = "tanh", **others: Any) -> None:
        self.nonlinearity = nonlinearity
        super().__init__(*sizes, **others)

    def _read(
        self, x: Tensor, layer: int, reverse: int, state: list[Tensor], lengths: np.ndarray | None
    ) -> tuple[Tensor, ...]:
        weights = self.weights(layer, reverse)
        y = fused.rnn(x, *weights, state[0], self.nonlinearity, lengths, bool(reverse))
        return y, y[:1] if reverse else y[-1:]


class LSTM(_Recurrent):
    """``c_t = f c_(t-1) + i g``, ``h_t = o tanh(c_t)``; gates i, f, o and news g from inputs and state (F-LSTM).

    The state is a pair, h and c, of shape (L D, B, H) each.

    Notes
    -----
    Source: Hochreiter and Schmidhuber 1997, section 4; the forget gate: Gers, Schmidhuber and Cummins 2000, section 3.
    """

    blocks, states = 4, 2

    def _read(
        self, x: Tensor, layer: int, reverse: int, state: list[Tensor], lengths: np.ndarray | None
    ) -> tuple[Tensor, ...]:
        weights = self.weights(layer, reverse)
        both = fused.lstm(x, *weights, state[0], state[1], lengths, bool(reverse))  # (T + 1, B, H)
        return both[:-1], both[:1] if reverse else both[-2:-1], both[-1:]


class GRU(_Recurrent):
    """``h_t = (1 - z) n + z h_(t-1)``: a gate z between the state and its news n, which see the state through a gate r.

    Notes
    -----
    Source: Cho et al. 2014, section 2.3, with the reset gate after the product, as in torch and cuDNN.
    """

    blocks = 3

    def _read(
        self, x: Tensor, layer: int, reverse: int, state: list[Tensor], lengths: np.ndarray | None
    ) -> tuple[Tensor, ...]:
        weights = self.weights(layer, reverse)
        y = fused.gru(x, *weights, state[0], lengths, bool(reverse))
        return y, y[:1] if reverse else y[-1:]
