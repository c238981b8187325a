"""Cross-entropy between logits and target classes (F-CE), with its derivative.

    p = softmax(x);  loss = (1 - s) w_t (-log p_t) + s / V sum_c w_c (-log p_c)

with smoothing s and class weights w. A block of threads for each row. The probabilities are never stored: forward reads
the logits once (again from cache or memory when there is smoothing), in chunks of four numbers per thread, and keeps
one number per row, log sum e^x; backward makes the probabilities again from it in the one pass that reads the logits
and writes the gradient.

`cross_entropy_in_place` is for logits that are themselves made chunk of rows after chunk of rows, only for their loss:
it reads them twice and writes the gradient over them, and no array of the size of all logits ever exists.
"""

from __future__ import annotations

from tinyllm.kernels.cuda.compile import Array, cuda, float32, kernel
from tinyllm.kernels.cuda.intrinsics import exp, log
from tinyllm.kernels.cuda.rows import ONE, THREADS, WARPS, ZERO, block_sum, exponentials


@kernel
def cross_entropy_kernel(
    logits: Array, target: Array, weight: Array, smoothing: float, ignore_index: int, losses: Array, lse: Array
) -> None:
    """One row."""
    partial = cuda.shared.array(WARPS, float32)
    i, size = cuda.blockIdx.x, logits.shape[1]
    t = target[i]
    if t == ignore_index:  # for all threads of the block, so that none waits in vain
        if cuda.threadIdx.x == 0:
            losses[i] = ZERO
            lse[i] = ZERO
        return
    top, total = exponentials(logits, i, partial)
    log_total = log(total)
    spread = ZERO
    if smoothing > ZERO:
        for c in range(cuda.threadIdx.x, size, THREADS):
            spread += weight[c] * (log_total - (logits[i, c] - top))
        spread = block_sum(spread, partial) / float32(size)
    if cuda.threadIdx.x == 0:
        lse[i] = top + log_total
        losses[i] = (ONE - smoothing) * weight[t] * (log_total - (logits[i, t] - top)) + smoothing * spread


@kernel
def cross_entropy_vjp_kernel(
    g: Array, logits: Array, target: Array, weight: Array, smoothing: float, ignore_index: int, lse: Array, out: Array
) -> None:
    """One row."""
    partial = cuda.shared.array(WARPS, float32)
    i, size = cuda.blockIdx.x, logits.shape[1]
    t = target[i]
    if t == ignore_index:
        for c in range(cuda.threadIdx.x, size, THREADS):
            out[i, c] = ZERO
        return
    on_target = g[i] * (ONE - smoothing) * weight[t]
    on_each, on_all = ZERO, on_target
    if smoothing > ZERO:
        weights = ZERO
        for c in range(cuda.threadIdx.x, size, THREADS):
            weights += weight[c]
        on_each = g[i] * smoothing / float32(size)
        on_all = on_target + on_each * block_sum(weights, partial)
    for c in range(cuda.threadIdx.x, size, THREADS):
        d = on_all * exp(logits[i, c] - lse[i]) - on_each * weight[c]
        out[i, c] = d - on_target if c == t else d


@kernel
def cross_entropy_in_place_kernel(
    logits: Array, target: Array, smoothing: float, ignore_index: int, scale: float, losses: Array
) -> None:
    """One row."""
    partial = cuda.shared.array(WARPS, float32)
    i, size = cuda.blockIdx.x, logits.shape[1]
    t = target[i]
    if t == ignore_index:
        for c in range(cuda.threadIdx.x, size, THREADS):
            logits[i, c] = ZERO
        if cuda.threadIdx.x == 0:
            losses[i] = ZERO
        return
    top, total = exponentials(logits, i, partial)
    log_total = log(total)
    share = smoothing / float32(size)
    spread = ZERO
    if smoothing > ZERO:
        for c in range(cuda.threadIdx.x, size, THREADS):
            spread += log_total - (logits[i, c] - top)
        spread = block_sum(spread, partial)
    if cuda.threadIdx.x == 0:
        losses[i] = (ONE - smoothing) * (log_total - (logits[i, t] - top)) + share * spread
    cuda.syncthreads()  # thread 0 has read the target's logit, which its owner is about to overwrite
    factor = scale / total
    for c in range(cuda.threadIdx.x, size, THREADS):
        d = factor * exp(logits[i, c] - top) - scale * share
        logits[i, c] = d - scale * (ONE - smoothing) if c == t else d


def cross_entropy(
    logits: Array, target: Array, weight: Array, label_smoothing: float, ignore_index: int, losses: Array, lse: Array
) -> None:
    """Loss of each row into `losses` (N,), log sum e^x into `lse` (N,), for logits (N, V), target (N,), weight (V,).

    Rows whose target is `ignore_index` get 0 for both.
    """
    cross_entropy_kernel[len(logits), THREADS](
        logits, target, weight, float(label_smoothing), ignore_index, losses, lse
    )


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
    cross_entropy_vjp_kernel[len(logits), THREADS](
        g, logits, target, weight, float(label_smoothing), ignore_index, lse, out
    )


def cross_entropy_in_place(
    logits: Array, target: Array, label_smoothing: float, ignore_index: int, scale: float, losses: Array
) -> None:
    """Turn logits (N, V), in place, into `scale` times the derivative of their loss, which goes to `losses` (N,).

    Both for weights of 1.
    """
    cross_entropy_in_place_kernel[len(logits), THREADS](
        logits, target, float(label_smoothing), ignore_index, float(scale), losses
    )
