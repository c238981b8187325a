"""The procedures: preparing, training, the loop that ends, transfer, and the news."""

import itertools
import math

import numpy as np
import pytest

from tinyllm.formulas.procedures import (
    NEWS_CLASSES,
    NEWS_TEST,
    NEWS_TRAIN,
    can_end,
    clean,
    held_out_loss,
    improvement_loop,
    meant_chart,
    news,
    prepare,
    printed_chart,
    reachable,
    stem,
    tokenise,
    train,
    transfer,
    vocabulary,
)


@pytest.fixture
def two_clouds(rng):
    """Forty points of two overlapping classes, with a 1 for the bias."""
    labels = np.arange(40) % 2
    X = rng.normal(size=(40, 2)) + 2.0 * labels[:, None]
    return np.hstack([X, np.ones((40, 1))]), labels


# --- P-PREP -----------------------------------------------------------------------------------------------------------


def test_preparation_by_hand():
    assert clean("<p>Two  <b>cats</b>,\n1 < 2 © <!-- note -->!</p>") == "Two cats , 1 2 !"
    assert tokenise("Hello, world! It's 42.") == ["Hello", ",", "world", "!", "It's", "42", "."]
    assert [stem(word) for word in ("caresses", "ponies", "caress", "cats", "cat")] == [
        "caress",
        "poni",
        "caress",
        "cat",
        "cat",
    ]
    ids, table = prepare(["<b>Cats</b> sat.", "A cat sat, a cat!"])
    assert table == {"cat": 0, "a": 1, "sat": 2, "!": 3, ",": 4, ".": 5}
    assert ids == [[0, 2, 5], [1, 0, 2, 4, 1, 0, 3]]


def test_vocabulary_numbers_every_token_once():
    tokens = ["to", "be", "or", "not", "to", "be"]
    table = vocabulary(tokens)
    assert sorted(table.values()) == list(range(len(set(tokens))))
    assert list(table) == ["be", "to", "not", "or"]


# --- P-TRAIN ----------------------------------------------------------------------------------------------------------


def test_gradient_of_train_is_the_finite_difference(two_clouds, rng):
    X, labels = two_clouds
    W = rng.normal(size=(2, 3))
    after, _ = train(X, labels, 2, W=W, lr=1.0, max_epochs=1)
    gradient = W - np.array(after)
    for c in range(2):
        for i in range(3):
            step = np.zeros_like(W)
            step[c, i] = 1e-5
            difference = (held_out_loss(W + step, X, labels) - held_out_loss(W - step, X, labels)) / 2e-5
            assert gradient[c, i] == pytest.approx(difference, rel=1e-7, abs=1e-9)


def test_training_converges_and_stops(two_clouds):
    X, labels = two_clouds
    W, losses = train(X, labels, 2, tolerance=1e-4)
    assert len(losses) < 500
    assert losses[-2] - losses[-1] < 1e-4 <= losses[-3] - losses[-2]
    assert all(later <= earlier for earlier, later in itertools.pairwise(losses))
    assert held_out_loss(W, X, labels) < 0.6 * math.log(2)
    assert len(train(X, labels, 2, tolerance=0.0, max_epochs=7)[1]) == 7


def test_training_lowers_its_rate(two_clouds):
    X, labels = two_clouds
    once, _ = train(X, labels, 2, lr=1.0, max_epochs=1)
    then_half, _ = train(X, labels, 2, W=once, lr=0.5, max_epochs=1)
    assert train(X, labels, 2, lr=1.0, decay=0.5, max_epochs=2)[0] == then_half


def test_training_leaves_its_start_untouched(two_clouds):
    X, labels = two_clouds
    start = [[0.0] * 3, [0.0] * 3]
    train(X, labels, 2, W=start, max_epochs=2)
    assert start == [[0.0] * 3, [0.0] * 3]


# --- P-LOOP -----------------------------------------------------------------------------------------------------------


def test_printed_chart_has_no_exit():
    chart = printed_chart()
    for start in chart:
        assert not can_end(chart, start)
    assert reachable(chart, "preprocess") == set(chart)
    # once training has begun, only the five boxes of the circle can still be reached
    assert reachable(chart, "optimise") == {"train", "trained?", "predict", "evaluate", "optimise"}


def test_printed_evaluation_decides_nothing():
    assert len(printed_chart()["evaluate"]) == 1
    assert len(meant_chart()["good enough?"]) == 2


def test_meant_chart_ends():
    chart = meant_chart()
    assert all(can_end(chart, start) for start in chart)
    assert can_end({"a": ("b", "a"), "b": ()}, "a")
    assert not can_end({"a": ("b",), "b": ("a",), "end": ()}, "a")  # an end that nothing leads to is none


def test_improvement_loop_ends(two_clouds):
    X, labels = two_clouds
    W, history = improvement_loop(X[:30], labels[:30], X[30:], labels[30:], 2)
    assert 2 <= len(history) < 21
    assert history[-2] - history[-1] < 1e-3  # the last round no longer helped ...
    assert all(a - b >= 1e-3 for a, b in itertools.pairwise(history[:-1]))  # ... and each before it did
    assert held_out_loss(W, X[30:], labels[30:]) == history[-2]  # the best weights are kept
    assert len(improvement_loop(X[:30], labels[:30], X[30:], labels[30:], 2, max_rounds=1)[1]) == 2


# --- P-TRANSFER -------------------------------------------------------------------------------------------------------


def test_transfer_helps_on_a_related_task(two_clouds):
    X, labels = two_clouds
    scratch, transferred = transfer(X[:32], labels[:32], X[32:] + 0.2, labels[32:], 2)
    assert transferred < 0.7 * scratch


def test_transfer_from_the_opposite_task_hurts(two_clouds):
    X, labels = two_clouds
    scratch, transferred = transfer(X[:32], 1 - labels[:32], X[32:], labels[32:], 2)
    assert transferred > scratch


# --- P-NEWS -----------------------------------------------------------------------------------------------------------


def test_news_beats_the_majority():
    result = news()
    assert result["train_loss"] < 0.05 < math.log(len(NEWS_CLASSES))
    assert min(result[name] for name in ("accuracy", "precision", "recall", "f1")) > 1 / 3
    assert not {text for text, _ in NEWS_TRAIN} & {text for text, _ in NEWS_TEST}
