"""What an operation has to do at the least: so many floating-point operations, so many bytes to and from memory.

Operations are counted as the formulas state them: a multiplication and an addition are two, a function such as exp is
one. Bytes are those of the arrays that come in and go out, each once: what a kernel with a perfect cache would move.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Call(NamedTuple):
    """An operation on these arrays; `needs` says for which of them a gradient is wanted."""

    name: str
    arrays: Sequence[Array]
    out: Array
    params: dict[str, Any]
    needs: Sequence[bool] = ()


@dataclass
class Cost:
    """Floating-point operations, and bytes moved."""

    flops: float = 0.0
    bytes: float = 0.0

    def add(self, other: Cost) -> None:
        """Become the sum."""
        self.flops += other.flops
        self.bytes += other.bytes


Count = Callable[[Call], float]
#: Of a fused operation, forward and backward. The gradients of other operations are made by operations that count
#: for themselves.
Rule = tuple[Count, Count | None]


def per_output(forward: float, backward: float | None = None) -> Rule:
    """So many operations for each element of the result."""
    return lambda call: forward * call.out.size, None if backward is None else lambda call: backward * call.out.size


def per_input(forward: float, backward: float | None = None) -> Rule:
    """So many operations for each element of the first argument."""
    return (
        lambda call: forward * call.arrays[0].size,
        None if backward is None else lambda call: backward * call.arrays[0].size,
    )


def _matmul(call: Call) -> float:
    return 2.0 * call.out.size * call.arrays[0].shape[-1]


def _linear(call: Call) -> float:
    return call.out.size * (2.0 * call.arrays[0].shape[-1] + (len(call.arrays) > 2))


def _linear_vjp(call: Call) -> float:
    products = sum(call.needs[:2])  # dx and dweight
    return call.out.size * (2.0 * products * call.arrays[0].shape[-1] + any(call.needs[2:]))


def _grouped_linear_vjp(call: Call) -> float:
    """The rows' gradient, and those of all weights together: a product of the size of the forward one each."""
    return 2.0 * call.out.size * call.arrays[0].shape[-1] * (call.needs[0] + any(call.needs[1:]))


def visible_pairs(call: Call) -> float:
    """Pairs of a query and a key that it may see; `limit` keys lie before the first query of a causal attention."""
    if "n_head" in call.params:  # queries, keys and values side by side: (..., T, 3 C)
        *lead, T, _ = call.arrays[0].shape
        lead, S = [*lead, call.params["n_head"]], T
    else:
        (*lead, T, _), S = call.arrays[0].shape, call.arrays[1].shape[-2]
    limit = call.params.get("limit")
    seen = T * S if limit is None else int(np.clip(np.arange(T) + 1 + limit, 0, S).sum())
    return float(math.prod(lead) * seen)


def _widths(call: Call) -> tuple[int, int]:
    """Numbers in a query (and a key), and in a value."""
    if "n_head" in call.params:
        D = call.arrays[0].shape[-1] // (3 * call.params["n_head"])
        return D, D
    return call.arrays[0].shape[-1], call.arrays[2].shape[-1]


def _attention(call: Call) -> float:
    D, Dv = _widths(call)
    return visible_pairs(call) * (2 * D + 2 * Dv + 4)  # scores, weighted sum, softmax


def _attention_vjp(call: Call) -> float:
    D, Dv = _widths(call)
    return visible_pairs(call) * (6 * D + 4 * Dv + 8)  # scores again, dq, dk; dv, dweights


def _linear_cross_entropy(call: Call) -> float:
    (rows, width), classes = call.arrays[0].shape, call.arrays[1].shape[0]
    products = 1 + sum(call.params["gradients"])  # the gradients are made beside the logits
    return rows * classes * (2.0 * width * products + 6)


