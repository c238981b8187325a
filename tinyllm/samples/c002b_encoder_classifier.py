"""C-002b: a Transformer encoder, initialised. Document 002 (002_53c33e9b6693ac78.txt), section 5.2.

What is wrong in the original, in the order of its lines, and what is done here:

* The encoder is used without an embedding and without positions: token numbers do not fit it, and the order of the
  words leaves no trace. Here both stand before it; `vocab_size` is a new first argument.
* `batch_first` is left at False, so that a batch attends across its samples. tinyllm's attention is batch first.
* `hidden_dim` never reaches the feed-forward. Here it is its inner size.
* ``fc`` expects `hidden_dim` = 2048 numbers and gets the encoder's 512, so that it cannot run. Here it takes 512.

Left as printed: post-norm layers without a norm behind the last one, and ten scores at *each* position. The first
weights are Xavier's, as the document's section 3.2 has it (F-INIT).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tinyllm import nn
from tinyllm.autograd import Tensor, no_grad
from tinyllm.samples.layer import EncoderLayer
from tinyllm.text import WordTokenizer


class TransformerModel(nn.Module):
    """An encoder that scores `output_dim` classes at each position of a text.

    Parameters
    ----------
    vocab_size : int
        V.
    input_dim : int
        C, the channels.
    hidden_dim : int
        Inner size of the feed-forward.
    output_dim : int
        How many classes.
    n_layers, n_heads : int
    dropout : float
    max_length : int
        The longest text.
    rng : numpy Generator
    """

    def __init__(
        self,
        vocab_size: int,
        input_dim: int,
        hidden_dim: int,
        output_dim: int,
        n_layers: int,
        n_heads: int,
        dropout: float = 0.1,
        max_length: int = 512,
        *,
        rng: np.random.Generator,
    ) -> None:
        self.embedding = nn.Embedding(vocab_size, input_dim, rng=rng)
        self.positions = nn.SinusoidalPositions(max_length, input_dim)
        self.encoder = [EncoderLayer(input_dim, n_heads, hidden_dim, dropout, rng=rng) for _ in range(n_layers)]
        self.fc = nn.Linear(input_dim, output_dim, rng=rng)

    def forward(self, ids: ArrayLike) -> Tensor:
        """Integers (B, T) -> (B, T, output_dim)."""
        x = self.positions(self.embedding(ids))  # (B, T, C)
        for layer in self.encoder:
            x = layer(x)
        return self.fc(x)


@dataclass(frozen=True)
class Initialised:
    """The model, the ids of the sentence it was tried on (1, T), and its scores (1, T, output_dim)."""

    model: TransformerModel
    ids: np.ndarray
    scores: np.ndarray


def encoder_classifier(
    input_dim: int = 512,
    hidden_dim: int = 2048,
    output_dim: int = 10,
    n_layers: int = 6,
    n_heads: int = 8,
    sentence: str = "Hello, world! This is a test sentence.",
    seed: int = 0,
) -> Initialised:
    """Initialise the encoder, print it, and let it score each word of a sentence.

    Parameters
    ----------
    input_dim, hidden_dim, output_dim, n_layers, n_heads : int
        The document's sizes by default.
    sentence : str
        The one of the document's section 5.1 by default. Its words are the vocabulary.
    seed : int

    Returns
    -------
    Initialised
    """
    tokenizer = WordTokenizer.train([sentence])
    ids = np.array([tokenizer.encode(sentence)])  # (1, T)

    rng = np.random.default_rng(seed)
    model = TransformerModel(tokenizer.vocab_size, input_dim, hidden_dim, output_dim, n_layers, n_heads, rng=rng)
    print(model)

    model.eval()
    with no_grad():
        scores = model(ids).numpy()
    print(f"ids {ids.shape} -> scores {scores.shape}")
    return Initialised(model, ids, scores)


if __name__ == "__main__":
    encoder_classifier()
