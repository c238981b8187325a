"""Sentences of the documents that do not hold, each beside what does, with numbers where numbers can tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinyllm.formulas.attention import attention
from tinyllm.formulas.entry import Erratum, Formula, Matrix, literal, where
from tinyllm.formulas.optimisers import adam_step, sgd_step
from tinyllm.formulas.positions import sinusoidal_positions
from tinyllm.formulas.procedures import can_end, meant_chart, printed_chart, show_chart_without_exit

# --- E-SUPERVISED -----------------------------------------------------------------------------------------------------


@literal
def next_token_pairs(ids: Sequence[int]) -> list[tuple[list[int], int]]:
    """Every (context, target) pair of a text: the targets are the text itself, one place further.

    Parameters
    ----------
    ids : (T,) ints
        The text.

    Returns
    -------
    list of T - 1 pairs (list of int, int)
    """
    return [(list(ids[: t + 1]), ids[t + 1]) for t in range(len(ids) - 1)]


def show_targets_come_from_the_text() -> str:
    """The targets of a six-token text, made without any label."""
    words = ["The", "cat", "sat", "on", "the", "mat"]
    targets = [words[target] for _, target in next_token_pairs(range(len(words)))]
    return f"{len(words)} tokens and no label give {len(targets)} targets: {' '.join(targets)}"


# --- E-SCALING --------------------------------------------------------------------------------------------------------


@literal
def kaplan_loss(parameters: float, n_c: float = 8.8e13, alpha: float = 0.076) -> float:
    """Test loss of a language model of this size, enough data given: (N_c / N)^alpha.

    Parameters
    ----------
    parameters : float
        N, without the embeddings.
    n_c, alpha : float
        The fitted constants.

    Returns
    -------
    float, in nats per token

    Notes
    -----
    Source: Kaplan et al. 2020, Scaling Laws for Neural Language Models, equation 1.1.
    """
    return (n_c / parameters) ** alpha


@literal
def hoffmann_loss(parameters: float, tokens: float) -> float:
    """Loss from size and data together: 1.69 + 406.4 / N^0.34 + 410.7 / D^0.28, with a floor that no size breaks.

    Parameters
    ----------
    parameters : float
        N.
    tokens : float
        D.

    Returns
    -------
    float, in nats per token

    Notes
    -----
    Source: Hoffmann et al. 2022, Training Compute-Optimal Large Language Models, section 3.3 and appendix D.3.
    """
    return 1.69 + 406.4 / parameters**0.34 + 410.7 / tokens**0.28


@literal
def proportional(performance: float, parameters: float, new_parameters: float) -> float:
    """Performance as document 002 has it, proportional to size: performance N' / N.

    Parameters
    ----------
    performance, parameters, new_parameters : float
        What is measured at one size, that size, and another.

    Returns
    -------
    float
    """
    return performance * new_parameters / parameters


def show_ten_times_the_size() -> str:
    """What ten times the parameters bring, by the power law and by the claim."""
    before, after = kaplan_loss(1e8), kaplan_loss(1e9)
    return (
        f"ten times the parameters: loss {before:.3f} -> {after:.3f}, a factor {before / after:.3f}; "
        f"proportional would be a factor {proportional(1.0, 1e8, 1e9):g}"
    )


# --- E-ORDER ----------------------------------------------------------------------------------------------------------


@literal
def order_defect(X: Matrix, order: Sequence[int], positions: Matrix | None = None, causal: bool = False) -> float:
    """How far self-attention of the reordered words is from the reordered self-attention of the words.

    0 means that the order of the words leaves no trace in any word's new vector.

    Parameters
    ----------
    X : (T, C) floats
        The words.
    order : (T,) ints
        The words' new order.
    positions : (T, C) floats, optional
        Added to the words, place by place.
    causal : bool
        Whether each position sees those before it only.

    Returns
    -------
    float
        The largest difference.
    """

    def self_attention(words: Matrix) -> Matrix:
        if positions is not None:
            words = [[words[t][i] + positions[t][i] for i in range(len(words[t]))] for t in range(len(words))]
        return attention(words, words, words, causal=causal)

    in_place = self_attention(X)
    reordered = self_attention([X[t] for t in order])
    largest = 0.0
    for place, t in enumerate(order):
        for i in range(len(X[0])):
            largest = max(largest, abs(reordered[place][i] - in_place[t][i]))
    return largest


def show_order_with_and_without_positions() -> str:
    """Three words and their reverse, without and with sinusoidal positions."""
    X, order = [[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]], [2, 1, 0]
    without = order_defect(X, order)
    with_positions = order_defect(X, order, sinusoidal_positions(3, 2))
    return f"reversing three words: {without:.1e} without positions, {with_positions:.3f} with them"


# --- E-ENCODER-DECODER ------------------------------------------------------------------------------------------------

PARTS = {"Transformer (2017)": ("encoder", "decoder"), "GPT": ("decoder",), "BERT": ("encoder",)}


def parts(model: str) -> tuple[str, ...]:
    """Which stacks a model has.

    Parameters
    ----------
    model : str
        A key of `PARTS`.

    Returns
    -------
    tuple of str

    Notes
    -----
    Source: Vaswani et al. 2017, section 3.1; Radford et al. 2018, section 3.1; Devlin et al. 2019, section 3.
    """
    return PARTS[model]


def may_see(part: str, t: int, s: int) -> bool:
    """Whether position t attends to position s of the same text: in an encoder always, in a decoder when s <= t.

    Parameters
    ----------
    part : str
        "encoder" or "decoder".
    t, s : int
        The position that looks, and the one looked at.

    Returns
    -------
    bool
    """
    return part == "encoder" or s <= t


def show_what_the_stacks_see() -> str:
    """Of the nine pairs of three positions, how many each model's stacks let see each other."""
    said = []
    for model in PARTS:
        seen = [sum(may_see(part, t, s) for t in range(3) for s in range(3)) for part in parts(model)]
        said.append(f"{model}: " + ", ".join(f"{part} {n} of 9" for part, n in zip(parts(model), seen, strict=True)))
    return "; ".join(said)