def _recurrent(gate: float) -> Rule:
    """The products with inputs and state, and `gate` operations per number of the gates; backward twice as many."""

    def forward(call: Call) -> float:
        (T, B, inputs), (rows, units) = call.arrays[0].shape, call.arrays[2].shape
        return T * B * rows * (2.0 * (inputs + units) + gate)

    return forward, lambda call: 2 * forward(call)


FLOPS: dict[str, Rule] = {
    "matmul": (_matmul, None),
    "linear": (_linear, _linear_vjp),
    "grouped_linear": (_matmul, _grouped_linear_vjp),
    "linear_cross_entropy": (_linear_cross_entropy, lambda call: call.arrays[0].size + call.arrays[1].size),
    "scaled_dot_product_attention": (_attention, _attention_vjp),
    "self_attention": (_attention, _attention_vjp),
    "softmax": per_output(4, 4),  # maximum, difference, exp and sum, quotient; g p, its sum, difference, product
    "log_softmax": per_output(4, 4),
    "cross_entropy": per_input(3, 3),  # of the logits: maximum, exp, sum; exp, difference, product
    "layer_norm": per_output(8, 14),
    "rms_norm": per_output(4, 10),
    "gelu": per_output(9, 17),
    "silu": per_output(5, 9),
    "swiglu": per_output(6, 12),
    "rotary": per_output(3, 3),
    **dict.fromkeys(("rnn", "lstm", "gru"), _recurrent(4)),
    "dropout": per_output(1),
    "embedding": (lambda call: 0.0, lambda call: call.out.size),
    "add_at": per_input(1),
    **dict.fromkeys(("sum", "sum_to", "max", "min", "cumsum"), per_input(1)),
    "logsumexp": per_input(3),
    **dict.fromkeys(("sigmoid", "softplus"), per_output(4)),
    **dict.fromkeys(
        (
            *("add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "negative", "exp", "expm1"),
            *("log", "log1p", "sqrt", "sin", "cos", "tanh", "erf", "abs", "relu", "clip", "sign", "where"),
        ),
        per_output(1),
    ),
}

# An operation that is not here reads its arguments once and writes its result once; backward, it reads the arguments
# and the gradient that arrives, and writes the ones that it hands on.
BYTES: dict[str, Rule] = {
    "getitem": (lambda call: 2 * call.out.nbytes, None),  # only what is taken is read
    "take_along_axis": (lambda call: 2 * call.out.nbytes, None),
    "linear_cross_entropy": (  # its gradients are made forward, and scaled backward
        lambda call: sum((1 + made) * a.nbytes for a, made in zip(call.arrays, call.params["gradients"], strict=False)),
        lambda call: 2 * sum(a.nbytes for a, need in zip(call.arrays, call.needs, strict=True) if need),
    ),
    "embedding": (  # rows of the table; backward a table of zeros, and the rows added to it
        lambda call: call.arrays[1].nbytes + 2 * call.out.nbytes,
        lambda call: call.arrays[1].nbytes + 3 * call.out.nbytes + call.arrays[0].nbytes,
    ),
}


def forward_cost(call: Call) -> Cost:
    """What computing the operation costs; a result in its argument's memory is free."""
    count = FLOPS.get(call.name, (None, None))[0]
    moved = BYTES.get(call.name, (None, None))[0]
    if moved is None:
        shared = call.arrays and np.may_share_memory(call.out, call.arrays[0])
        total = 0.0 if shared else float(call.out.nbytes + sum(a.nbytes for a in call.arrays))
    else:
        total = moved(call)
    return Cost(count(call) if count else 0.0, total)


def backward_cost(call: Call, handed: float) -> Cost:
    """What the gradients of a fused operation cost; it handed on so many bytes of them."""
    count = FLOPS.get(call.name, (None, None))[1]
    moved = BYTES.get(call.name, (None, None))[1]
    if moved is None:
        total = float(call.out.nbytes + sum(a.nbytes for a in call.arrays) + handed)
    else:
        total = moved(call)
    return Cost(count(call) if count else 0.0, total)
