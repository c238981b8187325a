"""Two ways to walk downhill with the gradient in hand."""

from __future__ import annotations

import math

from tinyllm.formulas.entry import Formula, Vector, literal, where


@literal
def sgd_step(theta: Vector, g: Vector, lr: float) -> list[float]:
    """F-SGD: theta - lr g, with g the gradient on a small batch.

    Parameters
    ----------
    theta, g : (n,) floats
        Parameters and their gradient.
    lr : float
        Learning rate.

    Returns
    -------
    (n,) floats

    Notes
    -----
    Source: Robbins and Monro 1951; Goodfellow, Bengio and Courville 2016, section 8.3.1.
    """
    return [theta[i] - lr * g[i] for i in range(len(theta))]


@literal
def sgd_momentum_step(
    theta: Vector, g: Vector, velocity: Vector, lr: float, momentum: float = 0.9
) -> tuple[list[float], list[float]]:
    """F-SGD with momentum: velocity <- momentum velocity + g; theta <- theta - lr velocity.

    Parameters
    ----------
    theta, g, velocity : (n,) floats
        `velocity` starts at zero.
    lr, momentum : float
        Learning rate; share of the velocity that stays.

    Returns
    -------
    theta, velocity : (n,) floats each

    Notes
    -----
    Source: Polyak 1964, in the form of Sutskever et al. 2013, section 2, with lr outside the velocity.
    """
    velocity = [momentum * velocity[i] + g[i] for i in range(len(theta))]
    return [theta[i] - lr * velocity[i] for i in range(len(theta))], velocity


@literal
def adam_step(
    theta: Vector,
    g: Vector,
    m: Vector,
    v: Vector,
    t: int,
    lr: float = 1e-3,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    eps: float = 1e-8,
) -> tuple[list[float], list[float], list[float]]:
    """F-ADAM: a running mean of gradients over the root of a running mean of their squares.

    Parameters
    ----------
    theta, g, m, v : (n,) floats
        `m` and `v` start at zero.
    t : int
        Number of this step, from 1.
    lr, beta_1, beta_2, eps : float
        eps is added to the root, after the correction of v.

    Returns
    -------
    theta, m, v : (n,) floats each

    Notes
    -----
    Source: Kingma and Ba 2015, algorithm 1.
    """
    new_theta, new_m, new_v = [], [], []
    for i in range(len(theta)):
        m_i = beta_1 * m[i] + (1.0 - beta_1) * g[i]
        v_i = beta_2 * v[i] + (1.0 - beta_2) * g[i] ** 2
        m_hat = m_i / (1.0 - beta_1**t)
        v_hat = v_i / (1.0 - beta_2**t)
        new_theta.append(theta[i] - lr * m_hat / (math.sqrt(v_hat) + eps))
        new_m.append(m_i)
        new_v.append(v_i)
    return new_theta, new_m, new_v


TESTS = "tests/formulas/test_formulas_training.py::"
LIBRARY_TESTS = "tests/formulas/test_library_equals_formulas.py::"

ENTRIES = (
    Formula(
        id="F-SGD",
        kind="formula",
        title="Stochastic gradient descent",
        latex=r"\theta \leftarrow \theta - \eta \, \nabla_\theta L_{\mathrm{batch}}(\theta)",
        meaning=(
            "Take a few examples, see which way each parameter lowers their loss, and move it a little that way. The "
            "gradient of a batch is right on average, and cheap."
        ),
        where=where("000 3.2"),
        axes="one number per parameter",
        loops=(sgd_step, sgd_momentum_step),
        library=("tinyllm.optim.SGD",),
        tests=(TESTS + "test_sgd_on_a_parabola", LIBRARY_TESTS + "test_sgd"),
        chapter="03",
        source="named in 000; Robbins and Monro 1951; momentum: Polyak 1964, Sutskever et al. 2013, section 2",
    ),
    Formula(
        id="F-ADAM",
        kind="formula",
        title="Adam",
        latex=(
            r"m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad "
            r"\theta \leftarrow \theta - \eta \, \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}"
        ),
        meaning=(
            "Momentum, m, remembers the way; v remembers how large each parameter's gradients are and divides by it, "
            "so that every parameter moves at about the learning rate. The factors 1 - beta^t make up for the start at "
            "zero."
        ),
        where=where("000 3.2"),
        axes="one number per parameter; t counts steps from 1",
        loops=(adam_step,),
        library=("tinyllm.optim.Adam", "tinyllm.optim.adam.adam_step"),
        kernels=(
            "tinyllm.kernels.cpu.adamw.step",
            "tinyllm.kernels.cpu.adamw.adam",
        ),
        tests=(
            TESTS + "test_first_adam_step_is_the_learning_rate",
            TESTS + "test_adam_equals_plain_numpy",
            LIBRARY_TESTS + "test_adam",
        ),
        chapter="03",
        source="named in 000; Kingma and Ba 2015, Adam, algorithm 1",
    ),
)
