"""What NumPy does to large arrays: into memory that is used again, and shared among the threads.

This is the one place where element-by-element work is divided; small arrays, and those that are laid out in another
order than C's, go to NumPy as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyllm import buffers, threads
from tinyllm.autograd.settings import compiles

Array = np.ndarray[Any, Any]

LARGE = 1 << 14  # elements from which the memory of the result is worth a thought
_BLOCKS_FROM = 2 * 10**6  # multiply-adds of a product that may be worth a kernel
_DIVIDED_FROM = 1 << 20  # elements from which threads share the work: 150 us of one, while waking another costs 30


def into_buffer(function: np.ufunc, arrays: tuple[Array, ...]) -> Array:
    """``function(*arrays)``."""
    if not all(a.flags.c_contiguous for a in arrays):
        return function(*arrays)
    shape = arrays[0].shape
    if any(a.shape != shape for a in arrays):
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
    out = buffers.empty(shape, function.resolve_dtypes((*(a.dtype for a in arrays), None))[-1])
    return _into(out, function, *arrays)


def _into(out: Array, function: np.ufunc, *arrays: Array) -> Array:
    """``function(*arrays, out=out)``, divided along the first axis."""
    if out.size < _DIVIDED_FROM or threads.get_num_threads() == 1:
        return function(*arrays, out=out)
    # what is broadcast along the first axis is needed whole by every range
    whole = [a.ndim < out.ndim or len(a) != len(out) for a in arrays]

    def work(i: int, j: int) -> None:
        function(*(a if w else a[i:j] for a, w in zip(arrays, whole, strict=True)), out=out[i:j])

    threads.parallel(work, len(out), 1)
    return out


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """``a @ b``; of another library's arrays in its own way, without `out`."""
    if type(a) is not np.ndarray:
        return a @ b
    return threads.matmul(a, b, out, _in_blocks if _suits_blocks(a, b) else np.matmul)


def _suits_blocks(a: Array, b: Array) -> bool:
    """Whether `a` and `b` are matrices that a kernel multiplies faster than BLAS does on its own."""
    if a.size * b.shape[-1] < _BLOCKS_FROM or not compiles(a):
        return False
    from tinyllm.kernels.cpu.blocks import suits

    return suits(a, b)


def _in_blocks(a: Array, b: Array, out: Array) -> Array:
    from tinyllm.kernels.cpu.blocks import product

    product(a, b, a.dtype.type(0), out)
    return out


_FEW = 4  # rows, up to which reading b takes longer than the arithmetic
_READ_FROM = 1 << 17  # elements of b from which that is worth a kernel, and
_READ_DIVIDED_FROM = 1 << 21  # those from which it is worth another thread, which reads a fifth faster


def rows_times(rows: Array, weight: Array) -> Array:
    """``rows @ weight.T`` for rows (R, C) and weight (N, C); the product that a single new token is multiplied by."""
    if (
        len(rows) > _FEW
        or weight.size < _READ_FROM
        or not (type(weight) is np.ndarray and weight.flags.c_contiguous and weight.dtype == rows.dtype)
        or not compiles(weight)
    ):
        return matmul(rows, weight.T)
    from tinyllm.kernels.cpu import few_rows

    rows = np.ascontiguousarray(rows)
    out = np.empty((len(rows), len(weight)), weight.dtype)
    if weight.size < _READ_DIVIDED_FROM:
        few_rows.product(rows, weight, out)
    else:
        threads.parallel(lambda i, j: few_rows.product(rows, weight[i:j], out[:, i:j]), len(weight))
    return out


def add_to(total: Array, x: Array) -> Array:
    """``total += x``, broadcast, which may be divided."""
    if type(total) is not np.ndarray or total.size < LARGE:
        total += x
        return total
    return _into(total, np.add, total, x)


def copied(x: Array, dtype: np.dtype) -> Array:
    """A copy of `x`, as `dtype`."""
    if x.size < LARGE or type(x) is not np.ndarray:
        return x.astype(dtype)
    out = buffers.empty(x.shape, dtype)
    np.copyto(out, x, casting="unsafe")
    return out


def zeros(shape: tuple[int, ...], dtype: np.dtype) -> Array:
    """An array of zeros."""
    out = buffers.empty(shape, dtype)
    out.fill(0)
    return out
