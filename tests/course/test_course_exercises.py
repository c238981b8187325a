"""Every exercise accepts its own answer and names each of the usual mistakes; hints do not give the solution away."""

import numpy as np
import pytest

from tinyllm.course import check, examine, exercises, hint
from tinyllm.course.exercise import ExerciseError

EVERY = list(exercises().values())
MISTAKES = [(e, i) for e in EVERY for i in range(len(e.mistakes))]


def written_by_a_learner(exercise, function):
    """The function under the exercise's name, with the exercise's arguments, returning what is asked for."""
    names = ", ".join(exercise.arguments)
    code = f"def {exercise.name}({names}):\n    y = f({', '.join(f'{a}={a}' for a in exercise.arguments)})\n"
    code += "    return tuple(y)\n" if exercise.results > 1 else "    return y\n"
    space = {"f": function, "__name__": __name__}
    exec(compile(code, "<answer>", "exec"), space)
    return space[exercise.name]


@pytest.mark.parametrize("exercise", EVERY, ids=lambda e: e.name)
def test_the_right_answer_is_right(exercise):
    report = examine(written_by_a_learner(exercise, exercise.answer))
    assert report.ok, report
    assert len(report.checks) >= 2


@pytest.mark.parametrize(("exercise", "i"), MISTAKES, ids=lambda x: getattr(x, "name", str(x)))
def test_each_usual_mistake_is_rejected_and_named(exercise, i):
    said, wrong = exercise.mistakes[i]
    report = examine(written_by_a_learner(exercise, wrong))
    assert not report.ok
    assert said in report.likely, report


@pytest.mark.parametrize("exercise", EVERY, ids=lambda e: e.name)
def test_at_least_four_mistakes_and_three_hints_that_say_more(exercise):
    assert len(exercise.mistakes) >= 4
    assert len({said for said, _ in exercise.mistakes}) >= 4
    assert len(exercise.hints) == 3
    assert exercise.points >= 1


@pytest.mark.parametrize("exercise", EVERY, ids=lambda e: e.name)
def test_an_empty_answer_passes_nothing(exercise):
    def empty(**arguments):
        raise NotImplementedError("your turn")

    report = examine(written_by_a_learner(exercise, empty))
    assert not any(check.status == "passed" for check in report.checks)
    assert "your turn" in str(report)


def test_a_report_fits_on_a_screen():
    for exercise in EVERY:
        for _, wrong in exercise.mistakes:
            lines = str(examine(written_by_a_learner(exercise, wrong))).splitlines()
            assert len(lines) <= 45
            assert max(map(len, lines)) <= 120


def test_check_prints_and_hint_says_more(capsys):
    def softmax_vjp(g, p):
        return g * p

    check(softmax_vjp)
    printed = capsys.readouterr().out
    assert "not right yet" in printed
    assert "likely mistake: the sum term is missing" in printed
    assert 'hint("softmax_vjp")' in printed
    said = []
    for level in (1, 2, 3):
        hint("softmax_vjp", level)
        said.append(capsys.readouterr().out)
    assert len(set(said)) == 3


def test_names_that_do_not_exist_are_answered_with_the_nearest():
    def softmax_vpj(g, p):
        return g * p

    with pytest.raises(ExerciseError, match="did you mean 'softmax_vjp'"):
        check(softmax_vpj)
    with pytest.raises(ExerciseError, match="takes the function"):
        check(np.ones(3))
    with pytest.raises(ExerciseError, match="3 hints"):
        hint("softmax_vjp", 4)


def test_tested_chapters_do_not_accept_wrong_answers(monkeypatch):
    def softmax_vjp(g, p):
        return g * p

    monkeypatch.setenv("TINYLLM_STRICT", "1")
    with pytest.raises(AssertionError, match="softmax_vjp"):
        check(softmax_vjp)
