"""A wrong rule put in the place of a right one, on one tape only: the library itself is never changed.

A tape is data, so a mistake is planted by exchanging the operation that a node names for a copy of it with another
rule. When that tape is gone, so is the mistake; there is nothing to restore, whatever happens in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np

from tinyllm.autograd import Tensor
from tinyllm.autograd.tape import Node, Op, reachable
from tinyllm.autograd.tensor import Storage

Array: TypeAlias = np.ndarray


@dataclass(frozen=True)
class Passage:
    """One gradient on its way back through one argument of a node: all that a rule, right or wrong, can look at.

    Attributes
    ----------
    op : Op
        With its right rule.
    node : Node
    argument : int
    g : array
        What arrived at the output.
    d : array
        What the right rule hands to the argument.
    """

    op: Op
    node: Node
    argument: int
    g: Array
    d: Array

    @property
    def x(self) -> Array:
        """The argument."""
        return self.xs[self.argument]

    @property
    def xs(self) -> list[Array]:
        """All inputs of the node."""
        return [t.data for t in self.node.inputs]

    @property
    def y(self) -> Array:
        """The output of the node."""
        return self.node.out.array

    @property
    def params(self) -> dict[str, Any]:
        """The settings of the node."""
        return self.node.params

    def again(
        self,
        g: Array | None = None,
        inputs: dict[int, Array] | None = None,
        out: Array | None = None,
        argument: int | None = None,
    ) -> Array:
        """What the right rule hands on, to this or another argument, given another gradient, other inputs or output."""
        arrays = [(inputs or {}).get(i, x) for i, x in enumerate(self.xs)]
        given = tuple(Tensor(x, requires_grad=need) for x, need in zip(arrays, self.node.needs, strict=True))
        y = self.node.out if out is None else Storage(out)
        node = Node(self.op, given, y, self.params, self.node.kernel, self.node.saved)
        found = self.op.vjp(node, Tensor(self.g if g is None else g), False)
        d = found[self.argument if argument is None else argument]
        assert d is not None
        return d.data


Wrong: TypeAlias = Callable[[Passage], Array]


@dataclass(frozen=True, eq=False)
class Planted(Op):
    """A copy of an operation that hands something else to one of its arguments."""

    right: Op | None = None
    argument: int = 0
    wrong: Wrong | None = None

    def vjp(self, node: Node, g: Tensor, create_graph: bool) -> list[Tensor | None]:
        """The right gradients but for one."""
        assert self.right is not None
        assert self.wrong is not None
        grads = self.right.vjp(node, g, create_graph)
        right = grads[self.argument]
        if right is not None:
            passage = Passage(self.right, node, self.argument, g.data, right.data)
            grads[self.argument] = Tensor(np.asarray(self.wrong(passage)))
        return grads


def plant(f: Callable[..., Tensor], op: str, argument: int, wrong: Wrong) -> Callable[..., Tensor]:
    """`f`, on whose tapes the latest node of the operation named `op` has a wrong rule for one argument."""

    def planted(*xs: Any) -> Tensor:
        y = f(*xs)
        node = find(y, op)
        if node is not None:  # without recording there is no tape
            same = {field.name: getattr(node.op, field.name) for field in fields(Op)}
            node.op = Planted(**same, right=node.op, argument=argument, wrong=wrong)
        return y

    planted.__name__ = op
    return planted


def find(y: Tensor, op: str) -> Node | None:
    """The latest node of an operation on the tape of `y`."""
    return next((node for node in reachable(y) if node.op.name == op), None)


def record(f: Callable[..., Tensor], op: str, inputs: list[Array]) -> Node:
    """The node of an operation, computed at a point."""
    node = find(f(*(Tensor(x, requires_grad=True) for x in inputs)), op)
    assert node is not None, f"the case of {op} does not use it"
    return node


def passage(node: Node, argument: int, rng: np.random.Generator) -> Passage | None:
    """A random gradient on its way back; None if the argument gets none."""
    if not node.needs[argument]:
        return None
    y = node.out.array
    g = (rng.uniform(0.5, 1.5, y.shape) * rng.choice([-1.0, 1.0], y.shape)).astype(y.dtype)
    right = node.op.vjp(node, Tensor(g), False)[argument]
    return None if right is None else Passage(node.op, node, argument, g, right.data)
