"""Two ways to turn text without labels into questions with answers: hide some words, or hide what comes next."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinyllm.formulas.entry import Formula, Matrix, Vector, literal, where


@literal
def autoregressive_loss(P: Matrix, ids: Sequence[int]) -> float:
    """F-MLM, autoregressive: mean over t of - log P[t][x_{t+1}]; row t is asked for the token after it.

    Parameters
    ----------
    P : (T, V) floats
        Row t is the distribution after tokens 0 .. t; the last row has nothing to be held against.
    ids : (T,) ints
        The text.

    Returns
    -------
    float, in nats
    """
    total = 0.0
    for t in range(len(ids) - 1):
        total -= math.log(P[t][ids[t + 1]])
    return total / (len(ids) - 1)


@literal
def masked_lm_loss(P: Matrix, ids: Sequence[int], chosen: Sequence[bool]) -> float:
    """F-MLM, masked: mean over the chosen places of - log P[t][x_t]; the other places do not count.

    Parameters
    ----------
    P : (T, V) floats
        Row t is the distribution over the token *at* t, from the text with the chosen places hidden.
    ids : (T,) ints
        The text before hiding.
    chosen : (T,) bools
        The hidden places.

    Returns
    -------
    float, in nats

    Notes
    -----
    Source: Devlin et al. 2019, section 3.1, task 1.
    """
    total = 0.0
    count = 0
    for t in range(len(ids)):
        if chosen[t]:
            total -= math.log(P[t][ids[t]])
            count += 1
    return total / count


@literal
def mask_tokens(
    ids: Sequence[int], u_choose: Vector, u_action: Vector, random_ids: Sequence[int], mask_id: int, rate: float = 0.15
) -> tuple[list[int], list[bool]]:
    """BERT's hiding: `rate` of the places are chosen; of these 80% become [MASK], 10% any token, 10% stay.

    Parameters
    ----------
    ids : (T,) ints
        The text.
    u_choose, u_action : (T,) floats
        Draws from the uniform law on 0..1: whether the place is chosen, and what becomes of it.
    random_ids : (T,) ints
        The token to put where a random one is due.
    mask_id : int
        The id of [MASK].
    rate : float
        Share of the places that are chosen.

    Returns
    -------
    hidden : (T,) ints
    chosen : (T,) bools

    Notes
    -----
    Source: Devlin et al. 2019, section 3.1 and appendix A.1.
    """
    hidden, chosen = [], []
    for t in range(len(ids)):
        chosen.append(u_choose[t] < rate)
        if not chosen[t] or u_action[t] >= 0.9:
            hidden.append(ids[t])
        elif u_action[t] < 0.8:
            hidden.append(mask_id)
        else:
            hidden.append(random_ids[t])
    return hidden, chosen


TESTS = "tests/formulas/test_formulas_language_model.py::"

ENTRIES = (
    Formula(
        id="F-MLM",
        kind="formula",
        title="Masked and autoregressive language modelling",
        latex=(
            r"L_{\mathrm{MLM}} = -\frac{1}{|M|} \sum_{t \in M} \log p(x_t \mid x_{\setminus M}), \quad "
            r"L_{\mathrm{AR}} = -\frac{1}{T-1} \sum_{t=1}^{T-1} \log p(x_{t+1} \mid x_{\leq t})"
        ),
        meaning=(
            "Text asks its own questions. Autoregressive (GPT): what comes next, given all before. Masked (BERT): what "
            "stood here, given both sides. Both are cross-entropy; they differ in what the model may see."
        ),
        where=where("002 3.3", "003 3.2"),
        axes="T tokens, V vocabulary, M the chosen places",
        loops=(masked_lm_loss, autoregressive_loss, mask_tokens),
        library=("tinyllm.models.GPT", "tinyllm.models.BERTForMaskedLM", "tinyllm.data.masking.Masking"),
        tests=(
            TESTS + "test_masked_and_autoregressive_by_hand",
            TESTS + "test_mask_tokens_shares",
            "tests/formulas/test_library_equals_formulas.py::test_autoregressive_loss",
            "tests/formulas/test_library_equals_formulas.py::test_masked_lm_loss",
            "tests/data/test_masking.py::test_given_the_draws_it_is_the_loops",
        ),
        chapter="12",
        source="Devlin et al. 2019, section 3.1 and appendix A.1; Radford et al. 2018, section 3.1",
    ),
)
