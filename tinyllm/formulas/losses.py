"""What training lowers: cross-entropy for classes, the mean squared error for numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinyllm.formulas.attention import softmax
from tinyllm.formulas.entry import Erratum, Formula, Matrix, Vector, literal, where


@literal
def cross_entropy(y: Vector, yhat: Vector) -> float:
    """F-CE for one sample: L = - sum_j y_j log(yhat_j), j over the classes.

    Parameters
    ----------
    y : (V,) floats
        The true distribution; with one-hot y only the true class is left of the sum. 0 log 0 counts as 0.
    yhat : (V,) floats
        The predicted distribution.

    Returns
    -------
    float, in nats; inf when a true class was given no probability
    """
    loss = 0.0
    for j in range(len(y)):
        if y[j] > 0.0:
            loss -= y[j] * (math.log(yhat[j]) if yhat[j] > 0.0 else -math.inf)
    return loss


@literal
def mean_cross_entropy(Y: Matrix, Yhat: Matrix) -> float:
    """F-CE for N samples: the mean, not the sum, of each sample's cross-entropy.

    Parameters
    ----------
    Y, Yhat : (N, V) floats
        True and predicted distributions.

    Returns
    -------
    float
    """
    total = 0.0
    for n in range(len(Y)):
        total += cross_entropy(Y[n], Yhat[n])
    return total / len(Y)


@literal
def cross_entropy_of_logits(logits: Matrix, targets: Sequence[int]) -> float:
    """F-CE as training uses it: the mean of -log softmax(logits)[target].

    Parameters
    ----------
    logits : (N, V) floats
        Scores of the classes.
    targets : (N,) ints
        True classes.

    Returns
    -------
    float
    """
    total = 0.0
    for n in range(len(targets)):
        total -= math.log(softmax(logits[n])[targets[n]])
    return total / len(targets)


@literal
def cross_entropy_over_samples(y: Vector, yhat: Vector) -> float:
    """F-CE to the letter of its legend: - sum_i y_i log(yhat_i), i over N samples, y_i the label of sample i.

    A sample with label 0 costs nothing however wrong the prediction, label 2 costs twice what label 1 does,
    and the loss grows with the number of samples.

    Parameters
    ----------
    y : (N,) numbers
        Labels.
    yhat : (N,) floats
        What the model predicts for each sample.

    Returns
    -------
    float
    """
    loss = 0.0
    for i in range(len(y)):
        loss -= y[i] * math.log(yhat[i])
    return loss


@literal
def mse(y: Vector, yhat: Vector) -> float:
    """F-MSE: L = 1/N sum_i (y_i - yhat_i)^2.

    Parameters
    ----------
    y, yhat : (N,) floats
        Measured and predicted.

    Returns
    -------
    float
    """
    total = 0.0
    for i in range(len(y)):
        total += (y[i] - yhat[i]) ** 2
    return total / len(y)


TESTS = "tests/formulas/test_formulas_losses.py::"
LIBRARY_TESTS = "tests/formulas/test_library_equals_formulas.py::"

ENTRIES = (
    Formula(
        id="F-CE",
        kind="formula",
        title="Cross-entropy",
        latex=r"L = -\frac{1}{N} \sum_{n=1}^{N} \sum_{j=1}^{V} y_{nj} \log \hat{y}_{nj}",
        printed=r"L = -\sum_{i=1}^{N} y_i log(\hat{y_i})",
        meaning=(
            "The surprise, in nats, at the true class under the predicted distribution. Zero when all probability lies "
            "on the truth, log V when the model only guesses."
        ),
        where=where("000 4.3", "002 4.3", "003 4.2", "004 4.2.4"),
        axes="N samples, V classes; the printed sum runs over the classes of one sample, the mean over samples",
        loops=(cross_entropy, mean_cross_entropy, cross_entropy_of_logits),
        as_printed=(cross_entropy_over_samples,),
        library=("tinyllm.cross_entropy",),
        kernels=(
            "tinyllm.kernels.cpu.cross_entropy.cross_entropy",
            "tinyllm.kernels.cpu.cross_entropy.cross_entropy_vjp",
        ),
        tests=(
            TESTS + "test_cross_entropy_closed_forms",
            TESTS + "test_cross_entropy_equals_plain_numpy",
            LIBRARY_TESTS + "test_cross_entropy",
            LIBRARY_TESTS + "test_cross_entropy_with_probabilities",
        ),
        chapter="02",
        errata=(
            Erratum(
                fault="N is called the number of samples and y_i the label; read so, label 0 costs nothing.",
                remedy="The sum with a one-hot y runs over the classes of one sample.",
                test=TESTS + "test_printed_sum_over_samples_ignores_label_zero",
            ),
            Erratum(
                fault="As a sum over samples the loss grows with their number.",
                remedy="Over samples it is a mean.",
                test=TESTS + "test_printed_sum_over_samples_grows_with_n",
            ),
            Erratum(
                fault="003 calls yhat the predicted label; the logarithm of a label is no loss (log 0 is not finite).",
                remedy="yhat is the predicted probability, as 002 and 004 say.",
                test=TESTS + "test_logarithm_of_a_predicted_label_is_no_loss",
            ),
        ),
    ),
    Formula(
        id="F-MSE",
        kind="formula",
        title="Mean squared error",
        latex=r"L = \frac{1}{N} \sum_{i=1}^{N} (y_i - \hat{y}_i)^2",
        meaning="The mean of the squared differences between what was measured and what was predicted: for regression.",
        where=where("002 4.4", "004 4.2.4"),
        axes="N samples",
        loops=(mse,),
        library=("tinyllm.mse_loss",),
        tests=(TESTS + "test_mse_equals_plain_numpy", LIBRARY_TESTS + "test_mse_loss"),
        chapter="02",
    ),
)
