"""The checker is checked: wrong rules of every kind must be rejected, and how many were is printed."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from check import GradientMismatch, check, slope
from gradient_cases import CASES, FUSED, Case

import tinyllm as tl
from tinyllm.autograd.tape import Kernel, Op, reachable


def test_slope_and_its_error() -> None:
    value, error = slope(lambda h: float(np.exp(1 + h)))
    assert abs(value - np.e) <= max(10 * error, 1e-11)
    assert error < 1e-9
    assert slope(lambda h: abs(h - 0.001))[1] > 1e-3  # a kink in reach is noticed


def test_right_rules_pass() -> None:
    check(lambda x: x * x, np.array([1.0, 2.0]), order=1)
    check(lambda x: x * x, np.array([1.0, 2.0]), order=2)


def test_kinks_are_refused() -> None:
    with pytest.raises(GradientMismatch, match="nothing can be told"):
        check(tl.relu, np.array([1e-3, 1.0]))


def test_a_second_derivative_that_is_cut_off_is_rejected() -> None:
    cut = Op("cut", lambda xp, x: xp.exp(x), (lambda g, y, x: g * y.detach(),))
    check(lambda x: tl.autograd.tape.apply(cut, x), np.array([0.5, 1.0]), order=1)
    with pytest.raises(GradientMismatch, match="second"):
        check(lambda x: tl.autograd.tape.apply(cut, x), np.array([0.5, 1.0]), order=2)


spoiled_so_far = [0]  # how often a wrong rule was really put in a right one's place


def spoil(wrong: Callable, d: Any) -> Any:
    new = wrong(d)
    if new is None:
        return d
    spoiled_so_far[0] += 1
    return new


# -- every rule of the library, made wrong ---------------------------------------------------------------------------


def zero(d: Any) -> Any:
    return d * 0


def sign(d: Any) -> Any:
    return -d


def factor(d: Any) -> Any:
    return d * 1.001


def transposed(d: Any) -> Any:
    """Elements in the wrong places; None where there is only one place."""
    return d.reshape((d.size,))[::-1].reshape(d.shape) if d.size > 1 else None


def missing_sum(d: Any) -> Any:
    """The first of the contributions instead of their mean along an axis; None where there is only one."""
    if d.ndim == 0 or d.shape[-1] < 2:
        return None
    return (d - d) + d[..., :1]


WRONG = [zero, sign, factor, transposed, missing_sum]


@contextmanager
def set_attribute(op: Op, name: str, value: Any) -> Iterator[None]:
    before = getattr(op, name)
    object.__setattr__(op, name, value)
    try:
        yield
    finally:
        object.__setattr__(op, name, before)


def wrong_rules(op: Op, wrong: Callable) -> Iterator[tuple[str, Any]]:
    """The rules of a primitive with one of them made wrong, for each of its arguments."""

    def bad(rule: Callable) -> Callable:
        def spoiled(*args: Any, **params: Any) -> tl.Tensor:
            return spoil(wrong, rule(*args, **params))

        return spoiled

    if callable(op.vjps):
        yield op.name, bad(op.vjps)
    else:
        for i, rule in enumerate(op.vjps):
            if rule is not None:
                yield f"{op.name}[{i}]", tuple(bad(r) if i == j else r for j, r in enumerate(op.vjps))


def wrong_kernels(op: Op, backend: str, count: int, wrong: Callable) -> Iterator[tuple[str, Any]]:
    """The kernel of a fused operation with one of its gradients made wrong."""
    kernel = op.impls[backend]()
    for i in range(count):

        def vjp(needs: tuple, *args: Any, i: int = i, **params: Any) -> tuple:
            grads = list(kernel.vjp(needs, *args, **params))
            if i < len(grads) and grads[i] is not None:
                grads[i] = np.asarray(spoil(wrong, np.asarray(grads[i])))
            return tuple(grads)

        yield f"{op.name}[{i}] {backend}", {**op.impls, backend: lambda vjp=vjp: Kernel(kernel.forward, vjp)}


def operations_of(case: Case) -> dict[Op, int]:
    """The operations on the tape of a case, with the number of their inputs."""
    y = case.f(*(tl.tensor(a, requires_grad=True) for a in case.arrays))
    return {node.op: len(node.inputs) for node in reachable(y)}


def rejected(cases: list[Case], backend: str, order: int = 1) -> bool:
    for case in cases:
        try:
            with tl.backend(backend):
                check(case.f, *case.arrays, order=order, entries=1)
        except AssertionError:
            return True
    return False


def flat_gradient(op: Op) -> bool:
    """Whether the rule gives zeros whatever arrives, so that only a wrong value that is not zero could be seen."""
    return op.name in ("round", "floor", "ceil", "sign")


@functools.cache
def users() -> list[tuple[Op, int, list[Case]]]:
    """Every operation, how many inputs it has, and a dozen cases that it occurs in, its own and large ones first."""
    found: dict[Op, list[Case]] = {}
    counts: dict[Op, int] = {}
    for case in CASES:
        if all(a.size for a in case.arrays):
            for op, n in operations_of(case).items():
                found.setdefault(op, []).append(case)
                counts[op] = max(n, counts.get(op, 0))
    two_in_one = {"add_layer_norm", "add_rms_norm"}  # a pass for two operations, each of which is here
    assert {op.name for op in found} >= ({"add", "matmul", "getitem", "einsum"} | FUSED) - two_in_one
    return [
        (op, counts[op], sorted(cases, key=lambda c: (c.op != op.name, -max(a.size for a in c.arrays)))[:12])
        for op, cases in found.items()
    ]


def test_wrong_rules_are_rejected() -> None:
    killed, survived = 0, []
    for op, count, own in users():
        for wrong in WRONG:
            if flat_gradient(op):
                continue
            mutants: list[tuple[str, str, str, Any]] = []
            if op.ref is None:
                mutants += [(n, "numpy", "vjps", m) for n, m in wrong_rules(op, wrong)]
            else:
                for backend in op.impls.keys() - {"cuda"}:  # its kernels are proved in tests/cuda
                    mutants += [(n, backend, "impls", m) for n, m in wrong_kernels(op, backend, count, wrong)]
            for name, backend, attribute, mutant in mutants:
                with set_attribute(op, attribute, mutant):
                    before = spoiled_so_far[0]
                    if rejected(own, backend):
                        killed += 1
                    elif spoiled_so_far[0] > before:
                        survived.append(f"{name} {wrong.__name__}")
    print(f"wrong rules rejected: {killed} of {killed + len(survived)}")
    assert killed > 300
    assert survived == []


def cut(d: tl.Tensor) -> tl.Tensor:
    """The right value, of which the tape knows nothing."""
    return d.detach() if isinstance(d, tl.Tensor) else d  # rules of arithmetic are applied to arrays


def test_wrong_second_derivatives_are_rejected() -> None:
    """Rules that are right in value and cut off the tape, and references that differ by a thousandth."""
    killed, survived = 0, []
    for op, _, own in users():
        if flat_gradient(op):
            continue
        if op.ref is None:
            mutants = [(name, "vjps", rule) for name, rule in wrong_rules(op, cut)]
        else:
            wrong_ref = lambda *args, ref=op.ref, **params: 1.001 * ref(*args, **params)  # noqa: E731
            mutants = [(op.name, "ref", wrong_ref)]
        for name, attribute, mutant in mutants:
            with set_attribute(op, attribute, mutant):
                if rejected(own, "numpy", order=2):
                    killed += 1
                else:
                    survived.append(name)
    print(f"wrong second derivatives rejected: {killed} of {killed + len(survived)}")
    assert killed > 50
    assert survived == []
