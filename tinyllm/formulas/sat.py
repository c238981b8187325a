"""P-SAT: the new vector of "sat" in "The cat sat on the mat", small enough to check with a pocket calculator."""

from __future__ import annotations

import math

from tinyllm.formulas.attention import softmax
from tinyllm.formulas.entry import Formula, where
from tinyllm.formulas.linear import dot, linear

WORDS = ("The", "cat", "sat", "on", "the", "mat")

# First number: how much of a thing the word names. Second: how much of a deed.
VECTORS = {"the": [0.0, 0.0], "cat": [2.0, 0.0], "sat": [0.0, 2.0], "on": [0.0, 1.0], "mat": [1.0, 0.0]}

W_Q = [[0.0, 1.0], [1.0, 0.0]]  # a deed asks for things, a thing for deeds
W_K = [[1.0, 0.0], [0.0, 1.0]]  # every word answers with what it is
W_V = [[1.0, 0.0], [1.0, 1.0]]


def sat_numbers(word: int = 2) -> dict[str, list]:
    """Every intermediate number of the attention of one word of the sentence.

    Parameters
    ----------
    word : int
        Its place; 2 is "sat".

    Returns
    -------
    dict
        ``X``, ``K``, ``V`` (6, 2), ``q`` and ``output`` (2,), ``dots``, ``scores``, ``exponentials``, ``weights`` (6,).
    """
    X = [VECTORS[w.lower()] for w in WORDS]
    q = linear(X[word], W_Q)
    K = [linear(x, W_K) for x in X]
    V = [linear(x, W_V) for x in X]
    dots = [dot(q, k) for k in K]
    scores = [d / math.sqrt(len(q)) for d in dots]
    weights = softmax(scores)
    output = [sum(weights[s] * V[s][j] for s in range(len(WORDS))) for j in range(len(V[0]))]
    exponentials = [math.exp(score) for score in scores]
    return {
        "X": X,
        "q": q,
        "K": K,
        "V": V,
        "dots": dots,
        "scores": scores,
        "exponentials": exponentials,
        "weights": weights,
        "output": output,
    }


def pair(vector: list[float]) -> str:
    """Two numbers as a point, ``(0, 2)``."""
    return "(" + ", ".join(f"{x:g}" for x in vector) + ")"


def worked_example() -> str:
    """P-SAT worked by hand: a text with every number on the way from "sat" to its new vector.

    Returns
    -------
    str
    """
    n = sat_numbers()
    total = sum(n["exponentials"])
    lines = [
        'The attention of "sat" in "The cat sat on the mat"',
        "",
        f"W_Q = {W_Q}   W_K = {W_K}   W_V = {W_V}",
        f'1. The query of "sat": q = W_Q {pair(n["X"][2])} = {pair(n["q"])}.',
        "2. Each word: its vector x, key k = W_K x and value v = W_V x; then q . k, divided by sqrt(2), exponentiated,",
        f"   and divided by the sum of the exponentials, {total:.4f}.",
        "",
        "   word  x        k        v        q.k   /sqrt(2)   exp       weight",
    ]
    for s, word in enumerate(WORDS):
        lines.append(
            f"   {word:<5} {pair(n['X'][s]):<8} {pair(n['K'][s]):<8} {pair(n['V'][s]):<8} {n['dots'][s]:<5g} "
            f"{n['scores'][s]:<10.4f} {n['exponentials'][s]:<9.4f} {n['weights'][s]:.4f}"
        )
    lines += ["", "3. The new vector is the sum of weight times v:"]
    for j in range(2):
        terms = " + ".join(f"{w:.4f} x {v[j]:g}" for w, v in zip(n["weights"], n["V"], strict=True))
        lines.append(f"   {terms} = {n['output'][j]:.4f}")
    lines += ["", f'The new vector of "sat" is ({n["output"][0]:.4f}, {n["output"][1]:.4f}).']
    return "\n".join(lines)


TESTS = "tests/formulas/test_formulas_attention.py::"

ENTRIES = (
    Formula(
        id="P-SAT",
        kind="procedure",
        title='The attention of "sat", worked by hand',
        latex=r"o_{3} = \sum_{j=1}^{6} \mathrm{softmax}_j\left(\frac{q_{3} \cdot k_j}{\sqrt{2}}\right) v_j",
        meaning=(
            'Every word becomes a vector; the query of "sat" is compared with all six keys; the values are '
            "mixed by the weights. The document tells the steps without numbers; here they are."
        ),
        where=where("001 4.3"),
        axes="six words, vectors of two numbers",
        loops=(worked_example, sat_numbers),
        library=("tinyllm.scaled_dot_product_attention",),
        kernels=(
            "tinyllm.kernels.cpu.attention.attention",
            "tinyllm.kernels.cpu.attention.attention_vjp",
        ),
        tests=(
            TESTS + "test_worked_example_equals_attention",
            TESTS + "test_worked_example_prints_every_number",
            "tests/formulas/test_library_equals_formulas.py::test_worked_example",
        ),
        chapter="05",
    ),
)
