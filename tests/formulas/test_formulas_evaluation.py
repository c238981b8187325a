"""F-EVAL: shares of right answers, and BLEU on the examples of its paper."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.formulas.evaluation import accuracy, bleu, f1, macro, precision, recall


def words(text):
    return text.split()


def test_precision_recall_f1_by_hand():
    y, yhat = [1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 1, 0, 0, 0, 0]  # tp 2, fp 1, fn 1
    assert accuracy(y, yhat) == 6 / 8
    assert precision(y, yhat) == 2 / 3
    assert recall(y, yhat) == 2 / 3
    assert f1(y, yhat) == pytest.approx(2 / 3)
    assert f1([1, 1, 1, 0], [1, 0, 0, 0]) == pytest.approx(0.5)  # P = 1, R = 1/3
    assert (precision([1], [0]), recall([0], [1]), f1([1], [0])) == (0.0, 0.0, 0.0)
    assert macro(recall, ["a", "a", "b"], ["a", "b", "b"]) == 0.75


@given(labels=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12))
def test_measures_equal_plain_numpy(labels):
    y, yhat = np.array(labels).T
    assert accuracy(y, yhat) == pytest.approx(np.mean(y == yhat))
    for label in range(4):
        tp = np.sum((y == label) & (yhat == label))
        P, R = tp / max(1, np.sum(yhat == label)), tp / max(1, np.sum(y == label))
        assert precision(y, yhat, label) == pytest.approx(P)
        assert recall(y, yhat, label) == pytest.approx(R)
        assert f1(y, yhat, label) == pytest.approx(2 * P * R / (P + R) if P + R else 0.0)


def test_bleu_of_the_paper():
    # Papineni et al. 2002, section 2.1: "the" seven times; clipped unigram precision 2/7.
    the = ["the"] * 7
    references = [words("the cat is on the mat"), words("there is a cat on the mat")]
    assert bleu([the], [references], n_max=1) == pytest.approx(2 / 7)
    # Section 2.1, example 1: clipped unigram precision 17/18 for candidate 1 and 8/14 for candidate 2, bigrams 10/17.
    first = words("It is a guide to action which ensures that the military always obeys the commands of the party")
    second = words("It is to insure the troops forever hearing the activity guidebook that party direct")
    refs = [
        words("It is a guide to action that ensures that the military will forever heed Party commands"),
        words(
            "It is the guiding principle which guarantees the military forces "
            "always being under the command of the Party"
        ),
        words("It is the practical guide for the army always to heed the directions of the party"),
    ]
    assert bleu([first], [refs], n_max=1) == pytest.approx(17 / 18)
    assert bleu([first], [refs], n_max=2) == pytest.approx(math.sqrt(17 / 18 * 10 / 17))
    # 14 words against references of 16 and more: the brevity penalty comes on top
    assert bleu([second], [refs], n_max=1) == pytest.approx(8 / 14 * math.exp(1 - 16 / 14))


def test_bleu_laws():
    text = ["a", "b", "c", "d", "e"]
    assert bleu([text], [[text]]) == 1.0
    assert bleu([text], [[["v", "w", "x", "y", "z"]]]) == 0.0
    # a perfect beginning of a longer reference pays the brevity penalty alone
    assert bleu([text], [[[*text, "f", "g", "h"]]]) == pytest.approx(math.exp(1 - 8 / 5))
    # corpus BLEU adds counts; it is not the mean of the sentences
    other = ["a", "b", "x", "d", "e"]
    assert bleu([text, other], [[text], [text]], n_max=1) == pytest.approx(9 / 10)
