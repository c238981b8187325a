"""One Transformer layer as the documents draw it: attention, feed-forward, each added to its input and normalised."""

from __future__ import annotations

import math
from collections.abc import Callable

from tinyllm.formulas.activations import relu
from tinyllm.formulas.entry import Erratum, Formula, Matrix, Vector, literal, where
from tinyllm.formulas.linear import linear


@literal
def layer_norm(x: Vector, weight: Vector | None = None, bias: Vector | None = None, eps: float = 1e-5) -> list[float]:
    """(x_i - mean) / sqrt(variance + eps) * weight_i + bias_i, over one vector.

    The variance divides by n, not n - 1, and eps stands under the root.

    Parameters
    ----------
    x : (C,) floats
        The vector of one position.
    weight, bias : (C,) floats, optional
        Scale and shift, 1 and 0 when absent.
    eps : float
        Keeps the root away from 0.

    Returns
    -------
    (C,) floats

    Notes
    -----
    Source: Ba, Kiros and Hinton 2016, section 3.
    """
    C = len(x)
    mean = 0.0
    for i in range(C):
        mean += x[i] / C
    variance = 0.0
    for i in range(C):
        variance += (x[i] - mean) ** 2 / C
    y = []
    for i in range(C):
        normed = (x[i] - mean) / math.sqrt(variance + eps)
        y.append(normed * (weight[i] if weight is not None else 1.0) + (bias[i] if bias is not None else 0.0))
    return y


@literal
def feed_forward(x: Vector, W_1: Matrix, b_1: Vector, W_2: Matrix, b_2: Vector) -> list[float]:
    """F-MLP-004 as meant: W_2 ReLU(W_1 x + b_1) + b_2.

    Parameters
    ----------
    x : (C,) floats
        The vector of one position.
    W_1 : (F, C) floats
        Weights into the hidden layer.
    b_1 : (F,) floats
        Their bias.
    W_2 : (C, F) floats
        Weights out of it.
    b_2 : (C,) floats
        Their bias.

    Returns
    -------
    (C,) floats

    Notes
    -----
    Source: Vaswani et al. 2017, section 3.3, equation 2.
    """
    hidden = [relu(h) for h in linear(x, W_1, b_1)]
    return linear(hidden, W_2, b_2)


@literal
def feed_forward_004_as_printed(x: Vector, W_1: Matrix, W_2: Matrix, b_1: Vector) -> list[float]:
    """F-MLP-004 to the letter: ReLU(W_2 ReLU(W_1 x) + b_1), where x is the printed a_i V.

    Parameters
    ----------
    x : (C,) floats
        The vector of one position.
    W_1 : (F, C) floats
        Weights into the hidden layer.
    W_2 : (C, F) floats
        Weights out of it.
    b_1 : (C,) floats
        Named b_1 in the document, though it is added after W_2.

    Returns
    -------
    (C,) floats, none of them negative
    """
    hidden = [relu(h) for h in linear(x, W_1)]
    return [relu(y) for y in linear(hidden, W_2, b_1)]


def block_post_norm(
    X: Matrix,
    self_attention: Callable[[Matrix], Matrix],
    feed_forward: Callable[[Vector], Vector],
    norm_1: Callable[[Vector], list[float]] = layer_norm,
    norm_2: Callable[[Vector], list[float]] = layer_norm,
) -> list[list[float]]:
    """F-BLOCK: X1 = LayerNorm(X + SelfAttention(X)); X2 = LayerNorm(X1 + FeedForward(X1)).

    Parameters
    ----------
    X : (T, C) floats
        The text, one vector per position.
    self_attention : callable
        (T, C) -> (T, C).
    feed_forward, norm_1, norm_2 : callables
        (C,) -> (C,), applied to every position alone.

    Returns
    -------
    (T, C) floats

    Notes
    -----
    Source: Vaswani et al. 2017, section 3.1.
    """
    A = self_attention(X)
    out = []
    for t in range(len(X)):
        x1 = norm_1([X[t][i] + A[t][i] for i in range(len(X[t]))])
        f = feed_forward(x1)
        out.append(norm_2([x1[i] + f[i] for i in range(len(x1))]))
    return out


TESTS = "tests/formulas/test_formulas_block.py::"
LIBRARY_TESTS = "tests/formulas/test_library_equals_formulas.py::"

ENTRIES = (
    Formula(
        id="F-BLOCK",
        kind="formula",
        title="Transformer layer, post-norm",
        latex=(
            r"X_1 = \mathrm{LayerNorm}(X + \mathrm{SelfAttention}(X)), \quad "
            r"X_2 = \mathrm{LayerNorm}(X_1 + \mathrm{FeedForward}(X_1))"
        ),
        meaning=(
            "Two sublayers. Each one's output is added to its input, so that the input has an unbroken way through, "
            "and the sum is normalised position by position. The document calls every stage Output; it is an "
            "assignment, not an equation. GPT-2 normalises before each sublayer instead."
        ),
        where=where("002 4.2"),
        axes="T positions, C channels; the normalisation runs over C",
        loops=(block_post_norm, layer_norm, feed_forward),
        library=(
            "tinyllm.layer_norm",
            "tinyllm.nn.LayerNorm",
            "tinyllm.nn.MultiHeadAttention",
            "tinyllm.nn.FeedForward",
            "tinyllm.samples.layer.EncoderLayer",
            "tinyllm.models.transformer.EncoderLayer",
            "tinyllm.models.bert.Layer",
        ),
        kernels=(
            "tinyllm.kernels.cpu.norm.layer_norm",
            "tinyllm.kernels.cpu.norm.layer_norm_vjp",
        ),
        tests=(
            TESTS + "test_layer_norm_closed_form",
            TESTS + "test_block_equals_plain_numpy",
            LIBRARY_TESTS + "test_layer_norm",
            LIBRARY_TESTS + "test_post_norm_block",
            LIBRARY_TESTS + "test_encoder_layer_of_the_transformer",
            "tests/models/test_bert.py::test_a_block_is_f_block_in_loops",
        ),
        chapter="06",
        source="Vaswani et al. 2017, section 3.1; Ba, Kiros and Hinton 2016, Layer Normalization, section 3",
    ),
    Formula(
        id="F-MLP-004",
        kind="formula",
        title="Feed-forward network (multi-layer perceptron)",
        latex=r"h_i = W_2 \, \mathrm{ReLU}(W_1 x_i + b_1) + b_2",
        printed=r"h_i = \text{ReLU}(W_2 \text{ReLU}(W_1 a_i V) + b_1)",
        meaning="Two linear layers with a bend between them, applied to each position: wide inside, narrow outside.",
        where=where("004 4.2.3"),
        axes="x_i (C,), W_1 (F, C), W_2 (C, F) -> (C,); F hidden units, usually 4 C",
        loops=(feed_forward,),
        as_printed=(feed_forward_004_as_printed,),
        library=("tinyllm.nn.FeedForward",),
        tests=(TESTS + "test_feed_forward_equals_plain_numpy", LIBRARY_TESTS + "test_feed_forward"),
        chapter="06",
        errata=(
            Erratum(
                fault="The first layer has no bias; the only one, named b_1, is added after W_2.",
                remedy="b_1 belongs to W_1 and has its size; b_2 belongs to W_2.",
                test=TESTS + "test_printed_004_cannot_move_the_bend",
            ),
            Erratum(
                fault="A second ReLU closes the layer, so that it can only ever raise what it is added to.",
                remedy="No bend after W_2.",
                test=TESTS + "test_printed_004_is_never_negative",
            ),
        ),
        source="Vaswani et al. 2017, section 3.3, equation 2",
    ),
)
