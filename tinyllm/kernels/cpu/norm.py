"""Layer normalisation (Ba, Kiros, Hinton 2016, section 3), RMS normalisation (Zhang, Sennrich 2019), their derivatives.

    layer_norm: h = (x - mean) / sqrt(var + eps);  y = h * weight + bias;  var is the mean of (x - mean)^2
    rms_norm:   h = x / sqrt(mean of x^2 + eps);   y = h * weight

With u = g * weight, backward is dx = (u - mean u - h mean(u h)) / sqrt(var + eps), without "mean u" for rms_norm, and
dweight = sum over rows of g h, dbias = sum over rows of g.

Row by row, each in several passes while it is in cache: the variance from deviations, never from squares minus a
square, which cancels when the mean is large. Memory is read once and written once. The sums over rows are kept in C
numbers, also in cache. Backward has one loop for the sums and one for dx: the vectoriser proves only so many arrays
distinct.
"""

from __future__ import annotations

import numpy as np

from tinyllm.kernels.cpu.compile import Array, inline, inline_in_order, jit


@inline_in_order
def _reciprocal_root(one: float, x: float) -> float:
    """1 / sqrt(x); the free order would take the processor's estimate and refine it, which at inf gives NaN, not 0."""
    return one / np.sqrt(x)


@inline
def _layer_norm_row(row, weight, bias, eps, y):
    """Mean of a row and its 1 / sqrt(var + eps), after the row has been normalised into `y`."""
    one, size = row.dtype.type(1), row.dtype.type(row.size)
    total = row.dtype.type(0)
    for j in range(row.size):
        total += row[j]
    centre = total / size
    squares = row.dtype.type(0)
    for j in range(row.size):
        deviation = row[j] - centre
        squares += deviation * deviation
    factor = _reciprocal_root(one, squares / size + row.dtype.type(eps))
    for j in range(row.size):
        y[j] = (row[j] - centre) * factor * weight[j] + bias[j]
    return centre, factor


@inline
def _rms_norm_row(row, weight, eps, y):
    """1 / sqrt(mean of x^2 + eps) of a row, after the row has been normalised into `y`."""
    one, size = row.dtype.type(1), row.dtype.type(row.size)
    squares = row.dtype.type(0)
    for j in range(row.size):
        squares += row[j] * row[j]
    factor = _reciprocal_root(one, squares / size + row.dtype.type(eps))
    for j in range(row.size):
        y[j] = row[j] * factor * weight[j]
    return factor


@jit
def layer_norm(x: Array, weight: Array, bias: Array, eps: float, out: Array, mean: Array, rstd: Array) -> None:
    """Normalise each row of `x` (R, C) into `out`; its mean and 1 / sqrt(var + eps) go to `mean`, `rstd` (R,)."""
    for i in range(x.shape[0]):
        mean[i], rstd[i] = _layer_norm_row(x[i], weight, bias, eps, out[i])


@jit
def add_layer_norm(
    x: Array, y: Array, weight: Array, bias: Array, eps: float, total: Array, out: Array, mean: Array, rstd: Array
) -> None:
    """`x` + `y` (R, C) into `total`, and that, normalised as `layer_norm` does, into `out`."""
    for i in range(x.shape[0]):
        x_row, y_row, row = x[i], y[i], total[i]
        for j in range(row.size):
            row[j] = x_row[j] + y_row[j]
        mean[i], rstd[i] = _layer_norm_row(row, weight, bias, eps, out[i])


@jit
def layer_norm_vjp(
    g: Array, x: Array, weight: Array, mean: Array, rstd: Array, dx: Array, dweight: Array, dbias: Array
) -> None:
    """Cotangents of layer_norm's x (R, C), weight (C,) and bias (C,) from `g` (R, C)."""
    inverse = x.dtype.type(1 / x.shape[1])
    for j in range(dweight.size):
        dweight[j] = 0
        dbias[j] = 0
    for i in range(x.shape[0]):
        g_row, row, dx_row = g[i], x[i], dx[i]
        centre, factor = mean[i], rstd[i]
        total = x.dtype.type(0)
        along = x.dtype.type(0)
        for j in range(row.size):
            h = (row[j] - centre) * factor
            u = g_row[j] * weight[j]
            total += u
            along += u * h
            dweight[j] += g_row[j] * h
            dbias[j] += g_row[j]
        total *= inverse
        along *= inverse
        for j in range(row.size):
            h = (row[j] - centre) * factor
            dx_row[j] = (g_row[j] * weight[j] - total - h * along) * factor


@jit
def rms_norm(x: Array, weight: Array, eps: float, out: Array, rstd: Array) -> None:
    """Divide each row of `x` (R, C) by its root mean square, into `out`.

    1 / sqrt(mean x^2 + eps) of each goes to `rstd` (R,).
    """
    for i in range(x.shape[0]):
        rstd[i] = _rms_norm_row(x[i], weight, eps, out[i])


@jit
def add_rms_norm(x: Array, y: Array, weight: Array, eps: float, total: Array, out: Array, rstd: Array) -> None:
    """`x` + `y` (R, C) into `total`, and that, normalised as `rms_norm` does, into `out`."""
    for i in range(x.shape[0]):
        x_row, y_row, row = x[i], y[i], total[i]
        for j in range(row.size):
            row[j] = x_row[j] + y_row[j]
        rstd[i] = _rms_norm_row(row, weight, eps, out[i])


@jit
def rms_norm_vjp(g: Array, x: Array, weight: Array, rstd: Array, dx: Array, dweight: Array) -> None:
    """Cotangents of rms_norm's x (R, C) and weight (C,) from `g` (R, C)."""
    inverse = x.dtype.type(1 / x.shape[1])
    for j in range(dweight.size):
        dweight[j] = 0
    for i in range(x.shape[0]):
        g_row, row, dx_row, factor = g[i], x[i], dx[i], rstd[i]
        along = x.dtype.type(0)
        for j in range(row.size):
            h = row[j] * factor
            along += g_row[j] * weight[j] * h
            dweight[j] += g_row[j] * h
        along *= inverse
        for j in range(row.size):
            dx_row[j] = (g_row[j] * weight[j] - row[j] * factor * along) * factor
