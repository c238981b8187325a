"""C-001: one prediction per position, class numbers as targets, and it learns."""

import numpy as np
import pytest

from tinyllm import keras
from tinyllm.errors import DataError
from tinyllm.samples import lstm_language_model

SMALL = {"characters": 3000, "embedding_dim": 16, "units": 24, "block_size": 16}


def test_c001_predicts_at_every_position(prose, capsys):
    done = lstm_language_model(prose, **SMALL, epochs=4, learning_rate=0.02)
    ids = np.arange(10).reshape(2, 5)
    probabilities = done.model.predict(ids)
    assert probabilities.shape == (2, 5, done.tokenizer.vocab_size)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)
    losses = done.history["loss"]
    assert losses[-1] < losses[0] < np.log(done.tokenizer.vocab_size)
    assert done.loss < np.log(done.tokenizer.vocab_size)
    assert 0 < done.accuracy < 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Epoch 1/4 - loss: ")
    assert lines[-2:] == [f"Loss: {done.loss}", f"Accuracy: {done.accuracy}"]


def test_c001_as_printed_meets_both_faults():
    """Its one prediction per text, and its loss, are refused with the remedy."""
    layers = keras.layers
    ids = np.zeros((4, 6), dtype=int)
    printed = [layers.Embedding(5, 3), layers.LSTM(4), layers.Dense(5, activation="softmax")]
    model = keras.Sequential(printed)
    model.compile(optimizer="adam", loss=keras.losses.CategoricalCrossentropy(), metrics=["accuracy"])
    with pytest.raises(DataError, match="return_sequences=True"):
        model.fit(ids, ids, verbose=0)
    with pytest.raises(DataError, match="class numbers, which SparseCategoricalCrossentropy takes"):
        model.fit(ids, ids[:, 0], verbose=0)


def test_c001_repeats_itself(prose, capsys):
    first, again, other = (lstm_language_model(prose, **SMALL, epochs=1, seed=seed).loss for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.slow
def test_c001_with_its_defaults(capsys):
    assert lstm_language_model().loss < 2.5
