"""Layer normalisation (Ba, Kiros, Hinton 2016, section 3), RMS normalisation (Zhang, Sennrich 2019), their derivatives.

    layer_norm: h = (x - mean) / sqrt(var + eps);  y = h * weight + bias;  var is the mean of (x - mean)^2
    rms_norm:   h = x / sqrt(mean of x^2 + eps);   y = h * weight

With u = g * weight, backward is dx = (u - mean u - h mean(u h)) / sqrt(var + eps), without "mean u" for rms_norm, and
dweight = sum over rows of g h, dbias = sum over rows of g.

Forward: a block of threads for each row, which is read from memory once; the variance from deviations and the result
find it in cache. Backward: a few hundred blocks walk down the rows, so that g and x are read and dx written once, and
each keeps sums for dweight and dbias in shared memory, where every thread has columns of its own and nobody waits. The
blocks' sums, 2 x 512 rows, are written and added up by a second kernel, in a fixed order.
"""

from __future__ import annotations

from tinyllm.kernels.cuda.compile import Array, cuda, empty, float32, kernel
from tinyllm.kernels.cuda.intrinsics import rsqrt
from tinyllm.kernels.cuda.rows import THREADS, WALKERS, WARPS, ZERO, block_sum, column_sums

MAX_COLUMNS = 5120  # two sums for each column, in 48 KB of shared memory less what reductions need


@kernel
def layer_norm_kernel(x: Array, weight: Array, bias: Array, eps: float, out: Array, mean: Array, rstd: Array) -> None:
    """One row."""
    partial = cuda.shared.array(WARPS, float32)
    i, first, size = cuda.blockIdx.x, cuda.threadIdx.x, x.shape[1]
    total = ZERO
    for j in range(first, size, THREADS):
        total += x[i, j]
    centre = block_sum(total, partial) / float32(size)
    squares = ZERO
    for j in range(first, size, THREADS):
        squares += (x[i, j] - centre) * (x[i, j] - centre)
    factor = rsqrt(block_sum(squares, partial) / float32(size) + eps)
    if first == 0:
        mean[i] = centre
        rstd[i] = factor
    for j in range(first, size, THREADS):
        out[i, j] = (x[i, j] - centre) * factor * weight[j] + bias[j]


@kernel
def layer_norm_vjp_kernel(
    g: Array, x: Array, weight: Array, mean: Array, rstd: Array, dx: Array, dweights: Array, dbiases: Array
) -> None:
    """Every gridDim-th row; the sums over these go to rows of `dweights` and `dbiases` (blocks, C)."""
    partial = cuda.shared.array(WARPS, float32)
    sums = cuda.shared.array(0, float32)  # (2 C,), given by the launch
    first, size = cuda.threadIdx.x, x.shape[1]
    for j in range(first, size, THREADS):
        sums[j] = ZERO
        sums[size + j] = ZERO
    for i in range(cuda.blockIdx.x, x.shape[0], cuda.gridDim.x):
        centre, factor = mean[i], rstd[i]
        total, along = ZERO, ZERO
        for j in range(first, size, THREADS):
            h = (x[i, j] - centre) * factor
            u = g[i, j] * weight[j]
            total += u
            along += u * h
            sums[j] += g[i, j] * h
            sums[size + j] += g[i, j]
        total = block_sum(total, partial) / float32(size)
        along = block_sum(along, partial) / float32(size)
        for j in range(first, size, THREADS):
            h = (x[i, j] - centre) * factor
            dx[i, j] = (g[i, j] * weight[j] - total - h * along) * factor
    for j in range(first, size, THREADS):
        dweights[cuda.blockIdx.x, j] = sums[j]
        dbiases[cuda.blockIdx.x, j] = sums[size + j]


@kernel
def rms_norm_kernel(x: Array, weight: Array, eps: float, out: Array, rstd: Array) -> None:
    """One row."""
    partial = cuda.shared.array(WARPS, float32)
    i, first, size = cuda.blockIdx.x, cuda.threadIdx.x, x.shape[1]
    squares = ZERO
    for j in range(first, size, THREADS):
        squares += x[i, j] * x[i, j]
    factor = rsqrt(block_sum(squares, partial) / float32(size) + eps)
    if first == 0:
        rstd[i] = factor
    for j in range(first, size, THREADS):
        out[i, j] = x[i, j] * factor * weight[j]


@kernel
def rms_norm_vjp_kernel(g: Array, x: Array, weight: Array, rstd: Array, dx: Array, dweights: Array) -> None:
    """Every gridDim-th row; the sums over these go to rows of `dweights` (blocks, C)."""
    partial = cuda.shared.array(WARPS, float32)
    sums = cuda.shared.array(0, float32)  # (C,), given by the launch
    first, size = cuda.threadIdx.x, x.shape[1]
    for j in range(first, size, THREADS):
        sums[j] = ZERO
    for i in range(cuda.blockIdx.x, x.shape[0], cuda.gridDim.x):
        factor = rstd[i]
        along = ZERO
        for j in range(first, size, THREADS):
            h = x[i, j] * factor
            along += g[i, j] * weight[j] * h
            sums[j] += g[i, j] * h
        along = block_sum(along, partial) / float32(size)
        for j in range(first, size, THREADS):
            dx[i, j] = (g[i, j] * weight[j] - x[i, j] * factor * along) * factor
    for j in range(first, size, THREADS):
        dweights[cuda.blockIdx.x, j] = sums[j]


def layer_norm(x: Array, weight: Array, bias: Array, eps: float, out: Array, mean: Array, rstd: Array) -> None:
    """Normalise each row of `x` (R, C) into `out`; its mean and 1 / sqrt(var + eps) go to `mean`, `rstd` (R,)."""
    layer_norm_kernel[len(x), THREADS](x, weight, bias, eps, out, mean, rstd)


def layer_norm_vjp(
    g: Array, x: Array, weight: Array, mean: Array, rstd: Array, dx: Array, dweight: Array, dbias: Array
) -> None:
    """Cotangents of layer_norm's x (R, C), weight (C,) and bias (C,) from `g` (R, C); C is at most MAX_COLUMNS."""
    rows, size = x.shape
    blocks = min(max(rows, 1), WALKERS)
    dweights, dbiases = empty(x, blocks, size), empty(x, blocks, size)
    layer_norm_vjp_kernel[blocks, THREADS, 8 * size](g, x, weight, mean, rstd, dx, dweights, dbiases)
    column_sums(dweights, dweight)
    column_sums(dbiases, dbias)


def rms_norm(x: Array, weight: Array, eps: float, out: Array, rstd: Array) -> None:
    """Divide each row of `x` (R, C) by its root mean square, into `out`.

    1 / sqrt(mean x^2 + eps) of each goes to `rstd` (R,).
    """
    rms_norm_kernel[len(x), THREADS](x, weight, eps, out, rstd)


def rms_norm_vjp(g: Array, x: Array, weight: Array, rstd: Array, dx: Array, dweight: Array) -> None:
    """Cotangents of rms_norm's x (R, C) and weight (C,) from `g` (R, C); C is at most MAX_COLUMNS."""
    rows, size = x.shape
    blocks = min(max(rows, 1), WALKERS)
    dweights = empty(x, blocks, size)
    rms_norm_vjp_kernel[blocks, THREADS, 4 * size](g, x, weight, rstd, dx, dweights)
    column_sums(dweights, dweight)
