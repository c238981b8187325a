"""Products of matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyllm import threads
from tinyllm.autograd import ops
from tinyllm.autograd.arrays import matmul as product
from tinyllm.autograd.operands import as_tensor, broadcast_shape
from tinyllm.autograd.ops.primitive import primitive
from tinyllm.autograd.tape import Op, apply
from tinyllm.autograd.tensor import Array, Operand, Tensor


def _einsum_values(xp: Any, *arrays: Array, spec: str) -> Array:
    with threads.blas_on_caller():
        return xp.einsum(spec, *arrays, optimize=True)


def _einsum_rule(i: int, g: Tensor, y: Tensor, *xs: Tensor, spec: str) -> Tensor:
    """The gradient of operand i is the product of `g` with the other operands, summed to i's own letters."""
    terms, out = spec.split("->")
    letters = terms.split(",")
    others = [j for j in range(len(xs)) if j != i]
    back = ",".join([out, *(letters[j] for j in others)]) + "->" + letters[i]
    return apply(_einsum, g, *(xs[j] for j in others), spec=back)


_matmul = primitive(
    "matmul",
    lambda g, y, a, b: g @ b.mT,
    lambda g, y, a, b: a.mT @ g,
    forward=lambda xp, a, b: product(a, b),
)
# A single operand whose axes are only permuted comes back as a view.
_einsum = Op("einsum", _einsum_values, _einsum_rule, view=True)


def matmul(a: Operand, b: Operand) -> Tensor:
    """The matrix product over the last two axes, with NumPy's rules for vectors and leading axes.

    Parameters
    ----------
    a : (..., N, K) or (K,)
    b : (..., K, M) or (K,)

    Returns
    -------
    Tensor, (..., N, M) without the axes that a vector does not have

    Raises
    ------
    ValueError
        If an operand is 0-d, the inner lengths differ, or the leading axes do not broadcast.
    """
    a, b = (as_tensor(t) for t in (a, b))
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"matmul needs at least one axis on each side, got {a.shape} @ {b.shape}; use * for numbers")
    inner = b.shape[max(b.ndim - 2, 0)]
    if a.shape[-1] != inner:
        which = "only" if b.ndim == 1 else "second last"
        raise ValueError(
            f"matmul: {a.shape} @ {b.shape}: the last axis of the first ({a.shape[-1]}) and "
            f"the {which} axis of the second ({inner}) must agree"
        )
    dtype = np.result_type(a.dtype, b.dtype)
    a, b = ops.astype(a, dtype), ops.astype(b, dtype)
    if a.ndim == 1:
        return ops.squeeze(matmul(ops.expand_dims(a, 0), b), -1 if b.ndim == 1 else -2)
    if b.ndim == 1:
        return ops.squeeze(matmul(a, ops.expand_dims(b, 1)), -1)
    if b.ndim == 2 and a.ndim > 2:  # one matrix for all leading axes: one large product
        flat = apply(_matmul, ops.reshape(a, (-1, a.shape[-1])) if a.size else _flat_empty(a), b)
        return ops.reshape(flat, (*a.shape[:-1], b.shape[-1]))
    batch = broadcast_shape("matmul", a.shape[:-2], b.shape[:-2])
    a, b = (t if t.shape[:-2] == batch else ops.broadcast_to(t, batch + t.shape[-2:]) for t in (a, b))
    return apply(_matmul, a, b)


def _flat_empty(a: Tensor) -> Tensor:
    return ops.reshape(a, (int(np.prod(a.shape[:-1])), a.shape[-1]))


def outer(a: Operand, b: Operand) -> Tensor:
    """``a[i] * b[j]`` of the flattened operands."""
    return ops.reshape(a, (-1, 1)) * ops.reshape(b, (1, -1))


