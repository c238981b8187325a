"""The weights within attention, which its operation never gives away: computed again from the tape."""

from __future__ import annotations

import numpy as np

from tinyllm.autograd.fused.attention import _times, _unpack, _weights
from tinyllm.autograd.tape import reachable
from tinyllm.autograd.tensor import Tensor, namespace


def attention_weights(result: Tensor, causal: bool | None = None) -> list[np.ndarray]:
    """Where each attention behind `result` looked (F-ATTN), in the order in which they were computed.

    Parameters
    ----------
    result : Tensor
        Whatever was computed from them while the tape was recording, such as logits.
    causal : bool, optional
        Only those that are causal, or only those that are not.

    Returns
    -------
    list of arrays (..., H, T, S)
        softmax(q k^T * scale + mask), before dropout.
    """
    found = []
    for node in reversed(reachable(result)):
        if node.op.name not in ("scaled_dot_product_attention", "self_attention"):
            continue
        if causal is not None and causal == (node.params["limit"] is None):
            continue
        arrays = [t._storage.array for t in node.inputs]
        if node.op.name == "self_attention":
            arrays[:1] = _unpack(arrays[0], node.params["n_head"])
        q, k, _, *mask = arrays
        scores = _times(q, namespace(k).swapaxes(k, -1, -2))
        found.append(_weights(scores, node.params["scale"], node.params["limit"], mask[0] if mask else None))
    return found
