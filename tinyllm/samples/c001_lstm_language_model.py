"""C-001: an LSTM language model in Keras. Document 001 (001_f79bc47e8cb6acac.txt), section 5.1.

What is wrong in the original, in the order of its lines, and what is done here:

* `vocab_size`, `embedding_dim`, `units`, `epochs` and the data are never made. Here they are: real text, one token per
  character.
* The LSTM returns its last state only, so that there is one prediction per sequence. Here ``return_sequences=True``
  makes one at every position.
* `CategoricalCrossentropy` takes one-hot targets, and token numbers are none. Here the loss is the one for numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyllm import keras
from tinyllm.data import tokenize_corpus
from tinyllm.samples.material import Source, excerpt
from tinyllm.text import CharTokenizer


@dataclass(frozen=True)
class Evaluated:
    """What the sample leaves: the model, the tokenizer, the figures of each epoch, and both figures held out."""

    model: keras.Sequential
    tokenizer: CharTokenizer
    history: dict[str, list[float]]
    loss: float
    accuracy: float


def lstm_language_model(
    data: Source = "stdlib-prose",
    characters: int = 60_000,
    embedding_dim: int = 64,
    units: int = 128,
    epochs: int = 8,
    block_size: int = 64,
    learning_rate: float = 0.005,
    seed: int = 0,
) -> Evaluated:
    """Train the model on a text, evaluate it on the text's last tenth, and print loss and accuracy there.

    Parameters
    ----------
    data : str, path or Corpus
        Where the text comes from.
    characters : int
        How much of it is read.
    embedding_dim, units : int
        Channels of the embeddings, units of the LSTM; the document gives no sizes.
    epochs : int
        Passes over the text.
    block_size : int
        T, characters in a window.
    learning_rate : float
        Of Adam; Keras's own, 0.001, needs five times as many epochs.
    seed : int

    Returns
    -------
    Evaluated
    """
    # The data
    corpus = excerpt(data, characters)
    tokenizer = CharTokenizer.train(document.text for document in corpus.documents)
    ids = tokenize_corpus(corpus.documents, tokenizer).astype(np.int64)
    windows = (len(ids) - 1) // block_size
    x = ids[: windows * block_size].reshape(windows, block_size)  # (N, T)
    y = ids[1 : windows * block_size + 1].reshape(windows, block_size)  # each token's successor
    cut = windows - max(1, windows // 10)
    x_train, y_train, x_test, y_test = x[:cut], y[:cut], x[cut:], y[cut:]
    vocab_size = tokenizer.vocab_size

    # The model
    model = keras.Sequential(
        [
            keras.layers.Embedding(vocab_size, embedding_dim),
            keras.layers.LSTM(units, return_sequences=True),
            keras.layers.Dense(vocab_size, activation="softmax"),
        ],
        seed=seed,
    )

    # Loss function and optimiser
    loss_fn = keras.losses.SparseCategoricalCrossentropy()
    optimizer = keras.optimizers.Adam(learning_rate)

    # Training
    model.compile(optimizer=optimizer, loss=loss_fn, metrics=["accuracy"])
    history = model.fit(x_train, y_train, epochs=epochs)

    # Evaluation
    loss, accuracy = model.evaluate(x_test, y_test)
    print("Loss:", loss)
    print("Accuracy:", accuracy)
    return Evaluated(model, tokenizer, history.history, loss, accuracy)


if __name__ == "__main__":
    lstm_language_model()