# --- E-LOCAL-OPTIMA ---------------------------------------------------------------------------------------------------


@literal
def two_valleys(x: float) -> float:
    """x^4 - 2 x^2 + x / 2, with its deeper valley near -1.06 and a shallower one near 0.93.

    Parameters
    ----------
    x : float
        Any number.

    Returns
    -------
    float
    """
    return x**4 - 2.0 * x**2 + 0.5 * x


@literal
def descend(start: float, optimiser: str, lr: float = 0.01, steps: int = 2000) -> float:
    """Where SGD or Adam comes to rest in `two_valleys`.

    Parameters
    ----------
    start : float
        Where to begin.
    optimiser : str
        "sgd" or "adam".
    lr : float
        Learning rate.
    steps : int
        How many.

    Returns
    -------
    float
    """
    x, m, v = [start], [0.0], [0.0]
    for t in range(1, steps + 1):
        g = [4.0 * x[0] ** 3 - 4.0 * x[0] + 0.5]
        if optimiser == "adam":
            x, m, v = adam_step(x, g, m, v, t, lr=lr)
        else:
            x = sgd_step(x, g, lr=lr)
    return x[0]


def show_adam_in_the_shallow_valley() -> str:
    """Both optimisers, from the same start on the side of the shallower valley."""
    rests: list[str] = []
    for optimiser in ("sgd", "adam"):
        x = descend(2.0, optimiser)
        rests.append(f"{optimiser} rests at {x:.3f} with {two_valleys(x):.3f}")
    x = descend(-2.0, "adam")
    return f"{'; '.join(rests)}; the deeper valley, at {x:.3f}, has {two_valleys(x):.3f}"


# --- E-BERT-DOI, E-TRANSFORMER-DOI ------------------------------------------------------------------------------------

BERT_PRINTED = "P19-2153"
BERT_MEANT = "N19-1423"
TRANSFORMER_PRINTED = "N19-1194"

VENUES = {
    "N": "North American Chapter of the Association for Computational Linguistics",
    "P": "Annual Meeting of the Association for Computational Linguistics",
}


