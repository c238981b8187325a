"""The profile of a trainer's steps: they run as ever, while a recorder listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from tinyllm.profile.limits import Limits
from tinyllm.profile.recorder import Recorder
from tinyllm.train import Trainer
from tinyllm.train.sums import GradientSum


@dataclass(frozen=True)
class Row:
    """One operation on one kind of kernel, in one step.

    Parameters
    ----------
    op, kernel : str
    calls : float
    forward_s, backward_s : float
        Seconds.
    flops, bytes : float
        What it had to do, by the rules in `tinyllm.profile.costs`.
    bound : str
        Which limit it meets first: ``"sgemm"`` or ``"copy"``.
    limit_share : float
        The time that this limit allows over the time it took. Arrays that stay in a cache beat the copy's limit.
    step_share : float
        Its part of the step.
    """

    op: str
    kernel: str
    calls: float
    forward_s: float
    backward_s: float
    flops: float
    bytes: float
    bound: str
    limit_share: float
    step_share: float

    @property
    def seconds(self) -> float:
        """Forward and backward together."""
        return self.forward_s + self.backward_s


@dataclass(frozen=True)
class Profile:
    """The mean of some training steps.

    Parameters
    ----------
    limits : Limits
    steps : int
    step_s : float
        Seconds of a whole step.
    tokens : float
        Predictions in a step.
    rows : list of Row
        The dearest first.
    other : dict
        Seconds of what is no operation: ``batch``; ``sum and norm`` of the pieces' gradients, for clipping;
        ``optimiser``; and the rest, ``not accounted``: Python between the operations, and waiting threads.
    """

    limits: Limits
    steps: int
    step_s: float
    tokens: float
    rows: list[Row]
    other: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "threads": self.limits.threads,
            "sgemm_flops": self.limits.flops,
            "copy_bytes": self.limits.bytes,
            "steps": self.steps,
            "step_s": self.step_s,
            "tokens_per_second": self.tokens / self.step_s,
            "rows": [asdict(row) for row in self.rows],
            "other_s": self.other,
        }

    def __str__(self) -> str:
        head = (
            f"{1e3 * self.step_s:.1f} ms a step, {self.tokens / self.step_s:,.0f} tokens/s, "
            f"{self.limits.threads} thread{'s' * (self.limits.threads > 1)} (mean of {self.steps} steps)\n"
            f"limits measured now: sgemm {self.limits.flops / 1e9:.0f} GFLOP/s, copy {self.limits.bytes / 1e9:.1f} GB/s"
        )
        columns = f"{'op':29}{'kernel':7}{'calls':>6}{'forward':>12}{'backward':>12}{'MFLOP':>10}{'MB':>8}"
        lines = [head, "", columns + f"{'of the limit':>15}{'of the step':>13}"]
        for row in self.rows:
            lines.append(
                f"{row.op:29}{row.kernel:7}{row.calls:6.0f}{_ms(row.forward_s)}{_ms(row.backward_s)}"
                f"{row.flops / 1e6:10,.1f}{row.bytes / 1e6:8,.1f}{row.limit_share:9.0%} {row.bound:5}"
                f"{row.step_share:13.1%}"
            )
        for name, seconds in self.other.items():
            lines.append(f"{name:42}{_ms(seconds)}{'':45}{seconds / self.step_s:13.1%}")
        return "\n".join(lines)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:9.2f} ms"


def profile(trainer: Trainer, steps: int = 10, warm: int = 3, limits: Limits | None = None) -> Profile:
    """Let a trainer take some steps and see what their time went into.

    Parameters
    ----------
    trainer : Trainer
        Its parameters move as in any training.
    steps, warm : int
        Steps that are measured, and steps before them, in which kernels are compiled and memory is taken.
    limits : Limits, optional
        Measured just before and just after where not given.

    Returns
    -------
    Profile
    """
    for _ in range(warm):
        trainer.step()
    around = [] if limits else [Limits.measure()]
    recorder, clocks = Recorder(), dict.fromkeys(("batch", "sum and norm", "optimiser"), 0.0)
    tokens = trainer.at.tokens
    with ExitStack() as stack:
        for name, owner, method in (
            ("batch", trainer.batches, "at"),
            ("sum and norm", GradientSum, "add"),
            ("sum and norm", GradientSum, "norm"),
            ("optimiser", trainer.optimizer, "step"),
        ):
            stack.enter_context(_timed(owner, method, clocks, name))
        stack.enter_context(recorder.listening())
        begin = time.perf_counter()
        for _ in range(steps):
            trainer.step()
        step_s = (time.perf_counter() - begin) / steps
    limits = limits or Limits.best(*around, Limits.measure())
    rows = []
    for (op, kernel), tally in recorder.tallies.items():
        flops, nbytes = tally.cost.flops / steps, tally.cost.bytes / steps
        seconds = (tally.forward + tally.backward) / steps
        rows.append(
            Row(
                op,
                kernel,
                tally.calls / steps,
                tally.forward / steps,
                tally.backward / steps,
                flops,
                nbytes,
                limits.bound(flops, nbytes),
                limits.shortest(flops, nbytes) / seconds if seconds else 0.0,
                seconds / step_s,
            )
        )
    rows.sort(key=lambda row: row.seconds, reverse=True)
    other = {name: seconds / steps for name, seconds in clocks.items()}
    other["not accounted"] = max(0.0, step_s - sum(other.values()) - sum(row.seconds for row in rows))
    return Profile(limits, steps, step_s, (trainer.at.tokens - tokens) / steps, rows, other)


@contextmanager
def _timed(owner: Any, method: str, clocks: dict[str, float], name: str) -> Iterator[None]:
    """Within it, the time that a method of this object (or class) takes is added up under `name`."""
    own = method in vars(owner)
    whole: Callable[..., Any] = getattr(owner, method)

    def timed(*arguments: Any) -> Any:
        begin = time.perf_counter()
        try:
            return whole(*arguments)
        finally:
            clocks[name] += time.perf_counter() - begin

    setattr(owner, method, timed)
    try:
        yield
    finally:
        if own:
            setattr(owner, method, whole)
        else:
            delattr(owner, method)
