"""What a check says: a table when all is well, one screen of plain text when it is not."""

from __future__ import annotations

from dataclasses import dataclass, field

from tinyllm.errors import TinyLLMError


@dataclass(frozen=True)
class Kink:
    """A place where the function has no derivative, and the claimed value is one of its subgradients.

    Attributes
    ----------
    argument : str
    index : tuple of int
    claimed : float
    left, right : float
        The bounds of what may be claimed; both NaN where the slopes grow without bound.
    """

    argument: str
    index: tuple[int, ...]
    claimed: float
    left: float
    right: float

    def __str__(self) -> str:
        place = f"{self.argument} at {self.index}"
        if self.left != self.left:
            return f"{place}: no finite slope (a jump, or an edge of the domain); the claim {self.claimed:.6g} stands"
        return f"{place}: a kink, slopes {self.left:.6g} to {self.right:.6g}; the claim {self.claimed:.6g} lies between"


@dataclass(frozen=True)
class ArgumentReport:
    """How one argument was checked, and how far from failing it was.

    Attributes
    ----------
    order : int
        1 for the gradient, 2 for the gradient of the gradient.
    argument : str
    shape : tuple of int
    method : str
    compared : int
        Numbers that were compared.
    worst : float
        The largest difference, in units of its tolerance: below 1.
    resolution : float
        The median tolerance in units of the gradient's size: errors below it pass unseen.
    kinks : tuple of Kink
        The first few.
    kink_count : int
    unjudged : int
        Numbers that were not judged, since rounding errors hide the slope, or none was found.
    """

    order: int
    argument: str
    shape: tuple[int, ...]
    method: str
    compared: int
    worst: float
    resolution: float
    kinks: tuple[Kink, ...] = ()
    kink_count: int = 0
    unjudged: int = 0


@dataclass(frozen=True)
class Mismatch:
    """A claimed derivative that is not the function's.

    Attributes
    ----------
    op : str
        The operation to blame, as far as it could be told.
    order : int
    argument : str
    index : tuple of int
        Of the element that is furthest off.
    output : tuple of int or None
        The output whose derivative it is; None for a sum over all outputs with random weights.
    claimed, numerical, error : float
        The claimed value, the numerical one, and the estimated error of the latter.
    wrong, compared : int
        How many of the compared elements are wrong; 0 compared when one was found by bisection.
    diagnosis : tuple of str
        The likely mistakes, likeliest first.
    """

    op: str
    order: int
    argument: str
    index: tuple[int, ...]
    output: tuple[int, ...] | None
    claimed: float
    numerical: float
    error: float
    wrong: int
    compared: int
    diagnosis: tuple[str, ...] = ()

    def __str__(self) -> str:
        what = "gradient" if self.order == 1 else "second derivative"
        extent = (
            f"{self.wrong} of {self.compared} elements" if self.compared else "at least this one, found by bisection"
        )
        ratio = f"{self.claimed / self.numerical:.6g}" if self.numerical else "-"
        place = f"{self.index}" + (f", of output {self.output}" if self.output is not None else "")
        rows = [
            ("at index", place),
            ("yours", f"{self.claimed + 0.0:.12g}"),
            ("numerical", f"{self.numerical + 0.0:.12g}  (estimated error {self.error:.1g})"),
            ("ratio", f"{ratio}  (yours / numerical)"),
            ("wrong", extent),
        ]
        lines = [f"the {what} of {self.op} with respect to {self.argument} is wrong"]
        lines += [f"    {name:<10} {value}" for name, value in rows]
        lines += [f"    {'diagnosis' if i == 0 else '':<10} {text}" for i, text in enumerate(self.diagnosis)]
        return "\n".join(lines)


class GradCheckError(TinyLLMError, AssertionError):
    """A derivative, a backward pass or a kernel that does not do what it claims; the message says where and why.

    Attributes
    ----------
    mismatches : tuple of Mismatch
        Empty when the fault is not a wrong number (a shape, a dtype, an input that was changed, ...).
    """

    def __init__(self, message: str, mismatches: tuple[Mismatch, ...] = ()) -> None:
        super().__init__(message)
        self.mismatches = mismatches


def failure(mismatches: list[Mismatch], seed: int) -> GradCheckError:
    """The first mismatch in full, and one line for each of the others."""
    first, *others = mismatches
    lines = [f"gradcheck: {first}"]
    lines += [f"    also wrong: {m.argument}: {next(iter(m.diagnosis), '-')}" for m in others[:6]]
    lines.append(f"    (random cotangent and directions; seed={seed} repeats them)")
    return GradCheckError("\n".join(lines), tuple(mismatches))


@dataclass(frozen=True)
class GradCheckReport:
    """What was checked; returned only when every check passed.

    Attributes
    ----------
    name : str
        The function.
    arguments : tuple of ArgumentReport
    notes : tuple of str
        What the reader should know, such as arguments that were not checked.
    evaluations : int
        How often the function was evaluated.
    """

    name: str
    arguments: tuple[ArgumentReport, ...]
    notes: tuple[str, ...] = field(default=())
    evaluations: int = 0

    @property
    def kinks(self) -> tuple[Kink, ...]:
        """The kinks that were met."""
        return tuple(kink for a in self.arguments for kink in a.kinks)

    @property
    def unjudged(self) -> int:
        """How many numbers were not judged; `notes` says of which arguments."""
        return sum(a.unjudged for a in self.arguments)

    def __str__(self) -> str:
        lines = [f"gradcheck: {self.name} passed ({self.evaluations} evaluations)"]
        width = max((len(a.argument) for a in self.arguments), default=0)
        for a in self.arguments:
            lines.append(
                f"    order {a.order}  {a.argument:<{width}}  {a.method}, {a.compared} compared, "
                f"largest difference {a.worst:.2g} of its tolerance, resolution {a.resolution:.1g}"
            )
        shown = self.kinks[:6]
        lines += [f"    {kink}" for kink in shown]
        count = sum(a.kink_count for a in self.arguments)
        if count > len(shown):
            lines.append(f"    ... {count} kinks in all")
        return "\n".join(lines + [f"    note: {note}" for note in self.notes])
