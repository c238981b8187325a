"""C-002b: each fault of the original is mended, at the document's own sizes."""

import math

import numpy as np
import pytest

from tinyllm.autograd import no_grad
from tinyllm.samples import encoder_classifier
from tinyllm.samples.c002b_encoder_classifier import TransformerModel


@pytest.fixture(scope="module")
def sample():
    return encoder_classifier()


@pytest.fixture(scope="module")
def small():
    model = TransformerModel(20, 16, 32, 5, n_layers=2, n_heads=4, rng=np.random.default_rng(0))
    return model.eval()


def scores(model, ids):
    with no_grad():
        return model(np.array(ids)).numpy()


def test_c002b_runs_at_its_sizes(sample, capsys):
    assert sample.scores.shape == (1, 10, 10)  # ten words, ten classes
    assert np.isfinite(sample.scores).all()
    np.testing.assert_array_equal(sample.scores, scores(sample.model, sample.ids))  # in evaluation mode


def test_c002b_prints_the_model(capsys):
    encoder_classifier(16, 32, 3, n_layers=2, n_heads=4)
    out = capsys.readouterr().out
    assert out.startswith("TransformerModel()")
    assert out.endswith("ids (1, 10) -> scores (1, 10, 3)\n")


def test_c002b_hidden_dim_reaches_the_feed_forward(sample):
    C, F, V = 512, 2048, 11
    attention, feed_forward, norms = 4 * (C * C + C), 2 * C * F + F + C, 2 * 2 * C
    assert sample.model.num_parameters() == V * C + 6 * (attention + feed_forward + norms) + (C * 10 + 10)
    assert sample.model.encoder[5].feed_forward.up.weight.shape == (F, C)
    assert sample.model.fc.weight.shape == (10, C)


def test_c002b_is_initialised_by_xavier(sample):
    """F-INIT: uniform on +-sqrt(6 / (n_in + n_out)), as the document's section 3.2 has it."""
    weights = sample.model.encoder[0].feed_forward.up.weight.data
    bound = math.sqrt(6 / (512 + 2048))
    assert 0.999 * bound < np.abs(weights).max() <= bound
    assert weights.std() == pytest.approx(bound / math.sqrt(3), rel=0.01)


def test_c002b_texts_of_a_batch_do_not_meet(small):
    both, other = scores(small, [[1, 2, 3], [4, 5, 6]]), scores(small, [[1, 2, 3], [7, 8, 9]])
    np.testing.assert_array_equal(both[0], other[0])
    assert np.abs(both[1] - other[1]).max() > 0.01


def test_c002b_each_word_sees_the_whole_text(small):
    one, other = scores(small, [[1, 2, 3]]), scores(small, [[1, 2, 4]])
    assert np.abs(one[0, 0] - other[0, 0]).max() > 1e-4


def test_c002b_order_leaves_a_trace(small):
    forwards, backwards = scores(small, [[1, 2, 3]]), scores(small, [[3, 2, 1]])
    assert np.abs(forwards[0] - backwards[0, ::-1]).max() > 0.01
    same = scores(small, [[5, 5, 5]])
    assert np.abs(same[0, 0] - same[0, 1]).max() > 0.01