def einsum(subscripts: str, *operands: Operand) -> Tensor:
    """Einstein's summation, with NumPy's notation, e.g. ``einsum("bthd,bshd->bhts", q, k)``.

    Parameters
    ----------
    subscripts : str
        One letter for each axis of each operand, separated by commas; letters missing after ``->`` are summed over.
        Without ``->`` the letters that occur once remain, in alphabetical order. An ellipsis stands for leading axes.
    *operands : array_like or Tensor

    Raises
    ------
    ValueError
        If letters and axes do not fit.
    """
    xs = [as_tensor(t, like=operands) for t in operands]
    dtype = np.result_type(*(t.dtype for t in xs))
    xs = [ops.astype(x, dtype) for x in xs]
    terms, out = _letters(subscripts, xs)
    lengths: dict[str, int] = {}
    for j, (term, x) in enumerate(zip(terms, xs, strict=True)):
        for letter in sorted(set(term)):  # a repeated letter is a diagonal
            while term.count(letter) > 1:
                i, k = [m for m, c in enumerate(term) if c == letter][:2]
                x, term = _diagonal(x, i, k), term[:k] + term[k + 1 :]
        for letter, n in zip(term, x.shape, strict=True):
            if lengths.setdefault(letter, n) != n and 1 not in (n, lengths[letter]):
                raise ValueError(f"einsum {subscripts!r}: axis {letter!r} has lengths {lengths[letter]} and {n}")
            lengths[letter] = n if lengths[letter] == 1 else lengths[letter]
        xs[j], terms[j] = x, term
    for j, (term, x) in enumerate(zip(terms, xs, strict=True)):
        elsewhere = out + "".join(terms[:j] + terms[j + 1 :])
        alone = tuple(i for i, letter in enumerate(term) if letter not in elsewhere)
        x = ops.sum(x, alone) if alone else x
        terms[j] = "".join(letter for letter in term if letter in elsewhere)
        xs[j] = ops.broadcast_to(x, tuple(lengths[letter] for letter in terms[j]))
    if any(letter not in lengths for letter in out) or len(set(out)) != len(out):
        raise ValueError(f"einsum {subscripts!r}: the output {out!r} repeats a letter or has one that no operand has")
    return apply(_einsum, *xs, spec=",".join(terms) + "->" + out)


def _diagonal(x: Tensor, i: int, k: int) -> Tensor:
    """The diagonal of axes i < k, standing at axis i."""
    if x.shape[i] != x.shape[k]:
        raise ValueError(f"einsum: a repeated letter joins axes of lengths {x.shape[i]} and {x.shape[k]}")
    order = [i, k, *(m for m in range(x.ndim) if m not in (i, k))]
    places = np.arange(x.shape[i])
    diagonal = ops.transpose(x, order)[places, places]  # (n, others)
    back = [*range(1, i + 1), 0, *range(i + 1, diagonal.ndim)]
    return ops.transpose(diagonal, back)


def _letters(subscripts: str, xs: list[Tensor]) -> tuple[list[str], str]:
    """The letters of each operand and of the output, ellipses written out."""
    left, arrow, right = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(xs):
        raise ValueError(f"einsum {subscripts!r} names {len(terms)} operands, got {len(xs)}")
    free = [c for c in "ZYXWVUTSRQPONMLKJIHGFEDCBAzyxwvutsrqponmlkjihgfedcba" if c not in subscripts]
    depth = max((x.ndim - len(t.replace("...", "")) for t, x in zip(terms, xs, strict=True) if "..." in t), default=0)
    dots = "".join(free[:depth])
    for j, (term, x) in enumerate(zip(terms, xs, strict=True)):
        n = x.ndim - len(term.replace("...", ""))
        if n < 0 or (n and "..." not in term):
            raise ValueError(f"einsum {subscripts!r}: {term!r} does not fit an operand of shape {x.shape}")
        terms[j] = term.replace("...", dots[len(dots) - n :])
    if arrow:
        return terms, right.replace("...", dots)
    once = sorted(c for c in set("".join(terms)) - set(dots) if "".join(terms).count(c) == 1)
    return terms, dots + "".join(once)
