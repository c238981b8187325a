"""AdamW with a share of the rate for each group: what was learnt before moves less than what is new."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tinyllm.optim.adam import AdamW


class LayerwiseAdamW(AdamW):
    """AdamW whose groups move at fixed shares of the rate that is set.

    Parameters
    ----------
    groups : iterable of dict
        As for AdamW.
    shares : sequence of float
        One for each group, not negative.
    **options
        As for AdamW.

    Notes
    -----
    Source: Howard and Ruder 2018, "Universal language model fine-tuning for text classification", section 3.2.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], shares: Sequence[float], **options: Any) -> None:
        super().__init__(groups, **options)
        if len(shares) != len(self.param_groups) or not all(share >= 0 for share in shares):
            raise ValueError(f"{len(self.param_groups)} groups need as many shares, none negative; got {list(shares)}")
        self.shares = tuple(shares)
        self.lr = options.get("lr", 1e-3)

    @property
    def lr(self) -> float:
        """The rate that each group has a share of."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = float(value)
        for group, share in zip(self.param_groups, self.shares, strict=True):
            group["lr"] = share * self._lr
