"""The bends between the linear layers; without them a stack of layers is one layer."""

from __future__ import annotations

import math

from tinyllm.formulas.entry import Formula, literal, where


@literal
def relu(x: float) -> float:
    """F-ACT: max(0, x).

    Parameters
    ----------
    x : float
        Any number.

    Returns
    -------
    float
    """
    return x if x > 0.0 else 0.0


@literal
def sigmoid(x: float) -> float:
    """F-ACT: 1 / (1 + exp(-x)), written so that neither branch overflows.

    Parameters
    ----------
    x : float
        Any number.

    Returns
    -------
    float between 0 and 1
    """
    if x >= 0.0:
        return 1.0 / (1.0 + math.exp(-x))
    return math.exp(x) / (1.0 + math.exp(x))


@literal
def tanh(x: float) -> float:
    """F-ACT: (exp(x) - exp(-x)) / (exp(x) + exp(-x)).

    Both sides of the quotient are divided by exp(|x|), which keeps it finite; expm1 keeps the digits near 0.

    Parameters
    ----------
    x : float
        Any number.

    Returns
    -------
    float between -1 and 1
    """
    e = math.exp(-2.0 * abs(x))
    return math.copysign(math.expm1(-2.0 * abs(x)) / (1.0 + e), x)


@literal
def gelu(x: float) -> float:
    """GELU, the number times the normal law's share below it: x (1 + erf(x / sqrt(2))) / 2.

    1 + erf(z) is written erfc(-z), which keeps the digits where the sum would cancel them.

    Parameters
    ----------
    x : float
        Any number.

    Returns
    -------
    float

    Notes
    -----
    Source: Hendrycks and Gimpel 2016, section 2.
    """
    return 0.5 * x * math.erfc(-x / math.sqrt(2.0))


@literal
def gelu_tanh(x: float) -> float:
    """GPT-2's approximation of `gelu`: x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2.

    Parameters
    ----------
    x : float
        Any number.

    Returns
    -------
    float

    Notes
    -----
    Source: Hendrycks and Gimpel 2016, section 2.
    """
    return 0.5 * x * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


TESTS = "tests/formulas/test_formulas_activations.py::"

ENTRIES = (
    Formula(
        id="F-ACT",
        kind="formula",
        title="Activation functions: ReLU, sigmoid, tanh",
        latex=(
            r"\mathrm{ReLU}(x) = \max(0, x), \quad \sigma(x) = \frac{1}{1 + e^{-x}}, \quad "
            r"\tanh(x) = \frac{e^x - e^{-x}}{e^x + e^{-x}}"
        ),
        meaning=(
            "A bend applied to each number alone. ReLU cuts off what is negative, sigmoid squeezes into 0..1, tanh "
            "into -1..1. GPT and BERT use GELU, a smooth ReLU, given beside them."
        ),
        where=where("004 2.1"),
        axes="element by element",
        loops=(relu, sigmoid, tanh, gelu, gelu_tanh),
        library=("tinyllm.relu", "tinyllm.sigmoid", "tinyllm.tanh", "tinyllm.gelu"),
        kernels=(
            "tinyllm.kernels.cpu.activation.gelu_erf",
            "tinyllm.kernels.cpu.activation.gelu_erf_vjp",
            "tinyllm.kernels.cpu.activation.gelu_tanh",
            "tinyllm.kernels.cpu.activation.gelu_tanh_vjp",
        ),
        tests=(
            TESTS + "test_activations_equal_plain_numpy",
            TESTS + "test_activations_closed_forms",
            "tests/formulas/test_library_equals_formulas.py::test_activations",
        ),
        chapter="03",
        source="named in 004; GELU: Hendrycks and Gimpel 2016, Gaussian Error Linear Units, section 2",
    ),
)
