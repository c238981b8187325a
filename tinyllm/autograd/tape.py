"""The tape: what was computed, written down as data, and the walk back along it.

An operation is an `Op`: a forward function and its derivative rules. Applying one appends a `Node` to the tape, and the
order of creation is an order in which every node comes after its inputs, so going backward is: take the nodes that the
result was made from, latest first, and hand each one's gradient to its inputs. That is the whole of `backward_steps`.
"""

from __future__ import annotations

import functools
import itertools
import operator
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from tinyllm.autograd import arrays
from tinyllm.autograd.operands import as_tensor, as_tensors, meet
from tinyllm.autograd.settings import COMPILED_FROM, choose_kernel, set_for_now, settings
from tinyllm.autograd.tensor import Array, Operand, Storage, Tensor, namespace


class Kernel(NamedTuple):
    """One implementation of a fused operation, on arrays.

    ``forward(*arrays, **params) -> (out, saved)``; ``vjp(needs, g, out, saved, *arrays, **params)`` gives a gradient,
    an array or a `Sparse`, or None where none is needed, for each array.
    """

    forward: Callable[..., tuple[Array, Any]]
    vjp: Callable[..., tuple[Array | Tensor | None, ...]]


def _no_forward(xp: Any, *arrays: Array, **params: Any) -> Array:
    raise TypeError("a fused operation is computed by its kernels")


@dataclass(frozen=True, eq=False)
class Op:
    """An operation: how it is computed, and how a gradient passes it.

    A *primitive* has one rule per argument, ``rule(g, y, *inputs, **params)``, written in differentiable operations
    (None where no gradient passes; for any number of arguments, one ``rule(i, g, y, *inputs, **params)``).
    A *fused* operation has kernels that compute all gradients at once, and `ref`: the same function in small
    operations, which is differentiated instead when the gradient is to be differentiated again.
    """

    name: str
    forward: Callable[..., Array] = _no_forward
    vjps: tuple[Callable[..., Tensor] | None, ...] | Callable[..., Tensor] = ()
    ref: Callable[..., Tensor] | None = None
    impls: dict[str, Callable[[], Kernel]] = field(default_factory=dict)
    elementwise: bool = False  # operands are broadcast against each other and meet in one dtype
    view: bool = False  # the result may share the memory of the first input
    compiled_from: int = COMPILED_FROM  # elements from which the kernel of Numba is the faster one,
    sized_by: int = 0  # of this input
    arithmetic: bool = False  # the rules are arithmetic alone, the same for arrays, and give arrays of their own

    @functools.cached_property
    def differentiable(self) -> bool:
        """Whether any gradient passes this operation."""
        return self.vjps != () or self.ref is not None

    def vjp(self, node: Node, g: Tensor, create_graph: bool) -> list[Tensor | None]:
        """The gradients of the node's inputs, given that of its output."""
        if self.ref is None:
            out = node.out.array
            if self.arithmetic and not create_graph and type(out) is np.ndarray and out.size < arrays.LARGE:
                return self._vjp_of_arrays(node, g._storage.array)
            y = Tensor._wrap(node.out, node)
            rules: Sequence[Any]
            if callable(self.vjps):
                rules = [functools.partial(self.vjps, i) for i in range(len(node.inputs))]
            else:
                rules = self.vjps
            return [
                rule(g, y, *node.inputs, **node.params) if need and rule is not None else None
                for need, rule in zip(node.needs, rules, strict=True)
            ]
        if create_graph:
            return replay(self.ref, node, g)
        inputs = [t._storage.array for t in node.inputs]
        grads = self.impls[node.kernel]().vjp(
            node.needs, g._storage.array, node.out.array, node.saved, *inputs, **node.params
        )
        asarray = namespace(node.out.array).asarray  # NumPy turns 0-d results into scalars
        return [
            (d if isinstance(d, Tensor) else Tensor._wrap(Storage(asarray(d)))) if need else None
            for need, d in zip(node.needs, grads, strict=True)
        ]

    def _vjp_of_arrays(self, node: Node, g: Array) -> list[Tensor | None]:
        """The rules applied to arrays: of a few elements, the Tensors around them would take most of the time."""
        inputs = [t._storage.array for t in node.inputs]
        rules: Any = self.vjps
        return [
            Tensor._wrap(Storage(np.asarray(rule(g, node.out.array, *inputs)))) if need else None
            for need, rule in zip(node.needs, rules, strict=True)
        ]


