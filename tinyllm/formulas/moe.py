"""Mixture of experts, which the title of document 002 promises and its body never gives."""

from __future__ import annotations

import math
from collections.abc import Callable

from tinyllm.formulas.attention import softmax
from tinyllm.formulas.entry import Formula, Matrix, Vector, literal, where
from tinyllm.formulas.linear import linear


@literal
def moe_gate(x: Vector, W_g: Matrix, k: int) -> list[float]:
    """F-MOE, the gate: softmax over the k largest of W_g x; all other experts get exactly 0.

    Parameters
    ----------
    x : (C,) floats
        The vector of one token.
    W_g : (E, C) floats
        Weights of the gate.
    k : int
        Among equal scores the first experts win.

    Returns
    -------
    (E,) floats that sum to 1

    Notes
    -----
    Source: Shazeer et al. 2017, equations 3 and 5, without the noise of equation 4.
    """
    H = linear(x, W_g)
    winners = sorted(range(len(H)), key=lambda e: -H[e])[:k]
    kept = [H[e] if e in winners else -math.inf for e in range(len(H))]
    return softmax(kept)


def moe(x: Vector, W_g: Matrix, experts: list[Callable[[Vector], Vector]], k: int) -> list[float]:
    """F-MOE, the layer: y = sum_e G(x)_e E_e(x); an expert whose gate is 0 is never called.

    Parameters
    ----------
    x : (C,) floats
        The vector of one token.
    W_g : (E, C) floats
        Weights of the gate.
    experts : list of callables, (C,) -> (C,)
        One per row of W_g.
    k : int
        How many experts are used.

    Returns
    -------
    (C,) floats

    Notes
    -----
    Source: Shazeer et al. 2017, equation 1.
    """
    gate = moe_gate(x, W_g, k)
    y = [0.0] * len(x)
    for e in range(len(experts)):
        if gate[e] > 0.0:
            from_expert = experts[e](x)
            for j in range(len(x)):
                y[j] += gate[e] * from_expert[j]
    return y


@literal
def balance_loss(router_probabilities: Matrix, alpha: float = 0.01) -> float:
    """F-MOE, the balance: alpha E sum_e f_e P_e; its least value, alpha, is reached when tokens spread evenly.

    f_e is the share of tokens whose most probable expert is e, P_e the mean probability given to e.

    Parameters
    ----------
    router_probabilities : (T, E) floats
        The softmax over all experts, one row per token.
    alpha : float
        Weight of this loss beside the model's.

    Returns
    -------
    float

    Notes
    -----
    Source: Fedus, Zoph and Shazeer 2022 (Switch Transformers, 2021), section 2.2, equations 4 to 6.
    """
    T, E = len(router_probabilities), len(router_probabilities[0])
    total = 0.0
    for e in range(E):
        f = 0.0
        P = 0.0
        for t in range(T):
            p = router_probabilities[t]
            if p.index(max(p)) == e:  # type: ignore[attr-defined]
                f += 1.0 / T
            P += p[e] / T
        total += f * P
    return alpha * E * total


TESTS = "tests/formulas/test_formulas_moe.py::"

ENTRIES = (
    Formula(
        id="F-MOE",
        kind="formula",
        title="Mixture of experts",
        latex=(
            r"y = \sum_{e=1}^{E} G(x)_e E_e(x), \; G(x) = \mathrm{softmax}(\mathrm{TopK}(W_g x, k)), \quad "
            r"L_{\mathrm{bal}} = \alpha E \sum_{e=1}^{E} f_e P_e"
        ),
        meaning=(
            "Many feed-forward networks, of which each token uses k: more parameters at the same work per token. A "
            "gate chooses; the balance loss, which has to be added to the training loss, keeps it from sending all to "
            "one."
        ),
        where=where("002 title"),
        axes="T tokens, C channels, E experts, k of them used",
        loops=(moe_gate, moe, balance_loss),
        library=("tinyllm.nn.MoE", "tinyllm.nn.balance_loss"),
        tests=(
            TESTS + "test_gate_by_hand",
            TESTS + "test_all_experts_equal_the_soft_mixture",
            TESTS + "test_balance_loss_is_least_when_even",
            "tests/formulas/test_library_equals_formulas.py::test_moe",
        ),
        chapter="10",
        source="named in 002's title; Shazeer et al. 2017, equations 1 to 5; Switch Transformers 2021, equations 4-6",
    ),
)
