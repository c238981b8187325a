"""An average of the weights over the steps, which wanders less than the weights themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tinyllm.autograd.tensor import Array, Tensor
from tinyllm.device import namespace, to_host
from tinyllm.errors import CheckpointError
from tinyllm.optim.ranges import over_ranges


class EMA:
    """``average = decay * average + (1 - decay) * p`` after every step, beginning with the first step's p.

    Parameters
    ----------
    params : iterable of Tensors
        Those of the optimiser, or any others.
    decay : float
        How much of the average is kept at each step; below 1. The average looks back over about 1 / (1 - decay) steps.

    Raises
    ------
    ValueError
        If there are no parameters, or `decay` is out of range.

    Notes
    -----
    Source: Polyak and Juditsky 1992; what `torch.optim.swa_utils.get_ema_multi_avg_fn` computes.
    """

    def __init__(self, params: Iterable[Tensor], decay: float = 0.999) -> None:
        self.params = list(params)
        if not self.params:
            raise ValueError("an average needs at least one parameter, got none")
        if not 0 <= decay < 1:
            raise ValueError(f"decay is at least 0 and below 1, got {decay}")
        self.decay = float(decay)
        self.steps = 0
        self._averages: list[Array] = [_flat(p).copy() for p in self.params]
        self._trained: list[Array] | None = None  # the parameters' own values, while they are the averages

    def update(self) -> None:
        """Take the parameters as they are now into the average.

        Raises
        ------
        RuntimeError
            Between `apply` and `restore`.
        """
        if self._trained is not None:
            raise RuntimeError("the parameters are their averages now: restore() them before the next step")
        values = [_flat(p) for p in self.params]
        decay = self.decay if self.steps else 0.0
        self.steps += 1

        def piece(i: int, begin: int, end: int) -> None:
            average = self._averages[i][begin:end]
            average += (1 - decay) * (values[i][begin:end] - average)

        over_ranges(piece, [a.size for a in values])

    def apply(self) -> None:
        """Put the averages in the parameters' place, until `restore`."""
        if self._trained is None:
            self._trained = [p.numpy() for p in self.params]
            for p, average in zip(self.params, self._averages, strict=True):
                p.assign_(average.reshape(p.shape))

    def restore(self) -> None:
        """Give the parameters the values that they were trained to."""
        if self._trained is not None:
            for p, trained in zip(self.params, self._trained, strict=True):
                p.assign_(trained)
            self._trained = None

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it, the parameters are their averages."""
        self.apply()
        try:
            yield
        finally:
            self.restore()

    def state_dict(self) -> dict[str, Any]:
        """The number of steps as ``step``, and a copy of the N-th parameter's average as ``average.N``."""
        shaped = (to_host(a.reshape(p.shape)) for a, p in zip(self._averages, self.params, strict=True))
        return {"step": self.steps} | {f"average.{n}": a for n, a in enumerate(shaped)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave; on an error nothing is changed.

        Raises
        ------
        CheckpointError
            If it belongs to other parameters.
        """
        expected = {"step"} | {f"average.{n}" for n in range(len(self.params))}
        problems = [f"missing: {name}" for name in sorted(expected - set(state))]
        problems += [f"unexpected: {name}" for name in sorted(set(state) - expected)]
        for n, p in enumerate(self.params):
            found = state.get(f"average.{n}")
            if found is not None and (found.shape != p.shape or found.dtype != p.dtype):
                problems.append(f"average.{n}: {found.shape} {found.dtype}, expected {p.shape} {p.dtype}")
        if problems:
            raise CheckpointError("this average does not fit the parameters:\\n  " + "\\n  ".join(problems))
        self.steps = int(state["step"])
        for n, average in enumerate(self._averages):
            average[...] = namespace(average).asarray(state[f"average.{n}"]).reshape(-1)


def _flat(p: Tensor) -> Array:
    return p._storage.array.reshape(-1)
