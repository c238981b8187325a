"""The sum that every layer is made of: y = W x + b, with W stored (out, in)."""

from __future__ import annotations

from tinyllm.formulas.entry import Matrix, Vector, literal


@literal
def dot(a: Vector, b: Vector) -> float:
    """Sum of a_i b_i.

    Parameters
    ----------
    a, b : (n,) floats
        Two vectors.

    Returns
    -------
    float
    """
    total = 0.0
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@literal
def linear(x: Vector, W: Matrix, b: Vector | None = None) -> list[float]:
    """y_o = sum_i W_oi x_i + b_o.

    Parameters
    ----------
    x : (n_in,) floats
        Input.
    W : (n_out, n_in) floats
        Weights.
    b : (n_out,) floats, optional
        Bias.

    Returns
    -------
    (n_out,) floats
    """
    y = []
    for o in range(len(W)):
        total = 0.0
        for i in range(len(x)):
            total += W[o][i] * x[i]
        y.append(total + (b[o] if b is not None else 0.0))
    return y
