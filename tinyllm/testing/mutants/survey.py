"""Which mistakes can be made in which rules, and which of them are no mistakes there: computed, then declared.

A mutant that equals the right rule whatever the inputs is *equivalent*: no check can reject it and none should. That is
decided by computing both on random inputs and random gradients, not by the failure of a check, and it must be declared
here with a reason, so that nothing is excused unseen.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from tinyllm.autograd import Op, backend
from tinyllm.testing.mutants.cases import CASES, Case, operation
from tinyllm.testing.mutants.planted import Array, Passage, Wrong, passage, record
from tinyllm.testing.mutants.wrong import MISTAKES, Mistake

_DRAWS = 3  # random points at which a mutant is compared with the right rule


@dataclass(frozen=True)
class Rule:
    """The derivative of one operation with respect to one argument, as one backend computes it.

    Attributes
    ----------
    row : str
        Name in the table of cases.
    argument : int
    label : str
        ``row[name of the argument]``.
    backend : str
    numbers : tuple of int
        The cases of the row in which the argument has a gradient.
    """

    row: str
    argument: int
    label: str
    backend: str
    numbers: tuple[int, ...]

    @property
    def cases(self) -> list[Case]:
        """The cases themselves."""
        return [CASES[self.row][k] for k in self.numbers]

    def passage(self, case: Case, inputs: list[Array], rng: np.random.Generator) -> Passage:
        """A random gradient on its way back through a case."""
        with backend(self.backend):
            found = passage(record(case.f, operation(self.row), inputs), self.argument, rng)
        assert found is not None
        return found

    def __str__(self) -> str:
        return f"{self.label}, {self.backend}"


def rules(rows: Collection[str] = CASES.keys()) -> list[Rule]:
    """Every rule of the rows named, on every backend that is installed."""
    return [rule for row in CASES if row in rows for rule in _rules_of(row)]


def _rules_of(row: str) -> Iterator[Rule]:
    rng = np.random.default_rng(0)
    nodes = [record(case.f, operation(row), case.inputs(rng)) for case in CASES[row]]
    for name in _backends(nodes[0].op):
        for argument in range(max(len(node.inputs) for node in nodes)):
            known = [argument < len(node.inputs) and passage(node, argument, rng) is not None for node in nodes]
            numbers = tuple(k for k, has in enumerate(known) if has)
            if numbers:
                yield Rule(row, argument, f"{row}[{_name(nodes[0].op, argument)}]", name, numbers)


def _backends(op: Op) -> list[str]:
    return ["numpy"] + ["numba"] * ("numba" in op.impls and find_spec("numba") is not None)


def _name(op: Op, argument: int) -> str:
    """What the rule calls its argument."""
    if op.ref is not None:
        return list(inspect.signature(op.ref).parameters)[argument]
    rule = None if callable(op.vjps) or len(op.vjps) <= argument else op.vjps[argument]
    return str(argument) if rule is None else list(inspect.signature(rule).parameters)[2 + argument]


# -- equivalent mutants ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Survey:
    """What is known of one mutant before any check is run.

    Attributes
    ----------
    fitting : list of Case
        Those in which the mistake can be made.
    absent : str
        Why it cannot be made, if in none.
    equal : bool
        Whether it equals the right rule on random inputs, in every case.
    """

    fitting: list[Case]
    absent: str
    equal: bool


def survey(rule: Rule, mistake: Mistake, seed: int = 0) -> Survey:
    """Compare a mutant with the right rule on random inputs."""
    rng = np.random.default_rng(seed)
    fitting, equal, absent = [], True, ""
    for case in rule.cases:
        for _ in range(_DRAWS):
            at = rule.passage(case, case.inputs(rng), rng)
            wrong = make(mistake, at)
            if isinstance(wrong, str):
                absent = wrong
                break
            equal &= harmless(wrong, at)
        else:
            fitting.append(case)
    return Survey(fitting, "" if fitting else absent, bool(fitting) and equal)


def make(mistake: Mistake, at: Passage) -> Wrong | str:
    """The wrong rule, or why there is none."""
    with np.errstate(all="ignore"):
        return mistake.make(at)


def harmless(wrong: Wrong, at: Passage) -> bool:
    """Whether a wrong rule gives what the right one gives, up to rounding."""
    with np.errstate(all="ignore"):
        return _equal(np.asarray(wrong(at)), at.d)


def _equal(wrong: Array, right: Array) -> bool:
    if wrong.shape != right.shape or wrong.dtype != right.dtype:
        return False
    scale = np.max(np.abs(right), initial=0.0)
    return np.allclose(wrong, right, rtol=0, atol=float(8 * np.finfo(right.dtype).eps * scale))


def _labels(text: str) -> set[str]:
    """``"add[a b]"`` names two rules."""
    found = (part.split("[") for part in text.split("; "))
    return {f"{row}[{argument}]" for row, arguments in found for argument in arguments.removesuffix("]").split()}


_STEPS = _labels("round[x]; floor[x]; ceil[x]; sign[x]")
_OF_THE_RIGHT_ONE = {m.name for m in MISTAKES} - {"ones", "g passed on"}  # multiples, selections, rearrangements of it

# which mistakes, in which rules, are none, and why
EQUIVALENT: tuple[tuple[set[str], set[str], str], ...] = (
    (_OF_THE_RIGHT_ONE, _STEPS, "the derivative is 0 everywhere, and 0 multiplied or rearranged is 0"),
    ({"g passed on"}, _labels("copy[x]; identity[x]; add[a b]; subtract[a]"), "the derivative is 1"),
    (
        {"g passed on"},
        _labels("astype[x]; edge: astype[x]"),
        "the derivative is 1, and the mutant does convert g to the dtype of the input",
    ),
    ({"another argument's gradient"}, _labels("add[a b]"), "both derivatives are 1"),
    (
        {"another argument's gradient"},
        _labels("rnn[bias_ih bias_hh]; lstm[bias_ih bias_hh]"),
        "both biases are added to the same sum",
    ),
    (
        {"output used for input"},
        _labels(
            "copy[x]; identity[x]; negative[x]; add[a b]; subtract[a b]; where[a b]; cumsum[x]; transpose[x]; "
            "getitem[x]; dropout[x]; rotary[x]; linear[bias]; layer_norm[bias]"
        ),
        "the function is linear in this argument, with coefficients that hold no input",
    ),
    (
        {"output used for input"},
        _labels("exp[x]; expm1[x]; sigmoid[x]; tanh[x]; sqrt[x]; softmax[x]; log_softmax[x]"),
        "the rule is written in terms of the output alone",
    ),
    ({"output used for input"}, _labels("relu[x]"), "y > 0 exactly where x > 0"),
    (
        {"output used for input"},
        _labels("rnn[x weight_hh bias_ih bias_hh h]"),
        "the rule does not look at x, the only argument of the output's shape",
    ),
    (
        {"output used for input"},
        _labels("scaled_dot_product_attention[v mask]"),
        "the rule looks at the saved attention weights, not at the argument",
    ),
    (
        {"input used for output"},
        _labels(
            "abs[x]; copy[x]; cos[x]; erf[x]; negative[x]; relu[x]; sin[x]; softplus[x]; log[x]; log1p[x]; "
            "identity[x]; clip[x]; dropout[x]; add[a b]; subtract[a b]; multiply[a b]; divide[a]; power[a]; "
            "maximum[a b]; minimum[a b]; where[a b]; cumsum[x]; matmul[a b]; einsum[0 1]; transpose[x]; getitem[x]; "
            "gelu[x]; silu[x]; swiglu[gate up]; layer_norm[x]; rms_norm[x]; linear[x weight]; "
            "scaled_dot_product_attention[q k v]; rotary[x]; checkpoint[0 1]"
        ),
        "the rule does not look at the output",
    ),
    (
        {"arguments exchanged"},
        _labels("rnn[bias_ih bias_hh h]; lstm[bias_ih bias_hh memory]; gru[bias_ih bias_hh]"),
        "the rule looks at the gates or states, which are kept, and at neither argument",
    ),
    (
        {"arguments exchanged"},
        _labels(
            "add[a b]; subtract[a b]; where[a b]; concatenate[0 1]; layer_norm[weight bias]; "
            "scaled_dot_product_attention[v]"
        ),
        "the rule looks at neither argument",
    ),
)


def reason(rule: Rule, mistake: str) -> str | None:
    """Why a mutant is declared to be the right rule; None if it is not."""
    return next((why for names, labels, why in EQUIVALENT if mistake in names and rule.label in labels), None)
