"""Chapter 12, BERT: which tokens are hidden and asked for, the slope of the masked loss, macro F1."""

from __future__ import annotations

import numpy as np

from tinyllm.course.exercise import Exercise, law_on
from tinyllm.testing.problem import Array
from tinyllm.testing.suite.answer import Case
from tinyllm.testing.suite.topics import draw

IGNORED = -100

# -- masked_labels -----------------------------------------------------------------------------------------------------


def _chosen(rng: np.random.Generator) -> list[Case]:
    return [
        {"ids": rng.integers(1, 30, T), "chosen": np.arange(T) % 3 == first} for T, first in ((8, 1), (6, 0), (9, 2))
    ]


MASKED_LABELS = Exercise(
    name="masked_labels",
    chapter="12",
    asks="The labels (T,) of a text: ids (T,) where a place was chosen (T,) booleans, and -100 where nothing is asked.",
    arguments=("ids", "chosen"),
    answer=lambda ids, chosen: np.where(chosen, ids, IGNORED),
    cases=_chosen,
    mistakes=(
        ("every place has a label: the places that can be read off the input are asked too", lambda ids, chosen: ids),
        ("the wrong way round: the chosen places are left out", lambda ids, chosen: np.where(chosen, IGNORED, ids)),
        (
            "0 is a token, and would be asked for: what is not asked has the label -100",
            lambda ids, chosen: np.where(chosen, ids, 0),
        ),
        (
            "-1 is not the label that is left out: it is -100",
            lambda ids, chosen: np.where(chosen, ids, -1),
        ),
        (
            "the label is the token after the place: that is GPT's question. Here the token at the place is asked for",
            lambda ids, chosen: np.where(chosen, np.roll(ids, -1), IGNORED),
        ),
        ("only the chosen ids: the labels must have a place for every token", lambda ids, chosen: ids[chosen]),
    ),
    hints=(
        "Two cases for each place: it was chosen, or not.",
        "np.where(condition, here, there) picks from two arrays, place by place.",
        "np.where(chosen, ids, -100).",
    ),
    laws=(
        law_on(
            "nothing_chosen",
            "Where no place is chosen, no label is left.",
            [{"ids": np.arange(5), "chosen": np.zeros(5, bool)}],
        ),
    ),
)

# -- hidden_tokens -----------------------------------------------------------------------------------------------------

MASK = 99


def _draws(rng: np.random.Generator) -> list[Case]:
    u = np.array([0.05, 0.79, 0.81, 0.89, 0.91, 0.5, 0.85, 0.95, 0.3, 0.99])
    return [
        {
            "ids": rng.integers(1, 30, len(u)),
            "chosen": chosen,
            "u": rng.permutation(u),
            "random_ids": rng.integers(30, 60, len(u)),
        }
        for chosen in (np.arange(len(u)) % 2 == 0, np.arange(len(u)) < 8, np.ones(len(u), bool))
    ]


def _hidden(ids: Array, chosen: Array, u: Array, random_ids: Array, *, mask: float = 0.8, other: float = 0.9) -> Array:
    changed = np.where(u < mask, MASK, np.where(u < other, random_ids, ids))
    return np.where(chosen, changed, ids)


def _everywhere(ids: Array, chosen: Array, u: Array, random_ids: Array) -> Array:
    return _hidden(ids, np.ones_like(chosen), u, random_ids)


HIDDEN_TOKENS = Exercise(
    name="hidden_tokens",
    chapter="12",
    asks=(
        "What BERT reads, for ids (T,) and the chosen places (T,): at a chosen place with u < 0.8 the token 99, which "
        "stands for [MASK]; with 0.8 <= u < 0.9 the token of random_ids (T,); else, and elsewhere, the token itself. "
        "u (T,) is uniform in 0..1."
    ),
    arguments=("ids", "chosen", "u", "random_ids"),
    answer=_hidden,
    cases=_draws,
    mistakes=(
        (
            "all chosen places become [MASK]: then fine-tuning never sees what pre-training saw",
            lambda ids, chosen, u, random_ids: np.where(chosen, MASK, ids),
        ),
        ("places that were not chosen are changed too", _everywhere),
        (
            "the random tokens take 20%, and none stays as it is",
            lambda ids, chosen, u, random_ids: _hidden(ids, chosen, u, random_ids, other=1.0),
        ),
        (
            "no random tokens: 80% [MASK], 20% as they are",
            lambda ids, chosen, u, random_ids: _hidden(ids, chosen, u, random_ids, other=0.8),
        ),
        (
            "10% become [MASK] and 80% stay: the shares are exchanged",
            lambda ids, chosen, u, random_ids: _hidden(ids, chosen, u, random_ids, mask=0.1, other=0.2),
        ),
        (
            "the tokens that were not chosen are hidden, and the chosen ones stay",
            lambda ids, chosen, u, random_ids: _hidden(ids, ~chosen, u, random_ids),
        ),
    ),
    hints=(
        "First decide what would stand at each place if it were chosen; then take it only where it is.",
        "Two np.where, one in the other, make three cases of u.",
        "changed = np.where(u < 0.8, 99, np.where(u < 0.9, random_ids, ids)); np.where(chosen, changed, ids).",
    ),
)

