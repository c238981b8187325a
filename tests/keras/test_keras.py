"""The Keras-like face: what it measures is what the modules give, and what does not fit is refused with a remedy."""

import numpy as np
import pytest

import tinyllm as tl
from tinyllm import keras
from tinyllm.errors import ConfigError, DataError

L = keras.layers


def classifier(seed=0, activation="softmax"):
    """Of texts of 6 tokens out of 5 into 3 classes."""
    return keras.Sequential([L.Embedding(5, 8), L.LSTM(12), L.Dense(3, activation=activation)], seed=seed)


@pytest.fixture
def data(rng):
    """The class is the first token modulo 3."""
    x = rng.integers(0, 5, (96, 6))
    return x, x[:, 0] % 3


def test_it_learns_and_reports(data, capsys):
    x, y = data
    model = classifier()
    model.compile(optimizer=keras.optimizers.Adam(0.03), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y, batch_size=16, epochs=16, validation_split=0.25).history
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert all(len(figures) == 16 for figures in history.values())
    assert history["accuracy"][-1] > 0.8 > history["accuracy"][0]
    loss, accuracy = model.evaluate(x[72:], y[72:])
    assert loss == pytest.approx(history["val_loss"][-1], rel=1e-5)
    assert accuracy == history["val_accuracy"][-1]
    p = model.predict(x, batch_size=10)
    np.testing.assert_allclose(p.sum(axis=-1), 1, atol=1e-5)
    assert (p[72:].argmax(axis=-1) == y[72:]).mean() == accuracy
    assert capsys.readouterr().out.count("Epoch ") == 16


def test_the_loss_is_the_mean_over_all_samples(data):
    x, y = data
    model = classifier()
    model.compile("sgd", "sparse_categorical_crossentropy")
    p = model.predict(x)
    expected = -np.log(p[np.arange(96), y]).mean()
    for batch_size in (7, 96):
        assert model.evaluate(x, y, batch_size) == pytest.approx(expected, rel=1e-5)
    model.compile("sgd", "categorical_crossentropy")
    assert model.evaluate(x, np.eye(3)[y]) == pytest.approx(expected, rel=1e-5)
    model.compile("sgd", "mse")
    assert model.evaluate(x, np.eye(3)[y]) == pytest.approx(((p - np.eye(3)[y]) ** 2).mean(), rel=1e-5)


def test_logits_and_probabilities_lead_to_the_same_loss(data):
    x, y = data
    a, b = classifier(), classifier(activation=None)
    a.compile("sgd", keras.losses.SparseCategoricalCrossentropy())
    b.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert a.evaluate(x, y) == pytest.approx(b.evaluate(x, y))


def test_a_step_is_that_of_the_modules(data):
    """One full batch of SGD: the parameters move by the gradient of F-CE."""
    x, y = data
    model, same = classifier(), classifier()
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=96, verbose=0, shuffle=False)
    tl.cross_entropy(same.scores(x), y).backward()
    for (name, p), q in zip(model.named_parameters(), same.parameters(), strict=True):
        np.testing.assert_allclose(p.data, q.data - 0.5 * q.grad.data, atol=1e-5, err_msg=name)


def test_the_seed_decides(data):
    losses = []
    for seed in (0, 0, 1):
        model = classifier(seed)
        model.compile("adam", "sparse_categorical_crossentropy")
        losses.append(model.fit(*data, epochs=2, verbose=0).history["loss"])
    assert losses[0] == losses[1] != losses[2]


def test_a_second_fit_goes_on(data):
    x, y = data
    model = classifier()
    model.compile(keras.optimizers.Adam(0.03), "sparse_categorical_crossentropy")
    first = model.fit(x, y, epochs=4, verbose=0).history["loss"]
    assert model.fit(x, y, epochs=1, verbose=0).history["loss"][0] < first[0]


@pytest.mark.parametrize("layer", [L.GRU, L.SimpleRNN, L.LSTM])
def test_sequences_or_the_last_state(layer, rng):
    x = rng.normal(size=(2, 4, 3)).astype(np.float32)
    model = keras.Sequential([layer(5, return_sequences=True), L.Dropout(0.5), L.Dense(2, activation="relu")])
    assert model.predict(x).shape == (2, 4, 2)
    last = keras.Sequential([layer(5)])
    every = keras.Sequential([layer(5, return_sequences=True)])
    np.testing.assert_array_equal(last.predict(x), every.predict(x)[:, -1])
    np.testing.assert_array_equal(model.predict(x), model.predict(x))  # without dropout


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m, x, y: m.fit(x, y), ConfigError, "call compile"),
        (lambda m, x, y: m.compile("adamm", "mse"), ConfigError, "did you mean 'adam'"),
        (lambda m, x, y: m.compile("adam", "cross"), ConfigError, "unknown loss 'cross'"),
        (lambda m, x, y: m.compile(metrics=["acuracy"]), ConfigError, "did you mean 'accuracy'"),
        (lambda m, x, y: (m.compile(), m.fit(x, y[:-1])), DataError, "96 samples, 95 targets"),
        (lambda m, x, y: (m.compile(), m.fit(x, y, epochs=0)), ConfigError, "epochs"),
        (lambda m, x, y: (m.compile(), m.fit(x, y, batch_size=0)), ConfigError, "batch_size"),
        (lambda m, x, y: (m.compile(), m.fit(x, np.eye(3)[y], verbose=0)), DataError, "class numbers"),
        (lambda m, x, y: (m.compile(loss="mse"), m.fit(x, y, verbose=0)), DataError, "MeanSquaredError"),
        (lambda m, x, y: keras.Sequential([]), ConfigError, "at least one layer"),
        (lambda m, x, y: keras.Sequential([tl.nn.Dropout()]), ConfigError, "made of layers"),
        (lambda m, x, y: L.LSTM(0), ConfigError, "units"),
        (lambda m, x, y: L.Dense(2, activation="sofmax"), ConfigError, "sofmax"),
        (lambda m, x, y: (m.compile(), m.fit(x[:1], y[:1], validation_split=0.5)), DataError, "too few"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, words, data):
    with pytest.raises(error, match=words):
        call(classifier(), *data)
