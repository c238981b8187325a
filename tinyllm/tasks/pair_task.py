"""What makes a task of pairs: where they come from, what is measured, and what is to be beaten."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tinyllm.tasks.pairs import Pair, Pairs
from tinyllm.train.settings import Settings

#: Metrics of hypotheses against the references of each: name to value.
Measure = Callable[[Sequence[str], Sequence[Sequence[str]], Settings], dict[str, float]]
#: What simpler methods make of the sources, after having seen the training pairs: name to hypotheses.
Baselines = Callable[[Sequence[Pair], Sequence[str]], Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class PairTask:
    """A task that turns a source into a target.

    Parameters
    ----------
    read : callable
        The pairs that the settings name.
    measure : callable
        Metrics of hypotheses.
    baselines : callable
        Hypotheses of simpler methods.
    lowest_is_best : bool
        Whether the first metric is an error rate.
    """

    read: Callable[[Settings], Pairs]
    measure: Measure
    baselines: Baselines
    lowest_is_best: bool = False
