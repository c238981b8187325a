"""How large the first weights should be, so that signals neither die out nor explode on the way through the layers."""

from __future__ import annotations

import math

from tinyllm.formulas.entry import Formula, literal, where


@literal
def xavier_uniform_bound(fan_in: int, fan_out: int) -> float:
    """F-INIT, Xavier: weights uniform in +- sqrt(6 / (fan_in + fan_out)).

    Parameters
    ----------
    fan_in, fan_out : int
        Inputs and outputs of the layer.

    Returns
    -------
    float

    Notes
    -----
    Source: Glorot and Bengio 2010, equation 16.
    """
    return math.sqrt(6.0 / (fan_in + fan_out))


@literal
def xavier_std(fan_in: int, fan_out: int) -> float:
    """F-INIT, Xavier: the deviation sqrt(2 / (fan_in + fan_out)) that keeps variance in both directions.

    Parameters
    ----------
    fan_in, fan_out : int
        Inputs and outputs of the layer.

    Returns
    -------
    float

    Notes
    -----
    Source: Glorot and Bengio 2010, equation 12.
    """
    return math.sqrt(2.0 / (fan_in + fan_out))


@literal
def he_std(fan_in: int) -> float:
    """F-INIT, He: the deviation sqrt(2 / fan_in); the 2 makes up for the half that ReLU cuts off.

    Parameters
    ----------
    fan_in : int
        Inputs of the layer.

    Returns
    -------
    float

    Notes
    -----
    Source: He et al. 2015, section 2.2, equation 10.
    """
    return math.sqrt(2.0 / fan_in)


@literal
def he_uniform_bound(fan_in: int) -> float:
    """F-INIT, He, uniform: the bound sqrt(6 / fan_in) of the uniform law with deviation `he_std`.

    Parameters
    ----------
    fan_in : int
        Inputs of the layer.

    Returns
    -------
    float
    """
    return math.sqrt(3.0) * he_std(fan_in)


TESTS = "tests/formulas/test_formulas_training.py::"

ENTRIES = (
    Formula(
        id="F-INIT",
        kind="formula",
        title="Xavier and He initialisation",
        latex=(
            r"W \sim U\left[-\sqrt{\frac{6}{n_{\mathrm{in}} + n_{\mathrm{out}}}}, "
            r"\sqrt{\frac{6}{n_{\mathrm{in}} + n_{\mathrm{out}}}}\right], \quad "
            r"W \sim N\left(0, \frac{2}{n_{\mathrm{in}}}\right)"
        ),
        meaning=(
            "A sum of n random terms has n times their variance, so the weights of a layer with n inputs must have "
            "variance of about 1/n. Xavier balances forward and backward; He doubles it, since ReLU halves it."
        ),
        where=where("002 3.2"),
        axes="n_in inputs, n_out outputs of one layer",
        loops=(xavier_uniform_bound, xavier_std, he_std, he_uniform_bound),
        library=(
            "tinyllm.nn.init.xavier_uniform",
            "tinyllm.nn.init.xavier_normal",
            "tinyllm.nn.init.he_normal",
            "tinyllm.nn.init.he_uniform",
        ),
        tests=(
            TESTS + "test_initialisation_keeps_the_signal",
            "tests/formulas/test_library_equals_formulas.py::test_initialisation",
        ),
        chapter="03",
        source="named in 002; Glorot and Bengio 2010, equations 12 and 16; He et al. 2015, section 2.2, equation 10",
    ),
)
