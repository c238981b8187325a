"""Whoever listens to the engine while it works, and adds up what each kind of operation took."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tinyllm.autograd import is_recording, tape
from tinyllm.autograd.sparse import Sparse
from tinyllm.autograd.tape import Op, Step
from tinyllm.profile.costs import Array, Call, Cost, backward_cost, forward_cost
from tinyllm.threads import get_num_threads


@dataclass
class Tally:
    """What one operation, on one kind of kernel, took in all its calls."""

    calls: int = 0
    forward: float = 0.0
    backward: float = 0.0
    cost: Cost = field(default_factory=Cost)


class _Thread(threading.local):
    """Of a thread: when its last event was, and the cost of what ran since the last step back."""

    def __init__(self) -> None:
        self.last = time.perf_counter()
        self.pending = Cost()


class Recorder:
    """Adds up the events of the engine by operation and kernel, on whichever threads they happen.

    Forward, an operation's time is that of its kernel. Backward, it is all of what the engine did since the step
    before: the rule, and the addition of its gradients to those already there. Pieces of divided work, which run side
    by side, count with one thread's share of the time.
    """

    def __init__(self) -> None:
        self.tallies: dict[tuple[str, str], Tally] = {}
        self._threads = get_num_threads()
        self._here = _Thread()
        self._lock = threading.Lock()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within it, every operation of the process is recorded."""
        before, tape.watcher = tape.watcher, self
        try:
            yield
        finally:
            tape.watcher = before

    def computed(
        self, op: Op, kernel: str, arrays: Sequence[Array], out: Array, params: dict[str, Any], seconds: float
    ) -> None:
        """Count an operation: as one of the model's, or as part of the step back that is under way."""
        cost = forward_cost(Call(op.name, arrays, out, params))
        if not is_recording():
            self._here.pending.add(cost)
            return
        with self._lock:
            tally = self.tallies.setdefault((op.name, kernel), Tally())
            tally.calls += 1
            tally.forward += self._share() * seconds
            tally.cost.add(cost)
        self._here.last, self._here.pending = time.perf_counter(), Cost()

    def went_back(self, step: Step) -> None:
        """Count a step back under the operation whose gradient it took."""
        node, now = step.node, time.perf_counter()
        cost = self._here.pending
        if any(isinstance(g, Sparse) for g in step.in_grads):
            # What is zero nearly everywhere is added, where it is not, to a sum that is read and written there.
            cost.add(Cost(step.out_grad.size, 3.0 * node.out.array.nbytes))
        elif node.op.ref is not None:
            call = Call(node.op.name, [t._storage.array for t in node.inputs], node.out.array, node.params, node.needs)
            cost.add(backward_cost(call, sum(g._storage.array.nbytes for g in step.in_grads if g is not None)))
        with self._lock:
            tally = self.tallies.setdefault((node.op.name, node.kernel), Tally())
            tally.backward += self._share() * (now - self._here.last)
            tally.cost.add(cost)
        self._here.last, self._here.pending = time.perf_counter(), Cost()

    def _share(self) -> float:
        return 1.0 if get_num_threads() == self._threads else 1 / self._threads
