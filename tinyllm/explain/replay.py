"""The tape read forward once more, with some of its values changed.

Each question of this package is one of this kind: what would have come out if this head had been silent, these
embeddings weaker, this layer the last one? The tape holds every operation with what went in, so that nothing has to be
built into the models for it.
"""

from __future__ import annotations

from collections.abc import Mapping

from tinyllm.autograd.tape import Node, apply, reachable
from tinyllm.autograd.tensor import Tensor


def recompute(result: Tensor, changed: Mapping[Node, Tensor]) -> Tensor:
    """What `result` would be if the nodes in `changed` had given these tensors.

    Only what comes after them is computed again, by the same operations with the same settings (dropout's masks too).

    Parameters
    ----------
    result : Tensor
        Computed while the tape was recording.
    changed : mapping of Node to Tensor
        Nodes behind `result`, and what takes the place of their output: of its shape, but for the first axis (a batch
        may be a longer one where every operation in between allows it).

    Returns
    -------
    Tensor
        On the tape, if the new values are or parameters require gradients.
    """
    new: dict[Node, Tensor] = dict(changed)
    for node in reversed(reachable(result)):
        if node in new or not any(t.node in new for t in node.inputs if t.node is not None):
            continue
        node.check_fresh()
        inputs = [new.get(t.node, t) if t.node is not None else t for t in node.inputs]
        new[node] = apply(node.op, *inputs, **node.params)
    return result if result.node is None else new.get(result.node, result)