class Node:
    """One line of the tape: which operation made which array from which inputs. Data only, no closures."""

    __slots__ = ("inputs", "kernel", "needs", "op", "out", "params", "saved", "seq", "versions")

    def __init__(
        self, op: Op, inputs: tuple[Tensor, ...], out: Storage, params: dict[str, Any], kernel: str, saved: Any
    ) -> None:
        self.seq = next(sequence)
        self.op = op
        self.inputs = inputs
        self.out = out
        self.params = params
        self.kernel = kernel
        self.needs = tuple([t._requires_grad for t in inputs])
        self.saved = saved
        self.versions = [out.cell[0], *[t._storage.cell[0] for t in inputs]]

    @property
    def released(self) -> bool:
        """Whether a backward pass has used this node and let go of its arrays."""
        return self.out is None

    def release(self) -> None:
        """Let go of the arrays; what remains is enough to say what the node was."""
        self.inputs, self.saved, self.out = (), None, None  # type: ignore[assignment]

    def check_fresh(self) -> None:
        """Raise if the node was released, or if an array it needs was overwritten since."""
        if self.out is None:
            raise RuntimeError(
                f"the tape behind node {self.seq} ({self.op.name}) was released by an earlier backward pass; "
                "call backward(retain_graph=True) the first time, or compute the result again"
            )
        now = [self.out.cell[0], *[t._storage.cell[0] for t in self.inputs]]
        if now != self.versions:
            i = next(i for i, (a, b) in enumerate(zip(now, self.versions, strict=True)) if a != b)
            what = "output" if i == 0 else f"input {i - 1}"
            raise RuntimeError(
                f"{what} of node {self.seq} ({self.op.name}) was overwritten by assign_ after it was used: "
                f"recorded at version {self.versions[i]}, now version {now[i]}; call backward before assigning, "
                "or compute the result again"
            )

    def __repr__(self) -> str:
        shape = "released" if self.released else f"shape={self.out.array.shape}"
        return f"Node({self.seq}, {self.op.name}, {shape}, kernel={self.kernel})"


sequence = itertools.count()


class Watcher(Protocol):
    """Who is told of every operation and of every step back, as they are done and on the thread that did them."""

    def computed(
        self, op: Op, kernel: str, arrays: Sequence[Array], out: Array, params: dict[str, Any], seconds: float
    ) -> None:
        """An operation was computed."""

    def went_back(self, step: Step) -> None:
        """A gradient passed a node."""


watcher: Watcher | None = None  # the profiler's, for as long as it measures


def apply(op: Op, *operands: Operand, **params: Any) -> Tensor:
    """Compute ``op`` on the operands and, if a gradient may be wanted, append a node to the tape."""
    inputs = as_tensors(operands)
    if op.elementwise:
        inputs = meet(op.name, inputs)
    values = [t._storage.array for t in inputs]
    first = values[0]
    begin = time.perf_counter() if watcher else 0.0
    saved = None
    if op.ref is None:
        xp = namespace(first)
        kernel = "numpy" if xp is np else xp.__name__
        out = op.forward(xp, *values, **params)
    else:
        kernel = choose_kernel(op.impls, values[op.sized_by], op.compiled_from)
        out, saved = op.impls[kernel]().forward(*values, **params)
    if type(out) is not type(first):  # NumPy turns 0-d results into scalars
        out = namespace(first).asarray(out)
    if watcher:
        watcher.computed(op, kernel, values, out, params, time.perf_counter() - begin)
    storage = Storage(out, inputs[0]._storage.cell if op.view and _may_share(out, first) else None)
    if settings.recording and op.differentiable:
        for t in inputs:
            if t._requires_grad:
                return Tensor._wrap(storage, Node(op, inputs, storage, params, kernel, saved))
    return Tensor._wrap(storage)


def _may_share(out: Array, array: Array) -> bool:
    return type(out) is not np.ndarray or np.may_share_memory(out, array)


# -- backward ----------------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """One step back along the tape: a node, the gradient that arrived at it, the gradients it hands to its inputs."""

    node: Node
    out_grad: Tensor
    in_grads: tuple[Tensor | None, ...]

    def __str__(self) -> str:
        handed = ", ".join("-" if g is None else f"{g.shape} {g.dtype}" for g in self.in_grads)
        return f"{self.node.seq:>6}  {self.node.op.name:<20} {self.out_grad.shape} {self.out_grad.dtype} -> {handed}"


def backward_steps(
    loss: Tensor,
    cotangent: ArrayLike | Tensor | None = None,
    *,
    retain_graph: bool = False,
    create_graph: bool = False,
) -> Iterator[Step]:
    """Go back along the tape one node at a time.

    When the walk is complete, and only then, each leaf's `grad` grows by its gradient; a walk that is abandoned
    changes nothing.

    Parameters
    ----------
    loss : Tensor
        Where to begin.
    cotangent : array_like or Tensor of the shape of `loss`, optional
        The gradient arriving there; 1 when `loss` has a single element.
    retain_graph, create_graph : bool
        As in :meth:`Tensor.backward`.

    Yields
    ------
    Step

    Raises
    ------
    ValueError, TypeError
        If `loss` needs a cotangent, has one of the wrong shape, or was computed from nothing that requires a gradient.
    RuntimeError
        If the tape was released, or a value on it overwritten.
    """
    g = as_cotangent(loss, cotangent)
    if not loss.requires_grad:
        raise ValueError("backward of a tensor that was not computed from any tensor with requires_grad=True")
    order = reachable(loss)
    grads = {_key(loss): g}
    yield from _walk(order, grads, create_graph)
    leaves = {id(t): t for node in order for t in node.inputs if t.node is None and t._requires_grad}
    if loss.node is None:
        leaves[id(loss)] = loss
    owned = {id(g._storage.cell)}
    with set_for_now(recording=create_graph):
        for key, leaf in leaves.items():
            if key not in grads:
                continue
            total = grads[key] if leaf.grad is None else ops.add(leaf.grad, grads[key])
            leaf.grad = _own(total, owned)
    if not (retain_graph or create_graph):
        for node in order:
            node.release()


