"""Which laws hold for which function.

Add a line to a row, or a row, and `tinyllm check` runs it; a teacher's own laws join by the decorator `law`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tinyllm.testing.suite import laws
from tinyllm.testing.suite.answer import Answer

Law = Callable[[Answer], None]
L = TypeVar("L", bound=Law)

EVERY = (laws.values, laws.shapes, laws.unchanged, laws.single_precision)
SMOOTH = (*EVERY, laws.gradient)
ATTENTION = (
    *SMOOTH,
    laws.sharp_scores,
    laws.causal,
    laws.no_leak,
    laws.causal_gradient,
    laws.masks,
    laws.masked_row,
    laws.scales,
)

LAWS: dict[str, tuple[Law, ...]] = {
    "softmax": (*SMOOTH, laws.axes, laws.adds_up, laws.large_inputs, laws.minus_infinity),
    "log_softmax": (*SMOOTH, laws.axes, laws.large_inputs, laws.minus_infinity),
    "logsumexp": (*SMOOTH, laws.axes, laws.large_inputs, laws.minus_infinity, laws.all_minus_infinity),
    "relu": (*SMOOTH, laws.at_zero, laws.extremes),
    "sigmoid": (*SMOOTH, laws.extremes, laws.tails),
    "tanh": (*SMOOTH, laws.at_zero, laws.extremes),
    "gelu": (*SMOOTH, laws.at_zero, laws.extremes, laws.both_kinds),
    "silu": (*SMOOTH, laws.at_zero, laws.extremes),
    "softplus": (*SMOOTH, laws.extremes),
    "layer_norm": (*SMOOTH, laws.small_variance, laws.constant_rows, laws.far_from_zero, laws.several_axes),
    "rms_norm": (*SMOOTH, laws.small_variance, laws.constant_rows, laws.several_axes),
    "cross_entropy": (*SMOOTH, laws.large_logits, laws.ignored_targets, laws.reductions),
    "mse_loss": (*SMOOTH, laws.reductions),
    "binary_cross_entropy_with_logits": (*SMOOTH, laws.large_scores, laws.reductions),
    "linear": (*SMOOTH, laws.square_weight),
    "matmul": SMOOTH,
    "embedding": (*SMOOTH, laws.repeated_ids),
    "attention": ATTENTION,
    "scaled_dot_product_attention": (*ATTENTION, laws.additive_masks),
    "dropout": (laws.switched_off, laws.scaled_up, laws.share_dropped, laws.random_draws, laws.unchanged),
    "sgd_step": EVERY,
    "adam_step": (*EVERY, laws.three_steps, laws.tiny_gradients),
    "sinusoidal_positions": (laws.values, laws.shapes, laws.far_positions, laws.other_base),
    "positional_encoding": (laws.values, laws.shapes, laws.far_positions, laws.other_base),
}


def law(name: str) -> Callable[[L], L]:
    """Add a law for a function, one of those above or a new one.

    Parameters
    ----------
    name : str
        Of the function that must keep it. The law is called with an `Answer`, which is called like the function, and
        raises `Broken` when it is broken.

    Examples
    --------
    >>> @law("softmax")
    ... def keeps_order(answer):
    ...     "The larger the input, the larger the weight."
    """

    def add(f: L) -> L:
        LAWS[name] = (*LAWS.get(name, ()), f)
        return f

    return add
