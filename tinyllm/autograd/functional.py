"""Derivatives as functions of functions. All of it is use of the tape; the engine knows nothing of this file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinyllm.autograd import ops
from tinyllm.autograd.operands import as_tensor
from tinyllm.autograd.random import record_keys, replay_keys
from tinyllm.autograd.settings import enable_grad, is_recording
from tinyllm.autograd.tape import (
    Node,
    Op,
    as_cotangent,
    gradients,
    reachable,
    sequence,
)
from tinyllm.autograd.tensor import Operand, Tensor

Pullback = Callable[..., tuple[Tensor, ...]]


def vjp(f: Callable[..., Tensor], *primals: Operand) -> tuple[Tensor, Pullback]:
    """The value of ``f(*primals)`` and the function that takes a cotangent back to the primals.

    Parameters
    ----------
    f : callable
        Of Tensors, to a Tensor.
    *primals : array_like or Tensor
        Of floating dtype, those that are to have a gradient; others give a gradient of zeros.

    Returns
    -------
    y : Tensor
    pull : callable
        ``pull(g)`` with `g` of the shape of `y` (1 when left out and `y` is a single element) gives a tuple with the
        gradient of every primal. It may be called many times, and is itself differentiable.
    """
    given = [as_tensor(x) for x in primals]
    outer = is_recording() and any(x.requires_grad for x in given)
    with enable_grad():
        entries = [_entry(x, outer) for x in given]
        y = f(*entries)
    if not isinstance(y, Tensor):
        raise TypeError(f"the function must return a Tensor, got {type(y).__name__}")
    own = {id(e) for e in entries}
    others = any(t.node is None and t.requires_grad and id(t) not in own for node in reachable(y) for t in node.inputs)

    def pull(g: ArrayLike | Tensor | None = None) -> tuple[Tensor, ...]:
        cotangent = as_cotangent(y, g)
        differentiable = is_recording() and (outer or others or cotangent.requires_grad)
        found = gradients(y, entries, cotangent, create_graph=differentiable)
        return tuple(ops.zeros_like(e) if d is None else d for d, e in zip(found, entries, strict=True))

    return (y if is_recording() and (outer or others) else y.detach()), pull


def _entry(x: Tensor, outer: bool) -> Tensor:
    """What stands for `x` while its gradient is asked for: a fresh leaf, or `x` through a node if it is on a tape."""
    if x.requires_grad and outer:
        return ops.identity(x)
    leaf = x.detach()
    leaf.requires_grad = x.dtype.kind == "f"
    return leaf


def value_and_grad(f: Callable[..., Tensor], argnums: int | Sequence[int] = 0) -> Callable[..., tuple[Tensor, Any]]:
    """The function that gives ``f(*args)``, a single number, and its gradient.

    Parameters
    ----------
    f : callable
    argnums : int or sequence of ints
        Which arguments the gradient is taken of. An int gives one Tensor, a sequence a tuple of them.
    """
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def with_grad(*args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
        def of_chosen(*chosen: Tensor) -> Tensor:
            filled = list(args)
            for n, x in zip(numbers, chosen, strict=True):
                filled[n] = x
            return f(*filled, **kwargs)

        chosen = [as_tensor(x) for x in (args[n] for n in numbers)]
        for n, x in zip(numbers, chosen, strict=True):
            if x.dtype.kind != "f":
                raise TypeError(f"no gradient with respect to argument {n}, which is {x.dtype}: pass floating numbers")
        y, pull = vjp(of_chosen, *chosen)
        found = pull()
        return y, found[0] if isinstance(argnums, int) else found

    return with_grad


def grad(f: Callable[..., Tensor], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """The gradient of a function with a single number as result; may be nested for higher derivatives.

    See :func:`value_and_grad` for the parameters.
    """
    with_value = value_and_grad(f, argnums)
    return lambda *args, **kwargs: with_value(*args, **kwargs)[1]


def jvp(f: Callable[..., Tensor], primals: Sequence[Operand], tangents: Sequence[Operand]) -> tuple[Tensor, Tensor]:
    """The value of ``f(*primals)`` and its derivative in the direction `tangents`.

    The pullback ``g -> g J`` is linear in `g`, so its own vjp is ``t -> J t``: reverse mode twice gives forward mode.
    """
    if [np.shape(_values(x)) for x in primals] != [np.shape(_values(t)) for t in tangents]:
        raise ValueError("jvp: there must be a tangent of the same shape for each primal")
    y, pull = vjp(f, *primals)

    def pulled(g: Tensor) -> Tensor:
        back = pull(g)
        total = ops.sum(back[0] * tangents[0])
        for d, t in zip(back[1:], tangents[1:], strict=True):
            total = total + ops.sum(d * t)
        return total

    along = grad(pulled)(ops.zeros_like(y))
    outer = y.requires_grad or any(isinstance(t, Tensor) and t.requires_grad for t in tangents)
    return y, along if outer else along.detach()


def _values(x: Operand) -> Any:
    return x.data if isinstance(x, Tensor) else x


def hessian_vector_product(f: Callable[[Tensor], Tensor], x: Operand, v: Operand) -> Tensor:
    """The Hessian of `f` (a single number) at `x`, times `v`: the gradient of ``<grad f(x), v>``."""
    v = as_tensor(v)
    if np.shape(_values(x)) != v.shape:
        raise ValueError(
            f"hessian_vector_product: x and v must have one shape, got {np.shape(_values(x))} and {v.shape}"
        )
    return grad(lambda at: ops.sum(grad(f)(at) * v))(x)


class _Recomputed(Op):
    """A function as one operation that keeps only its inputs, and computes again when a gradient arrives."""

    def vjp(self, node: Node, g: Tensor, create_graph: bool) -> list[Tensor | None]:
        f, n, keys = node.params["f"], node.params["n"], node.params["keys"]
        given, captured = node.inputs[:n], node.inputs[n:]
        with enable_grad(), replay_keys(keys):
            entries = [_entry(t, create_graph) if t.requires_grad else t for t in given]
            y = f(*entries)
        return gradients(y, [*entries, *captured], g, create_graph)


_recomputed = _Recomputed("checkpoint")


def checkpoint(f: Callable[..., Tensor], *inputs: Operand) -> Tensor:
    """``f(*inputs)``, of which only the inputs are kept: backward computes the rest a second time.

    Tensors that `f` uses without being given them (the parameters of a layer) get their gradients as well, and random
    operations draw the same numbers again.
    """
    given = [as_tensor(x) for x in inputs]
    if not is_recording():
        return f(*given)
    start = next(sequence)
    with record_keys() as keys:
        entries = [_entry(x, outer=False) if x.requires_grad else x for x in given]
        y = f(*entries)
    if not y.requires_grad:
        return y
    known = {id(e) for e in entries}
    captured = []
    for node in reachable(y, since=start):
        for t in node.inputs:
            older = t.node is None or t.node.seq < start
            if t.requires_grad and older and id(t.node or t) not in known:
                known.add(id(t.node or t))
                captured.append(t)
    params = {"f": f, "n": len(given), "keys": keys}
    return Tensor._wrap(y._storage, Node(_recomputed, (*given, *captured), y._storage, params, "recompute", None))
