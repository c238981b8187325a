"""C-004: a Transformer language model, trained and used. Document 004 (004_860f05fdad413a68.txt), sections 5.2 and 5.4.

What is wrong in the original, in the order of its lines, and what is done here:

* There are no positions: the order of the words leaves no trace. Here sinusoids are added to the embeddings, which is
  what the document's section 3.1 says.
* `batch_first` is left at False, so that a batch attends across its samples. tinyllm's attention is batch first.
* `hidden_dim` is taken and never used, and `dropout` never reaches the encoder. Here `hidden_dim` is the inner size of
  its feed-forward, and `dropout` works in it.
* `tgt` is embedded and never used. Here the model takes one text, and `tgt` is the same text one place further.
* There is no causal mask: each position sees the word it is to predict. Here there is one.
* `train_loader` is never made. Here it loads real text, one token per word.
* `CrossEntropyLoss` gets (B, T, V) where it wants the classes on axis 1, and the first step fails. tinyllm's has the
  classes on the last axis.
* The loss printed is that of the last batch. Here it is the mean of the epoch.
* It predicts without ``eval()``, so that dropout stays on. Here `eval` comes first.
* The result is called a probability distribution and comes out of a linear layer. Here softmax makes it one.
* The printed result, two rows of three numbers, cannot come from that model. Here the shape is printed,
  (2, 3, 10000): a distribution over 10,000 words behind each of the three words of both texts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tinyllm import nn
from tinyllm.autograd import Tensor, no_grad
from tinyllm.autograd.fused import softmax
from tinyllm.data import tokenize_corpus
from tinyllm.optim import Adam
from tinyllm.samples.layer import EncoderLayer
from tinyllm.samples.material import Source, excerpt, next_token_loader
from tinyllm.text import WordTokenizer


class TransformerModel(nn.Module):
    """A causal Transformer that scores the next word at each position.

    Parameters
    ----------
    vocab_size, embedding_dim, hidden_dim : int
        V, C, and the inner size of the feed-forward.
    num_layers : int
    dropout : float
    num_heads : int
    max_length : int
        The longest text.
    rng : numpy Generator
        For weights and dropout.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int,
        hidden_dim: int,
        num_layers: int,
        dropout: float,
        num_heads: int = 8,
        max_length: int = 512,
        *,
        rng: np.random.Generator,
    ) -> None:
        self.embedding = nn.Embedding(vocab_size, embedding_dim, rng=rng)
        self.positions = nn.SinusoidalPositions(max_length, embedding_dim)
        self.encoder = [EncoderLayer(embedding_dim, num_heads, hidden_dim, dropout, rng=rng) for _ in range(num_layers)]
        self.decoder = nn.Linear(embedding_dim, vocab_size, rng=rng)
        self.dropout = nn.Dropout(dropout, rng)

    def forward(self, src: ArrayLike) -> Tensor:
        """Integers (B, T) -> logits (B, T, V)."""
        x = self.dropout(self.positions(self.embedding(src)))  # (B, T, C)
        for layer in self.encoder:
            x = layer(x, is_causal=True)
        return self.decoder(x)


@dataclass(frozen=True)
class Predicted:
    """What the sample leaves: model and tokenizer, the mean loss of each epoch, and the probabilities (2, 3, V)."""

    model: TransformerModel
    tokenizer: WordTokenizer
    losses: list[float]
    probabilities: np.ndarray


def transformer_language_model(
    data: Source = "stdlib-prose",
    characters: int = 20_000,
    vocab_size: int = 10_000,
    embedding_dim: int = 512,
    hidden_dim: int = 512,
    num_layers: int = 2,
    dropout: float = 0.1,
    num_epochs: int = 10,
    lr: float = 0.001,
    block_size: int = 32,
    batch_size: int = 16,
    seed: int = 0,
) -> Predicted:
    """Train the model on a text, print the loss of each epoch, and predict what follows two texts of three words.

    Parameters
    ----------
    data : str, path or Corpus
        Where the text comes from.
    characters : int
        How much of it is read.
    vocab_size, embedding_dim, hidden_dim, num_layers, num_epochs : int
        The document's by default. Words beyond the `vocab_size` most frequent ones are one unknown word.
    dropout, lr : float
        The document's by default.
    block_size, batch_size : int
        T, words in a window, and B, windows in a step.
    seed : int

    Returns
    -------
    Predicted
    """
    rng = np.random.default_rng(seed)

    # The data
    corpus = excerpt(data, characters)
    tokenizer = WordTokenizer.train((document.text for document in corpus.documents), vocab_size)
    ids = tokenize_corpus(corpus.documents, tokenizer)

    # The model
    model = TransformerModel(vocab_size, embedding_dim, hidden_dim, num_layers, dropout, rng=rng)

    # Loss function and optimiser
    criterion = nn.CrossEntropyLoss()
    optimizer = Adam(model.parameters(), lr=lr)

    # Training
    losses = []
    for epoch in range(num_epochs):
        steps = []
        for src, tgt in next_token_loader(ids, batch_size, block_size, rng):
            optimizer.zero_grad()
            output = model(src)  # (B, T, V)
            loss = criterion(output, tgt)
            loss.backward()
            optimizer.step()
            steps.append(loss.item())
        losses.append(float(np.mean(steps)))
        print(f"Epoch [{epoch + 1}/{num_epochs}], Loss: {losses[-1]:.4f}")

    # Prediction
    model.eval()
    with no_grad():
        inputs = np.array([[1, 2, 3], [4, 5, 6]])
        outputs = softmax(model(inputs)).numpy()
    print(outputs.shape)
    for words, probabilities in zip(inputs, outputs, strict=True):
        likeliest = int(probabilities[-1].argmax())
        print(f"{tokenizer.decode(words)} -> {_word(tokenizer, likeliest)} ({probabilities[-1, likeliest]:.4f})")
    return Predicted(model, tokenizer, losses, outputs)


def _word(tokenizer: WordTokenizer, token: int) -> str:
    """The word of an id; a short text has fewer words than the model has rows."""
    return tokenizer.decode([token], skip_special_tokens=False) if token < tokenizer.vocab_size else "(no word)"


if __name__ == "__main__":
    transformer_language_model()
