"""Counting words: naive Bayes by hand, both classifiers against scikit-learn's."""

import math
from collections import Counter

import numpy as np
import pytest

from tinyllm.models.bag_of_words import Bags, LogisticRegression, NaiveBayes, RidgeRegression, unit_length
from tinyllm.text import word_tokenize

TEXTS = ["good good film", "bad film", "good plot", "bad bad plot , really bad", "fine"]
LABELS = ["pos", "neg", "pos", "neg", "pos"]


def test_naive_bayes_by_hand():
    model = NaiveBayes(bigrams=False).fit(TEXTS, LABELS)
    V, n_pos, n_neg = 7, 6, 8  # good film bad plot , really fine; tokens of each class
    for text in ("good film", "bad plot", "unknown", "film"):
        words = [w for w in text.split() if w != "unknown"]
        pos = {"good": 3, "film": 1, "plot": 1, "fine": 1}
        neg = {"bad": 4, "film": 1, "plot": 1, ",": 1, "really": 1}
        scores = [
            math.log(share) + sum(math.log((counts.get(w, 0) + 1) / (n + V)) for w in words)
            for share, counts, n in ((2 / 5, neg, n_neg), (3 / 5, pos, n_pos))
        ]
        assert model.predict([text]) == [model.classes[int(np.argmax(scores))]]


def test_bags_times_a_table_is_the_matrix_product_and_adjoint_its_transpose():
    rng = np.random.default_rng(0)
    dense = rng.integers(0, 3, (5, 7)) * (rng.random((5, 7)) < 0.6)
    dense[2] = 0  # an empty text
    bags = Bags([Counter({j: int(n) for j, n in enumerate(row) if n}) for row in dense])
    table, g = rng.normal(size=(7, 4)), rng.normal(size=(5, 4))
    np.testing.assert_allclose(bags.times(table, bags.counts), dense @ table, atol=1e-12)
    np.testing.assert_allclose(bags.adjoint(g, bags.counts, 7), dense.T @ g, atol=1e-12)


def test_logistic_regression_is_at_its_minimum():
    model = LogisticRegression(steps=3000).fit(TEXTS, LABELS)
    assert model.predict(TEXTS) == LABELS
    bags = model._bags([model._features(t) for t in TEXTS])
    x = unit_length(bags)
    scores = bags.times(model._W, x)
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    target = np.array([[label == c for c in model.classes] for label in LABELS])
    gradient = bags.adjoint(p - target, x, len(model.vocabulary)) + model.penalty * model._W
    assert np.abs(gradient).max() < 1e-6


def test_ridge_regression_solves_its_equations():
    model = RidgeRegression(penalty=0.5).fit(TEXTS, numbers := [3.0, -1.0, 2.0, -4.0, 0.0])
    bags = model._bags([model._features(t) for t in TEXTS])
    X = bags.times(np.eye(len(model.vocabulary)), unit_length(bags))
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1)
    y = np.array(numbers)
    w = np.linalg.solve(X.T @ X + 0.5 * np.eye(X.shape[1]), X.T @ (y - y.mean()))
    np.testing.assert_allclose(model.predict(TEXTS), X @ w + y.mean(), atol=1e-8)
    assert model.predict(["never seen"]) == [0.0]  # the mean


@pytest.mark.peers
def test_both_predict_as_scikit_learns():
    feature_extraction = pytest.importorskip("sklearn.feature_extraction.text", reason="scikit-learn is not installed")
    from sklearn.linear_model import LogisticRegression as TheirRegression
    from sklearn.naive_bayes import MultinomialNB

    rng = np.random.default_rng(1)
    words = [f"w{i}" for i in range(60)]
    texts = [" ".join(rng.choice(words, 8)) for _ in range(300)]
    labels = [("a", "b", "c")[(t.count("w1") + 2 * t.count("w2")) % 3] for t in texts]
    train, held_out = slice(0, 200), slice(200, 300)
    settings = {"ngram_range": (1, 2), "tokenizer": word_tokenize, "token_pattern": None}
    counts = feature_extraction.CountVectorizer(**settings)
    theirs = MultinomialNB().fit(counts.fit_transform(texts[train]), labels[train])
    ours = NaiveBayes().fit(texts[train], labels[train])
    assert ours.predict(texts[held_out]) == theirs.predict(counts.transform(texts[held_out])).tolist()
    unit = feature_extraction.TfidfVectorizer(binary=True, use_idf=False, **settings)
    regression = TheirRegression(C=10, fit_intercept=False, max_iter=2000, tol=1e-8)
    regression.fit(unit.fit_transform(texts[train]), labels[train])
    ours = LogisticRegression(penalty=0.1, steps=2000).fit(texts[train], labels[train])
    assert ours.predict(texts[held_out]) == regression.predict(unit.transform(texts[held_out])).tolist()