# -- masked_loss_slope -------------------------------------------------------------------------------------------------


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _asked(rng: np.random.Generator) -> list[Case]:
    found = []
    for T, V, n in ((5, 4, 2), (6, 3, 1), (4, 7, 3)):
        labels = np.full(T, IGNORED)
        labels[rng.choice(T, n, replace=False)] = rng.integers(0, V, n)
        found.append({"logits": draw(rng, T, V), "labels": labels})
    return found


def _slope(logits: Array, labels: Array, *, over: str = "asked", rows: str = "asked", truth: float = 1.0) -> Array:
    asked = labels != IGNORED
    p = _softmax(logits)
    p[np.flatnonzero(asked), labels[asked]] -= truth
    if rows == "asked":
        p[~asked] = 0
    return p / {"asked": asked.sum(), "all": len(labels), "none": 1}[over]


def _last_token(logits: Array, labels: Array) -> Array:
    p = _softmax(logits)
    p[np.arange(len(labels)), np.where(labels == IGNORED, -1, labels)] -= 1
    return p / len(labels)


MASKED_LOSS_SLOPE = Exercise(
    name="masked_loss_slope",
    chapter="12",
    asks=(
        "The gradient (T, V) of the masked loss with respect to the logits (T, V); labels (T,) are -100 where nothing "
        "is asked, and the loss is the mean over the places that are."
    ),
    arguments=("logits", "labels"),
    answer=_slope,
    cases=_asked,
    points=2,
    mistakes=(
        (
            "divided by all places: the mean is over those that are asked",
            lambda logits, labels: _slope(logits, labels, over="all"),
        ),
        (
            "the sum's gradient: the loss is a mean, so divide by the number of places that are asked",
            lambda logits, labels: _slope(logits, labels, over="none"),
        ),
        (
            "places without a question have a gradient: their rows are 0",
            lambda logits, labels: _slope(logits, labels, rows="all"),
        ),
        (
            "the probabilities alone: 1 is to be taken off at the label",
            lambda logits, labels: _slope(logits, labels, truth=0.0),
        ),
        ("the sign is wrong: it is prediction minus truth", lambda logits, labels: -_slope(logits, labels)),
        ("-100 was used as an index, or stands for the last token: such places are to be left out", _last_token),
    ),
    hints=(
        "Chapter 02: the slope of cross-entropy is prediction minus truth. At which places?",
        "Compute softmax(logits), take 1 off at the label of each place that is asked, and set all other rows to 0.",
        "asked = labels != -100; p[asked, labels[asked]] -= 1 needs np.flatnonzero(asked); divide by asked.sum().",
    ),
    laws=(
        law_on(
            "one_question",
            "With one place asked, nothing is divided, and every other row is 0.",
            [{"logits": np.array([[1.0, 2.0], [0.0, 0.0], [3.0, 1.0]]), "labels": np.array([-100, 1, -100])}],
        ),
    ),
)

# -- mean_f1 -----------------------------------------------------------------------------------------------------------


def _confusions(rng: np.random.Generator) -> list[Case]:
    return [{"confusion": rng.integers(1, 30, (K, K)) + np.diag(rng.integers(0, 60, K))} for K in (3, 2, 5)]


def _f1(confusion: Array) -> Array:
    right = np.diag(confusion)
    precision, recall = right / confusion.sum(axis=0), right / confusion.sum(axis=1)
    return 2 * precision * recall / (precision + recall)


def _of_means(confusion: Array) -> Array:
    right = np.diag(confusion)
    precision, recall = (right / confusion.sum(axis=0)).mean(), (right / confusion.sum(axis=1)).mean()
    return np.array(2 * precision * recall / (precision + recall))


def _plain_mean(confusion: Array) -> Array:
    right = np.diag(confusion)
    return np.array((right / confusion.sum(axis=0) / 2 + right / confusion.sum(axis=1) / 2).mean())


MEAN_F1 = Exercise(
    name="mean_f1",
    chapter="12",
    asks="Macro F1 of a confusion matrix (K, K), rows true and columns predicted: the plain mean of the K labels' F1.",
    arguments=("confusion",),
    answer=lambda confusion: np.array(_f1(confusion).mean()),
    cases=_confusions,
    mistakes=(
        (
            "this is the accuracy: the share of all texts that are right",
            lambda confusion: np.array(np.trace(confusion) / confusion.sum()),
        ),
        (
            "this is the mean recall: precision is missing",
            lambda confusion: np.array((np.diag(confusion) / confusion.sum(axis=1)).mean()),
        ),
        (
            "this is the mean precision: recall is missing",
            lambda confusion: np.array((np.diag(confusion) / confusion.sum(axis=0)).mean()),
        ),
        ("the F1 of the mean precision and the mean recall: first the F1 of each label, then the mean", _of_means),
        ("the plain mean of precision and recall: F1 is their harmonic mean, 2 P R / (P + R)", _plain_mean),
        (
            "each label weighs as often as it occurs: macro means that all weigh alike",
            lambda confusion: np.array((_f1(confusion) * confusion.sum(axis=1)).sum() / confusion.sum()),
        ),
        ("one F1 for each label: their mean is missing", _f1),
    ),
    hints=(
        "What was rightly called k is confusion[k, k]. What was called k at all? What is k?",
        "Column sums give what was called k, for the precision; row sums what is k, for the recall.",
        "right = np.diag(confusion); precision = right / confusion.sum(axis=0); recall with axis=1; the mean of F1.",
    ),
)

EXERCISES = (MASKED_LABELS, HIDDEN_TOKENS, MASKED_LOSS_SLOPE, MEAN_F1)
