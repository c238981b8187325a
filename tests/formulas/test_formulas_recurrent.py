"""F-LSTM: the cells against plain NumPy and PyTorch, and what the gates are for."""

import numpy as np
import pytest

from tinyllm.formulas.recurrent import lstm, lstm_cell, rnn_cell


def sigma(x):
    return 1 / (1 + np.exp(-x))


def test_cells_equal_plain_numpy(rng):
    n_in, H = 3, 4
    x, h, c = rng.normal(size=n_in), rng.normal(size=H), rng.normal(size=H)
    W, U, b, d = (
        rng.normal(size=(4 * H, n_in)),
        rng.normal(size=(4 * H, H)),
        rng.normal(size=4 * H),
        rng.normal(size=4 * H),
    )
    np.testing.assert_allclose(
        rnn_cell(x, h, W[:H], U[:H], b[:H], d[:H]), np.tanh(W[:H] @ x + b[:H] + U[:H] @ h + d[:H]), rtol=1e-13
    )
    i, f, g, o = np.split(W @ x + b + U @ h + d, 4)
    new_c = sigma(f) * c + sigma(i) * np.tanh(g)
    new_h = sigma(o) * np.tanh(new_c)
    np.testing.assert_allclose(lstm_cell(x, h, c, W, U, b, d), (new_h, new_c), rtol=1e-13)


def test_open_gates_carry_the_memory():
    """With the forget gate open and the input gate shut the memory stays; the other way round it is replaced."""
    W, U, zeros = [[0.0]] * 4, [[0.0]] * 4, [0.0] * 4
    _, kept = lstm_cell([1.0], [0.3], [0.7], W, U, [-100.0, 100.0, 100.0, 0.0], zeros)
    assert kept == pytest.approx([0.7], rel=1e-15)
    _, replaced = lstm_cell([1.0], [0.3], [0.7], W, U, [100.0, -100.0, 100.0, 0.0], zeros)
    assert replaced == pytest.approx([1.0], rel=1e-15)


def test_a_sequence_is_its_steps(rng):
    X, W, U, b, d = (rng.normal(size=s) for s in ((5, 2), (12, 2), (12, 3), 12, 12))
    states = lstm(X, W, U, b, d)
    assert len(states) == 5
    assert lstm(X, W, U, b, d, return_sequences=False) == [states[-1]]
    assert lstm(X[:3], W, U, b, d) == states[:3]


@pytest.mark.peers
def test_cells_equal_torch(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of the gate order")
    n_in, H = 3, 4
    x, h, c = (torch.from_numpy(rng.normal(size=(1, n))) for n in (n_in, H, H))
    for cell in (torch.nn.LSTMCell(n_in, H, dtype=torch.float64), torch.nn.RNNCell(n_in, H, dtype=torch.float64)):
        weights = [p.detach().numpy() for p in (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)]
        if isinstance(cell, torch.nn.LSTMCell):
            ours = lstm_cell(x[0].numpy(), h[0].numpy(), c[0].numpy(), *weights)
            theirs = [state[0].detach().numpy() for state in cell(x, (h, c))]
        else:
            ours = rnn_cell(x[0].numpy(), h[0].numpy(), *weights)
            theirs = cell(x, h)[0].detach().numpy()
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
