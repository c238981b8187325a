"""`kernelcheck`: hold an array kernel against a reference that is right because it is simple and in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tinyllm.testing.problem import Array, name_of, quiet
from tinyllm.testing.report import GradCheckError

# Around the widths of vector registers and the edges of tiles, primes and 1.
SIZES = (1, 2, 3, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 127, 128, 129, 257)


def kernelcheck(
    kernel: Callable[..., Any],
    ref: Callable[..., Any],
    cases: Callable[[np.random.Generator, int], Sequence[Any]] | Iterable[Sequence[Any]],
    *,
    writes: bool = True,
    layouts: bool = True,
    dtype: Any = np.float32,
    limit: float = 8.0,
    seed: int = 0,
) -> float:
    """Check a kernel on ordinary, extreme and awkwardly laid out inputs.

    Every case is tried as it is, and with its floating inputs made zero, tiny (denormal), large, and partly -inf;
    extremes that make the reference NaN are left out. An output is judged wherever the reference, computed in the
    kernel's own dtype, is finite; where it is infinite, so must the kernel's be. The unit of error is what the
    reference itself loses in that dtype: the larger of its own error (the largest along the last axis) and one unit in
    the last place.

    Parameters
    ----------
    kernel : callable
        ``kernel(*inputs, *outputs)``, which fills the outputs; or, with ``writes=False``, ``kernel(*inputs)``, which
        returns them. Outputs are full of NaN before the call.
    ref : callable
        ``ref(*inputs)`` gives the array, or the tuple of arrays, for inputs of any floating dtype.
    cases : callable or iterable
        ``cases(rng, n)`` draws the inputs of size n, and is asked for odd sizes and those at the edges of tiles; or
        the inputs themselves, one sequence for each case.
    writes : bool
    layouts : bool
        Whether the kernel must take read-only and non-contiguous inputs.
    dtype : dtype
        Of the floating inputs.
    limit : float
        How many units an output may be off.
    seed : int

    Returns
    -------
    float
        The largest error, in units.

    Raises
    ------
    GradCheckError
        With the case, the index, both values and the error in units.

    Examples
    --------
    >>> def double(x, out):
    ...     out[:] = 2 * x
    >>> kernelcheck(double, lambda x: 2 * x, lambda rng, n: [rng.normal(size=n)])
    0.0
    """
    rng = np.random.default_rng(seed)
    worst = 0.0
    name = name_of(kernel)
    drawn = ((f"size {n}", cases(rng, n)) for n in SIZES) if callable(cases) else _numbered(cases)
    for label, given in drawn:
        plain = [_converted(x, dtype) for x in given]
        for extreme, inputs in _extremes(plain, rng):
            place = f"{label}{extreme}"
            truth, own = _reference(ref, inputs, np.float64), _reference(ref, inputs, dtype)
            if extreme and any(np.isnan(r).any() for r in own if r.dtype.kind == "f"):
                continue
            found = _run(kernel, inputs, own, writes, f"{name}, {place}")
            worst = max(worst, _compare(found, truth, own, limit, f"{name}, {place}"))
            if not extreme:
                again = _run(kernel, inputs, own, writes, f"{name}, {place}")
                if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(found, again, strict=True)):
                    raise GradCheckError(f"kernelcheck: {name}, {place}: two runs gave different results")
        for layout, inputs in _layouts(plain) if layouts else ():
            truth, own = _reference(ref, inputs, np.float64), _reference(ref, inputs, dtype)
            place = f"{name}, {label}, {layout} inputs"
            worst = max(worst, _compare(_run(kernel, inputs, own, writes, place), truth, own, limit, place))
    return worst


def _numbered(cases: Iterable[Sequence[Any]]) -> Iterator[tuple[str, Sequence[Any]]]:
    return ((f"case {i}", given) for i, given in enumerate(cases))


def _converted(x: Any, dtype: Any) -> Any:
    return np.ascontiguousarray(x, dtype=dtype) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x


def _floating(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"


def _extremes(inputs: list[Any], rng: np.random.Generator) -> Iterator[tuple[str, list[Any]]]:
    """The inputs as they are, and with each floating one made extreme in turn."""
    yield "", inputs
    for i, x in enumerate(inputs):
        if not _floating(x) or not x.size:
            continue
        info = np.finfo(x.dtype)
        masked = x.copy()
        hidden = rng.random(x.shape) < 0.4
        hidden[..., 0] = False  # not a whole row
        masked[hidden] = -np.inf
        spiked = x.copy()
        spiked.flat[int(rng.integers(x.size))] = np.sqrt(info.max) / 16
        for said, new in (
            ("zero", np.zeros_like(x)),
            ("denormal", (x * info.tiny * 0.1).astype(x.dtype)),
            ("tiny", (x * 1e-12).astype(x.dtype)),
            ("large", (x * 1e4).astype(x.dtype)),
            ("with one huge entry", spiked),
            ("partly -inf", masked),
        ):
            yield f", input {i} {said}", [*inputs[:i], new, *inputs[i + 1 :]]


def _layouts(inputs: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    read_only = [x.copy() if isinstance(x, np.ndarray) else x for x in inputs]
    for x in read_only:
        if isinstance(x, np.ndarray):
            x.flags.writeable = False
    yield "read-only", read_only
    if any(isinstance(x, np.ndarray) and x.ndim for x in inputs):
        yield "strided", [_strided(x) if isinstance(x, np.ndarray) and x.ndim else x for x in inputs]
    if any(isinstance(x, np.ndarray) and x.ndim > 1 for x in inputs):
        yield "column-major", [np.asfortranarray(x) if isinstance(x, np.ndarray) else x for x in inputs]


def _strided(x: Array) -> Array:
    """The same numbers, every second one of a larger array along each axis."""
    wide = np.zeros(tuple(2 * n for n in x.shape), dtype=x.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in x.shape)]
    view[...] = x
    return view


def _reference(ref: Callable[..., Any], inputs: list[Any], dtype: Any) -> list[Array]:
    with quiet():
        result = ref(*[np.array(x, dtype=dtype) if _floating(x) else x for x in inputs])
    return [np.asarray(r) for r in (result if isinstance(result, tuple) else (result,))]


def _run(kernel: Callable[..., Any], inputs: list[Any], like: list[Array], writes: bool, place: str) -> list[Array]:
    before = [x.copy() if isinstance(x, np.ndarray) else x for x in inputs]
    with quiet():
        if writes:
            outputs = [np.full(r.shape, np.nan if r.dtype.kind == "f" else 0, dtype=r.dtype) for r in like]
            kernel(*inputs, *outputs)
        else:
            result = kernel(*inputs)
            outputs = [np.asarray(r) for r in (result if isinstance(result, tuple) else (result,))]
    for i, (old, new) in enumerate(zip(before, inputs, strict=True)):
        if isinstance(old, np.ndarray) and not np.array_equal(old, new, equal_nan=old.dtype.kind == "f"):
            raise GradCheckError(f"kernelcheck: {place}: the kernel changed its input {i}")
    if [r.shape for r in outputs] != [r.shape for r in like]:
        raise GradCheckError(
            f"kernelcheck: {place}: outputs of shape {[r.shape for r in outputs]}, the reference has "
            f"{[r.shape for r in like]}"
        )
    return outputs


def _compare(found: list[Array], truth: list[Array], own: list[Array], limit: float, place: str) -> float:
    worst = 0.0
    for number, (y, exact, rounded) in enumerate(zip(found, truth, own, strict=True)):
        if rounded.dtype.kind != "f":
            if not np.array_equal(y, rounded):
                raise GradCheckError(f"kernelcheck: {place}: output {number} differs from the reference")
            continue
        judged = np.isfinite(rounded) & np.isfinite(exact)
        same = (y == rounded) | (np.isnan(y) & np.isnan(rounded)) | judged
        # where the reference overflows only in the kernel's dtype, a better kernel may still be finite
        same |= ~np.isfinite(rounded) & np.isfinite(exact)
        info = np.finfo(rounded.dtype)
        with quiet():
            lost = np.where(judged, np.abs(rounded - exact), 0.0)
            lost = lost.max(axis=-1, keepdims=True, initial=0.0) if lost.ndim else lost
            unit = np.maximum(lost, info.eps * np.abs(exact)) + float(info.smallest_subnormal)
            error = np.where(judged, np.abs(y.astype(float) - exact) / unit, 0.0)
            error = np.where(np.isnan(error) | ~same, np.inf, error)
        if error.size and error.max() > limit:
            at = tuple(int(i) for i in np.unravel_index(int(np.argmax(error)), error.shape))
            unwritten = " (NaN: never written, or computed from what was not)" if np.isnan(y[at]) else ""
            raise GradCheckError(
                f"kernelcheck: {place}: output {number} is wrong\n"
                f"    at index   {at}\n"
                f"    kernel     {y[at]:.9g}{unwritten}\n"
                f"    reference  {exact[at]:.9g} (in {rounded.dtype}: {rounded[at]:.9g})\n"
                f"    error      {error[at]:.3g} units, {limit:g} are allowed; {int((error > limit).sum())} of "
                f"{error.size} elements are off"
            )
        worst = max(worst, float(error.max(initial=0.0)))
    return worst
