"""The tester tested: every mistake that is planted is found, and nothing that is right is called wrong."""

import io
import json
from contextlib import redirect_stdout

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import tinyllm as tl
from tinyllm.autograd import Tensor
from tinyllm.autograd.tape import Op, reachable
from tinyllm.errors import ConfigError
from tinyllm.testing import gradcheck, judge
from tinyllm.testing.mutants import main, run
from tinyllm.testing.mutants.alarms import ask, ask_all, defined, draw, traps
from tinyllm.testing.mutants.cases import CASES, operation
from tinyllm.testing.mutants.hunt import ABSENT, EQUIVALENT, KILLED, hunt, smallest_detected
from tinyllm.testing.mutants.planted import plant, record
from tinyllm.testing.mutants.survey import EQUIVALENT as DECLARED
from tinyllm.testing.mutants.survey import Rule, reason, rules, survey
from tinyllm.testing.mutants.wrong import TERMS, mistakes

X = np.array([[0.5, -1.2, 2.0], [1.5, 0.3, -0.7]])
QUICK = ["multiply", "edge: broadcast_to", "getitem", "softmax", "floor"]

RULES = rules()


def every_op() -> dict[str, Op]:
    """The operations of the engine that hand a gradient on, found in its modules; between devices: see tests/cuda."""
    import importlib
    import pkgutil

    found = {}
    for info in pkgutil.walk_packages(tl.autograd.__path__, "tinyllm.autograd."):
        for value in vars(importlib.import_module(info.name)).values():
            if isinstance(value, Op) and (value.differentiable or type(value) is not Op):
                found[value.name] = value
    found.pop("to", None)
    return found


def test_every_operation_is_in_the_table() -> None:
    assert set(map(operation, CASES)) == set(every_op())


def test_every_rule_is_reached() -> None:
    """Each argument that an operation has a rule for, and each kernel of a fused one."""
    reached = {(operation(r.row), r.argument) for r in RULES}
    backends = {(r.row, r.backend) for r in RULES}
    for name, op in every_op().items():
        for argument, rule in enumerate(op.vjps if isinstance(op.vjps, tuple) else ()):
            assert ((name, argument) in reached) == (rule is not None)
        for backend in op.impls.keys() - {"cuda"}:  # its kernels are proved in tests/cuda
            assert (name, backend) in backends


def test_every_term_belongs_to_a_rule() -> None:
    known = {(r.row, r.argument) for r in RULES}
    assert {(row, term.argument) for row, terms in TERMS.items() for term in terms} <= known


# -- killed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [r for r in RULES if r.row in QUICK], ids=str)
def test_every_mistake_is_found(rule: Rule) -> None:
    hunted = hunt(rule, seed=1)
    assert not hunted.alarms
    for verdict in hunted.verdicts:
        assert verdict.outcome in (KILLED, EQUIVALENT, ABSENT), f"{verdict.mistake}: {verdict.why}"
        assert verdict.why
    killed = {v.mistake for v in hunted.verdicts if v.outcome == KILLED}
    assert "ones" in killed
    if rule.row == "floor":
        assert hunted.smallest is None
    else:
        assert {"zero", "negated", "x1.001", "x2", "one element wrong", "shifted by one"} <= killed
        assert hunted.smallest is not None
        assert hunted.smallest < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_kill_rate_is_all(seed: int) -> None:
    report = run(seed=seed, draws=100)
    assert report.kill_rate == 1.0, report.survivors
    assert not report.alarms, "\n".join(report.alarms)
    assert report.count(KILLED) > 1000


# -- equivalent --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", CASES)
def test_equivalence_is_computed_and_declared(row: str) -> None:
    """What equals the right rule on random inputs is declared, with a reason; nothing else is."""
    for rule in (r for r in RULES if r.row == row):
        for mistake in mistakes(rule.row, rule.argument):
            known = survey(rule, mistake, seed=3)
            if not known.absent:
                assert known.equal == bool(reason(rule, mistake.name)), f"{rule}: {mistake.name}"


def test_every_declaration_is_about_a_rule() -> None:
    labels = {r.label for r in RULES}
    names = {m.name for r in RULES for m in mistakes(r.row, r.argument)}
    for mistaken, where, why in DECLARED:
        assert mistaken <= names
        assert where <= labels
        assert why


def test_an_undeclared_equivalent_mutant_counts_as_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyllm.testing.mutants.survey.EQUIVALENT", ())
    report = run(["copy"])
    assert {v.mistake for _, v in report.survivors} >= {"g passed on", "input used for output"}
    assert report.kill_rate < 1
    assert not report.passed


def test_a_false_declaration_counts_as_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = ((({"negated"}), {"exp[x]"}, "not so"),)
    monkeypatch.setattr("tinyllm.testing.mutants.survey.EQUIVALENT", declared)
    verdict = next(v for v in run(["exp"]).rules[0].verdicts if v.mistake == "negated")
    assert verdict.outcome == "survived"


# -- the smallest perturbation -----------------------------------------------------------------------------------------


def _rule(label: str) -> Rule:
    return next(r for r in RULES if r.label == label)


