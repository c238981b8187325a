"""C-004: each fault of the original is mended; it learns, and predicts distributions."""

import numpy as np
import pytest

from tinyllm.autograd import no_grad
from tinyllm.autograd.fused import softmax
from tinyllm.samples import transformer_language_model
from tinyllm.samples.c004_transformer_language_model import TransformerModel

SMALL = {
    "characters": 3000, "vocab_size": 200, "embedding_dim": 16, "hidden_dim": 24, "num_layers": 1, "num_epochs": 8,
    "lr": 1e-2, "block_size": 16, "batch_size": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return TransformerModel(50, 16, 24, 2, 0.1, num_heads=4, rng=np.random.default_rng(0)).eval()


def logits(model, ids):
    with no_grad():
        return model(np.array(ids)).numpy()


def check_prediction(predicted, vocab_size):
    assert predicted.probabilities.shape == (2, 3, vocab_size)
    assert (predicted.probabilities >= 0).all()
    np.testing.assert_allclose(predicted.probabilities.sum(axis=-1), 1, rtol=1e-5)
    with no_grad():  # dropout is off: the same texts give the same prediction
        again = softmax(predicted.model(np.array([[1, 2, 3], [4, 5, 6]]))).numpy()
    np.testing.assert_array_equal(predicted.probabilities, again)


def test_c004_learns_and_predicts(prose, capsys):
    predicted = transformer_language_model(prose, **SMALL)
    check_prediction(predicted, 200)
    assert len(predicted.losses) == 8
    assert predicted.losses[-1] < predicted.losses[0] - 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[7] == f"Epoch [8/8], Loss: {predicted.losses[-1]:.4f}"
    assert lines[8] == "(2, 3, 200)"
    for line, ids in zip(lines[9:], ([1, 2, 3], [4, 5, 6]), strict=True):
        assert line.startswith(predicted.tokenizer.decode(ids) + " -> ")


def test_c004_texts_of_a_batch_do_not_meet(model):
    both, other = logits(model, [[1, 2, 3], [4, 5, 6]]), logits(model, [[1, 2, 3], [7, 8, 9]])
    np.testing.assert_array_equal(both[0], other[0])


def test_c004_never_looks_ahead(model):
    for t in range(1, 5):
        ids = [1, 2, 3, 4, 5]
        before = logits(model, [ids])
        ids[t] = 40
        after = logits(model, [ids])
        np.testing.assert_array_equal(before[0, :t], after[0, :t])
        assert np.abs(before[0, t:] - after[0, t:]).max(axis=-1).min() > 0  # and everything after does see it


def test_c004_order_leaves_a_trace(model):
    same = logits(model, [[5, 5, 5]])
    assert np.abs(same[0, 0] - same[0, 2]).max() > 0.01  # without positions one word repeated is one vector
    assert np.abs(logits(model, [[1, 2, 3]])[0, 2] - logits(model, [[2, 1, 3]])[0, 2]).max() > 0.001


def test_c004_dropout_is_on_in_training_alone(model):
    ids = np.array([[1, 2, 3]])
    model.train()
    noisy = [model(ids).numpy() for _ in range(2)]
    model.eval()
    assert not np.array_equal(*noisy)
    np.testing.assert_array_equal(logits(model, ids), logits(model, ids))


def test_c004_hidden_dim_and_dropout_reach_the_encoder():
    model = TransformerModel(50, 16, 24, 2, 0.3, rng=np.random.default_rng(0))
    assert model.encoder[1].feed_forward.up.weight.shape == (24, 16)
    assert model.encoder[1].dropout.p == model.encoder[1].attention.dropout == model.dropout.p == 0.3


def test_c004_parameters_at_the_documents_sizes():
    V, C, F = 10_000, 512, 512
    model = TransformerModel(V, C, F, 2, 0.1, rng=np.random.default_rng(0))
    layer = 4 * (C * C + C) + (C * F + F) + (F * C + C) + 4 * C
    assert model.num_parameters() == V * C + 2 * layer + C * V + V
    assert logits(model.eval(), [[1, 2, 3], [4, 5, 6]]).shape == (2, 3, 10_000)


@pytest.mark.slow
def test_c004_at_the_documents_sizes():
    predicted = transformer_language_model()
    check_prediction(predicted, 10_000)
    assert len(predicted.losses) == 10
    assert predicted.losses[-1] < 3.5 < predicted.losses[0]
