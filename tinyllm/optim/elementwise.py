"""Optimisers that move every number by its own gradient, whatever its neighbours do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyllm.autograd.tensor import Array
from tinyllm.optim.optimizer import Moved, Optimizer
from tinyllm.optim.ranges import over_ranges

# (p, g, state): changes `p` and the arrays in `state`, all of one shape, in place.
Rule = Callable[[Array, Array, dict[str, Any]], None]


class Elementwise(Optimizer):
    """Base of these optimisers: threads share the numbers of a group as if all its parameters were one flat array.

    A subclass gives its `_rule`. A state's ``"step"``, if it has one, counts this step when the rule sees it.
    """

    def _rule(self, group: dict[str, Any], scale: float, largest: Array) -> Rule:
        """How the parameters of `group` move; `largest` of them decides which kernel is used."""
        raise NotImplementedError(f"{type(self).__name__} defines no _rule")

    def _move(self, moved: list[Moved], group: dict[str, Any], scale: float) -> None:
        for _, _, state in moved:
            if "step" in state:
                state["step"] += 1
        for kind in dict.fromkeys((type(p), p.dtype) for p, _, _ in moved):
            alike = [one for one in moved if (type(one[0]), one[0].dtype) == kind]
            rule = self._rule(group, scale, max((p for p, _, _ in alike), key=lambda p: p.size))
            if kind[0] is np.ndarray:
                _share(rule, alike)
            else:  # threads are for the processor's own memory
                for p, g, state in alike:
                    rule(p, g, state)


def _share(rule: Rule, moved: list[Moved]) -> None:
    """Apply the rule to all of them, the threads sharing the numbers."""
    flat = [_flat(*one) for one in moved]

    def piece(i: int, begin: int, end: int) -> None:
        p, g, state = flat[i]
        if end - begin == p.size:  # most are small, and then every microsecond counts
            rule(p, g, state)
            return
        own = {k: v[begin:end] if isinstance(v, np.ndarray) else v for k, v in state.items()}
        rule(p[begin:end], g[begin:end], own)

    over_ranges(piece, [p.size for p, _, _ in flat])
    for (p, _, _), (values, _, _) in zip(moved, flat, strict=True):
        if not p.flags.c_contiguous:  # then `values` are a copy
            p[...] = values.reshape(p.shape)


def _flat(p: Array, g: Array, state: dict[str, Any]) -> Moved:
    g = g if g.flags.writeable else g.copy()  # compiled kernels tell the two apart, and would be compiled twice
    one_axis = {k: v.reshape(-1) if isinstance(v, np.ndarray) else v for k, v in state.items()}
    return p.reshape(-1), g.reshape(-1), one_axis


def scaled_and_decayed(g: Array, p: Array, scale: float, weight_decay: float) -> Array:
    """``scale * g + weight_decay * p``, a new array where it differs from `g`."""
    if scale != 1:
        g = scale * g
    return g + weight_decay * p if weight_decay else g
