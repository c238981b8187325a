"""Two brakes on learning by heart: dropping units at random, and charging for large weights."""

from __future__ import annotations

from collections.abc import Sequence

from tinyllm.formulas.entry import Formula, Vector, literal, where


@literal
def dropout(x: Vector, keep: Sequence[bool], p: float) -> list[float]:
    """F-DROP: x_i / (1 - p) where kept, 0 where dropped, so that the expected value stays x_i.

    Parameters
    ----------
    x : (n,) floats
        Values of the units.
    keep : (n,) bools
        Each True with probability 1 - p.
    p : float
        Probability of dropping, below 1.

    Returns
    -------
    (n,) floats

    Notes
    -----
    Source: Srivastava et al. 2014, sections 4 and 10 (scaling during training, so that prediction needs none).
    """
    return [x[i] / (1.0 - p) if keep[i] else 0.0 for i in range(len(x))]


@literal
def l2_penalised(loss: float, theta: Vector, strength: float) -> float:
    """Regularisation: loss + strength / 2 sum_i theta_i^2, which charges for complexity.

    Parameters
    ----------
    loss : float
        Loss on the data.
    theta : (n,) floats
        The weights.
    strength : float
        Price of a unit of squared weight, times two.

    Returns
    -------
    float

    Notes
    -----
    Source: Goodfellow, Bengio and Courville 2016, section 7.1.1.
    """
    total = 0.0
    for w in theta:
        total += w**2
    return loss + strength / 2.0 * total


TESTS = "tests/formulas/test_formulas_training.py::"

ENTRIES = (
    Formula(
        id="F-DROP",
        kind="formula",
        title="Dropout and regularisation",
        latex=(
            r"y_i = \frac{r_i}{1 - p} x_i, \; r_i \sim \mathrm{Bernoulli}(1 - p), \quad "
            r"\tilde{L} = L + \frac{\lambda}{2} \sum_i \theta_i^2"
        ),
        meaning=(
            "While training, each unit is left out with probability p, so that no unit can rely on another; what "
            "remains is scaled up to keep the mean. Predicting uses all units. The penalty pulls weights towards zero "
            "unless the data pays for them."
        ),
        where=where("001 9.2", "000 9"),
        axes="element by element; one draw r per element and step",
        loops=(dropout, l2_penalised),
        library=("tinyllm.dropout", "tinyllm.nn.Dropout"),
        kernels=("tinyllm.kernels.cpu.dropout.dropout",),
        tests=(
            TESTS + "test_dropout_keeps_the_mean",
            "tests/formulas/test_library_equals_formulas.py::test_dropout",
            "tests/formulas/test_library_equals_formulas.py::test_weight_decay_is_the_penalty",
        ),
        chapter="03",
        source="named in 001; Srivastava et al. 2014, sections 4 and 10; Goodfellow et al. 2016, section 7.1.1",
    ),
)
