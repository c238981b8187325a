"""How good the answers are: shares of right labels, and BLEU for text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinyllm.formulas.entry import Formula, literal, where
from tinyllm.formulas.language_model import perplexity


@literal
def accuracy(y: Sequence[Any], yhat: Sequence[Any]) -> float:
    """F-EVAL: the share of predictions that are right.

    Parameters
    ----------
    y, yhat : (N,) labels
        True and predicted.

    Returns
    -------
    float
    """
    right = 0
    for i in range(len(y)):
        if y[i] == yhat[i]:
            right += 1
    return right / len(y)


@literal
def counts(y: Sequence[Any], yhat: Sequence[Any], label: Any) -> tuple[int, int, int]:
    """True positives, false positives and false negatives of one label.

    Parameters
    ----------
    y, yhat : (N,) labels
        True and predicted.
    label
        The one counted as positive.

    Returns
    -------
    tp, fp, fn : int
    """
    tp = fp = fn = 0
    for i in range(len(y)):
        if yhat[i] == label and y[i] == label:
            tp += 1
        elif yhat[i] == label:
            fp += 1
        elif y[i] == label:
            fn += 1
    return tp, fp, fn


@literal
def precision(y: Sequence[Any], yhat: Sequence[Any], label: Any = 1) -> float:
    """F-EVAL: tp / (tp + fp), how much of what was called `label` is; 0 when nothing was.

    Parameters
    ----------
    y, yhat : (N,) labels
        True and predicted.
    label
        The one counted as positive.

    Returns
    -------
    float
    """
    tp, fp, _ = counts(y, yhat, label)
    return tp / (tp + fp) if tp + fp else 0.0


@literal
def recall(y: Sequence[Any], yhat: Sequence[Any], label: Any = 1) -> float:
    """F-EVAL: tp / (tp + fn), how much of what is `label` was found; 0 when there is none.

    Parameters
    ----------
    y, yhat : (N,) labels
        True and predicted.
    label
        The one counted as positive.

    Returns
    -------
    float
    """
    tp, _, fn = counts(y, yhat, label)
    return tp / (tp + fn) if tp + fn else 0.0


@literal
def f1(y: Sequence[Any], yhat: Sequence[Any], label: Any = 1) -> float:
    """F-EVAL: 2 P R / (P + R), the harmonic mean of precision and recall; 0 when both are.

    Parameters
    ----------
    y, yhat : (N,) labels
        True and predicted.
    label
        The one counted as positive.

    Returns
    -------
    float

    Notes
    -----
    Source: van Rijsbergen 1979, chapter 7 (with beta = 1).
    """
    P, R = precision(y, yhat, label), recall(y, yhat, label)
    return 2.0 * P * R / (P + R) if P + R else 0.0


@literal
def macro(measure: Any, y: Sequence[Any], yhat: Sequence[Any]) -> float:
    """The plain mean of `precision`, `recall` or `f1` over all labels that occur.

    Parameters
    ----------
    measure : callable
        One of the three.
    y, yhat : (N,) labels
        True and predicted.

    Returns
    -------
    float
    """
    labels = sorted(set(y) | set(yhat))
    total = 0.0
    for label in labels:
        total += measure(y, yhat, label)
    return total / len(labels)


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of n tokens, in order."""
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def bleu(candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]], n_max: int = 4) -> float:
    """F-EVAL: BLEU = BP exp(1/N sum_n log p_n), over a whole corpus.

    p_n is the share of the candidates' n-grams found in a reference, each counted no more often than in one reference;
    BP = exp(1 - r/c) punishes candidates shorter (c) than the nearest reference lengths (r).

    Parameters
    ----------
    candidates : list of token lists
        What is judged.
    references : for each candidate, a list of token lists
        What humans wrote.
    n_max : int
        N.

    Returns
    -------
    float from 0 to 1; 0 when some p_n is 0

    Notes
    -----
    Source: Papineni et al. 2002, sections 2.1 to 2.3.
    """
    c = r = 0
    for candidate, refs in zip(candidates, references, strict=True):
        c += len(candidate)
        r += min((abs(len(ref) - len(candidate)), len(ref)) for ref in refs)[1]
    log_sum = 0.0
    for n in range(1, n_max + 1):
        found = total = 0
        for candidate, refs in zip(candidates, references, strict=True):
            grams = ngrams(candidate, n)
            total += len(grams)
            for gram in set(grams):
                in_one_reference = max(ngrams(ref, n).count(gram) for ref in refs)
                found += min(grams.count(gram), in_one_reference)
        if found == 0:
            return 0.0
        log_sum += math.log(found / total)
    brevity_penalty = 1.0 if c > r else math.exp(1.0 - r / c)
    return brevity_penalty * math.exp(log_sum / n_max)


TESTS = "tests/formulas/test_formulas_evaluation.py::"

ENTRIES = (
    Formula(
        id="F-EVAL",
        kind="formula",
        title="Accuracy, precision, recall, F1; BLEU; perplexity",
        latex=(
            r"P = \frac{\mathrm{tp}}{\mathrm{tp} + \mathrm{fp}}, \quad "
            r"R = \frac{\mathrm{tp}}{\mathrm{tp} + \mathrm{fn}}, \quad F_1 = \frac{2 P R}{P + R}, \quad "
            r"\mathrm{BLEU} = \min\left(1, e^{1 - r/c}\right) \exp\left(\frac{1}{N} \sum_{n=1}^{N} \log p_n\right)"
        ),
        meaning=(
            "Accuracy counts right answers. Precision asks whether what was called politics is politics, recall "
            "whether all politics was found, F1 is high only if both are. BLEU counts runs of words that a translation "
            "shares with a human one. Perplexity is exp of the cross-entropy."
        ),
        where=where("000 9", "001 3.3", "002 3.5", "004 3.2.4"),
        axes="N samples; tp, fp, fn counts of one label; n-grams of 1 to 4 words",
        loops=(accuracy, precision, recall, f1, macro, bleu, perplexity),
        library=(
            "tinyllm.metrics.accuracy",
            "tinyllm.metrics.precision",
            "tinyllm.metrics.recall",
            "tinyllm.metrics.f1",
            "tinyllm.metrics.corpus_bleu",
            "tinyllm.metrics.perplexity",
        ),
        tests=(
            TESTS + "test_precision_recall_f1_by_hand",
            TESTS + "test_bleu_of_the_paper",
            TESTS + "test_measures_equal_plain_numpy",
            "tests/formulas/test_library_equals_formulas.py::test_classification_measures",
            "tests/formulas/test_library_equals_formulas.py::test_bleu",
            "tests/formulas/test_library_equals_formulas.py::test_perplexity",
        ),
        chapter="12",
        source="named in the documents; BLEU: Papineni et al. 2002, section 2; F1: van Rijsbergen 1979, chapter 7",
    ),
)
