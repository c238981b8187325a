"""Chapter 01, backward is a program: five rules, each the adjoint of an operation."""

from __future__ import annotations

import numpy as np

from tinyllm.course.exercise import Exercise
from tinyllm.testing.problem import Array
from tinyllm.testing.suite.answer import Case
from tinyllm.testing.suite.topics import draw

# -- multiply ----------------------------------------------------------------------------------------------------------


def _factors(rng: np.random.Generator) -> list[Case]:
    return [{name: draw(rng, *shape) for name in ("g", "a", "b")} for shape in ((3,), (2, 4), (1, 1))]


MULTIPLY = Exercise(
    name="multiply_vjp",
    chapter="01",
    asks="For y = a * b (same shapes): the gradients (da, db), given the gradient g of y.",
    arguments=("g", "a", "b"),
    answer=lambda g, a, b: np.stack([g * b, g * a]),
    cases=_factors,
    results=2,
    mistakes=(
        ("the factors are exchanged: the derivative of a * b by a is b", lambda g, a, b: np.stack([g * a, g * b])),
        ("the incoming gradient g is forgotten: it multiplies both", lambda g, a, b: np.stack([b, a])),
        ("the product itself is returned", lambda g, a, b: np.stack([g * a * b, g * a * b])),
        ("g is handed on as for an addition", lambda g, a, b: np.stack([g, g])),
    ),
    hints=(
        "Hold b fixed: by how much does a * b change when a grows a little?",
        "dy/da = b and dy/db = a. The chain rule multiplies each by what arrives.",
        "Two products, one for each input, returned as a tuple (da, db).",
    ),
)

# -- tanh --------------------------------------------------------------------------------------------------------------


def _outputs(rng: np.random.Generator) -> list[Case]:
    return [{"g": draw(rng, *shape), "y": np.tanh(draw(rng, *shape))} for shape in ((4,), (2, 3), (1,))]


TANH = Exercise(
    name="tanh_vjp",
    chapter="01",
    asks="For y = tanh(x): the gradient of x, given the gradient g of y and the result y (not x).",
    arguments=("g", "y"),
    answer=lambda g, y: g * (1 - y * y),
    cases=_outputs,
    mistakes=(
        ("tanh is applied once more: y is the result already", lambda g, y: g * (1 - np.tanh(y) ** 2)),
        ("this is the rule of sigmoid, y (1 - y)", lambda g, y: g * y * (1 - y)),
        ("1 - y, where 1 - y^2 is meant", lambda g, y: g * (1 - y)),
        ("the incoming gradient g is forgotten", lambda g, y: 1 - y * y),
        ("the sign is wrong: y^2 - 1", lambda g, y: g * (y * y - 1)),
    ),
    hints=(
        "The derivative of tanh can be written with tanh alone: look it up, or differentiate sinh / cosh.",
        "tanh' = 1 - tanh^2, and tanh(x) is y.",
        "g times that.",
    ),
)

# -- matmul ------------------------------------------------------------------------------------------------------------


def _matrices(rng: np.random.Generator) -> list[Case]:
    return [{name: draw(rng, n, n) for name in ("g", "a", "b")} for n in (2, 3, 5)]


MATMUL = Exercise(
    name="matmul_vjp",
    chapter="01",
    asks="For y = a @ b (tried with square matrices): the gradients (da, db), given the gradient g of y.",
    arguments=("g", "a", "b"),
    answer=lambda g, a, b: np.stack([g @ b.T, a.T @ g]),
    cases=_matrices,
    results=2,
    mistakes=(
        ("b and a are not transposed", lambda g, a, b: np.stack([g @ b, a @ g])),
        ("the order of the products: da = g b^T, db = a^T g", lambda g, a, b: np.stack([b.T @ g, g @ a.T])),
        ("da and db are exchanged", lambda g, a, b: np.stack([a.T @ g, g @ b.T])),
        ("element by element, as if it were a * b", lambda g, a, b: np.stack([g * b, g * a])),
        ("the results are transposed", lambda g, a, b: np.stack([(g @ b.T).T, (a.T @ g).T])),
    ),
    hints=(
        "Write y_ij = sum_k a_ik b_kj. Which y_ij does a_ik touch, and with which factor?",
        "da_ik = sum_j g_ij b_kj: a sum over j, the last index of both. That is a product with a transpose.",
        "Shapes help: for a (n, k), b (k, m) and g (n, m) only g @ b.T has the shape of a. Square ones hide mistakes.",
    ),
)

