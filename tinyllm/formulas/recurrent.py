"""Networks that read one token at a time and carry what they remember in a state."""

from __future__ import annotations

import math

from tinyllm.formulas.activations import sigmoid
from tinyllm.formulas.entry import Formula, Matrix, Vector, literal, where
from tinyllm.formulas.linear import linear


@literal
def rnn_cell(x: Vector, h: Vector, W_ih: Matrix, W_hh: Matrix, b_ih: Vector, b_hh: Vector) -> list[float]:
    """F-LSTM, the plain recurrent cell: h' = tanh(W_ih x + b_ih + W_hh h + b_hh).

    Parameters
    ----------
    x : (I,) floats
        Input at this time.
    h : (H,) floats
        State before it.
    W_ih : (H, I) floats
        Weights of the input.
    W_hh : (H, H) floats
        Weights of the state.
    b_ih, b_hh : (H,) floats
        Their biases.

    Returns
    -------
    (H,) floats

    Notes
    -----
    Source: Elman 1990.
    """
    from_input = linear(x, W_ih, b_ih)
    from_state = linear(h, W_hh, b_hh)
    return [math.tanh(from_input[j] + from_state[j]) for j in range(len(h))]


@literal
def lstm_cell(
    x: Vector, h: Vector, c: Vector, W_ih: Matrix, W_hh: Matrix, b_ih: Vector, b_hh: Vector
) -> tuple[list[float], list[float]]:
    """F-LSTM: c' = f c + i g, h' = o tanh(c'), with the gates i, f, o = sigmoid and the news g = tanh of the input.

    Parameters
    ----------
    x : (I,) floats
        Input at this time.
    h, c : (H,) floats
        What the cell shows, and what it remembers.
    W_ih : (4 H, I) floats
        Weights of the input, four blocks of H rows.
    W_hh : (4 H, H) floats
        Weights of the state, likewise.
    b_ih, b_hh : (4 H,) floats
        Rows in torch's order: input gate i, forget gate f, news g, output gate o. (Keras has the same order.)

    Returns
    -------
    h, c : (H,) floats each

    Notes
    -----
    Source: Hochreiter and Schmidhuber 1997, section 4; the forget gate: Gers, Schmidhuber and Cummins 2000, section 3.
    """
    H = len(h)
    from_input = linear(x, W_ih, b_ih)
    from_state = linear(h, W_hh, b_hh)
    new_h, new_c = [], []
    for j in range(H):
        i = sigmoid(from_input[j] + from_state[j])
        f = sigmoid(from_input[H + j] + from_state[H + j])
        g = math.tanh(from_input[2 * H + j] + from_state[2 * H + j])
        o = sigmoid(from_input[3 * H + j] + from_state[3 * H + j])
        new_c.append(f * c[j] + i * g)
        new_h.append(o * math.tanh(new_c[j]))
    return new_h, new_c


@literal
def lstm(
    X: Matrix, W_ih: Matrix, W_hh: Matrix, b_ih: Vector, b_hh: Vector, return_sequences: bool = True
) -> list[list[float]]:
    """F-LSTM over a whole sequence, from a state of zeros.

    Parameters
    ----------
    X : (T, I) floats
        Inputs in order of time.
    W_ih, W_hh, b_ih, b_hh
        As in `lstm_cell`.
    return_sequences : bool
        False keeps the last state only, as Keras does unless told otherwise.

    Returns
    -------
    (T, H) floats, or (1, H)
    """
    h = [0.0] * len(W_hh[0])
    c = [0.0] * len(W_hh[0])
    states = []
    for t in range(len(X)):
        h, c = lstm_cell(X[t], h, c, W_ih, W_hh, b_ih, b_hh)
        states.append(h)
    return states if return_sequences else states[-1:]


TESTS = "tests/formulas/test_formulas_recurrent.py::"

ENTRIES = (
    Formula(
        id="F-LSTM",
        kind="formula",
        title="Recurrent networks: RNN and LSTM",
        latex=(
            r"h_t = \tanh(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh}); \quad "
            r"c_t = f_t \odot c_{t-1} + i_t \odot g_t, \quad h_t = o_t \odot \tanh(c_t)"
        ),
        meaning=(
            "The network reads from left to right and keeps a state. A plain RNN rewrites it at each token; an LSTM "
            "adds to a memory c through gates, so that something can stay in it for long and gradients find a way "
            "back."
        ),
        where=where("001 5.1", "002 1.2"),
        axes="T time, I inputs, H hidden units; four gates of H rows each, in the order i, f, g, o",
        loops=(lstm_cell, rnn_cell, lstm),
        library=("tinyllm.nn.LSTM", "tinyllm.nn.RNN"),
        kernels=("tinyllm.kernels.cpu.recurrent.lstm", "tinyllm.kernels.cpu.recurrent.rnn"),
        tests=(
            TESTS + "test_cells_equal_plain_numpy",
            TESTS + "test_open_gates_carry_the_memory",
            TESTS + "test_cells_equal_torch",
            "tests/formulas/test_library_equals_formulas.py::test_lstm",
            "tests/nn/test_recurrent_torch.py::test_outputs_states_and_gradients",
        ),
        chapter="14",
        source="named in 001, 002; Elman 1990; Hochreiter and Schmidhuber 1997, section 4; Gers et al. 2000, section 3",
    ),
)
