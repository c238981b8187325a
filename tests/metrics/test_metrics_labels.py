"""Accuracy, precision, recall, F1, confusions, ROC AUC, Spearman, answers: by hand, and by the laws that they obey."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.metrics import (
    accuracy,
    classification_report,
    confusion_matrix,
    exact_match,
    f1,
    normalize_answer,
    precision,
    recall,
    roc_auc,
    spearman,
    token_f1,
)

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30).map(np.array)


def test_by_hand():
    y, p = ["cat", "cat", "dog", "dog", "cow"], ["cat", "dog", "dog", "dog", "cat"]
    assert accuracy(y, p) == 3 / 5
    assert confusion_matrix(y, p).tolist() == [[1, 0, 1], [1, 0, 0], [0, 0, 2]]  # cat, cow, dog
    assert precision(y, p).tolist() == [1 / 2, 0, 2 / 3]
    assert recall(y, p).tolist() == [1 / 2, 0, 1]
    assert f1(y, p, labels=["dog"]).tolist() == [4 / 5]
    assert f1(y, p, average="micro") == 3 / 5
    assert recall(y, p, average="weighted") == pytest.approx(3 / 5)
    assert precision([1, 1, 0], [1, 0, 0], average="binary") == 1.0
    assert precision([1, 1, 0], [1, 0, 0], average="binary", pos_label=0) == 0.5


def test_nothing_divided_by_nothing_is_what_is_asked_for():
    y, p = [0, 0], [0, 0]
    assert f1(y, p, labels=[0, 1]).tolist() == [1.0, 0.0]
    assert f1(y, p, labels=[0, 1], zero_division=1, average="macro") == 1.0
    assert f1(y, p, labels=[0, 1], zero_division=math.nan, average="macro") == 1.0
    assert math.isnan(precision(y, p, labels=[1], zero_division=math.nan, average="macro"))


@given(PAIRS)
def test_micro_averages_of_all_labels_are_the_accuracy(pairs):
    y, p = pairs.T
    for measure in (precision, recall, f1):
        assert measure(y, p, average="micro") == pytest.approx(accuracy(y, p), rel=1e-12)
    assert recall(y, p, average="weighted") == pytest.approx(accuracy(y, p), rel=1e-12)


@given(PAIRS)
def test_precision_and_recall_are_normalised_diagonals_of_the_confusions(pairs):
    y, p = pairs.T
    table = confusion_matrix(y, p)
    assert table.sum() == len(y)
    np.testing.assert_allclose(recall(y, p), np.diag(confusion_matrix(y, p, normalize="true")), rtol=1e-12)
    np.testing.assert_allclose(precision(y, p), np.diag(confusion_matrix(y, p, normalize="pred")), rtol=1e-12)
    np.testing.assert_array_equal(confusion_matrix(p, y), table.T)


def test_several_labels_to_a_sample():
    y, p = np.array([[1, 0, 1], [0, 1, 0]]), np.array([[1, 0, 0], [0, 1, 1]])
    assert accuracy(y, p) == 0.0
    assert recall(y, p).tolist() == [1, 1, 0]
    assert f1(y, p, average="micro") == pytest.approx(2 / 3)


def test_report():
    report = classification_report([0, 1, 2, 2, 2], [0, 0, 2, 2, 1], names=["ham", "spam", "eggs"])
    lines = str(report).splitlines()
    assert lines[0].split() == ["precision", "recall", "f1-score", "support"]
    assert lines[4].split() == ["eggs", "1.00", "0.67", "0.80", "3"]
    assert lines[6].split() == ["accuracy", "0.60", "5"]
    assert report.as_dict()["averages"]["macro avg"][1] == pytest.approx((1 + 0 + 2 / 3) / 3)
    assert "micro avg" in str(classification_report([0, 1], [0, 1], labels=[0]))


def test_area_by_hand_and_by_its_meaning(rng):
    assert roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == 0.75
    y, score = rng.integers(0, 2, 50), rng.integers(0, 9, 50)
    wins = [(a > b) + (a == b) / 2 for a in score[y == 1] for b in score[y == 0]]
    assert roc_auc(y, score) == pytest.approx(np.mean(wins), rel=1e-12)
    assert roc_auc(y, -score) == pytest.approx(1 - roc_auc(y, score), rel=1e-12)
    assert roc_auc(y, np.stack([-score, score], axis=1)) == pytest.approx(roc_auc(y, score))


def test_spearman_depends_on_the_order_alone(rng):
    x, y = rng.normal(size=(2, 40))
    assert spearman(x, y) == pytest.approx(spearman(np.exp(x), y**3), abs=1e-12)
    assert spearman(x, x) == 1.0
    assert spearman(x, -x) == -1.0
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(3 / math.sqrt(10))
    assert math.isnan(spearman([1, 1], [1, 2]))


def test_answers_by_the_rules_of_squad():
    assert normalize_answer(" The  cat's\tTHE-hat, a!") == "cats thehat"
    assert exact_match(["the Cat.", "dog"], ["cat", "a cat"]) == 0.5
    assert exact_match(["1912"], [["in 1912", "1912"]]) == 1.0
    assert token_f1(["the cat sat"], ["a cat slept here"]) == pytest.approx(2 * 1 / (2 + 3))
    assert token_f1(["cat cat"], ["cat"]) == pytest.approx(2 / 3)
    assert token_f1(["", "x", ""], ["", "", "x"]) == pytest.approx(1 / 3)
    assert token_f1(["red"], [["a blue", "the red one"]]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: accuracy([], []), "no sample"),
        (lambda: accuracy([1, 2], [1]), "same shape"),
        (lambda: f1([1, 2], ["1", "2"]), "different kinds"),
        (lambda: f1([1, 0], [1, 0], average="makro"), "did you mean 'macro'"),
        (lambda: f1([1, 2, 3], [1, 2, 3], average="binary"), "two labels"),
        (lambda: f1([2, 3], [2, 3], average="binary"), "neither of the labels"),
        (lambda: f1([1], [1], labels=[1, 1]), "named once"),
        (lambda: confusion_matrix([1], [1], normalize="row"), "normalize"),
        (lambda: classification_report([1, 2], [1, 2], names=["one"]), "1 names for 2"),
        (lambda: roc_auc([1, 1], [0.1, 0.2]), "both kinds"),
        (lambda: roc_auc([0, 1], [0.1, math.nan]), "nan"),
        (lambda: roc_auc([0, 1, 2], [0.1, 0.2, 0.3]), "column"),
        (lambda: roc_auc([0, 1], np.zeros((2, 3))), "3 columns"),
        (lambda: spearman([1], [1]), "N >= 2"),
        (lambda: spearman([1, math.nan], [1, 2]), "nan"),
        (lambda: exact_match("a", "a"), "lists"),
        (lambda: exact_match(["a"], []), "1 predictions for 0"),
        (lambda: token_f1(["a"], [[]]), "without a single reference"),
    ],
)
def test_what_cannot_be_judged_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()