@pytest.mark.parametrize("label", ["multiply[a]", "softmax[x]"])
def test_loosening_any_tolerance_raises_the_smallest_perturbation(label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = _rule(label)
    tight = smallest_detected(rule)
    assert tight is not None
    assert tight < 1e-11
    for loose in ({"rtol": 1e-5}, {"atol": 1e-5}):
        found = smallest_detected(rule, **loose)
        assert found is not None
        assert 1e-7 < found < 1
    assert smallest_detected(rule, rtol=2.0) == float("inf")
    monkeypatch.setattr(judge, "SAFETY", 1e3 * judge.SAFETY)
    found = smallest_detected(rule)
    assert found is not None
    assert found > 8 * tight


# -- nothing is changed ------------------------------------------------------------------------------------------------


def test_the_library_is_as_before() -> None:
    """After a hunt, and after a mistake that raises, rules are right and operations the same objects."""
    before = every_op()
    hunt(_rule("exp[x]"))

    def raising(passage: object) -> np.ndarray:
        raise RuntimeError("in the middle of a rule")

    with pytest.raises(RuntimeError, match="in the middle"):
        gradcheck(plant(tl.exp, "exp", 0, raising), X)
    assert every_op() == before
    gradcheck(tl.exp, X)
    node = record(tl.exp, "exp", [X])
    assert node.op is before["exp"]


def test_a_planted_mistake_is_on_one_tape_only() -> None:
    wrong = plant(tl.exp, "exp", 0, lambda p: 2 * p.d)
    x = tl.tensor(X, requires_grad=True)
    right = tl.exp(x)
    doubled = wrong(x)
    np.testing.assert_array_equal(right.data, doubled.data)
    assert [n.op is every_op()["exp"] for y in (right, doubled) for n in reachable(y)] == [True, False]
    (a,), (b,) = (tl.vjp(f, X)[1](np.ones_like(X)) for f in (tl.exp, wrong))
    np.testing.assert_array_equal(2 * a.data, b.data)


# -- false alarms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", list(traps()), ids=lambda case: case.name.replace(" ", "-"))
def test_no_false_alarm_at_a_trap(case) -> None:
    assert not ask(case).alarm


def _no_false_alarm(data: st.DataObject) -> None:
    case = draw(lambda options: data.draw(st.sampled_from(options)))
    assume(defined(case))
    assert not ask(case).alarm


HEALTHY = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}


@settings(max_examples=300, **HEALTHY)
@given(st.data())
def test_no_false_alarm_on_right_rules(data: st.DataObject) -> None:
    _no_false_alarm(data)


@pytest.mark.slow
@settings(max_examples=10_000, **HEALTHY)
@given(st.data())
def test_no_false_alarm_in_ten_thousand_draws(data: st.DataObject) -> None:
    _no_false_alarm(data)


def test_a_wrong_rule_raises_an_alarm() -> None:
    """The alarms are heard: a false rule in place of a right one gives one."""
    case = next(iter(traps()))
    wrong = case._replace(f=plant(tl.abs, "abs", 0, lambda p: -p.d), inputs=[X])
    assert "the sign is wrong" in ask(wrong).alarm


def test_what_is_not_judged_is_counted_and_excused_at_no_ordinary_point() -> None:
    """Beside a tie the gradient jumps; where the point is said to be ordinary, that is an alarm."""
    tie = next(iter(traps()))._replace(name="tie", f=tl.max, inputs=[np.array([1.0, 1.0])], order=2)
    assert not ask(tie).alarm
    assert ask(tie).unjudged > 0
    tried = ask_all([tie, tie._replace(inputs=[np.array([0.5, 1.0])]), tie._replace(ordinary=True)])
    assert (tried.draws, tried.unjudged) == (3, 2)
    assert ["not judged" in text for text in tried.alarms] == [True]


# -- the command -------------------------------------------------------------------------------------------------------


def test_report_as_text_and_as_json() -> None:
    report = run(["add"], seed=4)
    assert report.passed
    assert report.draws == len(CASES["add"]) * 2
    text = str(report)
    assert "kill rate      100.00%" in text
    assert "both derivatives are 1" in text
    assert "ALIVE: " not in text
    found = json.loads(json.dumps(report.as_dict()))
    assert found["kill_rate"] == 1
    assert found["killed"] + found["equivalent"] + found["absent"] == sum(len(r["mutants"]) for r in found["rules"])
    assert [r["rule"] for r in found["rules"]] == ["add[a]", "add[b]"]


def test_a_survivor_is_named_in_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checker that passes everything kills nothing, and the command says so."""
    monkeypatch.setattr("tinyllm.testing.mutants.hunt.gradcheck", lambda *inputs, **settings: None)
    report = run(["negative"])
    assert report.kill_rate == 0
    assert "ALIVE: negative[x], numpy: x2" in str(report)
    assert "kill rate      0.00%" in str(report)


def test_a_false_alarm_fails_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checker that rejects everything kills every mutant, and is no checker."""

    def angry(*inputs: Tensor, **settings: object) -> None:
        raise AssertionError("wrong")

    monkeypatch.setattr("tinyllm.testing.mutants.hunt.gradcheck", angry)
    report = run(["negative"])
    assert report.kill_rate == 1
    assert not report.passed
    assert "FALSE ALARM: negative[x], numpy: wrong" in str(report)


def test_main_prints_progress_apart_from_the_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tinyllm.testing.mutants.command.usable_cores", lambda: 1)
    assert main(True, ["copy"], 0) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["kill_rate"] == 1
    assert "1/1" in said.err
    monkeypatch.setattr("tinyllm.testing.mutants.hunt.gradcheck", lambda *inputs, **settings: None)
    assert main(False, ["copy"], 0) == 1


def test_two_processes_find_what_one_finds() -> None:
    with redirect_stdout(io.StringIO()):
        alone, together = (run(["copy"], processes=n) for n in (1, 2))
    assert [h.verdicts for h in alone.rules] == [h.verdicts for h in together.rules]


def test_an_unknown_operation_is_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'softmax'"):
        run(["sofmax"])
