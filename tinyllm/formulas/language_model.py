"""A language model gives each next token a probability; this is what that buys and how it is judged."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinyllm.formulas.entry import Erratum, Formula, Matrix, Vector, literal, where


@literal
def sequence_log_probability(P: Matrix, ids: Sequence[int]) -> float:
    """F-LM: log p(x_1 ... x_T) = sum_t log p(x_t | x_1 ... x_{t-1}), which training makes as large as it can.

    Parameters
    ----------
    P : (T, V) floats
        Row t is the distribution over the token at t, given those before it.
    ids : (T,) ints
        The text.

    Returns
    -------
    float, in nats, never positive
    """
    total = 0.0
    for t in range(len(ids)):
        total += math.log(P[t][ids[t]])
    return total


@literal
def perplexity(nll: Vector) -> float:
    """F-LM: exp of the mean cross-entropy: how many equally likely tokens would be as surprising.

    Parameters
    ----------
    nll : (T,) floats
        -log p of every token, in nats.

    Returns
    -------
    float, at least 1
    """
    total = 0.0
    for t in range(len(nll)):
        total += nll[t]
    return math.exp(total / len(nll))


@literal
def ngram_probability(
    ids: Sequence[int], history: Sequence[int], token: int, vocab_size: int, add_k: float = 0.0
) -> float:
    """(count(history, token) + k) / (count(history, anything) + k V): the statistical language model.

    Parameters
    ----------
    ids : (N,) ints
        The text that is counted.
    history : (n - 1,) ints
        The tokens before; empty for single-token frequencies.
    token : int
        The one that follows.
    vocab_size : int
        V.
    add_k : float
        Added to every count, so that the unseen keeps some probability.

    Returns
    -------
    float; NaN when the history never occurs and k is 0

    Notes
    -----
    Source: Jurafsky and Martin, Speech and Language Processing, chapter 3.
    """
    n = len(history)
    with_token = 0
    with_anything = 0
    for t in range(n, len(ids)):
        if list(ids[t - n : t]) == list(history):
            with_anything += 1
            if ids[t] == token:
                with_token += 1
    below = with_anything + add_k * vocab_size
    return (with_token + add_k) / below if below > 0 else math.nan


def show_what_is_maximised() -> str:
    """Two models of the text 0 1: the better one has the higher probability and the lower loss and perplexity."""
    ids = [0, 1]
    rows = []
    for P in ([[0.5, 0.5], [0.5, 0.5]], [[0.9, 0.1], [0.2, 0.8]]):
        log_p = sequence_log_probability(P, ids)
        rows.append(
            f"probability {math.exp(log_p):.2f}, cross-entropy {-log_p / 2:.3f}, perplexity {math.exp(-log_p / 2):.3f}"
        )
    return f"guessing: {rows[0]}; better: {rows[1]}: the first number rises, the other two fall"


TESTS = "tests/formulas/test_formulas_language_model.py::"

ENTRIES = (
    Formula(
        id="F-LM",
        kind="formula",
        title="Language model objective and perplexity",
        latex=(
            r"\max_\theta \sum_{t=1}^{T} \log p_\theta(x_t \mid x_1, \ldots, x_{t-1}), \quad "
            r"\mathrm{PPL} = \exp\left(-\frac{1}{T} \sum_{t=1}^{T} \log p_\theta(x_t \mid x_{<t})\right)"
        ),
        meaning=(
            "Make the text that was really written as probable as possible, one next token at a time. Perplexity is "
            "the same number read as a count: a die with that many sides would surprise as much. Counting how often a "
            "token follows another is the oldest such model."
        ),
        where=where("000 2.3", "001 2.2", "002 1.2"),
        axes="T tokens, V vocabulary",
        loops=(sequence_log_probability, perplexity, ngram_probability),
        library=("tinyllm.cross_entropy", "tinyllm.models.NGram", "tinyllm.metrics.perplexity"),
        kernels=(
            "tinyllm.kernels.cpu.cross_entropy.cross_entropy",
            "tinyllm.kernels.cpu.cross_entropy.cross_entropy_vjp",
        ),
        tests=(
            TESTS + "test_perplexity_closed_forms",
            TESTS + "test_ngram_probability_by_hand",
            "tests/formulas/test_library_equals_formulas.py::test_cross_entropy",
            "tests/formulas/test_library_equals_formulas.py::test_ngram",
            "tests/formulas/test_library_equals_formulas.py::test_perplexity",
        ),
        chapter="02",
        errata=(
            Erratum(
                fault="000 2.3 maximises an objective and names cross-entropy and perplexity as its examples; "
                "both are minimised.",
                remedy="The log-probability is maximised, which is to minimise cross-entropy, its negative mean.",
                test=TESTS + "test_what_is_maximised",
                show=show_what_is_maximised,
            ),
        ),
        source="perplexity: Jelinek et al. 1977; n-grams: Jurafsky and Martin, chapter 3",
    ),
)
