"""Reading the tape: printing it, and finding where a computation first went wrong."""

from __future__ import annotations

import numpy as np

from tinyllm.autograd.tape import Node, reachable
from tinyllm.autograd.tensor import Tensor


def print_tape(result: Tensor) -> None:
    """Print the tape behind `result`, oldest first: one line per node, with op, inputs, shape, dtype and kernel.

    An input is named by the number of the node that made it, or as a leaf: ``p`` for one with a gradient, ``c`` for a
    constant, numbered in the order of their appearance.
    """
    print(tape_text(result))


def tape_text(result: Tensor) -> str:
    """What `print_tape` prints."""
    nodes = reachable(result)[::-1]
    leaves: dict[int, str] = {}
    lines = [f"{'seq':>5}  {'op':<28} {'inputs':<16} {'shapes':<36} {'dtype':<8} kernel"]
    for node in nodes:
        if node.released:
            lines.append(f"{node.seq:>5}  {node.op.name:<28} (released by an earlier backward pass)")
            continue
        names = ", ".join(_name(t, leaves) for t in node.inputs)
        shapes = ", ".join(_shape(t.shape) for t in node.inputs) + " -> " + _shape(node.out.array.shape)
        lines.append(
            f"{node.seq:>5}  {node.op.name:<28} {names:<16} {shapes:<36} {node.out.array.dtype!s:<8} {node.kernel}"
        )
    return "\n".join(lines)


def _shape(shape: tuple[int, ...]) -> str:
    return "(" + ",".join(str(n) for n in shape) + ")"


def _name(t: Tensor, leaves: dict[int, str]) -> str:
    if t.node is not None:
        return str(t.node.seq)
    if id(t) not in leaves:
        kind = "p" if t.requires_grad else "c"
        leaves[id(t)] = f"{kind}{sum(name[0] == kind for name in leaves.values())}"
    return leaves[id(t)]


def first_nonfinite(result: Tensor) -> Node | None:
    """The earliest node behind `result` whose output has a NaN or +inf that none of its inputs had.

    -inf is legal, as masks are made of it. None when all nodes are sound: then a leaf was bad from the start.
    """
    for node in reversed(reachable(result)):
        if node.released:
            continue
        if _bad(node.out.array) and not any(_bad(t._storage.array) for t in node.inputs):
            return node
    return None


def _bad(array: np.ndarray) -> bool:
    if array.dtype.kind != "f":
        return False
    return bool(np.isnan(array).any() or (array == np.inf).any())