def anthology(identifier: str) -> tuple[str, int, int]:
    """What an ACL Anthology number such as N19-1423 says of itself.

    Parameters
    ----------
    identifier : str
        Letter, year, dash, volume and number.

    Returns
    -------
    venue : str
    year : int
    volume : int
        The first digit after the dash.
    """
    return VENUES[identifier[0]], 2000 + int(identifier[1:3]), int(identifier[4])


def show_bert_doi() -> str:
    """Venue and volume in the printed number, and in the right one."""
    said = [f"{i} is volume {anthology(i)[2]}, {anthology(i)[0]} {anthology(i)[1]}" for i in (BERT_PRINTED, BERT_MEANT)]
    return "; ".join(said) + "; the reference itself says North American Chapter 2019, volume 1"


def show_transformer_doi() -> str:
    """The year in the printed number, against the year of the paper."""
    venue, year, _ = anthology(TRANSFORMER_PRINTED)
    return f"{TRANSFORMER_PRINTED} is {venue} {year}; the paper is of Neural Information Processing Systems 2017"


TESTS = "tests/formulas/test_formulas_claims.py::"


def _claim(
    id: str,
    title: str,
    meaning: str,
    places: tuple[str, ...],
    errata: tuple[tuple[str, str, str, Callable[[], str]], ...],
    loops: tuple[Callable, ...],
    as_printed: tuple[Callable, ...] = (),
    chapter: str = "",
    source: str = "",
    latex: str = "",
    printed: str = "",
) -> Formula:
    """An entry of kind "claim"; its tests are those of its errata."""
    return Formula(
        id=id,
        kind="claim",
        title=title,
        meaning=meaning,
        where=where(*places),
        latex=latex,
        printed=printed,
        loops=loops,
        as_printed=as_printed,
        tests=tuple(TESTS + test for _, _, test, _ in errata),
        chapter=chapter,
        errata=tuple(Erratum(fault, remedy, TESTS + test, show) for fault, remedy, test, show in errata),
        source=source,
    )


