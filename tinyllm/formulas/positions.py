"""Where a token stands, told to a model whose attention cannot see it."""

from __future__ import annotations

import math

from tinyllm.formulas.entry import Formula, literal, where


@literal
def sinusoidal_positions(T: int, C: int, base: float = 10000.0) -> list[list[float]]:
    """F-PE: PE(t, 2i) = sin(t / base^(2i/C)), PE(t, 2i+1) = cos(t / base^(2i/C)).

    Parameters
    ----------
    T : int
        Positions 0 .. T - 1.
    C : int
        Channels; sines and cosines alternate.
    base : float
        Sets the slowest frequency.

    Returns
    -------
    (T, C) floats

    Notes
    -----
    Source: Vaswani et al. 2017, section 3.5.
    """
    table = []
    for t in range(T):
        row = []
        for j in range(C):
            angle = t / base ** ((j - j % 2) / C)
            row.append(math.sin(angle) if j % 2 == 0 else math.cos(angle))
        table.append(row)
    return table


TESTS = "tests/formulas/test_formulas_words.py::"

ENTRIES = (
    Formula(
        id="F-PE",
        kind="formula",
        title="Sinusoidal positions",
        latex=(
            r"\mathrm{PE}(t, 2i) = \sin\left(\frac{t}{10000^{2i/C}}\right), \quad "
            r"\mathrm{PE}(t, 2i+1) = \cos\left(\frac{t}{10000^{2i/C}}\right)"
        ),
        meaning=(
            "A clock with many hands, from one turn in about six tokens to one in tens of thousands. It is added to "
            "the word vectors. A step of k positions turns each hand by a fixed angle, so that distance is a rotation."
        ),
        where=where("004 3.1"),
        axes="T positions, C channels",
        loops=(sinusoidal_positions,),
        library=("tinyllm.nn.SinusoidalPositions", "tinyllm.nn.sinusoids"),
        tests=(
            TESTS + "test_sinusoids_closed_form",
            TESTS + "test_a_step_is_a_rotation",
            "tests/formulas/test_library_equals_formulas.py::test_sinusoidal_positions",
        ),
        chapter="06",
        source="named in 004; Vaswani et al. 2017, section 3.5",
    ),
)
