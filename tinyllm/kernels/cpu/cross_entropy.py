"""Cross-entropy between logits and target classes (F-CE), with its derivative.

    p = softmax(x);  loss = (1 - s) w_t (-log p_t) + s / V sum_c w_c (-log p_c)

with smoothing s and class weights w. The probabilities are never stored: forward keeps one number per row, log sum e^x,
from which backward makes them again in the pass that writes the gradient. So logits are read from memory once forward
(the second and third pass find the row in cache) and once backward; V is the largest axis of a language model, and an
array of that size saved is the largest saving there is.
"""

from __future__ import annotations

import numpy as np

from tinyllm.kernels.cpu.compile import Array, jit
from tinyllm.kernels.cpu.mathfn import exp
from tinyllm.kernels.cpu.rows import exponentials, maximum, surprisal


@jit
def cross_entropy(
    logits: Array, target: Array, weight: Array, label_smoothing: float, ignore_index: int, losses: Array, lse: Array
) -> None:
    """Loss of each row into `losses` (N,), log sum e^x into `lse` (N,), for logits (N, V), target (N,), weight (V,).

    Rows whose target is `ignore_index` get 0 for both.
    """
    classes = logits.shape[1]
    smoothing = logits.dtype.type(label_smoothing)
    certainty = logits.dtype.type(1 - label_smoothing)
    for i in range(logits.shape[0]):
        t = target[i]
        if t == ignore_index:
            losses[i] = 0
            lse[i] = 0
            continue
        row = logits[i]
        largest = maximum(row)
        total = logits.dtype.type(0)
        for c in range(classes):
            total += exp(row[c] - largest)
        log_total = np.log(total)
        lse[i] = largest + log_total
        losses[i] = certainty * weight[t] * surprisal(row[t], largest, log_total)
        if smoothing > 0:
            spread = logits.dtype.type(0)
            for c in range(classes):
                spread += weight[c] * surprisal(row[c], largest, log_total)
            losses[i] += smoothing * spread / logits.dtype.type(classes)


@jit
def cross_entropy_vjp(
    g: Array,
    logits: Array,
    target: Array,
    weight: Array,
    label_smoothing: float,
    ignore_index: int,
    lse: Array,
    out: Array,
) -> None:
    """Cotangent of the logits into `out` (N, V) from that of the losses, `g` (N,)."""
    classes = logits.shape[1]
    certainty = logits.dtype.type(1 - label_smoothing)
    share = logits.dtype.type(label_smoothing / classes)
    all_weights = logits.dtype.type(0)
    for c in range(classes):
        all_weights += weight[c]
    for i in range(logits.shape[0]):
        row, out_row, t = logits[i], out[i], target[i]
        if t == ignore_index:
            for c in range(classes):
                out_row[c] = 0
            continue
        on_target = g[i] * certainty * weight[t]
        on_each = g[i] * share
        on_all = on_target + on_each * all_weights
        for c in range(classes):
            out_row[c] = on_all * exp(row[c] - lse[i]) - on_each * weight[c]
        out_row[t] -= on_target


@jit
def cross_entropy_in_place(
    logits: Array, target: Array, label_smoothing: float, ignore_index: int, scale: float, losses: Array
) -> None:
    """Turn logits (N, V), in place, into `scale` times the derivative of their loss, which goes to `losses` (N,).

    Both for weights of 1. This is for logits that are made for their loss only, chunk after chunk, and overwritten.
    """
    number = logits.dtype.type
    certainty, share = number(1 - label_smoothing), number(label_smoothing / logits.shape[1])
    scale = number(scale)
    for i in range(logits.shape[0]):
        row, t = logits[i], target[i]
        if t == ignore_index:
            losses[i] = 0
            for c in range(row.size):
                row[c] = 0
            continue
        largest, of_target = maximum(row), row[t]
        spread = number(0)
        if share > 0:
            for c in range(row.size):
                spread += row[c] - largest
        total = exponentials(row, largest)
        log_total = np.log(total)
        losses[i] = certainty * surprisal(of_target, largest, log_total)
        if share > 0:
            losses[i] += share * (number(row.size) * log_total - spread)
        factor, each = scale / total, scale * share
        for c in range(row.size):
            row[c] = factor * row[c] - each
        row[t] -= scale * certainty