ENTRIES = (
    _claim(
        id="E-SUPERVISED",
        title="Next-word training is self-supervised",
        meaning=(
            "001 calls it supervised, 002 unsupervised, 003 self-supervised. There are targets, as in supervised "
            "learning, and nobody wrote them, as in unsupervised learning: they are the text itself."
        ),
        places=("001 1.2", "002 3.3", "003 2.1", "003 3.2"),
        errata=(
            (
                "Three documents give three names to the same training.",
                "Self-supervised: the targets are computed from the text alone.",
                "test_targets_come_from_the_text",
                show_targets_come_from_the_text,
            ),
        ),
        loops=(next_token_pairs,),
        chapter="12",
        source="Radford et al. 2018, section 3.1; Devlin et al. 2019, section 3.1",
    ),
    _claim(
        id="E-SCALING",
        title="Performance is not proportional to size",
        meaning=(
            "The loss falls as a power of the size with a small exponent, so each doubling brings about 5% less loss, "
            "and less in absolute terms each time; with limited data it comes to a floor."
        ),
        latex=r"L(N) = \left(\frac{N_c}{N}\right)^{\alpha}, \quad \alpha \approx 0.076",
        printed=r"\text{performance} \propto N",
        places=("002 2.4",),
        errata=(
            (
                "Performance is called proportional to the number of parameters.",
                "A power law with diminishing returns.",
                "test_scaling_is_a_power_law",
                show_ten_times_the_size,
            ),
        ),
        loops=(kaplan_loss, hoffmann_loss),
        as_printed=(proportional,),
        source="Kaplan et al. 2020, equation 1.1; Hoffmann et al. 2022, section 3.3 and appendix D.3",
    ),
    _claim(
        id="E-FLOWCHART",
        title="A flow chart without an exit",
        meaning="Drawn as printed, the work never ends: no box that can be reached from the first one is an end.",
        places=("004 2.2",),
        errata=(
            (
                "The chart has no end.",
                "One answer of the evaluation leads out: P-LOOP.",
                "test_flow_chart_has_no_exit",
                show_chart_without_exit,
            ),
        ),
        loops=(can_end, meant_chart),
        as_printed=(printed_chart,),
        chapter="07",
    ),
    _claim(
        id="E-BERT-DOI",
        title="BERT's DOI",
        meaning="The reference gives 10.18653/v1/P19-2153. BERT is 10.18653/v1/N19-1423.",
        printed="10.18653/v1/P19-2153",
        latex="10.18653/v1/N19-1423",
        places=("004 references",),
        errata=(
            (
                "The printed number belongs to another conference and volume than the reference's own words.",
                "10.18653/v1/N19-1423.",
                "test_bert_doi_contradicts_its_own_reference",
                show_bert_doi,
            ),
        ),
        loops=(anthology,),
        source="Devlin et al. 2019, Proceedings of NAACL-HLT 2019, volume 1, pages 4171 to 4186",
    ),
    _claim(
        id="E-TRANSFORMER-DOI",
        title="The Transformer's second reference",
        meaning=(
            "The last reference ties Attention Is All You Need to an address of a conference of 2019 in computational "
            "linguistics. The paper is of 2017 and of another conference."
        ),
        places=("004 references",),
        errata=(
            (
                "The printed number N19-1194 is two years younger than the paper.",
                "Advances in Neural Information Processing Systems 30, 2017.",
                "test_transformer_reference_is_too_young",
                show_transformer_doi,
            ),
        ),
        loops=(anthology,),
        source="Vaswani et al. 2017, Advances in Neural Information Processing Systems 30",
    ),
    _claim(
        id="E-ORDER",
        title="Whether order is handled weakly",
        meaning=(
            "004 says that the order of the words is handled weakly and that positional encoding is used. Without "
            "positions and mask the order is not handled at all: reordered words give the same vectors, reordered. "
            "With positions, or under a causal mask, it counts."
        ),
        latex=r"\mathrm{SelfAttention}(P X) = P \, \mathrm{SelfAttention}(X) \text{ for every permutation } P",
        places=("004 3.3", "004 3.1"),
        errata=(
            (
                "The weakness is claimed of a model that has positional encoding.",
                "It holds only without positions, and there it is total.",
                "test_order_leaves_no_trace_without_positions",
                show_order_with_and_without_positions,
            ),
        ),
        loops=(order_defect,),
        chapter="06",
        source="Vaswani et al. 2017, section 3.5",
    ),
    _claim(
        id="E-ENCODER-DECODER",
        title="Not every Transformer is an encoder and a decoder",
        meaning="The paper's model is both; GPT has only the decoder (and no cross-attention), BERT only the encoder.",
        places=("000 4.1", "002 2.1", "003 3.1"),
        errata=(
            (
                "Every Transformer, and so every large language model, is said to have both stacks.",
                "The stack decides what a position may see: an encoder both sides, a decoder what came before.",
                "test_stacks_differ_in_what_they_see",
                show_what_the_stacks_see,
            ),
        ),
        loops=(parts, may_see),
        chapter="15",
        source="Vaswani et al. 2017, section 3.1; Radford et al. 2018, section 3.1; Devlin et al. 2019, section 3",
    ),
    _claim(
        id="E-LOCAL-OPTIMA",
        title="Adam does not avoid local optima",
        meaning=(
            "000 says that SGD is easily caught in local optima and that Adam avoids them. Both follow the slope; from "
            "the same start both rest in the same valley, here the shallower one."
        ),
        latex=r"f(x) = x^4 - 2 x^2 + \frac{x}{2}",
        places=("000 3.2",),
        errata=(
            (
                "Adam is said to avoid local optima.",
                "Adam sets the step of each parameter by the size of its gradients; it promises nothing about optima.",
                "test_adam_rests_in_the_shallow_valley",
                show_adam_in_the_shallow_valley,
            ),
        ),
        loops=(descend, two_valleys),
        chapter="03",
        source="Kingma and Ba 2015, section 4 (convergence is shown for convex functions)",
    ),
)
