"""Several optimisers as one: what suits the matrices of a network does not suit its embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tinyllm.errors import CheckpointError
from tinyllm.optim.optimizer import Optimizer


class Together:
    """Optimisers with parameters of their own, stepping together at one learning rate.

    Parameters
    ----------
    optimizers : iterable of Optimizer
        No two of them with a parameter in common, all at the same rate.

    Raises
    ------
    ValueError
        If there is none, a parameter belongs to two, or their rates differ.
    """

    def __init__(self, optimizers: Iterable[Optimizer]) -> None:
        self.optimizers = list(optimizers)
        if not self.optimizers:
            raise ValueError("together needs at least one optimiser, got none")
        seen: set[int] = set()
        for group in self.param_groups:
            for p in group["params"]:
                if id(p) in seen:
                    raise ValueError(f"a parameter of shape {p.shape} belongs to two optimisers")
                seen.add(id(p))
        self.lr = self.lr  # the rates are one

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    @property
    def lr(self) -> float:
        """The learning rate; setting it sets that of all.

        Raises
        ------
        ValueError
            On reading, if they have different rates.
        """
        rates = {optimizer.lr for optimizer in self.optimizers}
        if len(rates) > 1:
            raise ValueError(f"the optimisers have different rates {sorted(rates)}")
        return rates.pop()

    @lr.setter
    def lr(self, value: float) -> None:
        for optimizer in self.optimizers:
            optimizer.lr = value

    def step(self, scale: float = 1.0) -> None:
        """Change every parameter that has a gradient, by its gradient times `scale`."""
        for optimizer in self.optimizers:
            optimizer.step(scale)

    def zero_grad(self) -> None:
        """Forget the gradient of every parameter."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs: the keys of each optimiser's own, behind its number and a dot."""
        return {
            f"{i}.{key}": value for i, part in enumerate(self.optimizers) for key, value in part.state_dict().items()
        }

    def load_state_dict(self, flat: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave; on an error nothing is changed.

        Raises
        ------
        CheckpointError
            If it belongs to other parameters or to other optimisers, with what does not fit.
        """
        parts: list[dict[str, Any]] = [{} for _ in self.optimizers]
        for key, value in flat.items():
            number, _, rest = key.partition(".")
            if not number.isdigit() or int(number) >= len(parts) or not rest:
                raise CheckpointError(f"this state does not fit {len(parts)} optimisers together: unexpected: {key}")
            parts[int(number)][rest] = value
        before = [optimizer.state_dict() for optimizer in self.optimizers]
        try:
            for optimizer, part in zip(self.optimizers, parts, strict=True):
                optimizer.load_state_dict(part)
        except CheckpointError:
            for optimizer, part in zip(self.optimizers, before, strict=True):
                optimizer.load_state_dict(part)
            raise
