"""Chapter 14, recurrent networks: a step of the LSTM, the way back along its memory and through time, strands."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyllm.course.exercise import Exercise, law_on
from tinyllm.formulas.recurrent import lstm_cell
from tinyllm.testing.problem import Array
from tinyllm.testing.suite.answer import Case
from tinyllm.testing.suite.topics import draw


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


# -- lstm_step ---------------------------------------------------------------------------------------------------------


def _steps(rng: np.random.Generator) -> list[Case]:
    return [
        {
            "x": draw(rng, i),
            "h": draw(rng, h),
            "c": draw(rng, h),
            "w_ih": draw(rng, 4 * h, i),
            "w_hh": draw(rng, 4 * h, h),
            "b": draw(rng, 4 * h),
        }
        for i, h in ((3, 4), (2, 3), (5, 2))
    ]


def _right_step(x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b: Any) -> tuple[Array, Array]:
    new_h, new_c = lstm_cell(x, h, c, w_ih, w_hh, b, [0.0] * len(b))
    return np.array(new_h), np.array(new_c)


def _step(
    x: Array, h: Array, c: Array, w_ih: Array, w_hh: Array, b: Array, order: str = "ifgo", **how: Any
) -> tuple[Array, Array]:
    """A step with something else in it; `how` replaces the functions of the news, of what is shown, of the memory."""
    parts = dict(zip(order, np.split(w_ih @ x + w_hh @ h + b, 4), strict=True))
    i, f, o = (_sigmoid(parts[name]) for name in "ifo")
    g = how.get("news", np.tanh)(parts["g"])
    new = how.get("memory", lambda f, c, i, g: f * c + i * g)(f, c, i, g)
    return o * how.get("shown", np.tanh)(new), new


LSTM_STEP = Exercise(
    name="lstm_step",
    chapter="14",
    asks=(
        "F-LSTM, one step: x (I,), h and c (H,), w_ih (4 H, I), w_hh (4 H, H), b (4 H,), blocks in the order i, f, g, "
        "o: the new h and the new c, (H,) each."
    ),
    arguments=("x", "h", "c", "w_ih", "w_hh", "b"),
    answer=_right_step,
    cases=_steps,
    results=2,
    mistakes=(
        ("the blocks are read as i, f, o, g: torch's order is i, f, g, o", lambda **a: _step(**a, order="ifog")),
        ("input and forget gate are exchanged", lambda **a: _step(**a, order="figo")),
        (
            "the forget gate is missing: c + i g can only pile up",
            lambda **a: _step(**a, memory=lambda f, c, i, g: c + i * g),
        ),
        ("the news g pass a sigmoid: tanh, so that they can also take away", lambda **a: _step(**a, news=_sigmoid)),
        ("h' is o c': the memory passes a tanh before it is shown", lambda **a: _step(**a, shown=lambda c: c)),
        (
            "the state h is not looked at: its product with w_hh is missing",
            lambda **a: _step(**{**a, "w_hh": np.zeros_like(a["w_hh"])}),
        ),
        (
            "the new memory is made of the old h, where the old c belongs",
            lambda **a: _step(**a, memory=lambda f, c, i, g: f * a["h"] + i * g),
        ),
    ),
    hints=(
        "All four blocks at once: w_ih @ x + w_hh @ h + b, then np.split(..., 4).",
        "i, f, o pass a sigmoid, g a tanh. The memory is f * c + i * g.",
        "Return o * np.tanh(new_c), new_c.",
    ),
)

# -- memory_vjp --------------------------------------------------------------------------------------------------------


def _memories(rng: np.random.Generator) -> list[Case]:
    return [
        {
            "dh": draw(rng, n),
            "dc": draw(rng, n),
            **{f"{name}_gate": _sigmoid(draw(rng, n)) for name in "ifo"},
            "g": np.tanh(draw(rng, n)),
            "c": 2 * draw(rng, n),
        }
        for n in (4, 1, 7)
    ]


def _back(dh: Array, dc: Array, i_gate: Array, f_gate: Array, o_gate: Array, g: Array, c: Array) -> Array:
    return (dc + dh * o_gate * (1 - np.tanh(f_gate * c + i_gate * g) ** 2)) * f_gate


MEMORY_VJP = Exercise(
    name="memory_vjp",
    chapter="14",
    asks=(
        "The gradient (H,) of the old memory c in c' = f c + i g, h' = o tanh(c'), given those of h' and c', dh and "
        "dc; the gates i, f, o and g are given and do not depend on c."
    ),
    arguments=("dh", "dc", "i_gate", "f_gate", "o_gate", "g", "c"),
    answer=_back,
    cases=_memories,
    mistakes=(
        (
            "what comes along the memory from the step after, dc, is missing: that is the highway",
            lambda **a: _back(**{**a, "dc": 0 * a["dc"]}),
        ),
        ("what comes by way of h' is missing", lambda **a: _back(**{**a, "dh": 0 * a["dh"]})),
        (
            "the slope of tanh is missing: 1 - tanh(c')^2",
            lambda **a: (a["dc"] + a["dh"] * a["o_gate"]) * a["f_gate"],
        ),
        (
            "the slope of tanh is taken at the old memory: it belongs to the new one",
            lambda **a: (a["dc"] + a["dh"] * a["o_gate"] * (1 - np.tanh(a["c"]) ** 2)) * a["f_gate"],
        ),
        ("the forget gate is missing: c' holds f times c", lambda **a: _back(**a) / a["f_gate"]),
        (
            "dc passes the output gate: only what is shown does",
            lambda **a: _back(**{**a, "dc": a["dc"] * a["o_gate"]}),
        ),
    ),
    hints=(
        "The new memory is used twice: shown as h', and handed on. Two gradients arrive at it; add them.",
        "At c': dc + dh * o * (1 - tanh(c')^2).",
        "From c' to c there is one factor, the forget gate.",
    ),
)

# -- through_time_vjp --------------------------------------------------------------------------------------------------


def _runs(rng: np.random.Generator) -> list[Case]:
    cases = []
    for t, n in ((4, 3), (1, 2), (6, 2)):
        w = draw(rng, n, n)
        before = np.tanh(draw(rng, n))
        states, h = [], before
        for _ in range(t):
            h = np.tanh(w @ h + draw(rng, n))
            states.append(h)
        cases.append({"g": draw(rng, t, n), "states": np.array(states), "first": before, "w_hh": w})
    return cases


def _through(
    g: Array, states: Array, first: Array, w_hh: Array, carry: bool = True, slope: bool = True, transposed: bool = True
) -> Array:
    grad, arriving = np.zeros_like(w_hh), np.zeros_like(first)
    before = np.concatenate([first[None], states[:-1]])
    for t in reversed(range(len(g))):
        d = g[t] + (arriving if carry else 0)
        d = d * (1 - states[t] ** 2) if slope else d
        grad += np.outer(d, before[t])
        arriving = (w_hh.T if transposed else w_hh) @ d
    return grad


def _one_term(g: Array, states: Array, first: Array, w_hh: Array) -> Array:
    return np.outer(g[-1] * (1 - states[-1] ** 2), states[-2] if len(states) > 1 else first)


def _after(g: Array, states: Array, first: Array, w_hh: Array) -> Array:
    grad, arriving = np.zeros_like(w_hh), np.zeros_like(first)
    for t in reversed(range(len(g))):
        d = (g[t] + arriving) * (1 - states[t] ** 2)
        grad, arriving = grad + np.outer(d, states[t]), w_hh.T @ d
    return grad


THROUGH_TIME = Exercise(
    name="through_time_vjp",
    chapter="14",
    asks=(
        "Backpropagation through time: of h_t = tanh(a_t + w_hh h_(t-1)), h_0 = first, the gradient (H, H) of w_hh, "
        "given the states (T, H) and what arrives at each from above, g (T, H)."
    ),
    arguments=("g", "states", "first", "w_hh"),
    answer=_through,
    cases=_runs,
    points=2,
    mistakes=(
        (
            "nothing is handed from a step to the one before: each state also feeds the next",
            lambda **a: _through(**a, carry=False),
        ),
        ("the slope of tanh, 1 - h^2, is missing", lambda **a: _through(**a, slope=False)),
        ("on the way back w_hh stands transposed", lambda **a: _through(**a, transposed=False)),
        (
            "each step meets its own state, where the state before it belongs",
            _after,
        ),
        ("only the last step counts: w_hh is used at every step, and all its gradients add up", _one_term),
        ("the gradient is transposed", lambda **a: _through(**a).T),
    ),
    hints=(
        "Go from the last step to the first, with a vector that says what arrives at this state from the step after.",
        "d = (g[t] + arriving) * (1 - states[t] ** 2); the gradient grows by np.outer(d, the state before).",
        "arriving = w_hh.T @ d for the next round; before step 0 the state is `first`.",
    ),
)

# -- strands -----------------------------------------------------------------------------------------------------------


def _texts(rng: np.random.Generator) -> list[Case]:
    return [
        {"tokens": rng.integers(0, 50, n), "rows": rows, "width": width}
        for n, rows, width in ((24, 2, 4), (31, 3, 5), (10, 1, 5))
    ]


def _cut(tokens: Array, rows: int, width: int) -> Array:
    """Strands (rows, windows * width)."""
    length = len(tokens) // rows
    return tokens[: rows * length].reshape(rows, length)[:, : length // width * width]


def _strands(tokens: Array, rows: int, width: int) -> Array:
    return np.swapaxes(_cut(tokens, rows, width).reshape(rows, -1, width), 0, 1)


def _same_size(tokens: Array, rows: int, width: int) -> Array:
    return tokens[: _cut(tokens, rows, width).size]


STRANDS = Exercise(
    name="text_strands",
    chapter="14",
    asks=(
        "Cut tokens (N,) into `rows` strands of equal length, and these into windows of `width`: (windows, rows, "
        "width), so that row b of a window continues row b of the window before. What is left over is left out."
    ),
    arguments=("tokens", "rows", "width"),
    answer=_strands,
    cases=_texts,
    mistakes=(
        (
            "window after window in the order of the text: then row b of a window does not continue row b before it",
            lambda tokens, rows, width: _same_size(tokens, rows, width).reshape(-1, rows, width),
        ),
        (
            "every `rows`-th token makes a strand: neighbours in the text are no neighbours any more",
            lambda tokens, rows, width: _strands(
                np.swapaxes(tokens[: len(tokens) // rows * rows].reshape(-1, rows), 0, 1).ravel(), rows, width
            ),
        ),
        (
            "the windows come in the reverse order",
            lambda tokens, rows, width: _strands(tokens, rows, width)[::-1],
        ),
        (
            "the rest is cut off before the strands are made, which moves their beginnings",
            lambda tokens, rows, width: _strands(tokens[len(tokens) % (rows * width) :], rows, width),
        ),
        (
            "the axes are (rows, windows, width): the windows come first",
            lambda tokens, rows, width: np.swapaxes(_strands(tokens, rows, width), 0, 1),
        ),
    ),
    hints=(
        "First the strands: tokens[: rows * n].reshape(rows, n), with n tokens in each.",
        "Then drop what fills no window, and reshape to (rows, windows, width).",
        "The windows come first: swap the first two axes.",
    ),
    laws=(
        law_on(
            "long_texts",
            "A longer text, with a rest that is left out.",
            lambda: [{"tokens": np.arange(1003), "rows": 8, "width": 10}],
        ),
    ),
)

EXERCISES = (LSTM_STEP, MEMORY_VJP, THROUGH_TIME, STRANDS)
