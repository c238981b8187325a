"""How well short answers agree with the right ones, by the rules of the SQuAD task."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation and the articles a, an, the; single spaces between the words.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    str
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> float:
    """The share of answers that equal a right one after `normalize_answer`.

    Parameters
    ----------
    predictions : sequence of N str
        What is judged; "" is no answer.
    references : sequence of N str, or of N lists of str
        The right answer to each; of several the best counts.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    ValueError
        For no answer to judge, or different numbers of predictions and references.

    Notes
    -----
    Source: Rajpurkar et al. 2016, section 6.1.
    """
    return _mean(lambda guess, truth: float(guess == truth), predictions, references)


def token_f1(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> float:
    """The mean F1 of the words that an answer shares with a right one, after `normalize_answer`.

    Where either is without words, the value is 1 if both are, else 0. Arguments, errors and source: `exact_match`.

    Returns
    -------
    float
        From 0 to 1.
    """
    return _mean(_shared_words, predictions, references)


def _shared_words(guess: str, truth: str) -> float:
    a, b = guess.split(), truth.split()
    if not a or not b:
        return float(a == b)
    return 2 * (Counter(a) & Counter(b)).total() / (len(a) + len(b))


def _mean(
    score: Callable[[str, str], float], predictions: Sequence[str], references: Sequence[str | Sequence[str]]
) -> float:
    if isinstance(predictions, str) or isinstance(references, str):
        raise ValueError("predictions and references are lists; put a single text into a list of one")
    if len(predictions) != len(references) or len(predictions) == 0:
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references")
    total = 0.0
    for prediction, truth in zip(predictions, references, strict=True):
        alternatives = [truth] if isinstance(truth, str) else truth
        if not alternatives:
            raise ValueError("an answer without a single reference; a question without an answer has the reference ''")
        guess = normalize_answer(prediction)
        total += max(score(guess, normalize_answer(alternative)) for alternative in alternatives)
    return total / len(predictions)
