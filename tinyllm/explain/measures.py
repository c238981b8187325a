"""What can be asked of a model's tape: where it looked, which tokens mattered, what it thought on the way, which heads.

All of it reads or replays the tape (`recompute`); the models have no part in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyllm.autograd.fused import softmax
from tinyllm.autograd.fused.attention_weights import attention_weights
from tinyllm.autograd.tape import Node, gradients, reachable
from tinyllm.autograd.tensor import Tensor
from tinyllm.explain.replay import recompute
from tinyllm.explain.subject import Subject

_ATTENTION = ("scaled_dot_product_attention", "self_attention")
_NORMS = ("layer_norm", "rms_norm")


def attention_maps(subject: Subject) -> np.ndarray:
    """Where every head of every layer looked (F-ATTN), (layers, H, T, T); row t are the weights of token t."""
    return np.stack([weights[0] for weights in attention_weights(subject.logits)])


def rollout(maps: np.ndarray) -> np.ndarray:
    """Attention followed through all layers, (T, T): how much of each token's last state began at each token.

    The mean over heads, half of it attention and half the residual stream that passes by, multiplied from layer to
    layer. Source: Abnar and Zuidema 2020, "Quantifying attention flow in Transformers", section 3.

    Parameters
    ----------
    maps : (layers, H, T, T)
    """
    T = maps.shape[-1]
    flow = np.eye(T)
    for layer in maps.mean(axis=1):
        flow = (layer + np.eye(T)) / 2 @ flow
    return flow


def gradient_times_input(subject: Subject) -> np.ndarray:
    """For each token the slope of the score along its embedding, times the embedding, (T,).

    What the score would change by if the embedding were taken away, were the model linear.
    """
    own = subject.word_embeddings.out.array
    return _slopes(subject, own, own)


def integrated_gradients(subject: Subject, steps: int = 32) -> tuple[np.ndarray, float]:
    """For each token the change of the score on the way from the mean embedding to its own, (T,).

    All tokens go from the vocabulary's mean embedding, which stands for "any token", to their own, in a straight line;
    each one's slopes are added up on the way. The attributions sum to the difference of the scores at both ends
    (completeness). The points are those of Gauss and Legendre, so that few of them do.

    Parameters
    ----------
    subject : Subject
    steps : int
        Points on the way.

    Returns
    -------
    attributions : (T,)
    gap : float
        The difference of the scores less the sum of the attributions: what the points on the way have missed.

    Notes
    -----
    Source: Sundararajan, Taly and Yan 2017, "Axiomatic attribution for deep networks", section 3. (No embedding at all
    would be another beginning, but models that norm their embeddings, as Llama does, turn at once when they leave it.)
    """
    node = subject.word_embeddings
    own = node.out.array  # (1, T, C)
    mean = node.inputs[0].data.mean(axis=0).astype(own.dtype)  # (C,)
    points, weights = np.polynomial.legendre.leggauss(steps)  # on [-1, 1]
    slopes = np.array([_slopes(subject, mean + (x + 1) / 2 * (own - mean), own - mean) for x in points])  # (steps, T)
    attributions = weights / 2 @ slopes
    ends = (np.broadcast_to(mean, own.shape), own)
    nothing, whole = (float(subject.score(recompute(subject.logits, {node: Tensor(x)})).data[0]) for x in ends)
    return attributions, whole - nothing - float(attributions.sum())


def _slopes(subject: Subject, at: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Where the embeddings are `at`, each token's slope of the score along its direction, (T,) from (1, T, C)."""
    node = subject.word_embeddings
    entry = Tensor(at.astype(node.out.array.dtype), requires_grad=True)
    score = subject.score(recompute(subject.logits, {node: entry}))[0]
    (slope,) = gradients(score, [entry], Tensor(np.ones((), entry.dtype)))
    assert slope is not None
    return (slope.data * direction).sum(axis=-1)[0].astype(np.float64)


def logit_lens(subject: Subject) -> np.ndarray:
    """What each hidden state would say if it were the last one: probabilities (layers + 1, T, V).

    The state takes the place of the last block's in front of the final norm, if the model has one, and the head.
    Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
    """
    states = subject.states
    last = states[-1].node
    assert last is not None
    before = states[-2].node
    if last.op.name in _NORMS and before is not None and before.op.name not in _NORMS:
        final = last.inputs[0].node  # the norm is the model's, not the last block's: it reads every state
        assert final is not None
        read = [*states[:-1], Tensor(final.out.array)]
    else:
        final, read = last, list(states)
    found = [recompute(subject.logits, {final: state}) for state in read]
    return np.stack([softmax(logits, axis=-1).data[0] for logits in found])


def heads_ablated(loss: Tensor) -> np.ndarray:
    """By how much a loss grows when one head is silent (gives zeros), (layers, H).

    Source: Michel, Levy and Neubig 2019, "Are sixteen heads really better than one?", section 3.

    Parameters
    ----------
    loss : Tensor, 0-d
        Computed while the tape was recording, such as `Subject.loss`.
    """
    whole = loss.item()
    changes = []
    for node in reversed(reachable(loss)):
        if node.op.name in _ATTENTION:
            silenced = (recompute(loss, {node: Tensor(out)}).item() for out in _without_each_head(node))
            changes.append([value - whole for value in silenced])
    return np.array(changes)


def _without_each_head(node: Node) -> Any:
    """The output of an attention with each of its heads in turn at 0."""
    out = node.out.array
    packed = node.op.name == "self_attention"
    heads = node.params["n_head"] if packed else out.shape[-3]
    for h in range(heads):
        array = out.copy()
        if packed:
            D = out.shape[-1] // heads
            array[..., h * D : (h + 1) * D] = 0
        else:
            array[..., h, :, :] = 0
        yield array