def _own(g: Tensor, owned: set[int]) -> Tensor:
    """`g` in memory of its own: rules may hand one array to several inputs, or a window on a larger or smaller one."""
    base = getattr(g._storage.array, "base", None)
    if id(g._storage.cell) in owned or (base is not None and base.size != g.size):
        g = ops.copy(g)
    owned.add(id(g._storage.cell))
    return g


def _key(tensor: Tensor) -> int:
    """What a gradient is filed under: the node that made the tensor, or the leaf itself."""
    return id(tensor.node or tensor)


def reachable(result: Tensor, cut: frozenset[int] | set[int] = frozenset(), since: int = 0) -> list[Node]:
    """The nodes that `result` was computed from, latest first, not beyond the keys in `cut` nor before node `since`."""
    found: set[Node] = set()
    stack = [result.node]
    while stack:
        node = stack.pop()
        if node is None or node in found or node.seq < since or id(node) in cut:
            continue
        found.add(node)
        stack += [t.node for t in node.inputs]
    return sorted(found, key=operator.attrgetter("seq"), reverse=True)


def _walk(order: list[Node], grads: dict[int, Tensor], create_graph: bool) -> Iterator[Step]:
    """Hand each node's gradient to its inputs; on return `grads` holds what arrived at the leaves."""
    sums: set[int] = set()  # the keys of gradients that were added up here, in arrays that nobody else has seen
    for node in order:
        g = grads.pop(id(node), None)
        if g is None:
            continue
        node.check_fresh()
        before, settings.recording = settings.recording, create_graph
        try:
            in_grads = tuple(node.op.vjp(node, g, create_graph))
            for x, d in zip(node.inputs, in_grads, strict=True):
                if d is None:
                    continue
                if d.shape != x.shape or d.dtype != x.dtype:
                    raise AssertionError(
                        f"the derivative of {node.op.name} gave a gradient of shape {d.shape} {d.dtype} "
                        f"for an input of shape {x.shape} {x.dtype}"
                    )
                key = _key(x)
                total = grads.get(key)
                if total is None:
                    grads[key] = d
                elif key in sums:
                    add_in_place(total, d)
                else:
                    grads[key] = plus(total, d)
                    if not create_graph and type(grads[key]._storage.array) is np.ndarray:
                        sums.add(key)
        finally:
            settings.recording = before
        step = Step(node, g, in_grads)
        if watcher:
            watcher.went_back(step)
        yield step


def as_cotangent(result: Tensor, cotangent: ArrayLike | Tensor | None) -> Tensor:
    """The gradient arriving at `result`, checked: its shape, and that a result of many elements has one at all."""
    if result.dtype.kind != "f":
        raise TypeError(f"a tensor of dtype {result.dtype} has no gradient; only floating tensors have")
    if cotangent is None:
        if result.size != 1:
            raise ValueError(
                f"backward of a tensor of shape {result.shape} needs a cotangent of that shape "
                "(only a single element has the obvious one, 1): sum it first, or pass backward(g)"
            )
        xp = namespace(result._storage.array)
        return Tensor._wrap(Storage(xp.ones(result.shape, dtype=result.dtype)))
    g = as_tensor(cotangent, like=(result,))
    if g.shape != result.shape:
        raise ValueError(f"the cotangent has shape {g.shape}, but the tensor it belongs to has shape {result.shape}")
    return ops.astype(g, result.dtype)


def gradients(
    result: Tensor,
    targets: Sequence[Tensor],
    cotangent: Tensor,
    create_graph: bool = False,
    release: bool = False,
) -> list[Tensor | None]:
    """The gradients of `result` with respect to `targets`; nothing is stored in any `grad`.

    A target that `result` does not depend on has the gradient None. The tape beyond the targets is not walked. With
    `release`, each node lets go of its arrays as soon as it was passed.
    """
    keys = [_key(t) for t in targets]
    grads = {_key(result): cotangent}
    for step in _walk(reachable(result, cut=set(keys)), grads, create_graph):
        if release:
            step.node.release()
    return [grads.get(key) for key in keys]


def replay(f: Callable[..., Tensor], node: Node, g: Tensor) -> list[Tensor | None]:
    """The gradients of a node's inputs through ``f(*inputs)``, the same function in small operations, recorded.

    Each input enters through an `identity` of its own, so that one that is used twice keeps its two gradients apart.
    """
    entries = [ops.identity(t) if need else t for t, need in zip(node.inputs, node.needs, strict=True)]
    targets = [e for e, need in zip(entries, node.needs, strict=True) if need]
    found = iter(gradients(f(*entries, **node.params), targets, g, create_graph=True))
    return [next(found) if need else None for need in node.needs]


# The walk adds up gradients with the operations that are recorded here.
from tinyllm.autograd import ops  # noqa: E402
from tinyllm.autograd.sparse import add_in_place, plus  # noqa: E402