# -- broadcast ---------------------------------------------------------------------------------------------------------


def _spread(rng: np.random.Generator) -> list[Case]:
    pairs = (((3, 4), (4,)), ((3, 4), (3, 1)), ((2, 3, 4), (3, 1)), ((2, 3), ()), ((5,), (5,)))
    return [{"g": draw(rng, *big), "shape": small} for big, small in pairs]


def _sum_to(g: Array, shape: tuple[int, ...]) -> Array:
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    axes = tuple(i for i, n in enumerate(shape) if n == 1 and g.shape[i] != 1)
    return g.sum(axis=axes, keepdims=True)


def _first_only(g: Array, shape: tuple[int, ...]) -> Array:
    index = (0,) * (g.ndim - len(shape)) + tuple(slice(0, n) for n in shape)
    return g[index]


def _averaged(g: Array, shape: tuple[int, ...]) -> Array:
    total = _sum_to(g, shape)
    return total * max(1, total.size) / g.size


def _new_axes_only(g: Array, shape: tuple[int, ...]) -> Array:
    return g.sum(axis=tuple(range(g.ndim - len(shape))))


BROADCAST = Exercise(
    name="unbroadcast",
    chapter="01",
    asks="x of shape `shape` was broadcast to the shape of g: the gradient of x, of shape `shape`, given g.",
    arguments=("g", "shape"),
    answer=_sum_to,
    cases=_spread,
    mistakes=(
        ("only the new axes are summed: those of length 1 were stretched too", _new_axes_only),
        ("nothing is summed: x was used many times, and each use sends a gradient", lambda g, shape: g),
        ("one use is picked, where all of them count", _first_only),
        ("the mean is taken: every use counts in full", _averaged),
    ),
    hints=(
        "Broadcasting copies. What used one number n times sends back n gradients: what becomes of them?",
        "Axes that were added in front are summed away; axes of length 1 that were stretched are summed, and stay.",
        "g.sum(axis=(0, ...)) for g.ndim - len(shape) leading axes, then .sum(axis=..., keepdims=True) for the others.",
    ),
)

# -- gather ------------------------------------------------------------------------------------------------------------


def _picks(rng: np.random.Generator) -> list[Case]:
    return [{"g": draw(rng, len(ids), 3), "ids": np.array(ids), "rows": rows}
            for ids, rows in (([0, 2, 1], 4), ([1, 1, 0, 1], 3), ([2], 3))]  # fmt: skip


def _scatter(g: Array, ids: Array, rows: int) -> Array:
    out = np.zeros((rows, g.shape[1]))
    np.add.at(out, ids, g)
    return out


def _last_wins(g: Array, ids: Array, rows: int) -> Array:
    out = np.zeros((rows, g.shape[1]))
    out[ids] = g
    return out


GATHER = Exercise(
    name="gather_vjp",
    chapter="01",
    asks="For y = table[ids], a table of `rows` rows: the gradient of the table, given that of y, g (n, C).",
    arguments=("g", "ids", "rows"),
    answer=_scatter,
    cases=_picks,
    mistakes=(
        (
            "a row that was picked twice gets one gradient only: out[ids] += g adds once; use np.add.at or a loop",
            _last_wins,
        ),
        ("the gradient is picked, not scattered: g[ids]", lambda g, ids, rows: g[ids % len(g)]),
        (
            "the rows are averaged over their uses",
            lambda g, ids, rows: _scatter(g, ids, rows) / np.maximum(np.bincount(ids, minlength=rows), 1)[:, None],
        ),
        ("the sign is wrong", lambda g, ids, rows: -_scatter(g, ids, rows)),
    ),
    hints=(
        "A row that nobody picked has gradient 0. A row that was picked twice?",
        "Begin with zeros of shape (rows, C) and add each row of g to the row that it came from.",
        "out[ids] += g does not add twice for an id that occurs twice. np.add.at(out, ids, g) does.",
    ),
)

EXERCISES = (MULTIPLY, TANH, MATMUL, BROADCAST, GATHER)
